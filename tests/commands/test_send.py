"""`guerrillad send`, against a server that does as it is told."""

from __future__ import annotations

import base64
import io
import os
import socket
import socketserver
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from guerrilla.cli import main
from tests.certificates import self_signed
from tests.commands.mails import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemons import Keeper, Make


class Conversation(socketserver.StreamRequestHandler):
    """Answers by the first word of each command; notes what it was given."""

    replies: ClassVar[dict[str, list[str]]] = {}
    given: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        self.say(self.reply("CONNECT", "220 ready"))
        while line := self.rfile.readline():
            self.given.append(line)
            verb = line.split()[0].decode().upper()
            reply = self.reply(verb, "250 2.0.0 OK")
            self.say(reply)
            if reply.startswith("354"):
                while (line := self.rfile.readline()) not in {b".\r\n", b""}:
                    self.given.append(line)
                self.say(self.reply(".", "250 2.0.0 OK: queued as ID"))
            if verb == "QUIT":
                return

    def reply(self, verb: str, default: str) -> str:
        waiting = self.replies.get(verb)
        if waiting:
            return waiting.pop(0)
        return "354 go on" if verb == "DATA" else default

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@pytest.fixture
def peer() -> Iterator[str]:
    Conversation.replies.clear()
    Conversation.given.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_send_a_test_message(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--to", "you@example.com", "--server", peer, "--helo", "me"]) == 0
    assert capsys.readouterr().out == "test message: 250 2.0.0 OK: queued as ID\n"
    assert b"ehlo me\r\n" in Conversation.given
    assert b"rcpt to:<you@example.com>\r\n" in [line.lower() for line in Conversation.given]
    assert b"To: <you@example.com>\r\n" in Conversation.given


def test_send_files_byte_for_byte_but_for_line_ends(
    peer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Conversation.replies["EHLO"] = ["250-x\r\n250-SIZE 100000\r\n250 8BITMIME"]
    Path("a.eml").write_bytes(b"Subject: a\n\n.dot\n\xff\rend")
    stdin = io.TextIOWrapper(io.BytesIO(b"Subject: b\r\n\r\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    arguments = ["--to", "a@example.com", "--to", "b@example.com", "--from", "<>"]
    assert main(["send", *arguments, "--server", peer, "a.eml", "-"]) == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["a.eml", "-"]
    message = Conversation.given[Conversation.given.index(b"data\r\n") + 1 :][:5]
    assert message == [b"Subject: a\r\n", b"\r\n", b"..dot\r\n", b"\xff\r\n", b"end\r\n"]
    # Versions of smtplib write FROM in another case.
    assert Conversation.given[1].lower() == b"mail from:<> size=26 body=8bitmime\r\n"


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ({"MAIL": ["452 4.3.1 full"]}, ["test message: 452 4.3.1 full"]),
        (
            {"RCPT": ["550 5.1.1 no a", "550 5.1.1 no b"]},
            [
                "test message: a@example.com: 550 5.1.1 no a",
                "test message: b@example.com: 550 5.1.1 no b",
            ],
        ),
        (
            {"RCPT": ["550 5.1.1 no a"]},
            [
                "test message: a@example.com: 550 5.1.1 no a",
                "test message: 250 2.0.0 OK: queued as ID",
            ],
        ),
        ({"DATA": ["554 5.5.1 no"]}, ["test message: 554 5.5.1 no"]),
        ({".": ["451 4.3.0 \x1blater"]}, ["test message: 451 4.3.0 \\x1blater"]),
    ],
)
def test_send_says_what_was_refused(
    peer: str, replies: dict[str, list[str]], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Conversation.replies.update({verb: list(texts) for verb, texts in replies.items()})
    arguments = ["send", "--to", "a@example.com", "--to", "b@example.com", "--server", peer]
    assert main(arguments) == 1
    assert capsys.readouterr().out.splitlines() == said


def test_send_to_a_server_that_turns_away(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    Conversation.replies["CONNECT"] = ["421 4.7.0 too many"]
    assert main(["send", "--to", "a@example.com", "--server", peer]) == 1
    assert capsys.readouterr().err == f"guerrillad: {peer}: 421 4.7.0 too many\n"


def test_send_over_a_unix_socket(capsys: pytest.CaptureFixture[str]) -> None:
    Conversation.replies.clear()
    path = Path("s.sock").absolute()
    with socketserver.ThreadingUnixStreamServer(os.fspath(path), Conversation) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        status = main(["send", "--to", "a@example.com", "--server", f"unix:{path}"])
        server.shutdown()
        thread.join()
    assert status == 0
    assert "queued as ID" in capsys.readouterr().out


def test_send_without_a_server_or_file(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main(["send", "--to", "a@example.com", "--server", where]) == 1
    assert capsys.readouterr().err == (
        f"guerrillad: cannot reach {where}: Connection refused (is a server running there?)\n"
    )
    Path("a.eml").write_bytes(PLAIN)
    assert main(["send", "--to", "a@example.com", "--server", peer, "a.eml", "none.eml"]) == 1
    assert capsys.readouterr().err == "guerrillad: none.eml: No such file or directory\n"
    assert Conversation.given == []


def test_send_says_smtputf8_where_it_is_needed(
    peer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Conversation.replies["EHLO"] = ["250-x\r\n250-8BITMIME\r\n250 SMTPUTF8"] * 3
    assert main(["send", "--to", "jörg@bücher.example", "--from", "<>", "--server", peer]) == 0
    assert Conversation.given[1].lower() == b"mail from:<> smtputf8 body=8bitmime\r\n"
    assert "RCPT TO:<jörg@bücher.example>\r\n".encode().lower() == Conversation.given[2].lower()
    assert "To: <jörg@bücher.example>\r\n".encode() in Conversation.given
    Path("a.eml").write_bytes("Subject: ü\n\nbody".encode())
    Path("b.eml").write_bytes("Subject: u\n\nü".encode())
    arguments = ["send", "--to", "a@example.com", "--from", "<>", "--server", peer]
    for name, said in (("a.eml", b" smtputf8 body=8bitmime"), ("b.eml", b" body=8bitmime")):
        Conversation.given.clear()
        assert main([*arguments, name]) == 0
        assert Conversation.given[1].lower() == b"mail from:<>" + said + b"\r\n"
    assert capsys.readouterr().err == ""


def test_send_needs_smtputf8_for_a_local_part_alone(
    peer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["send", "--from", "<>", "--server", peer, "--to"]
    assert main([*arguments, "jörg@bücher.example"]) == 1
    told = "test message: jörg@bücher.example needs SMTPUTF8, which the server does not offer\n"
    assert capsys.readouterr().out == told
    assert main([*arguments, "joerg@bücher.example"]) == 0
    assert b"rcpt to:<joerg@xn--bcher-kva.example>\r\n" in [
        one.lower() for one in Conversation.given
    ]


def test_send_by_lmtp_says_what_each_recipient_is_told(
    peer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Conversation.replies.update(
        {"RCPT": ["250 a", "550 5.1.1 no b", "250 c"], ".": ["250 2.1.5 has it\r\n452 4.2.2 full"]}
    )
    to = [word for name in "abc" for word in ("--to", f"{name}@example.com")]
    assert main(["send", "--lmtp", *to, "--server", peer]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "test message: b@example.com: 550 5.1.1 no b",
        "test message: a@example.com: 250 2.1.5 has it",
        "test message: c@example.com: 452 4.2.2 full",
    ]
    assert Conversation.given[0].startswith(b"lhlo ")


def test_send_by_lmtp_to_a_server_that_speaks_smtp(
    peer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Conversation.replies["LHLO"] = ["500 5.5.1 what"]
    assert main(["send", "--lmtp", "--to", "a@example.com", "--server", peer]) == 1
    assert capsys.readouterr().err == f"guerrillad: {peer}: 500 5.5.1 what\n"
    assert [line.split()[0] for line in Conversation.given] == [b"lhlo"]


def types(monkeypatch: pytest.MonkeyPatch, octets: bytes) -> None:
    """What a standard input has that is no terminal."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(octets)))


def test_send_logs_in(
    peer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password first, then what else is read."""
    Conversation.replies["EHLO"] = ["250-x\r\n250-AUTH PLAIN LOGIN\r\n250 AUTH=LOGIN"] * 2
    Conversation.replies["AUTH"] = ["235 2.7.0 ok", "535 5.7.8 no"]
    arguments = ["send", "--user", "b\u00f6b", "--to", "a@example.com", "--server", peer, "-"]
    types(monkeypatch, "p\u00e4ss\nSubject: hello\n".encode())
    assert main(arguments) == 0
    secret = base64.b64encode("\0b\u00f6b\0p\u00e4ss".encode())
    assert Conversation.given[1] == b"AUTH PLAIN " + secret + b"\r\n"
    assert b"Subject: hello\r\n" in Conversation.given
    assert not any("p\u00e4ss".encode() in line for line in Conversation.given)
    types(monkeypatch, b"wrong")
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"guerrillad: {peer}: 535 5.7.8 no\n"


def test_send_says_why_it_cannot_log_in(
    peer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["send", "--user", "bob", "--to", "a@example.com", "--server"]
    types(monkeypatch, b"secret")
    assert main([*arguments, peer]) == 1
    assert capsys.readouterr().err.endswith("the server does not offer AUTH PLAIN\n")
    types(monkeypatch, b"")
    assert main([*arguments, peer]) == 1
    assert "expected a password" in capsys.readouterr().err
    assert main([*arguments, "mx.example.com:25"]) == 1
    assert "--user: needs --tls" in capsys.readouterr().err
    assert not any(b"AUTH" in line.upper() for line in Conversation.given)


@pytest.mark.parametrize("way", ["starttls", "implicit"])
def test_send_within_tls(
    way: str, tmp_path: Path, make: Make, keeper: type[Keeper], capsys: pytest.CaptureFixture[str]
) -> None:
    pair = self_signed(tmp_path, "localhost")
    keys = {"start_tls_on": way == "starttls", "tls_always_on": way == "implicit"}
    with make(pair.config(required=True, **keys)) as daemon:
        server = f"localhost:{daemon.addresses[0].rpartition(':')[2]}"
        arguments = ["send", "--to", "a@example.com", "--server", server, "--tls", way]
        assert main(arguments) == 1
        told = f"guerrillad: {server}: TLS: self-signed certificate\n"
        assert capsys.readouterr().err == told
        assert main([*arguments, "--ca", str(pair.certificate)]) == 0
        assert main([*arguments, "--ca", "none.pem"]) == 1
        assert capsys.readouterr().err == "guerrillad: --ca: none.pem: No such file or directory\n"
    assert len(keeper.kept) == 1
