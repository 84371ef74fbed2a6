"""What is asked of `guerrillad bench` and cannot be: a line each, before anything is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import guerrilla.bench.mails as of_mails
from guerrilla.bench.mails import MailsError, header, parse_sizes
from tests.bench.peers import Bench, serving, session


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("4k", 4_096, 4_096),
        ("4K", 4_096, 4_096),
        ("1m", 1 << 20, 1 << 20),
        ("4096", 4_096, 4_096),
        ("10 KB", 10_000, 10_000),
        ("1k-100k", 1_024, 102_400),
        ("1000-2 MiB", 1_000, 2 << 20),
        ("4kib", 4_096, 4_096),
    ],
)
def test_sizes(text: str, least: int, most: int) -> None:
    sizes = parse_sizes(text)
    assert (sizes.least, sizes.most, sizes.mails) == (least, most, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("soon", "'soon': expected a size as 4k, a range as 1k-100k, or a folder"),
        ("", "'': expected a size"),
        ("-4k", "'-4k': expected a size"),
        ("4k-", "'4k-': expected a size"),
        ("1k-2k-3k", "'1k-2k-3k': expected a size"),
        ("100k-1k", "'100k-1k': the range begins with the smaller size"),
        ("2 GiB", "'2 GiB': a message has at most 1 GiB"),
        ("mails/", "'mails/' is no folder; expected a size"),
        ("one.eml", "'one.eml' is no folder"),
    ],
)
def test_what_is_no_size(text: str, said: str, bench: Bench) -> None:
    status, out, err = bench(f"--size={text}")
    assert (status, out) == (1, "")
    assert err.startswith(f"guerrillad: --size: {said}")
    assert err.count("\n") == 1


def test_a_folder_without_mails(tmp_path: Path, bench: Bench) -> None:
    assert bench("--size", tmp_path) == (
        1,
        "",
        f"guerrillad: --size: {tmp_path}: there is no .eml file in it\n",
    )


def test_too_many_and_too_large_mails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.eml").write_bytes(b"x" * 100)
    monkeypatch.setattr(of_mails, "MAX_OCTETS", 299)
    with pytest.raises(MailsError, match=r"over 256 MiB of \.eml files"):
        parse_sizes(str(tmp_path))
    monkeypatch.setattr(of_mails, "MAX_FILES", 2)
    with pytest.raises(MailsError, match=r"3 \.eml files, and at most 2"):
        parse_sizes(str(tmp_path))


def test_a_size_without_room_for_the_header_section(bench: Bench) -> None:
    status, _, err = bench("--size", "100")
    assert status == 1
    assert err.startswith("guerrillad: --size: 100: at least ")
    least = int(err.split("at least ")[1].split()[0])
    assert header("bench@example.org", "bench@example.com", parse_sizes(str(least)))
    with pytest.raises(MailsError, match="at least"):
        header("bench@example.org", "bench@example.com", parse_sizes(str(least - 1)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--connections", "0"], "expected a number from 1 to 50,000, got '0'"),
        (["--connections", "many"], "expected a number from 1 to 50,000, got 'many'"),
        (["--messages", "0"], "expected a number from 1 to 100,000,000, got '0'"),
        (["--messages", "9" * 5_000], "expected a number from 1 to 100,000,000"),
        (["--rate", "0"], "expected messages a second, more than 0"),
        (["--rate", "nan"], "expected messages a second"),
        (["--rate", "-1"], "expected messages a second"),
        (["--duration", "0"], "expected a time of more than 0 and at most 86400 s"),
        (["--duration", "2d"], "expected a time of more than 0 and at most 86400 s"),
        (["--duration", "soon"], "expected a duration"),
        (["--timeout", "1h"], "expected a time of more than 0 and at most 600 s"),
        (["--target", "nonsense"], "nonsense"),
        (["--to", "nobody"], "is no mail address"),
        (["--to", "a@example.com>\r\nDATA"], "is no mail address"),
        (["--from", "j\u00fcrgen@example.com"], "expected an address in ASCII"),
        (["--tls", "never"], "invalid choice"),
        (["now"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments(words: list[str], said: str, bench: Bench) -> None:
    status, out, err = bench(*words)
    assert (status, out) == (1, "")
    assert err.startswith("guerrillad bench: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "192.0.2.1:25"], "--target: 192.0.2.1:25 is not this machine, and for a"),
        (["--target", "[2001:db8::1]:25"], "--target: [2001:db8::1]:25 is not this machine"),
        (["--target", "127.0.0.1:0"], "--target: 127.0.0.1:0: expected a port from 1 to 65535"),
        (["--target", "no-such-host.invalid:25"], "--target: cannot find no-such-host.invalid: "),
        (["--target", "127.0.0.1:25", "--processes", "2"], "--processes: is of a daemon of its"),
        (["--ca", "ca.pem"], "--ca: goes with --tls and --target"),
        (["--target", "127.0.0.1:25", "--tls", "--ca", "x.pem"], "--ca: x.pem: No such file"),
        (
            ["--target", "192.0.2.1:25", "--tls", "--yes-this-host-is-mine"],
            "--tls: 192.0.2.1:25 is not this machine: name what its certificate is checked by",
        ),
    ],
)
def test_what_does_not_go(words: list[str], said: str, bench: Bench) -> None:
    status, out, err = bench(*words)
    assert (status, out) == (1, "")
    assert err.startswith(f"guerrillad: {said}")
    assert err.count("\n") == 1


def test_authorities_that_are_none(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with serving(session({})) as address:
        words = ("--target", address, "--tls", "--ca", tmp_path / "ca.pem")
        status, out, err = bench(*words)
    assert (status, out) == (1, "")
    assert err == "guerrillad: --ca: holds no certificate in PEM\n"


def test_another_machine_that_is_ours(bench: Bench) -> None:
    """Nobody is at an address of RFC 5737; it is tried, and ends in time."""
    words = ("--target", "192.0.2.1:25", "--yes-this-host-is-mine", "--timeout", "200ms")
    status, told = bench.json(*words, "--connections", 1)
    assert (status, told["ended"]) == (1, "unopened")
    assert {one["at"] for one in told["errors"]} == {"connect"}


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from guerrilla.cli import main
sys.exit(main(["bench", *sys.argv[3:]]))
"""


def limited(soft: int, hard: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(soft), str(hard), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def test_too_few_descriptors() -> None:
    done = limited(200, 200, "--connections", "1000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "guerrillad: --connections: 1,000 need 1,064 open files, and this process may have 200; "
        "raise that by `ulimit -n 1064` as root, in /etc/security/limits.conf (nofile), or by "
        "LimitNOFILE= of a unit; or ask for 136 connections\n"
    )


def test_what_it_may_have_it_takes() -> None:
    with serving(session({})) as address:
        done = limited(100, 400, "--connections", "120", "--target", address, "--messages", "240")
    assert (done.returncode, done.stderr) == (0, "")
    assert "240 accepted" in done.stdout
