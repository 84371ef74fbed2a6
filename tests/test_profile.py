"""Where the time of a message goes: stacks to parts, what programs print to figures, tables."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import profile_parts as parts
import profile_perf
import profiler
from calls import by_name
from documents import filled
from postfix import Load, Postfix
from profile_clocks import IO, WORKERS, Clock, between
from profile_parts import Frame, Sample, part_of, shares
from profile_plots import GROUPS, grouped, plots
from profile_report import DOCUMENT, blocks, report, tables
from profiled import FILE, Point, Profile, Spent, Thread

CORE = "_core.abi3.so"
KERNEL = "[kernel.kallsyms]"


def stack(*symbols: str, where: str = KERNEL) -> Sample:
    return Sample(1, 1.0, tuple(Frame(n + 1, name, where) for n, name in enumerate(symbols)))


@pytest.mark.parametrize(
    ("symbols", "part"),
    [
        (("tcp_sendmsg_locked", "__sys_sendto", "__x64_sys_sendto", "do_syscall_64"), parts.SEND),
        (
            ("tcp_v4_rcv", "net_rx_action", "handle_softirqs", "do_softirq.part.0", "tcp_sendmsg"),
            parts.LOOPBACK,
        ),
        (
            ("try_to_wake_up", "ep_poll_callback", "sock_def_readable", "tcp_rcv", "do_softirq"),
            parts.WAKE,
        ),
        (("_copy_to_iter", "tcp_recvmsg", "__x64_sys_recvfrom"), parts.RECEIVE),
        (("clear_page_erms", "asm_exc_page_fault", "__x64_sys_recvfrom"), parts.MEMORY),
        (("inet_csk_accept", "__x64_sys_accept4"), parts.CONNECT),
        (("tcp_close", "__fput", "task_work_run", "syscall_exit_to_user_mode"), parts.CONNECT),
        (("ep_send_events", "do_epoll_wait", "__x64_sys_epoll_wait"), parts.EPOLL),
        (("finish_task_switch.isra.0", "__schedule", "schedule", "do_epoll_wait"), parts.FUTEX),
        (("finish_task_switch.isra.0", "futex_wait", "do_futex"), parts.FUTEX),
        (("ext4_write", "__x64_sys_pwrite64"), parts.FILES),
        (("something_else",), parts.OTHER),
    ],
)
def test_the_kernel_is_divided_by_what_it_was_asked_for(
    symbols: tuple[str, ...], part: str
) -> None:
    assert part_of(stack(*symbols), {}, CORE) == part


@pytest.mark.parametrize(
    ("files", "part"),
    [
        (("/rustc/1/library/core/src/slice/mod.rs", "rust/src/smtp/command/path.rs"), parts.PARSER),
        (("/registry/memchr-2.8.0/src/memmem.rs", "rust/src/smtp/data.rs"), parts.DATA),
        (("rust/src/smtp/session.rs", "rust/src/net/connection.rs"), parts.SESSION),
        (("rust/src/net/connection/reading.rs",), parts.CONNECTION),
        (("rust/src/queue.rs",), parts.DELIVERY),
        (("rust/src/mail/header.rs",), parts.HEADER),
        (("rust/src/python/envelope.rs",), parts.CROSSING),
        (("/registry/pyo3-0.30.1/src/instance.rs",), parts.CROSSING),
        (("/registry/tokio-1.54.0/src/io/poll.rs", "rust/src/net/stream.rs"), parts.TOKIO),
        (("/registry/rustls-0.23.1/src/conn.rs",), parts.TLS),
        (("??",), parts.CORE),
    ],
)
def test_the_core_is_divided_by_source_files(files: tuple[str, ...], part: str) -> None:
    """The innermost one that is a part; what libraries do there, they do for their caller."""
    assert part_of(stack("f", where=f"/x/{CORE}"), {1: files}, CORE) == part


@pytest.mark.parametrize(
    ("symbol", "where", "part"),
    [
        ("<guerrilla::smtp::session::Session>::step", f"/x/{CORE}", parts.SESSION),
        ("guerrilla::net::connection::run::{{closure}}", f"/x/{CORE}", parts.CONNECTION),
        ("tokio::runtime::park", f"/x/{CORE}", parts.TOKIO),
        ("[unknown]", f"/x/{CORE}", parts.CORE),
        ("_PyEval_EvalFrameDefault", "/usr/lib/libpython3.11.so.1.0", parts.PYTHON),
        ("_int_malloc", "/lib/libc.so.6", parts.ALLOCATOR),
        ("__libc_free", "/lib/libc.so.6", parts.ALLOCATOR),
        ("__memmove_avx_unaligned_erms", "/lib/libc.so.6", parts.COPIES),
        ("__send", "/lib/libc.so.6", parts.LIBC),
        ("clock_gettime", "[vdso]", parts.LIBC),
    ],
)
def test_the_rest_goes_by_name_and_library(symbol: str, where: str, part: str) -> None:
    assert part_of(stack(symbol, where=where), {}, CORE) == part


def test_shares_are_in_the_order_of_the_table_and_come_to_one() -> None:
    samples = [stack("_PyEval", where="/libpython3.so"), stack("__x64_sys_sendto")]
    found = shares([*samples, samples[1]], {}, CORE)
    assert list(found) == [parts.SEND, parts.PYTHON]
    assert sum(found.values()) == pytest.approx(1.0)
    assert shares([], {}, CORE) == {}
    assert part_of(Sample(1, 1.0, ()), {}, CORE) == parts.OTHER


def test_every_part_has_a_colour() -> None:
    costs = dict.fromkeys(parts.PARTS, 1.0)
    assert sum(grouped(costs).values()) == len(parts.PARTS)
    assert all(grouped(costs)[name] for name in GROUPS)


# --- What perf, addr2line and strace print --------------------------------------------------------

SCRIPT = [
    "   77     200040 ",
    "\tffffffff81a00010 tcp_sendmsg ([kernel.kallsyms])",
    "\t    7f0000001234 send+0x1 (/lib/x86_64-linux-gnu/libc.so.6)",
    "",
    "   78     200040 ",
    "\t    7f0000101010 <a::B as c::D>::e (inlined) (/x/_core.abi3.so)",
    "",
]


def test_samples_are_read() -> None:
    first, second = profile_perf.parsed(SCRIPT)
    assert (first.thread, first.weight, len(first.frames)) == (77, 200_040.0, 2)
    assert first.frames[0] == Frame(0xFFFFFFFF81A00010, "tcp_sendmsg", KERNEL)
    assert first.frames[0].is_kernel
    assert not first.frames[1].is_kernel
    assert second.frames[0].where == "/x/_core.abi3.so"


def test_an_address_is_found_in_the_file() -> None:
    """One piece is loaded 0x1000 further on than it is in the file, as linkers do."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    pieces = struct.pack("<IIQQQQQQ", 1, 5, 0x2000, 0x3000, 0, 0x800, 0x800, 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, 0, 0, 0, 0x10, 0x10, 8)
    found = profile_perf.linked_at(header + notes + pieces)
    assert found == [(0x2000, 0x800, 0x3000)]
    maps = [profile_perf.Mapped(0x7F0000, 0x7F1000, 0x2000)]
    assert profile_perf.as_linked(0x7F0123, maps, found) == 0x3123
    assert profile_perf.as_linked(0x2123, maps, found) == 0x3123
    assert profile_perf.as_linked(0x7F0900, maps, found) is None
    assert profile_perf.as_linked(0x800000, maps, found) is None


