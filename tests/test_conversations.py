"""The golden conversations over a real socket: `tests/conversations/README.md` has their format."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import pytest

from guerrilla._core import Check, Core, Envelope, Login, Reply, make_certificate
from tests.certificates import unverified

if TYPE_CHECKING:  # the stub alone has it
    from guerrilla._core import CoreSettings, ServerSettings, TLSSettings

FOLDER = Path(__file__).parent / "conversations"
FILES = sorted(FOLDER.glob("*.smtp"))
PATIENCE = 20.0
"""Seconds to wait for what must come; nothing is ever waited out."""

Verdict = Reply | tuple[Reply, ...] | None
Pace = Literal["whole", "pipelined"]
Item = TypeVar("Item", Envelope, Check, Login)


# --- The file -------------------------------------------------------------------------------------


@dataclass
class Expected:
    """A line of a reply: its text, or a regular expression that is found in it."""

    line: int
    text: str
    regex: bool
    skip: bool
    """Lines before it that do not match are passed over."""

    def matches(self, reply: str) -> bool:
        if self.regex:
            return re.search(self.text, reply) is not None
        return reply == self.text


@dataclass
class Block:
    """What the client says, and then the replies to it."""

    sent: bytes = b""
    replies: list[Expected] = field(default_factory=list)
    tls: bool = False
    """Whether the handshake follows."""


class Script:
    """A conversation file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, str] = {}
        self.blocks = [Block()]
        self.verdicts: list[Verdict] | None = None
        self.delivered: list[str] = []
        self.end: str | None = None
        self._skip = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line and not line.startswith("#"):
                self._read(number, line[:2], line[2:].removeprefix(" "))
        one = path.with_suffix(".eml")
        numbered = [path.with_suffix(f".{n + 1}.eml") for n in range(len(self.delivered))]
        twins = [one] if one.exists() else numbered
        self.messages = [twin.read_bytes() for twin in twins if twin.exists()]

    def _read(self, number: int, mark: str, rest: str) -> None:
        match mark:
            case "! ":
                name, _, value = rest.partition(" ")
                self.settings[name] = value
            case "C:":
                self._say(rest.encode() + b"\r\n")
            case "C|":
                self._say(unescape(rest))
            case "C*":
                count, _, text = rest.partition(" ")
                self._say(unescape(text) * int(count))
            case "S:" | "S~":
                expected = Expected(number, rest, mark == "S~", self._skip)
                self.blocks[-1].replies.append(expected)
                self._skip = False
            case "S.":
                self._skip = True
            case "V:":
                self.verdicts = [*(self.verdicts or []), verdict(rest)]
            case "==":
                self._mark(rest)
            case _:
                raise ValueError(f"{self.path.name}:{number}: unknown mark {mark!r}")

    def _mark(self, text: str) -> None:
        if text.startswith("delivered "):
            self.delivered.append(text.removeprefix("delivered "))
        elif text == "tls":
            self.blocks[-1].tls = True
        else:
            self.end = text

    def _say(self, octets: bytes) -> None:
        if self.blocks[-1].replies or self.blocks[-1].tls:
            self.blocks.append(Block())
        self.blocks[-1].sent += octets

    def core_settings(self, pair: tuple[str, str]) -> CoreSettings:
        """Defaults, and what the file says; the pair is a key's file and its certificate's."""
        known = {name: value for name, value in self.settings.items() if name != "intake_open"}

        def value(name: str, default: Any) -> Any:
            """What the file says, as the default's kind."""
            text = known.pop(name, None)
            if text is None:
                return default
            return text.lower() == "true" if isinstance(default, bool) else type(default)(text)

        start_tls, required = value("start_tls", False), value("tls_required", False)
        server = {name: value(name, default) for name, default in ASKED.items()}
        server["trusted_proxies"] = ["127.0.0.0/8"] if value("trusted", False) else []
        without, auth = value("without", "").split(), value("auth", "").split()
        server["extensions"] = dict.fromkeys(without, False)
        server["auth"] = AUTH_FAILURES | {name: name in auth for name in AUTH}
        server["auth"]["offered"] = bool(auth)
        server["tls"] = tls_settings(pair, required=required) if start_tls else None
        settings: CoreSettings = {
            "servers": [cast("ServerSettings", {**FIXED, **server})],
            "allowed_hosts": value("allowed_hosts", ".").split(),
            "max_memory": value("max_memory", 256 << 20),
            "spill_size": value("spill_size", 0),
            "backends": [
                {
                    "name": "default",
                    "save_timeout": PATIENCE,
                    "check_timeout": PATIENCE,
                    "check_recipients": value("check_recipients", False),
                    "auth_timeout": PATIENCE,
                    "authenticate": True,
                    "cache_ttl": 0.0,
                    "breaker_failures": 0,
                    "breaker_reset": 10.0,
                    "spools": "never",
                }
            ],
            "log_level": 40,
        }
        assert not known, f"unknown settings: {sorted(known)}"
        return settings


