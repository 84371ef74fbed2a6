"""HTTP: posts mails to a web server."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, cast
from urllib.parse import urlsplit

import pydantic

from guerrilla.config.fields import Flag, Positive, PositiveSeconds, one_of, whole
from guerrilla.config.masking import mask_value
from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, StartError, Unavailable, expected
from guerrilla.reply import TRY_LATER, Replies, Reply, fold
from guerrilla.units import Bytes
from guerrilla.webhook.answers import UnclearError, outcomes, refuses
from guerrilla.webhook.content import Raw, as_batch, as_json, as_raw, as_single
from guerrilla.webhook.parts import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerrilla._core import Envelope
    from guerrilla.reply import Outcome
    from guerrilla.webhook.answers import Answer
    from guerrilla.webhook.client import Client
    from guerrilla.webhook.content import Content

__all__ = ["HTTP"]

log = logging.getLogger("guerrilla.processors.http")

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ -~\t]*[!-~])?|")
_OURS: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-length", "content-type", "expect"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Header fields of a request that are not the user's to set."""
_PREFIX: Final = "x-guerrilla-"
_TEXTS: Final = pydantic.WithJsonSchema(
    {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
)
_ClientError = Annotated[Literal["451", "550"], one_of("451", "550")]
_Format = Annotated[Literal["json", "raw"], one_of("json", "raw")]
_Batch = Annotated[Literal["single", "batch"], one_of("single", "batch")]
_Raw = Annotated[Raw, one_of("never", "truncated", "always")]


class HTTP(Processor):
    """Posts each mail to a URL, as JSON or as it came, signed; a 2xx means that it is saved.

    Where the server is away, is too slow or answers anything that is not 2xx, the answer is
    `451 4.3.0`; for 4xx it may be a `550`.
    """

    stores: ClassVar[bool] = True

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        http_url: str = pydantic.Field(repr=False)
        """Where mails are posted to: `https://host/path`, with `user:password@` before the host
        for basic authentication."""
        http_format: _Format = "json"
        """What is posted: a JSON object, or the mail as it came (`message/rfc822`) with its
        envelope in a header field."""
        http_batch: _Batch = "single"
        """`batch` posts the mails that a worker has at the moment in one JSON array; `single` each
        by itself, several at a time."""
        http_secret: Annotated[tuple[str, ...], _TEXTS] = pydantic.Field(default=(), repr=False)
        """What requests are signed with (HMAC-SHA256): a text, or a list of two while one takes the
        place of the other, which makes two signatures. Empty: requests are not signed."""
        http_headers: dict[str, str] = pydantic.Field(default_factory=dict, repr=False)
        """More header fields of each request, as `Authorization`."""
        http_timeout: PositiveSeconds = 10.0
        """Time for a request and its answer, best below `gw_save_timeout`. Connecting may take 5
        seconds of it."""
        http_concurrency: Positive = 16
        """Requests, and so connections, at a time, for each worker."""
        http_client_error: _ClientError = "451"
        """What a sender is told where the server answers 4xx: `451`, so that he tries again, or
        `550`, refused for good. 401, 407, 408, 425 and 429 are always 451."""
        http_repeat: Flag = False
        """Posts a mail once more, with the same `queued_id`, where the server closes a kept
        connection without a word. For servers that save a `queued_id` once however often they get
        it."""
        http_ca_file: str = ""
        """PEM file of the authorities that the server's certificate is checked by; by default
        those of the machine."""
        http_verify: Flag = True
        """Whether it is checked at all. Without, anybody on the way can read and keep the mail."""
        http_json_parts: Positive = 1_000
        """Parts of a mail that JSON has, at most."""
        http_json_depth: Annotated[int, whole(1, 100), pydantic.Field(ge=1, le=100)] = 16
        """How deep they may lie in one another."""
        http_json_size: Bytes = 32 << 20
        """Octets of them, decoded. A part that does not fit has its size and no content."""
        http_json_raw: _Raw = "truncated"
        """When JSON has the whole mail as well, in Base64: `never`, `always`, or where a limit has
        left something out."""
        http_batch_size: Bytes = 16 << 20
        """Octets of a batch, at which the next one begins; a larger mail goes alone."""

        @pydantic.field_validator("http_url")
        @classmethod
        def _url(cls, url: str) -> str:
            if not _is_url(url):
                told = mask_value("http_url", url)
                raise expected("a URL such as 'https://host/path', without '#'", told)
            return url

        @pydantic.field_validator("http_batch")
        @classmethod
        def _raw_is_single(cls, value: str, info: pydantic.ValidationInfo) -> str:
            if value == "batch" and info.data.get("http_format") == "raw":
                raise expected("'single' with http_format 'raw'", value)
            return value

        @pydantic.field_validator("http_client_error", mode="before")
        @classmethod
        def _code(cls, value: object) -> object:
            is_code = isinstance(value, int) and not isinstance(value, bool)
            return str(value) if is_code else value

        @pydantic.field_validator("http_secret", mode="before")
        @classmethod
        def _secrets(cls, value: object) -> object:
            found = [value] if isinstance(value, str) and value else value or ()
            if not (isinstance(found, list | tuple) and all(isinstance(one, str) for one in found)):
                raise expected("a text, or a list of texts", "a value that is none")
            if not all(found):
                raise expected("secrets that are not empty", "an empty one")
            return tuple(found)

        @pydantic.field_validator("http_headers", mode="before")
        @classmethod
        def _headers(cls, value: object) -> object:
            if not isinstance(value, dict):
                raise expected("a table of header fields", "a value that is none")
            for name, text in value.items():
                _check_header(name, text)
            return value

    def __init__(self, options: Options) -> None:
        """Connects to nothing."""
        super().__init__(options)
        self._options = options
        self._code = int(options.http_client_error)
        self._limits = Limits(
            options.http_json_parts, options.http_json_depth, options.http_json_size
        )
        self._gate = asyncio.Semaphore(options.http_concurrency)
        self._place = ""
        self._client: Client | None = None
        if options.http_batch == "batch":
            self.save_batch = self._save_batch  # type: ignore[method-assign,assignment]

    async def open(self) -> None:  # type: ignore[override]
        """Connects, and posts nothing.

        Raises:
            ConfigError: httpx is not installed, or the file of authorities cannot be used.
            StartError: the server cannot be reached or is not trusted.
        """
        try:
            from guerrilla.webhook.client import Client, Target  # noqa: PLC0415
        except ImportError as error:
            msg = f"HTTP needs the Python package httpx: install guerrilla[http] ({error})"
            raise ConfigError(msg) from error
        options = self._options
        target = Target(
            options.http_url,
            options.http_timeout,
            options.http_headers,
            options.http_secret,
            options.http_repeat,
        )
        self._place = target.place
        client = Client(target, _context(options))
        try:
            await client.probe()
        except OSError as error:
            await client.close()
            msg = f"backend_config.http_url: {target.place}: cannot connect: "
            why = "no answer in time" if isinstance(error, TimeoutError) else error
            raise StartError(f"{msg}{why}") from error
        self._client = client

    async def close(self) -> None:  # type: ignore[override]
        """Closes the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def save(self, envelope: Envelope) -> Outcome:  # type: ignore[override]
        """Posts one mail.

        Raises:
            guerrilla.Unavailable: there was no answer.
        """
        async with self._gate:
            if envelope.expired:  # while others were posted
                return TRY_LATER
            if self._options.http_format == "raw":
                content = as_raw(envelope)
            else:
                content = as_single(envelope.queued_id, self._json(envelope))
            answer = await self._ask(content, [envelope])
            return self._judge(answer, [envelope])[0]

    async def _save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Posts them in as few requests as their size allows.

        Raises:
            guerrilla.Unavailable: there was no answer to the first request.
        """
        found: list[Outcome] = []
        for mails, bodies in self._batches(envelopes):
            try:
                found += await self._post_batch(mails, bodies)
            except Unavailable as error:
                if not found:
                    raise
                # What was saved before must not be answered 451, as the engine would.
                left = envelopes[len(found) :]
                log.error("%s: answered 451: %s", error, _names(left))  # noqa: TRY400
                return [*found, *[TRY_LATER] * len(left)]
        return found

    def _batches(
        self, envelopes: Sequence[Envelope]
    ) -> Iterator[tuple[list[Envelope], list[list[bytes]]]]:
        """Each with the JSON of its mails, in order; one at a time is in memory."""
        mails: list[Envelope] = []
        bodies: list[list[bytes]] = []
        size = 0
        for envelope in envelopes:
            body = self._json(envelope)
            length = sum(map(len, body))
            if bodies and size + length > self._options.http_batch_size:
                yield mails, bodies
                mails, bodies, size = [], [], 0
            mails.append(envelope)
            bodies.append(body)
            size += length
        yield mails, bodies

    async def _post_batch(
        self, mails: list[Envelope], bodies: list[list[bytes]]
    ) -> Sequence[Outcome]:
        if all(envelope.expired for envelope in mails):  # while others were posted
            return [TRY_LATER] * len(mails)
        answer = await self._ask(as_batch(bodies), mails)
        if len(mails) == 1 or not refuses(answer):
            return self._judge(answer, mails)
        # One that is refused must not take the others with it.
        log.warning("%s: %s for a batch: posted one by one", self._place, answer)
        pairs = zip(mails, bodies, strict=True)
        return await asyncio.gather(*(self._post_alone(mail, body) for mail, body in pairs))

    async def _post_alone(self, mail: Envelope, body: list[bytes]) -> Outcome:
        async with self._gate:
            if mail.expired:  # while others were posted
                return TRY_LATER
            try:
                answer = await self._ask(as_batch([body]), [mail])
            except Unavailable as error:
                log.error("%s: answered 451: %s", error, mail.queued_id)  # noqa: TRY400
                return TRY_LATER
            return self._judge(answer, [mail])[0]

    async def _ask(self, content: Content, mails: Sequence[Envelope]) -> Answer:
        client = cast("Client", self._client)  # A chain that is not open is never asked.
        return await client.post(content, _names(mails))

    def _judge(self, answer: Answer, mails: Sequence[Envelope]) -> Sequence[Outcome]:
        try:
            found = outcomes(answer, mails, self._code)
        except UnclearError as error:
            log.error("%s: %s: answered 451: %s", self._place, error, _names(mails))  # noqa: TRY400
            return [TRY_LATER] * len(mails)
        for envelope, outcome in zip(mails, found, strict=True):
            if isinstance(outcome, Reply | Replies):
                reply = outcome if isinstance(outcome, Reply) else fold(outcome)
                name = envelope.queued_id
                log.warning("%s: %s: %s: answered %d", name, self._place, answer, reply.code)
        return found

    def _json(self, envelope: Envelope) -> list[bytes]:
        return as_json(envelope, self._limits, self._options.http_json_raw)


def _names(mails: Sequence[Envelope]) -> str:
    return ", ".join(envelope.queued_id for envelope in mails)


def _is_url(url: str) -> bool:
    """Whether it is of http or https and names a host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_clean = url.isprintable() and " " not in url and "#" not in url
    return is_clean and parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0


def _check_header(name: object, text: object) -> None:
    """Looks at one header field of `http_headers`; its value is in no error.

    Raises:
        ValueError: it cannot stand in a request, or is ours to set.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise expected("names of header fields", name)
    if name.lower() in _OURS or name.lower().startswith(_PREFIX):
        raise expected("header fields that HTTP does not set itself", name)
    if not (isinstance(text, str) and _VALUE.fullmatch(text)):
        raise expected(f"a line of printable ASCII for {name}", "a value that is none")


def _context(options: HTTP.Options) -> ssl.SSLContext | None:
    """For https; None for http.

    Raises:
        ConfigError: the file of authorities cannot be used.
    """
    if urlsplit(options.http_url).scheme != "https":  # `HTTPS:` is that too
        return None
    path = options.http_ca_file
    try:
        context = ssl.create_default_context(cafile=path or None)
    except OSError as error:  # what TLS raises is one too
        reason = error.strerror or error
        raise ConfigError(f"backend_config.http_ca_file: {path}: {reason}") from error
    if not options.http_verify:
        log.warning("http_verify is off: anybody on the way can read and keep the mail")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
