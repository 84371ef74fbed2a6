"""The fixture `guerrilla_server`, as a test of somebody else's sees it, and its server."""

from __future__ import annotations

import os
import smtplib
import subprocess
import sys
import threading
import time
from email.message import EmailMessage
from pathlib import Path

import pytest

from guerrilla import ConfigError, Reply, StartError
from guerrilla.testing import GuerrillaServer
from tests.wire import until

pytest_plugins = "pytester"

Send = tuple[int, bytes]


def client(server: GuerrillaServer) -> smtplib.SMTP:
    return smtplib.SMTP(server.host, server.port, timeout=30)


def send(server: GuerrillaServer, subject: str = "hello") -> Send:
    """One mail; the last reply."""
    smtp = client(server)
    try:
        smtp.ehlo("client.example.org")
        smtp.mail("from@example.org")
        code, text = smtp.rcpt("to@example.com")
        return smtp.data(f"Subject: {subject}\r\n\r\nbody\r\n") if code == 250 else (code, text)
    finally:
        smtp.close()  # a server that stops says 421 instead of waiting for QUIT


# As others use it

USER = """
import smtplib
from email.message import EmailMessage

import pytest
from guerrilla import Reply


def deliver(server, subject="hello"):
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "a@example.org", "b@example.com"
    message.set_content("text")
    with smtplib.SMTP(server.host, server.port) as client:
        client.send_message(message)


@pytest.mark.parametrize("n", range(4))
def test_it_receives(guerrilla_server, n):
    deliver(guerrilla_server, f"mail {n}")
    (envelope,) = guerrilla_server.wait_for(1)
    assert envelope.subject == f"mail {n}"
    assert str(envelope.rcpt_to[0]) == "b@example.com"


def test_it_refuses(guerrilla_server):
    guerrilla_server.refuse(Reply.retry(), count=1)
    with pytest.raises(smtplib.SMTPDataError) as caught:
        deliver(guerrilla_server)
    assert caught.value.smtp_code == 451
    deliver(guerrilla_server, "again")
    assert [envelope.subject for envelope in guerrilla_server.received] == ["again"]
"""

OPTIONS = """
import pytest


@pytest.fixture
def guerrilla_server_options():
    server = {"max_size": 1000, "host_name": "mx.example.com"}
    return {"server": server, "allowed_hosts": ["a.example"]}
"""

OPTIONS_USER = """
import smtplib


def test_options(guerrilla_server):
    with smtplib.SMTP(guerrilla_server.host, guerrilla_server.port) as client:
        assert client.ehlo()[1].startswith(b"mx.example.com")
        assert client.esmtp_features["size"] == "1000"
        client.mail("a@example.org")
        assert client.rcpt("b@other.example")[0] == 550
"""


def test_it_is_there_once_the_package_is_installed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USER)
    pytester.runpytest_subprocess("-p", "no:randomly", "-W", "error").assert_outcomes(passed=5)


def test_its_options_are_a_fixture(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OPTIONS)
    pytester.makepyfile(OPTIONS_USER)
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