def test_source_files_are_read() -> None:
    text = (
        "0x0000000000003123\n/rustc/1/a.rs:7\nrust/src/net/x.rs:12 (discriminator 3)\n0x4\n??:0\n"
    )
    found = profile_perf.files_of(text)
    assert found == {0x3123: ("/rustc/1/a.rs", "rust/src/net/x.rs"), 4: ("??",)}


def test_system_calls_are_counted() -> None:
    text = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.000600           1       400           sendto\n"
        " 40.00    0.000400           1       500       100 recvfrom\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.001000           1       900       100 total\n"
    )
    assert list(by_name(text).items()) == [("recvfrom", 500), ("sendto", 400)]


def test_clocks_are_divided_by_messages() -> None:
    before = {IO: Clock(1.0, 0.4, 0.6, 10), WORKERS: Clock()}
    after = {IO: Clock(3.0, 0.9, 2.1, 30), WORKERS: Clock()}
    io, workers = profiler.threads(between(before, after), 1_000, 4.0)
    assert (io.user_us, io.system_us) == pytest.approx((500.0, 1_500.0))
    assert (io.waits, io.cores) == pytest.approx((0.02, 0.5))
    assert workers == Thread(WORKERS, 0.0, 0.0, 0.0, 0.0)


def test_smtp_source_is_told_of_recipients() -> None:
    postfix = Postfix("smtp-source", "smtp-sink", {})
    command = postfix.sending(25, Load(1, 2, recipients=7))
    assert command[command.index("-r") + 1] == "7"
    assert "-r" not in postfix.sending(25, Load(1, 2))


