"""Random dialogues, legal and illegal, with a real daemon: it answers and stores as the model says.

`make fuzz-dialogues` tries far more of them, each time others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import apsw
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from tests.dialogues import cuts, dialogues, endings
from tests.model import Message, Model, Policy
from tests.running import RunningDaemon
from tests.wire import GONE, Wire

POLICIES: Final = (
    Policy(max_errors=20, xclient_on=True),
    Policy(bare_newline="keep", helo_required=False, max_size=300, max_recipients=2),
    Policy(bare_newline="reject", max_errors=2, max_idle_commands=3, max_messages=2),
)
"""One server each."""


# --- The daemon -----------------------------------------------------------------------------------


class Daemon:
    """A daemon with a server for each policy, and what it has stored since it was last asked."""

    def __init__(self, running: RunningDaemon) -> None:
        self.addresses = running.addresses
        self._database = apsw.Connection(str(running.db), flags=apsw.SQLITE_OPEN_READONLY)
        self._database.set_busy_timeout(10_000)
        self._last = 0
        self.unsure: set[Message] = set()
        """Messages whose sender had gone before it was answered: the daemon may store those."""

    def news(self) -> dict[str, Message]:
        """The messages that have come, by their queued_id."""
        sql = (
            "SELECT mail_id, queued_id, recipient, return_path, mail FROM new_mail"
            " WHERE mail_id > ? ORDER BY mail_id"
        )
        rows = self._database.execute(sql, (self._last,))
        found: dict[str, Message] = {}
        for mail_id, queued_id, recipient, return_path, mail in rows:
            self._last = mail_id
            received = mail.split(b"\r\n", 4)
            helo = received[1].split(b" ")[2].decode("latin-1")
            others = found[queued_id].recipients if queued_id in found else frozenset()
            recipients = others | {recipient}
            found[queued_id] = Message(helo, return_path, recipients, received[4])
        return found

    def close(self) -> None:
        """Leaves the database."""
        self._database.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all dialogues: what one of them breaks the next will find."""
    folder = tmp_path_factory.mktemp("dialogues")
    with RunningDaemon(folder, config=_config(folder / "mail.db")) as running:
        daemon = Daemon(running)
        yield daemon
        daemon.close()
        assert "ERROR" not in running.log_text()
        assert "Traceback" not in running.log_text()


def _config(database: Path) -> str:
    hosts = ", ".join(f'"{host}"' for host in Policy().allowed_hosts)
    lines = [f"allowed_hosts = [{hosts}]", 'log_level = "warning"']
    for number, policy in enumerate(POLICIES, 1):
        lines += ["[[servers]]", f'listen_interface = "127.0.0.{number}:0"']
        for name, value in policy._asdict().items():
            if name != "allowed_hosts":
                lines += [f"{name} = {value!r}".replace("True", "true").replace("False", "false")]
    lines += ["[backend_config]", 'save_process = "HeadersParser|Hasher|Header|SQL"']
    return "\n".join([*lines, f'sql_dsn = "{database}"', ""])


# --- The two beside each other --------------------------------------------------------------------


def replies_of(lines: Iterator[str]) -> Iterator[str]:
    """The last line of each reply, whose lines all have one code (RFC 5321 section 4.2.1)."""
    code = ""
    for text in lines:
        assert len(text) <= 510
        assert text[:3] == code or not code
        code = text[:3]
        if text[3:4] == " ":
            yield text
            code = ""
    assert not code, "a reply has an end"


class Client:
    """A client that compares what it hears with what the model says that it should."""

    def __init__(self, address: str, model: Model) -> None:
        self.wire = Wire(address, greeted=False)
        self.model = model
        self.heard: list[str] = []
        self._replies = replies_of(iter(self.wire.line, ""))

    def send(self, octets: bytes, *, wait: bool) -> None:
        """Says that; whoever has been sent away need not listen."""
        self.model.feed(octets)
        try:
            self.wire.send(octets)
        except GONE:
            assert self.model.closed or self.model.early
        if wait:
            self.listen(len(self.model.replies))

    def listen(self, count: int) -> None:
        """Hears so many replies in all."""
        while len(self.heard) < count:
            reply = next(self._replies, None)
            assert reply is not None, f"closed before: {self.model.replies[len(self.heard)]}"
            self._hear(reply)

    def listen_to_the_end(self) -> None:
        """Hears all that are due and no other."""
        self.listen(len(self.model.replies))
        try:
            for reply in self._replies:
                self._hear(reply)
        except GONE:
            pass

    def _hear(self, reply: str) -> None:
        due = [*self.model.replies, *self.model.early][len(self.heard) : len(self.heard) + 1]
        assert due, f"a reply to nothing: {reply}"
        assert reply.startswith(due[0]), f"{reply!r} instead of {due[0]}"
        self.heard.append(reply)


def pieces(octets: bytes, cuts: Sequence[tuple[float, bool]]) -> Iterator[tuple[bytes, bool]]:
    """The octets in pieces, and whether the client waits for replies after each."""
    begin = 0
    for part, wait in sorted(cuts):
        end = int(part * len(octets))
        yield octets[begin:end], wait
        begin = end
    yield octets[begin:], False


@given(policy=st.sampled_from(range(len(POLICIES))), octets=dialogues(), cuts=cuts, ending=endings)
def test_the_daemon_answers_and_stores_as_the_model_says(
    daemon: Daemon,
    policy: int,
    octets: bytes,
    cuts: Sequence[tuple[float, bool]],
    ending: str,
) -> None:
    client = Client(daemon.addresses[policy], Model(POLICIES[policy]))
    try:
        with client.wire:
            converse(client, pieces(octets, cuts), ending)
    except BaseException:
        # Otherwise the next dialogue would be blamed for what this one has stored.
        daemon.unsure.update(client.model.stored.values())
        raise
    note("\n".join(client.heard))
    compare(daemon, client)


def converse(client: Client, said: Iterator[tuple[bytes, bool]], ending: str) -> None:
    """Says it all, or as much as the daemon wants to hear, and goes."""
    for piece, wait in said:
        client.send(piece, wait=wait)
        if client.model.closed:
            break
    match ending:
        case "QUIT":
            # The end of a message or a chunk that may be open, and of a line.
            missing = b"." * client.model.missing
            client.send(missing + b"\r\n.\r\n\r\nQUIT\r\n", wait=False)
            assert client.model.closed
            client.listen_to_the_end()
        case "finish sending":
            client.wire.finish_sending()
            client.listen_to_the_end()
        case "close":
            client.wire.close()
        case "reset":
            client.wire.reset()


def compare(daemon: Daemon, client: Client) -> None:
    """Asserts that what is stored is what was answered 250, and at most what had no answer."""
    due = {}
    for index, message in client.model.stored.items():
        if index < len(client.heard):
            queued = re.fullmatch(r"250 2\.0\.0 OK: queued as (\S+)", client.heard[index])
            assert queued is not None
            due[queued[1]] = message
        else:
            daemon.unsure.add(message)
    news = daemon.news()
    assert {queued_id: news.pop(queued_id, None) for queued_id in due} == due
    assert [message for message in news.values() if message not in daemon.unsure] == []