def test_it_is_listed_with_what_it_does(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures", "-v")
    result.stdout.fnmatch_lines(["guerrilla_server -- *", "*A running SMTP server of the test's*"])


def test_processes_that_run_at_the_same_time_do_not_meet(pytester: pytest.Pytester) -> None:
    """As the workers of xdist: each has servers of its own, and no file is left."""
    pytester.makepyfile(USER)
    before = set(os.listdir(pytester.path))
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
            cwd=pytester.path,
            env={**os.environ, "PYTEST_XDIST_WORKER": f"gw{n}", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    texts = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], texts
    assert set(os.listdir(pytester.path)) == before


# The server


def test_it_keeps_what_was_answered_250(guerrilla_server: GuerrillaServer) -> None:
    assert send(guerrilla_server)[0] == 250
    (envelope,) = guerrilla_server.received
    assert bytes(envelope.data) == b"Subject: hello\r\n\r\nbody\r\n"
    assert envelope.helo == "client.example.org"
    guerrilla_server.clear()
    assert guerrilla_server.received == []


def test_what_it_gives_is_a_copy(guerrilla_server: GuerrillaServer) -> None:
    """The memory of the mail is given back, and a list that a test changes is its own."""
    send(guerrilla_server)
    guerrilla_server.received.clear()
    (envelope,) = guerrilla_server.received
    until(lambda: guerrilla_server.daemon.stats()["memory_retained"] == 0)
    guerrilla_server.stop()
    assert envelope.message().get_content() == "body\r\n"


def test_several_senders_at_the_same_time(guerrilla_server: GuerrillaServer) -> None:
    threads = [threading.Thread(target=send, args=(guerrilla_server, str(n))) for n in range(20)]
    for thread in threads:
        thread.start()
    found = guerrilla_server.wait_for(20)
    for thread in threads:
        thread.join()
    assert sorted(int(envelope.subject) for envelope in found) == list(range(20))


def test_a_wait_for_what_does_not_come_says_what_came(guerrilla_server: GuerrillaServer) -> None:
    send(guerrilla_server, "the only one")
    with pytest.raises(TimeoutError, match=r"1 of 2 mails within 0\.05 s: \['the only one'\]"):
        guerrilla_server.wait_for(2, timeout=0.05)


def test_refusals_come_in_the_order_they_were_asked_for(
    guerrilla_server: GuerrillaServer,
) -> None:
    guerrilla_server.refuse(Reply.retry("4.2.0", "once"), count=1)
    guerrilla_server.refuse(Reply.reject("5.2.0", "twice"), count=2)
    assert [send(guerrilla_server, str(n))[0] for n in range(4)] == [451, 550, 550, 250]
    assert [envelope.subject for envelope in guerrilla_server.refused] == ["0", "1", "2"]
    assert [envelope.subject for envelope in guerrilla_server.received] == ["3"]


def test_a_recipient_is_refused(guerrilla_server: GuerrillaServer) -> None:
    guerrilla_server.refuse(Reply.reject("5.1.1", "who?"), at="rcpt")
    assert send(guerrilla_server) == (550, b"5.1.1 who?")
    assert send(guerrilla_server) == (550, b"5.1.1 who?")
    guerrilla_server.behave()
    assert send(guerrilla_server)[0] == 250
    assert guerrilla_server.refused == []


def test_a_refusal_takes_nothing(guerrilla_server: GuerrillaServer) -> None:
    with pytest.raises(ValueError, match="not 250"):
        guerrilla_server.refuse(Reply.ok())


def test_delays_go_on_side_by_side(guerrilla_server: GuerrillaServer) -> None:
    guerrilla_server.delay(2)
    begun = time.monotonic()
    threads = [threading.Thread(target=send, args=(guerrilla_server,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    guerrilla_server.wait_for(8, timeout=20)
    assert time.monotonic() - begun < 12
    for thread in threads:
        thread.join()


def test_a_stop_answers_what_is_delayed() -> None:
    with GuerrillaServer() as server:
        server.delay(60)
        answers: list[Send] = []
        sender = threading.Thread(target=lambda: answers.append(send(server)))
        sender.start()
        deadline = time.monotonic() + 10
        while not server._late and time.monotonic() < deadline:
            time.sleep(0.005)
    sender.join(10)
    assert answers[0][0] == 250
    assert len(server.received) == 1


def test_two_servers_at_the_same_time_are_two() -> None:
    with GuerrillaServer() as one, GuerrillaServer() as other:
        assert one.port != other.port
        send(one, "one")
        send(other, "other")
        assert [envelope.subject for envelope in one.received] == ["one"]
        assert [envelope.subject for envelope in other.received] == ["other"]


def test_a_mail_of_pythons_email_comes_through(guerrilla_server: GuerrillaServer) -> None:
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message["From"], message["To"] = "a@example.org", "b@example.com"
    message.set_content("Straße\n")
    with client(guerrilla_server) as smtp:
        smtp.send_message(message)
    (envelope,) = guerrilla_server.received
    assert envelope.subject == "Grüße"
    assert envelope.message().get_content() == "Straße\r\n"


def test_a_bad_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_sise"):
        GuerrillaServer(server={"max_sise": 1})
    files = {name: str(tmp_path / name) for name in ("private_key_file", "public_key_file")}
    server = GuerrillaServer(server={"tls": {"start_tls_on": True, **files}})
    with pytest.raises(StartError, match="private_key_file"):
        server.start()
    server.stop()
