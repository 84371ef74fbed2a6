"""`guerrillad bench` against daemons that behave: what is sent, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guerrilla.testing import GuerrillaServer
from tests.bench.peers import Bench
from tests.certificates import self_signed
from tests.running import RunningDaemon

FEW = ("--messages", 60, "--connections", 4)


def test_a_daemon_of_its_own(bench: Bench) -> None:
    status, told = bench.json("--messages", 500, "--connections", 5, "--size", "2k")
    assert (status, told["ended"], told["own_daemon"]) == (0, "done", True)
    assert told["messages"] == {
        "accepted": 500, "refused": 0, "failed": 0, "unfinished": 0, "unsent": 0,
    }  # fmt: skip
    assert told["replies"] == {"220": 5, "221": 5, "250": 5 + 500 * 3, "354": 500}
    assert (told["errors"], told["refusals"]) == ([], [])
    assert told["connections_made"] == 5
    assert told["messages_per_second"] == pytest.approx(500 / told["seconds"])
    assert told["octets_per_second"] == pytest.approx(500 * 2_048 / told["seconds"])
    assert 0 < told["server_cpu_per_message"] < 0.1
    latency = told["latency"]["from_dot"]
    assert list(told["latency"]) == ["from_dot"]
    assert latency["count"] == 500 == sum(number for *_, number in latency["buckets"])
    in_order = [latency[name] for name in ("min", "p50", "p90", "p99", "p99_9", "max")]
    assert in_order == sorted(in_order)
    assert 0 < latency["min"] <= latency["mean"] <= latency["max"] < 30
    assert sum(told["timeline"]["accepted"]) == 500


def test_the_table(bench: Bench) -> None:
    status, out, err = bench("--messages", 50, "--connections", 1, "--processes", 2)
    assert (status, err) == (0, "")
    assert "keeps nothing, 2 processes" in out
    assert "closed loop, 1 connection, 4k a message" in out
    assert "50 accepted in " in out
    assert "latency from the final dot to the reply" in out
    assert "p50" in out
    assert "p99.9" in out
    assert "220: 1, 221: 1, 250: 151, 354: 50" in out
    assert out.count("none") == 2


def test_what_is_stored_is_what_was_accepted(tmp_path: Path, bench: Bench) -> None:
    with RunningDaemon(tmp_path) as daemon:
        words = ("--size", "1k-20k", "--pipelining", "--to", "a@example.com", "--to", "b@x.example")
        status, told = bench.json("--target", daemon.addresses[0], *FEW, *words)
        rows = daemon.rows()
    assert (status, told["messages"]["accepted"]) == (0, 60)
    assert len(rows) == 120
    assert len({row["subject"] for row in rows}) == 60


def test_messages_have_their_size_and_none_is_as_another(bench: Bench) -> None:
    with GuerrillaServer() as server:
        status, _ = bench.json("--target", server.address, *FEW, "--size", "5000")
        mails = server.received
    assert (status, len(mails)) == (0, 60)
    assert {mail.size for mail in mails} == {5_000}
    assert len({mail.header["Message-ID"] for mail in mails}) == 60
    assert all(str(mail.mail_from) == "bench@example.org" for mail in mails)


def test_sizes_of_a_range(bench: Bench) -> None:
    with GuerrillaServer() as server:
        status, told = bench.json("--target", server.address, *FEW, "--size", "1k-300k")
        sizes = [mail.size for mail in server.received]
    assert status == 0
    assert all(1_024 <= size <= 300 * 1_024 for size in sizes)
    assert max(sizes) > 150_000
    assert min(sizes) < 75_000
    assert told["octets_per_second"] == pytest.approx(sum(sizes) / told["seconds"])


def test_messages_of_a_folder_arrive_byte_for_byte(tmp_path: Path, bench: Bench) -> None:
    mails = [
        b"Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\n",
        b"Subject: no end\n\nunix lines\nand \xe4\xf6 octets",
        b"Subject: long\r\n\r\n" + b"x" * 200_000 + b"\r\n",
    ]
    for number, mail in enumerate(mails):
        (tmp_path / f"{number}.eml").write_bytes(mail)
    (tmp_path / "notes.txt").write_text("not sent")
    with GuerrillaServer() as server:
        status, _ = bench.json("--target", server.address, "--messages", 6, "--size", tmp_path)
        received = sorted(bytes(mail.data) for mail in server.received)
    assert status == 0
    expected = [mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for mail in mails]
    ended = [mail if mail.endswith(b"\r\n") else mail + b"\r\n" for mail in expected]
    assert received == sorted(ended * 2)


def test_starttls_to_a_daemon_of_its_own(bench: Bench) -> None:
    status, told = bench.json(*FEW, "--tls", "--per-connection", 20, "--size", "100k")
    assert (status, told["messages"]["accepted"], told["tls"]) == (0, 60, "starttls")
    assert 3 <= told["connections_made"] <= 6
    # A greeting, and EHLO before and after the handshake, of each connection.
    assert told["replies"]["220"] == 2 * told["connections_made"]


def test_lmtp_within_tls_to_a_daemon_of_its_own(bench: Bench) -> None:
    words = ("--lmtp", "--tls", "implicit", "--to", "a@example.com", "--to", "b@example.com")
    status, told = bench.json("--messages", 30, "--connections", 2, *words)
    assert (status, told["lmtp"], told["tls"]) == (0, True, "implicit")
    # LHLO; then MAIL, and for each recipient RCPT and the message.
    assert told["replies"]["250"] == 2 + 30 * (1 + 2 + 2)


def test_a_certificate_is_checked_where_one_says_by_what(tmp_path: Path, bench: Bench) -> None:
    pair, other = self_signed(tmp_path), self_signed(tmp_path, stem="other")
    with GuerrillaServer(server={"tls": pair.section()}) as server:
        words = ("--target", server.address, "--messages", 4, "--connections", 2, "--tls")
        assert bench.json(*words, "--ca", pair.certificate)[0] == 0
        status, told = bench.json(*words, "--ca", other.certificate)
    assert (status, told["ended"]) == (1, "unopened")
    assert [(one["kind"], one["at"]) for one in told["errors"]] == [("tls", "tls")]
    assert "certificate" in told["errors"][0]["text"]


def test_a_unix_socket(tmp_path: Path, bench: Bench) -> None:
    interface = f"unix:{tmp_path}/s"
    with GuerrillaServer(server={"listen_interface": interface}) as server:
        status, told = bench.json("--target", interface, *FEW)
        assert len(server.received) == 60
    assert (status, told["target"]) == (0, interface)


def test_so_many_messages_a_connection(bench: Bench) -> None:
    with GuerrillaServer() as server:
        words = ("--messages", 40, "--connections", 4, "--per-connection")
        status, told = bench.json("--target", server.address, *words, 1)
        # One that was open before the start may have no message left.
        assert (status, 40 <= told["connections_made"] <= 43) == (0, True)
        status, told = bench.json("--target", server.address, *words, 7)
        assert status == 0
    # Of the last one of each of the four not all may have been used.
    assert 6 <= told["connections_made"] <= 9


def test_threads_share_connections_and_messages(bench: Bench) -> None:
    with GuerrillaServer() as server:
        words = ("--messages", 301, "--connections", 5, "--threads", 3)
        status, told = bench.json("--target", server.address, *words)
        assert len({mail.header["Subject"] for mail in server.received}) == 301
    assert (status, told["connections_made"], told["threads"]) == (0, 5, 3)


def test_an_open_loop_keeps_its_rate(bench: Bench) -> None:
    with GuerrillaServer() as server:
        words = ("--rate", 200, "--messages", 100, "--connections", 8)
        status, told = bench.json("--target", server.address, *words)
    assert (status, told["loop"], told["messages"]["accepted"]) == (0, "open", 100)
    # The hundredth is due after 99 steps of 5 ms.
    assert told["seconds"] >= 0.495
    due, dot = told["latency"]["from_due"], told["latency"]["from_dot"]
    assert (due["count"], due["p50"] >= dot["p50"]) == (100, True)


def test_no_latency_is_omitted_when_the_server_is_late(bench: Bench) -> None:
    """Each reply takes 20 ms, and a message is due every 5: each waits longer than the last."""
    with GuerrillaServer() as server:
        server.delay(0.02)
        words = ("--target", server.address, "--rate", 200, "--connections", 1, "--messages", 40)
        status, told = bench.json(*words)
        _, out, _ = bench(*words)
        short = bench.json(*words, "--duration", "100ms")[1]
    assert status == 0
    due, dot = told["latency"]["from_due"], told["latency"]["from_dot"]
    # The last one was due at 195 ms, and is answered after 800 ms.
    assert due["max"] > 0.55
    assert due["p50"] > 0.25
    assert 0.02 <= dot["p50"] < due["p50"]
    assert "latency from when it was due to the reply" in out
    assert "latency from the final dot to the reply" in out
    # In 100 ms 20 are due; some five are begun, and the others are told of.
    assert short["ended"] == "duration"
    assert short["messages"]["unsent"] >= 10
    assert short["messages"]["unsent"] + short["messages"]["accepted"] == 20


def test_a_duration_alone(bench: Bench) -> None:
    with GuerrillaServer() as server:
        status, told = bench.json("--target", server.address, "--duration", "3s")
    assert (status, told["ended"]) == (0, "duration")
    assert told["seconds"] > 2
    assert told["messages"]["accepted"] > 10


def test_json_is_one_line(bench: Bench) -> None:
    with GuerrillaServer() as server:
        _, out, _ = bench("--target", server.address, "--messages", 1, "--json")
    assert out.count("\n") == 1
    assert list(json.loads(out)) == [
        "version", "target", "own_daemon", "processes", "loop", "rate", "size", "tls", "lmtp",
        "pipelining", "connections", "per_connection", "threads", "ended", "seconds", "messages",
        "messages_per_second", "octets_per_second", "connections_made", "server_cpu_per_message",
        "latency", "replies", "refusals", "errors", "timeline",
    ]  # fmt: skip