ASKED: Final[dict[str, Any]] = {
    "host_name": "mx.example.com",
    "max_size": 10 << 20,
    "max_recipients": 100,
    "max_errors": 5,
    "max_idle_commands": 50,
    "max_received_hops": 50,
    "max_messages": 0,
    "helo_required": True,
    "bare_newline": "fix",
    "xclient": False,
    "protocol": "smtp",
}
"""Settings of a server that a file may have, by their defaults."""

AUTH: Final = ("required", "relay", "allow_plaintext")
"""What `auth` of a file may say beside `offered`."""

AUTH_FAILURES: Final = {"failure_delay": 0.0, "max_failures": 0}
"""And what it may not."""

FIXED: Final[dict[str, Any]] = {
    "name": "test",
    "address": "127.0.0.1:0",
    "unix_mode": None,
    "timeout": PATIENCE,
    "max_clients": 10,
    "max_header_size": 1 << 20,
    "data_timeout": 600.0,
    "min_data_rate": 100,
    "proxy_protocol": False,
    "max_connections_per_ip": 0,
    "max_connection_rate_per_ip": 0,
    "ipv6_prefix": 64,
    "greet_delay": 0.0,
    "backend": "default",
}
"""Those that it has not."""


def tls_settings(pair: tuple[str, str], *, required: bool) -> TLSSettings:
    """STARTTLS with all that there is; the pair is a key's file and its certificate's."""
    return {
        "start_tls": True,
        "always_on": False,
        "required": required,
        "certificates": [pair],
        "root_cas_file": None,
        "client_auth": "NoClientCert",
        "protocols": ["tls1.2", "tls1.3"],
        "ciphers": [],
        "curves": [],
        "prefer_server_ciphers": False,
    }


def unescape(text: str) -> bytes:
    r"""`\r`, `\n`, `\t`, `\\` and `\xHH`."""
    plain = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}

    def octet(match: re.Match[bytes]) -> bytes:
        return plain.get(match[1]) or bytes([int(match[1][1:], 16)])

    return re.sub(rb"\\(x[0-9a-fA-F]{2}|[rnt\\])", octet, text.encode())


def verdict(text: str) -> Verdict:
    """`ok`, a reply, or one reply a recipient behind ` | `."""
    if text == "ok":
        return None
    replies = tuple(reply(part) for part in text.split(" | "))
    return replies[0] if len(replies) == 1 else replies


def reply(text: str) -> Reply:
    match = re.fullmatch(r"(\d{3})(?: (\d\.\d+\.\d+))?(?: (.*))?", text)
    assert match, text
    return Reply(int(match[1]), match[2], match[3] or "")


# --- The run --------------------------------------------------------------------------------------