# --- Tables and places ----------------------------------------------------------------------------


def profile() -> Profile:
    each = (Thread(IO, 10.0, 20.0, 0.5, 0.7), Thread(WORKERS, 4.0, 6.0, 1.5, 0.2))
    costs = {parts.SEND: 20.0, parts.PYTHON: 20.0}
    one = Spent("b", "kept", 20_000.0, 40.0, 35.0, 0.1, each, costs, {"sendto": 4.0, "futex": 1.5})
    without = Spent("d", "1 MiB", 500.0, 1_700.0, 900.0, 0.0, each, {}, {})
    grown = [
        Point("size", 1_024 * n, 0, 50, 1_000.0, 10.0 + n, 5.0, 60.0) for n in (1, 101, 51_200)
    ]
    grown += [Point("connections", n, 0, n, 1_000.0, 40.0, 5.0, 60.0) for n in (1, 10_000)]
    grown += [Point("recipients", n, 0, 100, 1_000.0, 40.0 + n, 5.0, 60.0) for n in (1, 100)]
    for table in ("grid null", "grid slow"):
        grown += [
            Point(table, n, m, 100, 900.0 * m, 40.0 + n, 5.0, 60.0) for n in (1, 4) for m in (1, 64)
        ]
    return Profile("2 cores", "26 November 2026", False, (one, without), tuple(grown))


def test_the_tables_have_what_was_measured() -> None:
    found = {name: "\n".join(lines) for name, lines in tables(profile()).items()}
    assert "b kept 20,000 40.0 14.0 26.0 35.0 0.10" in " ".join(found["spent"].split())
    assert f"{parts.SEND:<38}    20.0 50.0 %\n" in found["parts"]
    assert "kernel, all                               20.0 50.0 %" in found["parts"]
    assert "all                                         5.50      0.00" in found["calls"]
    # 100 KiB more cost 100 µs more.
    row = found["size"].splitlines()[2].split()
    assert row == ["101", "KiB", "50", "1,000", "99", "111.0", "1.000", "5.00", "60"]
    assert "10,000" in found["connections"]
    assert found["recipients"].splitlines()[2].split() == ["100", "1,000", "140.0", "1.00", "5.00"]
    assert found["grid slow"].splitlines()[1].split() == ["save_batch_size:", "1", "64"]
    assert found["grid slow"].splitlines()[3].split()[-2:] == ["900", "57,600"]
    assert "26 November 2026; 2 cores" in report(profile())[0]


def test_what_was_not_measured_has_no_table() -> None:
    told = Profile("2 cores", "today", True, (), ())
    assert tables(told) == {}
    assert plots(told) == {}
    assert "--quick" in report(told)[0]


def test_figures_are_kept_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(profile().text(), encoding="utf-8")
    assert Profile.read(file) == profile()
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="no figures of profiler"):
        Profile.read(file)


def test_pictures_have_every_load_and_curve(tmp_path: Path) -> None:
    drawn = plots(profile())
    assert sorted(drawn) == ["performance-growth.svg", "performance-parts.svg"]
    for name, canvas in drawn.items():
        canvas.write(str(tmp_path / name))
    assert "b  kept" in (tmp_path / "performance-parts.svg").read_text(encoding="utf-8")
    text = (tmp_path / "performance-growth.svg").read_text(encoding="utf-8")
    assert all(title in text for title in ("octets of a message", "connections", "recipients"))


def test_the_page_has_the_figures_of_the_file() -> None:
    """`make bench-profile ARGS="--from benches/profile.json --write"` mends it."""
    told = Profile.read(FILE)
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len(tables(told)) == 8
    assert filled(text, blocks(told)) == text
    for name in plots(told):
        assert name in text
        assert (DOCUMENT.parent / name).exists()
