"""The Pipe stage with real programs: what they get, what their end means, how they are stopped."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import Address, Envelope
from guerrilla.engine.chain import build
from guerrilla.engine.registry import Registry
from guerrilla.pipe import program
from guerrilla.processors.pipe import PATH, Pipe
from tests.badmails import BAD
from tests.pipes import DATA, answers, children, envelope, is_gone, pipe, shell
from tests.wire import descriptors, no_more_than

IS_ROOT = os.geteuid() == 0
Until = Callable[[Callable[[], object]], None]
KEEP = 'cat > "$1"'
FOREVER = "exec sleep 1000"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """Whatever happens, each program is waited for."""
    before = children()
    yield
    assert children() <= before


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_it_stores_and_says_so() -> None:
    assert Pipe.stores
    assert not Pipe.atomic


# What a program gets


@pytest.mark.parametrize("kind", BAD)
def test_it_gets_every_message_byte_for_byte(out: Path, kind: str) -> None:
    mail = envelope(data=BAD[kind])
    mail.add_header("X-Added", "yes")
    assert answers(shell(KEEP, out), mail) == ["saved"]
    assert out.read_bytes() == bytes(mail)
    assert out.read_bytes().endswith(BAD[kind])


def test_it_may_open_its_input_by_name(out: Path) -> None:
    """Which a socket in its place would not let it."""
    mail = envelope()
    assert answers(shell('cat /dev/stdin > "$1"', out), mail) == ["saved"]
    assert out.read_bytes() == bytes(mail)


def test_its_arguments_are_what_the_macros_say(out: Path) -> None:
    macros = (
        "${recipient}|${user}|${mailbox}|${extension}|${domain}|${original_recipient}",
        "-f${sender}",
        "${size} $queue_id $(client_address):${client_port} ${client_hostname} ${client_helo}",
        "${client_protocol}${sasl_username} $$5 $${user} a b",
        "",
        "last",
    )
    mail = envelope("Joe+tag@Example.com", "b@example.net", helo="client.example.org", auth="joe")
    script = 'out=$1; shift; for one; do echo "<$one>"; done > "$out"'
    assert answers(shell(script, out, *macros), mail) == ["saved"]
    assert lines(out) == [
        "<Joe+tag@Example.com|Joe|Joe+tag|tag|Example.com|Joe+tag@Example.com>",
        "<b@example.net|b|b||example.net|b@example.net>",
        "<-ffrom@example.org>",
        f"<{len(bytes(mail))} {mail.queued_id} 127.0.0.1:0 unknown client.example.org>",
        "<ESMTPjoe $5 ${user} a b>",
        "<>",
        "<last>",
    ]


def test_no_shell_reads_what_a_client_sends(out: Path) -> None:
    sender = Address("$(touch x)`id`;'\"|", "example.org")
    mail = envelope("a&b|c@example.com", mail_from=sender)
    options = {"pipe_command": f"/bin/sh -c 'printf %s\\\\n \"$$@\" > {out}' sh $sender ${{user}}"}
    stage = Pipe(Pipe.Options.model_validate(options))
    assert answers(stage, mail) == ["saved"]
    assert lines(out) == [str(sender), "a&b|c"]


def test_flags_fold_recipients_and_put_lines_before(out: Path) -> None:
    mail = envelope("Joe+X@Example.COM", received_at=86_400.0)
    stage = shell('echo "$2 $3" > "$1"; cat >> "$1"', out, "$recipient", "$original_recipient",
                  pipe_flags="FRhu")  # fmt: skip
    assert answers(stage, mail) == ["saved"]
    first, rest = out.read_bytes().split(b"\n", 1)
    assert first == b"joe+x@example.com Joe+X@Example.COM"
    head = b"From from@example.org  Fri Jan  2 00:00:00 1970\r\nReturn-Path: <from@example.org>\r\n"
    assert rest == head + bytes(mail)


def test_the_null_sender_has_postfixs_name(out: Path) -> None:
    mail = envelope(mail_from=None)
    script = 'echo "$2" > "$1"; head -n 2 >> "$1"'
    assert answers(shell(script, out, "${sender}", pipe_flags="FR"), mail) == ["saved"]
    assert lines(out)[0] == "MAILER-DAEMON"
    assert lines(out)[1].startswith("From MAILER-DAEMON  ")
    assert lines(out)[2] == "Return-Path: <>"


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 65_537, 200_000])
def test_lines_may_end_as_in_unix(out: Path, size: int) -> None:
    """Also where a CRLF is cut in two, and lone CR and LF stay."""
    data = b"x" * size + b"\r\n" * 40_000 + b"a\rb\nc\r\r\nd\r"
    mail = envelope(data=data)
    assert answers(shell(KEEP, out, pipe_line_ends="lf"), mail) == ["saved"]
    assert out.read_bytes() == bytes(mail).replace(b"\r\n", b"\n")


def test_a_hundred_recipients_are_one_run_or_a_hundred(tmp_path: Path, out: Path) -> None:
    everybody = [f"user{n}@example.com" for n in range(100)]
    once = shell('out=$1; shift; echo "$@" >> "$out"', out, "$recipient")
    assert answers(once, envelope(*everybody)) == ["saved"]
    assert lines(out) == [" ".join(everybody)]
    each = shell('cat > "$1/$2"', tmp_path, "$user", pipe_per_recipient=True)
    mail = envelope(*everybody)
    assert answers(each, mail) == ["saved"]
    for index in range(100):
        assert (tmp_path / f"user{index}").read_bytes() == mail.bytes_for(index)


def test_its_environment_is_small_and_without_secrets(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("LANG", raising=False)
    assert answers(shell('cat /proc/$$/environ > "$1"', out), envelope()) == ["saved"]
    assert sorted(out.read_bytes().split(b"\0")[:-1]) == [f"PATH={PATH}".encode(), b"TZ=UTC"]


def test_it_has_three_files_and_a_session_of_its_own(out: Path) -> None:
    with open(os.devnull, "rb") as other:
        os.set_inheritable(other.fileno(), True)
        script = 'exec > "$1"; ls /proc/$$/fd; cut -d" " -f1,5,6 /proc/$$/stat'
        assert answers(shell(script, out), envelope()) == ["saved"]
    *files, ids = lines(out)
    assert files == ["0", "1", "2"]
    assert len(set(ids.split())) == 1


def test_it_runs_where_it_is_told(tmp_path: Path) -> None:
    stage = shell("pwd > here", pipe_directory=str(tmp_path))
    assert answers(stage, envelope()) == ["saved"]
    assert lines(tmp_path / "here") == [str(tmp_path)]


def test_it_runs_as_whom_it_is_told() -> None:
    """As root anybody; else oneself."""
    me = pwd.getpwuid(65534 if IS_ROOT else os.geteuid())
    group = grp.getgrgid(me.pw_gid if IS_ROOT else os.getegid()).gr_name
    script = 'test "$(id -un):$(id -gn)" = "$1" || exit 77'
    name = f"{me.pw_name}:{group}"
    assert answers(shell(script, name, pipe_user=name), envelope()) == ["saved"]
    if IS_ROOT:
        script = 'test "$(id -G)" = "$1" && ! cat /etc/shadow'
        assert answers(shell(script, me.pw_gid, pipe_user=me.pw_name), envelope()) == ["saved"]


# What its end means


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0, "saved"), (1, "451 4.3.0"), (2, "451 4.3.0"), (64, "554 5.3.0"), (65, "554 5.6.0"),
        (66, "554 5.3.0"), (67, "550 5.1.1"), (68, "550 5.1.2"), (69, "554 5.3.0"),
        (70, "554 5.3.0"), (71, "451 4.3.0"), (72, "554 5.3.0"), (73, "554 5.3.0"),
        (74, "451 4.3.0"), (75, "451 4.3.0"), (76, "554 5.5.0"), (77, "550 5.7.0"),
        (78, "554 5.3.5"), (79, "451 4.3.0"), (126, "451 4.3.0"), (127, "451 4.3.0"),
        (255, "451 4.3.0"),
    ],
)  # fmt: skip
def test_its_exit_status_is_the_answer(status: int, answer: str) -> None:
    assert answers(shell(f"cat > /dev/null; exit {status}"), envelope()) == [answer]


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "PIPE"])
def test_a_signal_is_451(name: str, caplog: pytest.LogCaptureFixture) -> None:
    mail = envelope()
    assert answers(shell(f"echo oops; kill -{name} $$"), mail) == ["451 4.3.0"]
    number = signal.Signals[f"SIG{name}"].value
    assert (
        f"{mail.queued_id}: /bin/sh ended with signal {number}, answered 451: oops" in caplog.text
    )


def test_what_it_says_is_in_the_log_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    script = r"printf '\n\033[31mno \0\377user\r\nsecond' >&2; exit 67"
    assert answers(shell(script), envelope()) == ["550 5.1.1"]
    (record,) = [one for one in caplog.records if one.name == "guerrilla.processors.pipe"
                 and "ended" in one.message]  # fmt: skip
    assert record.message.endswith("ended with status 67, answered 550: [31mno \ufffduser")
    assert record.message.isprintable()
    caplog.clear()
    long = f"{sys.executable} -c \"print('y' * 4000)\"; exit 75"
    assert answers(shell(long), envelope()) == ["451 4.3.0"]
    assert caplog.records[-1].message.endswith(" " + "y" * program.LINE_LENGTH)


def test_who_reads_nothing_and_says_that_all_is_well_is_believed() -> None:
    assert answers(shell("exec true"), envelope(data=BAD["big"])) == ["saved"]
    assert answers(shell("exec <&-; exit 65"), envelope(data=BAD["big"])) == ["554 5.6.0"]


def test_a_flood_of_output_is_read_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    real = program._Running.line

    def line(self: Any) -> str:
        kept.append(len(self._kept))
        return real(self)

    monkeypatch.setattr(program._Running, "line", line)
    assert answers(shell("yes | head -c 50000000; cat > /dev/null"), envelope()) == ["saved"]
    assert kept == [program.OUTPUT_KEPT]


def test_who_leaves_a_child_behind_is_not_waited_for(out: Path) -> None:
    """It holds the output open, and lives on."""
    script = 'sleep 1000 & echo $! > "$1"; exit 0'
    began = time.monotonic()
    assert answers(shell(script, out), envelope()) == ["saved"]
    assert time.monotonic() - began < 15
    child = int(lines(out)[0])
    assert not is_gone(child)
    os.kill(child, signal.SIGKILL)


# How it is stopped


STUBBORN = 'trap "" TERM INT HUP; sleep 1000 & echo $$ $! > "$1"; '


@pytest.mark.parametrize("rest", ["wait", "exec yes", "cat > /dev/null; wait"])
def test_what_takes_too_long_is_killed_with_all_it_started(
    out: Path, until: Until, caplog: pytest.LogCaptureFixture, rest: str
) -> None:
    mail = envelope(data=BAD["big"])
    stage = shell(STUBBORN + rest, out, pipe_timeout="4s")
    began = time.monotonic()
    assert answers(stage, mail) == ["451 4.3.0"]
    assert time.monotonic() - began < 15
    pids = [int(pid) for pid in lines(out)[0].split()]
    assert len(pids) == 2
    until(lambda: all(map(is_gone, pids)))
    assert f"{mail.queued_id}: /bin/sh killed after 4 s" in caplog.text


def test_the_deadline_of_the_sender_kills_it(
    out: Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never left to save a mail that was answered 451."""
    stage = shell(STUBBORN + "wait", out)
    mails = [envelope(received_at=time.time()) for _ in range(2)]
    assert answers(stage, *mails, save_timeout=5) == ["451 4.3.0"] * 2
    until(lambda: all(is_gone(int(pid)) for pid in lines(out)[-1].split()))
    assert "cancelled at its time limit" in caplog.text


