"""The Rust core: listeners, SMTP sessions, body buffers and the queue to Python.

Every wait releases the GIL. Times are seconds, sizes are bytes.
"""

import builtins
from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage
from typing import Any, Final, Literal, Self, TypedDict, final, type_check_only

from typing_extensions import disjoint_base

__all__ = [
    "Address",
    "Backend",
    "Check",
    "Core",
    "Credentials",
    "Envelope",
    "Header",
    "Load",
    "LogBatch",
    "LogRecord",
    "Login",
    "Part",
    "Parts",
    "Reply",
    "SharedMemory",
    "Spool",
    "SpoolEntry",
    "StageFigures",
    "StageTimer",
    "Stopwatch",
    "TLSInfo",
    "Transaction",
    "__build__",
    "__version__",
    "ascii_host",
    "claim",
    "decode_words",
    "make_certificate",
    "make_check",
    "make_login",
    "parse_addresses",
]

__version__: Final[str]
"""The version in the greeting and in `guerrillad version`."""

__build__: Final[str]
"""Commit and profile of the extension, as text: `a1b2c3d release`."""

@final
class Reply:
    r"""An SMTP reply: code, enhanced status code (RFC 3463), text. Immutable, hashable, comparable.

    Long text wraps to lines of at most 510 octets, ten at most.

    Args:
        code: 200 to 299, 400 to 499 or 500 to 599.
        enhanced: `class.subject.detail` of the same class as the code, or None for none.
        text: printable text; control characters are refused. What is not ASCII goes out as RFC
            6533 embeds it, `\x{4F8B}`, but in 251 and 551 to a client that said SMTPUTF8 (RFC 6531
            section 3.7.4); other clients get those as 250 and 550.

    Raises:
        ValueError: a code, an enhanced code or a text that must not go on the wire.
    """

    def __new__(cls, code: int, enhanced: str | None, text: str) -> Self: ...
    @staticmethod
    def ok(text: str = "OK", enhanced: str | None = ...) -> Reply:
        """A 250, with the enhanced code 2.0.0 unless another, or None, is given."""
    @staticmethod
    def retry(enhanced: str = "4.3.0", text: str = "Please try again later") -> Reply:
        """A 451: a passing failure; the sender keeps the mail and tries again."""
    @staticmethod
    def reject(enhanced: str = "5.7.1", text: str = "Rejected") -> Reply:
        """A 550: refused for good."""
    @property
    def code(self) -> int: ...
    @property
    def enhanced(self) -> str | None: ...
    @property
    def text(self) -> str: ...
    @property
    def is_success(self) -> bool:
        """Whether the code is 2xx."""
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Address:
    """A reverse-path or forward-path address (RFC 5321 section 4.1.2). Immutable, hashable.

    Two are equal when they name the same mailbox: the host in any case and either form of IDNA,
    whatever the parameters.
    """

    def __new__(
        cls, user: str, host: str, parameters: dict[str, str | None] | None = None
    ) -> Self: ...
    @staticmethod
    def parse(text: str) -> Address:
        """Parses `user@host`, `<user@host>` or the null path (empty or `<>`).

        Raises:
            ValueError: not an address of RFC 5321 or, if it is not ASCII, of RFC 6531.
        """
    @property
    def user(self) -> str:
        """The local part, without quotes."""
    @property
    def host(self) -> str:
        """The domain as sent, or an address literal in brackets; empty for the null path."""
    @property
    def ascii_host(self) -> str:
        """`host` in its A-form, in lower case: one for all spellings of a host.

        `xn--bcher-kva.example` for `Bücher.example`.
        """
    @property
    def ip(self) -> str | None:
        """The IP address of an address literal."""
    @property
    def route(self) -> tuple[str, ...]:
        """The hosts of a source route, as sent."""
    @property
    def is_null(self) -> bool: ...
    @property
    def parameters(self) -> dict[str, str | None]:
        """ESMTP parameters of its MAIL or RCPT command; keywords upper-cased."""
    @property
    def notify(self) -> tuple[str, ...] | None:
        """Of what the sender wants to hear (RFC 3461 section 4.1).

        `("NEVER",)`, or some of `SUCCESS`, `FAILURE` and `DELAY`; None: it did not say.
        """
    @property
    def original_recipient(self) -> str | None:
        """ORCPT of RCPT, decoded (RFC 3461 section 4.2, RFC 6533): `rfc822;joe@example.com`.

        The type is in lower case.
        """
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class TLSInfo:
    """What was negotiated with the peer."""

    def __new__(
        cls,
        version: str,
        cipher: str,
        server_name: str | None = None,
        client_subject: str | None = None,
        client_verified: bool = False,
    ) -> Self: ...
    @property
    def version(self) -> str:
        """`TLSv1.2` or `TLSv1.3`."""
    @property
    def cipher(self) -> str:
        """The cipher suite, by its IANA name: `TLS_AES_128_GCM_SHA256`."""
    @property
    def server_name(self) -> str | None:
        """The host that the client asked for (SNI, RFC 6066 section 3)."""
    @property
    def client_subject(self) -> str | None:
        """The subject of the client's certificate (RFC 4514); None when it showed none.

        It proves nothing unless `client_verified`: anybody can make a certificate of that name.
        """
    @property
    def client_verified(self) -> bool:
        """Whether the client's certificate was verified against `root_cas_file`."""