class Judge:
    """Answers the questions of one core in threads of its own, and keeps what was delivered."""

    def __init__(self, core: Core, verdicts: Sequence[Verdict] | None) -> None:
        self.delivered: list[tuple[str, bytes]] = []
        self.left = None if verdicts is None else list(verdicts)
        self.problems: list[str] = []
        self._core = core
        self._threads = [
            threading.Thread(target=self._serve, args=(core.receive, self._save), daemon=True),
            threading.Thread(
                target=self._serve, args=(core.receive_checks, self._check), daemon=True
            ),
            threading.Thread(
                target=self._serve,
                args=(core.backend("default").receive_logins, self._check),
                daemon=True,
            ),
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits for the end of the core."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the core does not say that it ended"

    def _serve(
        self,
        receive: Callable[[int, float], list[Item] | None],
        answer: Callable[[Item], None],
    ) -> None:
        while (items := receive(8, PATIENCE)) is not None:
            for item in items:
                answer(item)

    def _save(self, envelope: Envelope) -> None:
        path = " ".join(f"<{address}>" for address in (envelope.mail_from, *envelope.rcpt_to))
        self.delivered.append((path, bytes(envelope.data)))
        envelope.answer(self._next())

    def _check(self, asked: Check | Login) -> None:
        found = self._next()
        assert found is None or isinstance(found, Reply)
        asked.answer(found)

    def _next(self) -> Verdict:
        if self.left is None:
            return None
        if not self.left:
            self.problems.append("a question without its V:")
            return None
        return self.left.pop(0)


@contextmanager
def receiver(script: Script, pair: tuple[str, str]) -> Iterator[tuple[socket.socket, Judge]]:
    """A connection to a core of its own, which has ended when the block has."""
    core = Core(script.core_settings(pair))
    (address,) = core.bind()
    core.start()
    core.backend("default").set_intake(script.settings.get("intake_open") != "false")
    judge = Judge(core, script.verdicts)
    try:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as connection:
            yield connection, judge
        assert core.stop(PATIENCE), "a session did not end"
    finally:
        core.close()
        judge.join()


class Client:
    """Reads reply lines, and compares them with those that are expected."""

    def __init__(self, name: str, connection: socket.socket) -> None:
        self._name = name
        self._connection = connection
        self._lines = connection.makefile("rb")

    def expect(self, expected: Sequence[Expected]) -> None:
        for one in expected:
            found = self.line()
            while one.skip and found is not None and not one.matches(found):
                found = self.line()
            where = f"{self._name}:{one.line}"
            assert found is not None, f"{where}: the server has closed instead of {one.text!r}"
            assert one.matches(found), f"{where}: expected {one.text!r}, got {found!r}"

    def line(self) -> str | None:
        """The next line without its CRLF; None when the server has closed."""
        line = self._lines.readline()
        if not line:
            return None
        assert line.endswith(b"\r\n"), f"{self._name}: a line without CRLF: {line!r}"
        assert len(line) <= 512, f"{self._name}: a line of {len(line)} octets"
        return line[:-2].decode()  # UTF-8 where the client said that it takes it

    def close(self) -> None:
        self._lines.close()


def segments(blocks: Sequence[Block], pace: Pace) -> Iterator[list[Block]]:
    """What is sent at once: a block each, or all that the handshake does not cut."""
    segment: list[Block] = []
    for block in blocks:
        segment.append(block)
        if pace == "whole" or block.tls:
            yield segment
            segment = []
    if segment:
        yield segment


def converse(script: Script, connection: socket.socket, pace: Pace, within: ExitStack) -> None:
    """Plays the file, and shows that no reply came that it does not have.

    TLS, if it comes to it, ends with `within`.
    """
    name = script.path.name
    client = Client(name, connection)
    greeting, *blocks = script.blocks if not script.blocks[0].sent else [Block(), *script.blocks]
    client.expect(greeting.replies or [Expected(1, "^220 ", regex=True, skip=False)])
    bye = [] if script.end else [Block(b"QUIT\r\n", [Expected(0, "221 2.0.0 Bye", False, False)])]
    leaves = script.end == "disconnect"
    for segment in segments([*blocks, *bye], pace):
        connection.sendall(b"".join(block.sent for block in segment))
        if leaves and pace == "pipelined":  # it still reads
            connection.shutdown(socket.SHUT_WR)
        client.expect([expected for block in segment for expected in block.replies])
        if segment[-1].tls:
            client.close()
            connection = within.enter_context(unverified().wrap_socket(connection))
            client = Client(name, connection)
    if leaves and pace == "whole":
        connection.shutdown(socket.SHUT_WR)
    rest = client.line()
    assert rest is None, f"{name}: then came {rest!r}"
    client.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a key and of its certificate."""
    folder = tmp_path_factory.mktemp("pair")
    files = folder / "key.pem", folder / "certificate.pem"
    for file, content in zip(files, make_certificate(["mx.example.com"], 2), strict=True):
        file.write_text(content)
    return str(files[0]), str(files[1])


@pytest.mark.parametrize("pace", ["whole", "pipelined"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_conversation_over_a_socket(path: Path, pace: Pace, pair: tuple[str, str]) -> None:
    script = Script(path)
    with receiver(script, pair) as (connection, judge), ExitStack() as within:
        converse(script, connection, pace, within)
    assert judge.problems == []
    assert not judge.left, "a V: that nobody asked for"
    assert [envelope for envelope, _ in judge.delivered] == script.delivered
    if script.messages:
        assert [message for _, message in judge.delivered] == script.messages


def test_the_conversations_are_there() -> None:
    assert len(FILES) >= 60
    stems = {path.stem for path in FILES}
    strays = [path.name for path in FOLDER.glob("*.eml") if path.name.split(".", 1)[0] not in stems]
    assert strays == []