def test_who_is_cancelled_twice_lets_go_of_everything() -> None:
    """The second time while it waits for the killed one."""

    async def so_many(count: int) -> None:
        async with asyncio.timeout(10):
            while True:
                if len(children() - before) == count:
                    return
                await asyncio.sleep(0.001)

    async def cancelled() -> None:
        stage = shell(FOREVER)
        stage.open()
        task = asyncio.create_task(stage.save(envelope()))
        await so_many(1)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await so_many(0)

    before, opened = children(), descriptors()
    for _ in range(3):
        asyncio.run(cancelled())
    no_more_than(opened)


def test_what_waits_for_its_turn_has_not_begun(tmp_path: Path) -> None:
    stage = shell(f'touch "$1/$2"; {FOREVER}', tmp_path, "$queue_id", pipe_concurrency=1)
    now = time.time()
    mails = [envelope(received_at=now) for _ in range(3)]
    assert answers(stage, *mails, save_timeout=0.4) == ["451 4.3.0"] * 3
    assert len(list(tmp_path.iterdir())) <= 2


def test_so_many_run_at_a_time_and_no_more(tmp_path: Path) -> None:
    """The first two wait until they have seen each other, and none may see a third."""
    script = (
        'touch "$1/$$"; until [ -e "$3" ]; do [ "$(ls "$1" | wc -l)" -lt 2 ] || touch "$3"; done; '
        'sleep 0.05; ls "$1" | wc -l >> "$2"; rm "$1/$$"'
    )
    folder, seen = tmp_path / "running", tmp_path / "seen"
    folder.mkdir()
    stage = shell(script, folder, seen, tmp_path / "met", pipe_concurrency=2)
    assert answers(stage, *[envelope() for _ in range(6)]) == ["saved"] * 6
    assert set(lines(seen)) <= {"1", "2"}