@disjoint_base
class Transaction:
    """One mail transaction as far as it has come. Immutable."""

    @property
    def client_id(self) -> int:
        """The number of the connection, from 1 since the core started."""
    @property
    def server(self) -> str:
        """`ServerConfig.name` of the server that took it; empty when made without one."""
    @property
    def host_name(self) -> str:
        """`host_name` of that server: what it calls itself."""
    @property
    def remote_ip(self) -> str:
        """The client's IP address; empty for a unix socket, or where a proxy does not know it."""
    @property
    def remote_port(self) -> int:
        """The client's port; 0 for a unix socket, or where a proxy does not know it."""
    @property
    def remote_name(self) -> str | None:
        """The client's host name as a trusted proxy says it (XCLIENT NAME); none is looked up."""
    @property
    def local_ip(self) -> str:
        """Where the client connected to, by the proxy or the socket; empty for a unix socket."""
    @property
    def local_port(self) -> int:
        """The port that the client connected to; 0 for a unix socket."""
    @property
    def helo(self) -> str:
        """The argument of HELO, EHLO or LHLO; empty when none was given."""
    @property
    def esmtp(self) -> bool:
        """Whether it has extensions: whether the client said EHLO or LHLO."""
    @property
    def protocol(self) -> Literal["SMTP", "ESMTP", "LMTP"]:
        """What the client speaks, by how it greeted."""
    @property
    def with_protocol(self) -> str:
        """The same with all that came to it, as `Received` names it (RFC 3848, RFC 6531).

        `ESMTPSA` with TLS and AUTH, `UTF8LMTP` with SMTPUTF8.
        """
    @property
    def tls(self) -> TLSInfo | None: ...
    @property
    def auth(self) -> str | None:
        """The authenticated identity."""
    @property
    def mail_from(self) -> Address: ...
    @property
    def parameters(self) -> dict[str, str | None]:
        """ESMTP parameters of MAIL; keywords upper-cased."""
    @property
    def smtputf8(self) -> bool:
        """Whether MAIL said SMTPUTF8 (RFC 6531): addresses and header fields may be UTF-8."""
    @property
    def dsn_return(self) -> str | None:
        """RET of MAIL (RFC 3461 section 4.3): `FULL`, `HDRS`, or None."""
    @property
    def envelope_id(self) -> str | None:
        """ENVID of MAIL, decoded (RFC 3461 section 4.4)."""
    @property
    def rcpt_to(self) -> tuple[Address, ...]:
        """The recipients accepted so far."""

@final
class Header:
    """A parsed header section: fields in order, names case-insensitive, several values a name.

    Values are unfolded and as sent (encoded words are not decoded); 8-bit octets are UTF-8 where
    valid, else windows-1252. A line that is no field is kept under the empty name.
    """

    def __len__(self) -> int: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __getitem__(self, name: str, /) -> str:
        """The first value.

        Raises:
            KeyError: no such field.
        """
    def __iter__(self) -> Iterator[str]:
        """The names, as sent, in order, with repeats."""
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value, or `default`."""
    def get_all(self, name: str) -> list[str]:
        """Every value of that name, in order."""
    def items(self) -> list[tuple[str, str]]:
        """Every (name, value), in order."""

@final
class Part:
    """A part of a message. What it gives is made when it is asked for; the message stays in memory with it.

    Everything about it was chosen by the sender: nothing of it is safe as a path, a header or HTML.
    """

    @property
    def content_type(self) -> str:
        """Type and subtype in lower case; `text/plain` where there is none that is well-formed."""
    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of `Content-Type`, names in lower case, RFC 2231 decoded."""
    @property
    def charset(self) -> str | None:
        """The charset that it names, in lower case."""
    @property
    def disposition(self) -> str | None:
        """`attachment`, `inline` or what else it says, in lower case (RFC 2183)."""
    @property
    def filename(self) -> str | None:
        """The file name that the sender gave it, decoded (RFC 2231, RFC 2047), on one line.

        It is no safe path: it may be `../../etc/passwd`, and two parts may have the same.
        """
    @property
    def content_id(self) -> str | None:
        """`Content-ID` without its angle brackets: what `cid:` in HTML means."""
    @property
    def is_attachment(self) -> bool:
        """Whether it is to be saved rather than shown: by its disposition.

        Without one it is what has a file name or is no text. False for a multipart.
        """
    @property
    def is_multipart(self) -> bool:
        """Whether it has parts of its own in `Parts.walk()`: a multipart, or a message walked into."""
    @property
    def beyond(self) -> Literal["depth", "parts"] | None:
        """The bound that it lies beyond: it was not looked into. After "parts" it is all that was left."""
    @property
    def path(self) -> tuple[int, ...]:
        """Its number as in IMAP (RFC 3501 section 6.4.5): `(2, 1)` is the first part of the second.

        `()` for a message that is a multipart; `(1,)` for the only part of one that is not.
        """
    @property
    def header(self) -> Header:
        """Its header section, at most `max_header_size` octets of it, parsed anew at each use."""
    @property
    def size(self) -> int:
        """Octets of `raw`."""
    @property
    def raw(self) -> memoryview:
        """Its body as it was sent, still encoded, read-only, without a copy."""
    @property
    def content(self) -> bytes:
        """Its body out of its transfer encoding, at most `max_size` octets; kept once it is decoded.

        base64, quoted-printable and uuencode are decoded, broken ones as far as they go; of another
        encoding it is as it was sent.
        """
    @property
    def is_truncated(self) -> bool:
        """Whether there is more of it than `content` has. Decodes it."""
    @property
    def text(self) -> str:
        """`content` as text, line ends as sent; octets that are wrong in its charset become U+FFFD.

        Without a charset, with ASCII or an unknown one: UTF-8 where it is valid, else windows-1252.
        """

@final
class Parts:
    """The parts of a message in its order: a sequence of its leaves, those that have no parts.

    A part is the same object each time.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Part: ...
    def __iter__(self) -> Iterator[Part]: ...
    def walk(self) -> list[Part]:
        """All parts, each multipart before its parts; the first is the message itself."""
    @property
    def truncated(self) -> Literal["depth", "parts"] | None:
        """The first bound that was met; None when every part was found."""
    @property
    def text_part(self) -> Part | None:
        """The text of the message: the first `text/plain` that is no attachment.

        It is in no attached message, and in a `multipart/related` it is the root.
        """
    @property
    def html_part(self) -> Part | None:
        """As `text_part`, of `text/html`."""
    @property
    def text(self) -> str | None:
        """`text_part.text`."""
    @property
    def html(self) -> str | None:
        """`html_part.text`."""
    @property
    def attachments(self) -> list[Part]:
        """Every leaf but `text_part` and `html_part`: files, inline images, footers of lists."""

@final
class Envelope(Transaction):
    """A received message with its transaction. The message itself never changes.

    Supports `bytes(envelope)`: added header fields, delivery header, message.
    """

    @staticmethod
    def create(
        data: bytes | bytearray | memoryview,
        *,
        mail_from: str | Address | None = None,
        rcpt_to: Sequence[str | Address] = ...,
        helo: str = "localhost",
        protocol: Literal["SMTP", "ESMTP", "LMTP"] = "ESMTP",
        remote_ip: str = "127.0.0.1",
        remote_port: int = 0,
        server: str = "",
        host_name: str = "localhost",
        tls: TLSInfo | None = None,
        auth: str | None = None,
        parameters: dict[str, str | None] | None = None,
        queued_id: str | None = None,
        received_at: float | None = None,
    ) -> Envelope:
        """An envelope that came from no socket; answering it does nothing but be recorded."""
    @staticmethod
    def from_bytes(data: bytes | bytearray | memoryview) -> Envelope:
        """The inverse of `to_bytes`.

        Raises:
            ValueError: not such a serialisation, of an unknown version, or damaged.
        """
    def to_bytes(self) -> bytes:
        """Versioned serialisation with every field, added headers, values and the message.

        Raises:
            ValueError: `values` holds something that is not JSON; the message names the key.
        """
    @property
    def queued_id(self) -> str:
        """26 characters, unique over processes and restarts, sortable by time (a ULID)."""
    @property
    def received_at(self) -> float:
        """When the final dot arrived: seconds since the epoch."""
    @property
    def size(self) -> int:
        """Octets of the message."""
    @property
    def data(self) -> memoryview:
        """The message, read-only, without a copy."""
    @property
    def header_data(self) -> memoryview:
        """The header section with its empty line, at most `max_header_size`, without a copy."""
    @property
    def header(self) -> Header:
        """The header section, parsed on first use."""
    @property
    def subject(self) -> str:
        """The Subject, RFC 2047 words decoded; empty when there is none."""
    @property
    def hashes(self) -> list[str]:
        """Free for stages: one hash a recipient once Hasher ran. The live list."""
    def compute_hashes(self) -> list[str]:
        """One MD5 (hex) a recipient, from sender, subject, queued_id and recipient; fills `hashes`."""
    @property
    def delivery_header(self) -> bytes:
        """Received (and, as the first line, nothing of any recipient); empty until it is made."""
    def make_delivery_header(self, primary_mail_host: str) -> None:
        """Makes the delivery header; Delivered-To will be `user@primary_mail_host`."""
    def delivery_header_for(self, index: int) -> bytes:
        """The delivery header with the `Delivered-To` of `rcpt_to[index]`; empty until it is made.

        Raises:
            IndexError: no such recipient.
        """
    def add_header(self, name: str, value: str) -> None:
        """Prepends a field to what `bytes()` gives.

        Raises:
            ValueError: a name or value that cannot stand in a header (controls, line ends).
        """
    @property
    def added_headers(self) -> bytes:
        """The added fields as they will stand, newest first."""
    def bytes_for(self, index: int) -> bytes:
        """Added headers, `delivery_header_for(index)`, message."""
    def compressed_for(self, index: int) -> bytes:
        """`bytes_for(index)` as a zlib stream (RFC 1950) of the fastest level; made anew, always the same.

        Raises:
            IndexError: no such recipient.
        """
    def __bytes__(self) -> bytes: ...
    @property
    def values(self) -> dict[str, Any]:
        """Free for stages; JSON values where they must survive the spool."""
    def message(self) -> EmailMessage:
        """The message parsed by Python's `email`, anew at each call.

        On request only: it costs fifty times what the header section costs, and a copy.
        """
    def parts(
        self,
        *,
        max_depth: int = 16,
        max_parts: int = 1000,
        max_size: int = 67108864,
        messages: bool = False,
    ) -> Parts:
        """The MIME parts of the message, found anew at each call; nothing is decoded until it is asked for.

        No mail is an error: what is broken is read as mail clients do: `docs/api.md`. What lies beyond
        a bound is there too, as an opaque part. Added headers are in no part.

        Args:
            max_depth: multiparts and messages inside each other, at most 100; 0: the message is one part.
            max_parts: parts, multiparts among them; all that comes behind is one more.
            max_size: decoded octets of each part.
            messages: walks into attached messages too; else each is a part, in `content` whole.

        Raises:
            ValueError: `max_depth` over 100.
        """
    @property
    def expired(self) -> bool:
        """Whether its sender has an answer, or is gone and no stage had begun to store it."""
    @property
    def answered(self) -> Reply | tuple[Reply, ...] | None:
        """The verdict given by `answer`, for tests; None before and for the default 250."""
    def spool(self) -> bool:
        """Hands it to the spool, which answers `250` when it is saved, or `452`, or `451`.

        Returns:
            False where it comes from no core that has one: then it is still to be answered.

        Raises:
            ValueError: a value that is not JSON, with its key; it is still to be answered.
        """
    def enter(self, stage: str) -> None:
        """A stage begins with it, for the times in its line of the log; ends the one before."""
    def leave(self) -> None:
        """The stage has ended, and the next one begins later."""
    def answer(self, verdict: Reply | Sequence[Reply] | None = None) -> bool:
        """Answers the sender: a reply, one a recipient, or None for `250 2.0.0 OK: queued as ID`.

        Returns:
            False when it was answered before, by anyone: the verdict is then not used.

        Raises:
            TypeError: not a verdict; the envelope stays unanswered.
        """

@final
class Check:
    """A question about one recipient of a transaction."""

    @property
    def transaction(self) -> Transaction: ...
    @property
    def recipient(self) -> Address: ...
    @property
    def expired(self) -> bool:
        """As `Envelope.expired`."""
    @property
    def answered(self) -> Reply | None:
        """What `answer` was given, or the default it stands for; None before."""
    def answer(self, reply: Reply | None = None) -> bool:
        """Answers: None accepts the recipient. Returns and raises as `Envelope.answer`."""

def decode_words(value: str) -> str:
    """The value of a header field with its RFC 2047 words decoded, as `Envelope.subject` has them.

    Takes linear time, whatever a sender wrote. CR, LF and NUL become spaces.
    """

@final
class Credentials:
    """What a client shows to authenticate (RFC 4954). Immutable; no repr has the password.

    They cannot be compared; a check of `password` is best done by what takes the same time for any
    two. Names and passwords are as they were sent: valid UTF-8, not empty, not prepared in any way
    (RFC 4616 section 2 leaves SASLprep to who checks).

    Raises:
        ValueError: neither mechanism.
    """

    def __new__(
        cls,
        username: str,
        password: str,
        *,
        mechanism: Literal["PLAIN", "LOGIN"] = "PLAIN",
        authorization_identity: str = "",
    ) -> Self: ...
    @property
    def mechanism(self) -> Literal["PLAIN", "LOGIN"]: ...
    @property
    def username(self) -> str:
        """Whose password it is: the authentication identity."""
    @property
    def authorization_identity(self) -> str:
        """Whom the client wants to act as; empty where that is `username` (RFC 4616 section 2).

        Who answers None lets it: `Transaction.auth` is this then, where it is not empty.
        """
    @property
    def password(self) -> str: ...

@final
class Login:
    """A question whether credentials are good."""

    @property
    def transaction(self) -> Transaction:
        """The client, and how it greeted; there is no mail yet."""
    @property
    def credentials(self) -> Credentials: ...
    @property
    def expired(self) -> bool:
        """As `Envelope.expired`."""
    @property
    def answered(self) -> Reply | None:
        """What `answer` was given, or the default it stands for; None before."""
    def answer(self, reply: Reply | None = None) -> bool:
        """Answers: None accepts, `235 2.7.0`. Returns and raises as `Envelope.answer`.

        A login that is dropped without an answer, or expires, is answered `454 4.7.0`.
        """

def ascii_host(host: str) -> str:
    """A host name in its A-form, in lower case, whichever form it has; one in ASCII is not checked.

    Raises:
        ValueError: it is not ASCII, and has characters that no host name has.
    """

def parse_addresses(value: str) -> list[tuple[str, str]]:
    """The mailboxes in the value of a To, From, Reply-To or Sender field (RFC 5322 section 3.4).

    Returns:
        (`user@host`, display name) each, in order; groups are flattened, and what is no address is
        left out. Takes linear time, whatever a sender wrote.
    """

def make_check(
    recipient: str | Address,
    *,
    mail_from: str | Address | None = None,
    remote_ip: str = "127.0.0.1",
    helo: str = "localhost",
) -> Check:
    """A check that came from no socket."""

def make_login(
    credentials: Credentials, *, remote_ip: str = "127.0.0.1", helo: str = "localhost"
) -> Login:
    """A login that came from no socket."""

def make_certificate(hosts: Sequence[str], days: int) -> tuple[str, str]:
    """A new P-256 key and its self-signed certificate, for a server, valid from now on.

    Args:
        hosts: DNS names, wildcards as `*.example.com`, IP addresses or address literals; the first
            is the certificate's subject too.
        days: 1 to 36500.

    Returns:
        The private key (PKCS#8) and the certificate, both PEM.

    Raises:
        ValueError: a host that a certificate cannot be for, or none; days out of range.
    """

@type_check_only
class LoadSettings(TypedDict):
    """What a `Load` does."""

    addresses: list[str]
    """`ip:port` or `[v6]:port`, of which the first is used where somebody listens; or one `unix:/path`."""
    protocol: Literal["smtp", "lmtp"]
    helo: str
    sender: str
    """Empty for the null reverse-path."""
    recipients: list[str]
    """Of each message; ASCII."""
    tls: Literal["starttls", "implicit"] | None
    server_name: str
    """Whose certificate it has to be: a host name or an address."""
    authorities: bytes | None
    """Certificates in PEM, which the server's is verified by. None: any is taken."""
    pipelining: bool
    """Whether MAIL, RCPT and DATA go together, where that is offered."""
    header: list[bytes]
    """The header section of made messages, with its empty line, in the pieces between which their number stands, of twelve digits."""
    sizes: tuple[int, int]
    """The least and the most of made messages."""
    mails: list[bytes]
    """Messages to send in place of made ones, with lines that end in CRLF."""
    connections: int
    """At a time."""
    per_connection: int
    """Messages over one connection. 0: all there are."""
    messages: int
    rate: float | None
    """Messages a second. None: as many as the target answers."""
    duration: float
    """No message begins later than so long after the first."""
    timeout: float
    """For a connection, a handshake, a reply, and a portion of a message."""
    threads: int

@type_check_only
class Latency(TypedDict):
    """How long messages took, in seconds; each figure is right to a hundredth of itself."""

    count: int
    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float
    buckets: list[tuple[float, float, int]]
    """From, to, how many; those that are not empty."""

@type_check_only
class LoadFigures(TypedDict):
    """What became of the messages so far."""

    ended: Literal["done", "duration", "unopened", "gave-up", "stopped"] | None
    """None while it runs. `unopened`: no connection could be opened at the start; `gave-up`: nor could they later."""
    seconds: float
    """From the start, when the first connections are open, to the last message."""
    begun: int
    accepted: int
    refused: int
    """By a reply, for one recipient at least."""
    failed: int
    """By an error. What has begun and is neither of these is on its way, or was when it was stopped."""
    unsent: int
    """Due at the rate, and not begun: no connection was free."""
    octets: int
    """Of what was accepted."""
    connections: int
    """That were made."""
    from_dot: Latency
    """From the final dot to its last reply."""
    from_due: Latency
    """From when the message was due to the last reply to its final dot; without a rate, from its begin."""
    replies: list[tuple[str, int, int, str | None]]
    """Where, the code, how often, and of one that refuses its first line, the first time."""
    errors: list[tuple[str, str, int, str | None]]
    """Kind, where, how often, and what it was the first time."""
    part: float
    """Seconds of each of `parts`."""
    parts: list[tuple[int, int]]
    """Messages that were accepted, and others, in equal parts of time from the start on."""

@final
class Load:
    """Messages to a server, from threads of its own that need no GIL: what `guerrillad bench` sends.

    It begins at once, goes on until all are sent or the time is over, and ends at the latest
    `timeout` after that. One that is dropped is stopped.

    Raises:
        OSError: no threads, or no descriptors for them.
        ValueError: a setting that is wrong.
    """

    def __new__(cls, settings: LoadSettings) -> Self: ...
    def wait(self, timeout: float) -> bool:
        """Waits until it has ended, `timeout` seconds at most; whether it has."""
    def stop(self) -> None:
        """Ends it now, whatever is on its way. Idempotent."""
    def figures(self) -> LoadFigures:
        """What there is to tell: while it runs, or at the end."""

def claim(envelopes: Sequence[Envelope]) -> list[bool]:
    """Claims envelopes before a storing stage: False for one that expired or whose peer is gone.

    From here on the deadline no longer answers until a second `gw_save_timeout` has passed.
    """

@final
class Stopwatch:
    """The clock of one worker: a stage ends where the next one begins."""

    def __new__(cls) -> Self: ...
    def start(self) -> None:
        """The first stage begins."""
    def take(self) -> tuple[int, int]:
        """The batch has ended.

        Returns:
            How many items failed for a passing reason, and how many the deciding stage was asked
            about and did not fail for, since it was last asked.
        """

@final
class StageFigures:
    """What became of the items of one stage. Its workers count without a lock."""

    def __new__(cls) -> Self: ...
    def timer(self, watch: Stopwatch, *, decides: bool = False) -> StageTimer:
        """What a worker counts with; see `Stopwatch.take` for the stage that decides."""
    def snapshot(self) -> dict[str, Any]:
        """`count`, `errors`, `calls`, `seconds` and `buckets`.

        The last has for each bound, a text in seconds, the calls that took at most so long; for
        `+Inf` all.
        """

@final
class StageTimer:
    """Counts for one stage of one worker."""

    def done(self, items: int = 1) -> None:
        """A call about `items` items ended now; it began where the stopwatch was last used."""
    def took(self, duration: float, items: int) -> None:
        """A call about `items` items ended that took so many seconds."""
    def fail(self, items: int) -> None:
        """So many of them got a `451` because the stage failed."""
    def defer(self, items: int) -> None:
        """So many of them got a `451` as its answer, which is no error."""

@type_check_only
class TLSSettings(TypedDict):
    """TLS of a listener. Files are PEM, named by paths; the core reads them."""

    start_tls: bool
    always_on: bool
    required: bool
    certificates: list[tuple[str, str]]
    """(private key file, certificate chain file) each; the first is shown where no SNI fits."""
    root_cas_file: str | None
    client_auth: str
    """Go's name: `NoClientCert` to `RequireAndVerifyClientCert`."""
    protocols: list[str]
    """Those offered, of `tls1.2` and `tls1.3`."""
    ciphers: list[str]
    """Go's names of those offered, preferred first; empty for all."""
    curves: list[str]
    """As `ciphers`, of the key exchange."""
    prefer_server_ciphers: bool

@type_check_only
class ServerSettings(TypedDict):
    """One listener. `address` is `ip:port`, `[v6]:port` or `unix:/path`, resolved."""

    name: str
    address: str
    unix_mode: int | None
    """Of the file of a unix socket. None: what the umask leaves."""
    host_name: str
    max_size: int
    timeout: float
    max_clients: int
    max_recipients: int
    max_errors: int
    max_idle_commands: int
    max_header_size: int
    max_received_hops: int
    helo_required: bool
    bare_newline: str
    data_timeout: float
    min_data_rate: int
    xclient: bool
    proxy_protocol: bool
    trusted_proxies: list[str]
    """Networks, as `127.0.0.0/8`. The peer of a unix socket is trusted without one."""
    max_messages: int
    max_connections_per_ip: int
    max_connection_rate_per_ip: int
    """New connections a minute."""
    ipv6_prefix: int
    """Bits of an IPv6 address that are one client, 1 to 128."""
    greet_delay: float
    backend: str
    """The name of one of `backends`."""
    tls: TLSSettings | None
    """None: no TLS at all."""
    protocol: Literal["smtp", "lmtp"]
    extensions: dict[str, bool]
    """By their EHLO keywords in upper case; those that are not named are on."""
    auth: AuthSettings

@type_check_only
class AuthSettings(TypedDict):
    """AUTH of a server (RFC 4954)."""

    offered: bool
    """Whether its backend checks credentials."""
    required: bool
    relay: bool
    allow_plaintext: bool
    failure_delay: float
    """Before the first `535` of a connection; twice as long with each further one, up to 16 s."""
    max_failures: int
    """Of a connection, or of a client address in ten minutes; then no login is tried. 0: no limit."""

@type_check_only
class BackendSettings(TypedDict):
    """What a backend obeys."""

    name: str
    save_timeout: float
    check_timeout: float
    check_recipients: bool
    """Whether its workers answer checks."""
    auth_timeout: float
    authenticate: bool
    """Whether its workers answer logins."""
    cache_ttl: float
    """Seconds that answers of checks are kept; 0: not at all."""
    breaker_failures: int
    breaker_reset: float
    spools: Literal["never", "later", "at once"]
    """Whether its mail is answered once it is in the spool: then no data is taken that the spool has
    no room for. At once: nothing is done before, so no worker is asked."""

@type_check_only
class CoreSettings(TypedDict):
    """Everything the core obeys."""

    servers: list[ServerSettings]
    allowed_hosts: list[str]
    max_memory: int
    spill_size: int
    """Octets of a body over which it goes to a file; 0: none does."""
    backends: list[BackendSettings]
    """The default one, called `default`, among them."""
    log_level: int
    """A number of `logging`: records below it are not made."""

@final
class LogRecord:
    """A record of a `LogBatch`: text, and time in seconds since 1970."""

    @property
    def message(self) -> str: ...
    @property
    def members(self) -> str | None:
        """For the line of a message: the same as members of a JSON object, without its braces."""
    @property
    def created(self) -> float: ...

@final
class LogBatch:
    """Records in a row that have this level, logger and server in common."""

    @property
    def level(self) -> int:
        """A number of `logging`."""
    @property
    def logger(self) -> str:
        """The logger's name below `guerrilla`."""
    @property
    def server(self) -> str | None:
        """The `name` of the server that they belong to; None for what concerns all of them."""
    @property
    def lines(self) -> str:
        """A line each, with its end, in the form that was asked for; empty without one."""
    @property
    def records(self) -> list[LogRecord]: ...

@final
class Backend:
    """What the workers of one backend have of the core."""

    @property
    def name(self) -> str: ...
    def receive(self, max: int, timeout: float) -> list[Envelope] | None:
        """Takes up to `max` waiting envelopes; waits only when there is none.

        Returns:
            `[]` after `timeout` seconds. None once the queue is empty and nothing more will come:
            the core is stopping, or the backend was taken out of the settings and the last
            transaction that began with it has ended. `[]` at once where another `Backend` of the
            same name was renewed since.
        """
    def receive_checks(self, max: int, timeout: float) -> list[Check] | None:
        """As `receive`, for recipient checks."""
    def receive_logins(self, max: int, timeout: float) -> list[Login] | None:
        """As `receive`, for credentials."""
    def receive_spooled(self, max: int, timeout: float) -> list[Envelope] | None:
        """As `receive`, for mails that were spooled and answered; none of them ever expires.

        What each is answered decides what becomes of it: with 2xx it is deleted, with 4xx, or where
        it is dropped, it is tried again later, with 5xx it is set aside. At most 16 MiB beyond the
        first. None once the core is stopping, however many are left.
        """
    def renew(self) -> None:
        """Other chains take over: answers that are kept are forgotten, the breakers close.

        Those received by others are given nothing more, and their answers are not kept.
        """
    def admits(self, task: str) -> bool:
        """Whether the workers of `save` or `validate` are to ask about what they received."""
    def count_refused(self, items: int) -> None:
        """So many were answered without being asked about."""
    def report(self, task: str, failed: bool) -> Literal["opened", "closed"] | None:
        """Whether a batch failed for a passing reason; what that did to the breaker, if anything."""
    def set_intake(self, open: bool) -> None:
        """Closed: every message for it is answered `451 4.3.2` before its data."""
    def stats(self) -> dict[str, int]:
        """Its counters and gauges now."""

@type_check_only
class SpoolSettings(TypedDict):
    """Where the spool is, and what it obeys."""

    path: str
    max_bytes: int
    """Octets of mails; 0: no limit."""
    min_free: int
    """Octets of the disk that stay free."""
    max_age: float
    """Seconds after which a mail that fails is not tried again."""

@final
class SpoolEntry:
    """A mail of the spool, as a list shows it. Times are seconds since 1970."""

    @property
    def id(self) -> int:
        """What the next part of a list comes `after`."""
    @property
    def queued_id(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def received_at(self) -> float: ...
    @property
    def size(self) -> int:
        """Octets of the message."""
    @property
    def attempts(self) -> int:
        """Those that failed."""
    @property
    def next_at(self) -> float | None:
        """When it is tried again."""
    @property
    def error(self) -> str | None:
        """Why the last attempt failed."""
    @property
    def state(self) -> Literal["ready", "deferred", "in work", "failed", "damaged"]: ...
    @property
    def mail_from(self) -> str: ...
    @property
    def rcpt_to(self) -> list[str]: ...

@final
class Spool:
    """The spool of a core; or, made of a path, all folders there, for a command while no core has any.

    What takes long happens in pages, beside all else that the spool has to do. Where a disk fails, each
    method raises an `OSError`.

    Args:
        path: `spool.path`.
        warn: takes each line that a daemon would have logged, from warnings on: when it was opened, or could not
            be, and when it is closed.

    Raises:
        BlockingIOError: a process has it.
        FileNotFoundError: nothing is there.
        OSError: it cannot be opened; the message begins with the path.
        ValueError: what is there is no spool, or a damaged one; likewise.
    """

    def __new__(cls, path: str, warn: Callable[[str], object]) -> Self: ...
    def list(self, after: int, max: int, failed: bool) -> builtins.list[SpoolEntry]:
        """At most `max` mails behind the one with the id `after`, in their order.

        Those that wait and those in work, or those that were set aside.
        """
    def show(self, queued_id: str) -> tuple[SpoolEntry, dict[str, Any], memoryview]:
        """A mail, the record of its envelope, and its message as it came.

        Raises:
            LookupError: there is none of that id.
        """
    def retry(self, queued_ids: Sequence[str] | None = None) -> int:
        """Has mails that are deferred tried now: these, or all. How many those were."""
    def drop(self, queued_ids: Sequence[str] | None = None, failed: bool = False) -> int:
        """Deletes mails that nobody works on, or those set aside: these, or all. How many."""
    def replay(self, queued_ids: Sequence[str] | None = None) -> int:
        """Puts mails that were set aside back into the spool: these, or all. How many."""
    def close(self) -> None:
        """Ends it. For one that was made of a path; that of a core is closed by the core."""
    def waiting(self) -> builtins.list[tuple[str, int]]:
        """How many mails there are for each backend, of those that have any."""
    def stats(self) -> dict[str, int]:
        """Its counters and gauges now."""

@final
class SharedMemory:
    """What is one over all processes: counters, clients, keys of TLS tickets.

    A file without a name, in memory. Each process has a place in it, which it alone writes; what
    one leaves behind that is killed is still there, and `bury` gives it back.
    """

    @staticmethod
    def create(processes: int) -> SharedMemory:
        """Makes one, with keys for TLS tickets; for the process above all others, without a place.

        Its size is that of a full one, but only what is used takes memory: some pages for each
        process, and 4 KiB at most for each client address that is counted, 50 MiB at most in all.

        Args:
            processes: 1 to 1,024.

        Raises:
            OSError: no descriptor or no memory.
            ValueError: so many there cannot be.
        """
    @staticmethod
    def attach(fd: int, place: int) -> SharedMemory:
        """The one behind a descriptor, which stays the caller's, for the process of a place.

        Raises:
            OSError: no such descriptor.
            ValueError: it is no such file, is one of another build or damaged, or has no such place.
        """
    @property
    def processes(self) -> int:
        """How many places it has."""
    @property
    def place(self) -> int | None:
        """The one it was attached at, from 0; None for who made it."""
    def fileno(self) -> int:
        """Its descriptor, to be passed on (`pass_fds`); a program that is started closes it else."""
    def stats(self, place: int | None = None) -> dict[str, int]:
        """Counters of a place by their names in `Core.stats`; replies that were never sent lack.

        None of what a core does not count here, as its queues and its spool, is among them.

        Args:
            place: whose; None: the sum of all, with what those that are gone have counted.

        Raises:
            ValueError: no such place.
        """
    def bury(self, place: int) -> None:
        """The process of a place has ended: keeps what it counted, and frees what it held.

        Its gauges (`connections_open`, `sessions_…`, `spilled_octets`) and its clients are given
        back, and another may have the place. Not for one that still runs.

        Raises:
            ValueError: no such place.
        """
    def rotate_tickets(self) -> None:
        """Makes a new key for TLS tickets; the one before it is still taken, older ones are not.

        Tickets say that they are good for twelve hours: to be called every six.

        Raises:
            OSError: no random octets.
        """

@final
class Core:
    """A running receiver: one I/O thread with its listeners, and the queues to Python.

    Raises:
        ValueError: a setting that cannot be obeyed, or a TLS file that cannot be used; a line each,
            `NAME: KEY: what is wrong`, where NAME is the server's name and KEY as `tls.KEY`. Or
            another core has its place in the memory, or the memory has no place for it.
        MemoryError: there is none for what it counts.
    """

    def __new__(cls, settings: CoreSettings, memory: SharedMemory | None = None) -> Self:
        """Makes a core that binds nothing yet.

        Args:
            settings: what it obeys.
            memory: what it has in common with other processes, attached at its place, which it has
                until `close`. With it `max_clients`, limits per address and failed logins count
                over all of them, and a TLS session that began at one goes on at another.
        """
    def inherit(self, sockets: Sequence[tuple[str, int]], kept: bool = True) -> None:
        """Has sockets ready that somebody else has bound, and listens on.

        The next `bind` or `reload` that has a server at such an address serves all of them, and
        binds none. The file of a unix socket is left to who made it: see `own_files`.

        Args:
            sockets: an address each, as `ServerSettings` has it, and a descriptor, which stays
                the caller's: the core has one of its own. Of one address there may be several; of
                port 0 those of one port are one server's, in their order.
            kept: somebody else has them too, and goes on with them: a reload that takes their
                server out closes them here, and changes nothing of them. Else whoever connects is
                turned away first, for all who have them, and who waits in the queue hears `421`.

        Raises:
            ValueError: no address; or, behind the address, why what was handed over is not of it:
                no open descriptor, no socket that listens, one of another address. None was taken.
        """
    def serve_also(self, sockets: Sequence[tuple[str, int]]) -> None:
        """Serves sockets of another process, which does not do so now, beside its own.

        Until the next call, or a reload; those of an earlier call no more: they are closed here,
        and nothing is changed of them. Those that no server has are closed.

        Args:
            sockets: as `inherit` takes them.

        Raises:
            ValueError: as `inherit`.
            RuntimeError: it does not run.
        """
    def drop_inherited(self) -> list[str]:
        """Closes inherited sockets that no server has asked for, and says of which addresses."""
    def sockets(self) -> list[tuple[str, int]]:
        """What is listened on, to be handed over: addresses as `inherit` takes them.

        Returns:
            Descriptors that are the caller's, to be closed; none when it does not run.
        """
    def leave_files(self) -> list[str]:
        """Does not remove the files of its unix sockets at its end: somebody else serves them.

        Returns:
            The addresses of those that it would have removed: for `own_files` of who does it now.
        """
    def own_files(self, addresses: Sequence[str]) -> None:
        """Removes the files of unix sockets that it serves at its end, though it has not made them.

        Raises:
            ValueError: no address.
        """
    def bind(self) -> list[str]:
        """Binds every server; the kernel queues connections until `start`.

        Returns:
            The bound addresses, in the order of `servers`: port 0 is replaced by the real one.

        Raises:
            OSError: one or more servers could not be bound; the message names each, one a line.
            RuntimeError: bound or started before.
        """
    def start(self) -> None:
        """Serves what is bound, on the I/O thread.

        Raises:
            OSError: the thread could not be made.
            RuntimeError: not bound, or started before.
        """
    def receive(self, max: int, timeout: float) -> list[Envelope] | None:
        """As `Backend.receive`, of the default one."""
    def receive_checks(self, max: int, timeout: float) -> list[Check] | None:
        """As `Backend.receive_checks`, of the default one."""
    def backend(self, name: str) -> Backend:
        """What the workers of a backend need.

        Raises:
            ValueError: the settings have none of this name.
        """
    def receive_logs(
        self,
        max: int,
        timeout: float,
        form: Literal["text", "json"] | None = None,
        process: int | None = None,
    ) -> list[LogBatch] | None:
        """As `receive`, for log records; None only after `close`.

        With `form`, `LogBatch.lines` are made too, without the GIL; with `process`, each has that
        number of this one among several.
        """
    def want_events(self, mails: bool, connections: bool) -> None:
        """Which events are made from now on; none at first."""
    def receive_events(
        self, max: int, timeout: float
    ) -> list[tuple[Transaction, str | None, int, Reply] | tuple[bool, Transaction]] | None:
        """Waits up to `timeout` seconds for events, and takes up to `max`.

        Returns:
            Of a message that was answered its transaction, id (None where it was refused before it
            had one), octets and reply; of a connection whether it was opened or has ended, and a
            transaction that has only its client. None at the end.
        """
    def plan_fault(
        self,
        stage: Literal["connect", "helo", "mail", "rcpt", "data"],
        count: int | None,
        delay: float,
        reply: Reply | None,
        cut: Literal["close", "reset"] | None,
    ) -> None:
        """Misbehaves on purpose, for `guerrilla.testing`, behind what else is planned of the stage.

        Args:
            stage: what is answered so, before anything of it but its syntax is looked at.
            count: how often; None: each time.
            delay: time before the answer.
            reply: what is said instead of obeying; a 421, or any at `connect`, closes.
            cut: how the connection ends instead, without a word: by a FIN or a RST.

        Raises:
            ValueError: an argument that is none.
        """
    def plan_cut(self, queued_id: str, cut: Literal["close", "reset"]) -> None:
        """The sender of this message hears nothing: its connection ends behind the answer to it."""
    def clear_faults(self) -> None:
        """Forgets what was planned."""
    def set_log_level(self, level: int) -> None: ...
    def reload(self, settings: CoreSettings) -> list[str]:
        """Obeys other settings from now on, and drops no connection.

        Servers are matched by name and address. One that stays obeys its new settings: new
        connections at once, open ones when they have no transaction. One that is gone closes; its
        sessions end with `421 4.3.2` when they have no transaction.

        Returns:
            A line for each server that could not be bound, or whose TLS could not be loaded, which
            then keeps what it had; as the lines of the errors of `Core` and `bind`. Sockets of
            servers that are gone may wait then, as inherited ones, for another reload that puts
            them back: `drop_inherited` closes them.

        Raises:
            ValueError: a setting that cannot be obeyed; nothing was changed.
            RuntimeError: it does not run.
        """
    def open_spool(self, settings: SpoolSettings) -> None:
        """Opens the spool; one that is open stays where it is, and obeys these limits.

        Raises:
            BlockingIOError: another process has it.
            OSError: it cannot be opened; the message begins with the path.
            ValueError: what is there is no spool, or a damaged one; likewise.
        """
    def spool(self) -> Spool | None:
        """The spool, once it is open."""
    def addresses(self) -> list[str]:
        """Where it listens now, in the order of `servers`; empty when it does not run."""
    def addresses_by_server(self) -> list[tuple[str, list[str]]]:
        """The same by the name of each server, each address once."""
    def clients(self) -> list[tuple[str, int]]:
        """How many connections each server has, by name."""
    def reload_tls(self) -> list[tuple[str, str | None]]:
        """Reads the TLS files of every server again.

        What loads is taken over for new handshakes, and no connection is dropped. A server whose
        files do not load stays with what it has.

        Returns:
            For each server whose files changed in content, in the order of `servers`: its name, and
            None, or why what it has stays; a name comes once for each of its addresses.
        """
    def stop(self, timeout: float) -> bool:
        """Graceful stop: closes listeners, tells idle sessions 421, lets transactions finish.

        Returns:
            True when every session ended by itself; False when some were cut off after `timeout`.
        """
    def close(self) -> None:
        """Ends what is left, at once: queues give None, the I/O thread ends. Idempotent."""
    def stats(self) -> dict[str, int]:
        """A snapshot of all counters; those of queues are of the default backend.

        `connections_open` is, but for the moment between, the sum of the gauges of sessions:

        - `sessions_opening`: before the greeting, with a PROXY header to come or in `greet_delay`;
        - `sessions_handshake`: in a TLS handshake, implicit or by STARTTLS;
        - `sessions_idle`: a command is awaited, with no transaction open;
        - `sessions_transaction`: the same after MAIL;
        - `sessions_data`: the message is awaited, from DATA until the final dot, or from the first
          BDAT until the last one;
        - `sessions_waiting`: the answer on a recipient or on a whole message is awaited;
        - `sessions_closing`: the last reply was said.
        """