# One a recipient


def test_each_recipient_has_an_answer_and_a_copy_of_its_own(tmp_path: Path) -> None:
    mail = envelope("a@example.com", "b@example.com", "A@EXAMPLE.com", "a@EXAMPLE.com")
    script = 'cat >> "$1/$2"; test "$2" != b || exit "$3"'
    stage = shell(script, tmp_path, "$user", 67, pipe_per_recipient=True)
    assert answers(stage, mail) == ["250 2.0.0 550 5.1.1 250 2.0.0 250 2.0.0"]
    assert (tmp_path / "a").read_bytes() == mail.bytes_for(0)
    stage = shell(script, tmp_path, "$user", 75, pipe_per_recipient=True)
    assert answers(stage, envelope("b@example.com", "c@example.com")) == ["451 4.3.0 250 2.0.0"]


# Addresses that are no arguments


@pytest.mark.parametrize("per_recipient", [False, True])
def test_an_address_cannot_become_an_option(tmp_path: Path, per_recipient: bool) -> None:
    stage = shell('touch "$1/$2"', tmp_path, "$user", "-f", "$sender", "--to=$recipient",
                  pipe_per_recipient=per_recipient)  # fmt: skip
    found = answers(
        stage,
        envelope("a@example.com", "-rf@example.com"),
        envelope(mail_from="-rf@example.org"),
        envelope(Address("a\0b", "example.com")) if per_recipient else envelope("-@example.com"),
        envelope("fine@example.com"),
    )
    assert found == ["553 5.1.3", "553 5.1.7", "553 5.1.3", "saved"]
    assert [path.name for path in tmp_path.iterdir()] == ["fine"]


def test_a_dash_within_an_argument_is_none() -> None:
    assert answers(shell("true", "--to=$user"), envelope("-a@example.com")) == ["saved"]


def test_a_program_that_is_gone_later_is_451(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "deliver"
    path.write_text("#!/bin/sh\nexec cat > /dev/null\n", encoding="ascii")
    path.chmod(0o700)
    stage = pipe(str(path))
    real = stage.open

    def open_and_remove() -> None:
        real()
        path.unlink()

    stage.open = open_and_remove  # type: ignore[method-assign]
    assert answers(stage, envelope(), envelope()) == ["451 4.3.0"] * 2
    assert f"unavailable: {path}: No such file or directory" in caplog.text


def test_a_chain_that_has_it(out: Path) -> None:
    values = {"pipe_command": f"/bin/sh -c 'cat > {out}'", "primary_mail_host": "mx.example.com"}
    one = Envelope.create(DATA, mail_from="a@example.org", rcpt_to=["b@example.com"])
    with build("HeadersParser|Hasher|Header|Pipe", "save", values, Registry()) as chain:
        assert chain.stores
        chain.run([one])
    assert not one.answer()
    assert out.read_bytes() == bytes(one)
