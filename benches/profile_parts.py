"""To which part of the daemon a sample of its CPU belongs: a stack, as perf has seen it.

A sample in the kernel belongs to what the kernel was asked for, or was interrupted by: the
innermost frame that says so. One in the core belongs to the innermost of its functions that is our
own or of a crate that is a part by itself; what the standard library does there, it does for
whoever called it. All else goes by the library it is in.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

Rules = tuple[tuple[str, re.Pattern[str]], ...]


@dataclasses.dataclass(frozen=True)
class Frame:
    """A function, and in what: a library, or the kernel in brackets."""

    address: int
    symbol: str
    where: str

    @property
    def is_kernel(self) -> bool:
        """The kernel, or a module of it."""
        return self.where.startswith("[") and self.where not in (
            "[vdso]",
            "[vsyscall]",
            "[unknown]",
        )


@dataclasses.dataclass(frozen=True)
class Sample:
    """Where a thread was, innermost first, and how long that stands for."""

    thread: int
    weight: float
    frames: tuple[Frame, ...]


def _rules(**patterns: str) -> Rules:
    return tuple((name.replace("_", " "), re.compile(text)) for name, text in patterns.items())


SEND: Final = "kernel: send"
LOOPBACK: Final = "kernel: send, the way to the peer"
WAKE: Final = "kernel: waking the peer"
RECEIVE: Final = "kernel: receive"
CONNECT: Final = "kernel: accept, close, socket options"
EPOLL: Final = "kernel: epoll"
FUTEX: Final = "kernel: futex, scheduling"
MEMORY: Final = "kernel: page faults, memory"
FILES: Final = "kernel: files"
OTHER: Final = "kernel: other"

PARSER: Final = "core: parser"
SESSION: Final = "core: session"
DATA: Final = "core: data"
HEADER: Final = "core: header"
CONNECTION: Final = "core: connection"
DELIVERY: Final = "core: delivery"
TLS: Final = "core: TLS"
SPOOL: Final = "core: spool"
TOKIO: Final = "tokio"
CROSSING: Final = "crossing"
CORE: Final = "core: other"
PYTHON: Final = "Python"
ALLOCATOR: Final = "allocator"
COPIES: Final = "memmove"
LIBC: Final = "libc, other"

PARTS: Final = (
    *(SEND, LOOPBACK, WAKE, RECEIVE, CONNECT, EPOLL, FUTEX, MEMORY, FILES, OTHER),
    *(PARSER, SESSION, DATA, HEADER, CONNECTION, DELIVERY, TLS, SPOOL, CORE),
    *(TOKIO, CROSSING, PYTHON, ALLOCATOR, COPIES, LIBC),
)
"""In the order of the table."""

_KERNEL: Final[Rules] = (
    (MEMORY, re.compile(r"exc_page_fault|sys_(munmap|mmap|madvise|mremap|brk|mprotect)")),
    # Within a send, or in an interrupt: what has arrived goes up to its socket.
    (WAKE, re.compile(r"^sock_def_readable$|^ep_poll_callback$")),
    (LOOPBACK, re.compile(r"softirq|^net_rx_action$")),
    (FUTEX, re.compile(r"sys_(futex|sched_yield)|^do_futex$")),
    (EPOLL, re.compile(r"sys_epoll_|^do_epoll_|sys_eventfd|eventfd_(read|write)")),
    (CONNECT, re.compile(r"sys_(accept4?|close|shutdown|[gs]etsockopt|get(sock|peer)name|ioctl)")),
    (CONNECT, re.compile(r"^(__fput|____fput|sock_close|task_work_run|__sys_accept4?)$")),
    (SEND, re.compile(r"sys_(send(to|msg)|writev?)$|^(__sys_send|sock_write_iter|tcp_sendmsg)")),
    (RECEIVE, re.compile(r"sys_(recv(from|msg)|readv?)$|^(__sys_recv|sock_read_iter|tcp_recvmsg)")),
    (FILES, re.compile(r"sys_(p(read|write)(64|v2?)|openat|fsync|fdatasync|ftruncate|fallocate)")),
    (OTHER, re.compile(r"sysvec_|_interrupt$")),
    (FUTEX, re.compile(r"^(__schedule|schedule|preempt_schedule.*|ret_from_fork.*)$")),
)

_SOURCES: Final[Rules] = (
    (DATA, re.compile(r"rust/src/(smtp/(data|plain|chunk|line)\b|buffer/)")),
    (PARSER, re.compile(r"rust/src/(smtp/(command|address|xtext|hosts|idn|dsn|xclient)|short)\b")),
    (SESSION, re.compile(r"rust/src/smtp/")),
    (HEADER, re.compile(r"rust/src/mail/")),
    (TLS, re.compile(r"rust/src/(tls|net/tls)\b|/(rustls|aws-lc)[^/]*/")),
    (CONNECTION, re.compile(r"rust/src/(net/|server\b)")),
    (SPOOL, re.compile(r"rust/src/(spool|delivery/spooling)\b|/(rusqlite|libsqlite3)[^/]*/")),
    (CROSSING, re.compile(r"rust/src/python/|/pyo3[^/]*/")),
    (DELIVERY, re.compile(r"rust/src/")),
    (TOKIO, re.compile(r"/(tokio|mio)-[^/]*/")),
    # Not within one of ours: nearly always for the end of a line.
    (DATA, re.compile(r"/memchr-[^/]*/")),
)
"""By the path of a source file."""

_SYMBOLS: Final[Rules] = (
    (DATA, re.compile(r"guerrilla::(smtp::(data|plain|chunk|line)\b|buffer::)")),
    (
        PARSER,
        re.compile(r"guerrilla::(smtp::(command|address|xtext|hosts|idn|dsn|xclient)|short)\b"),
    ),
    (SESSION, re.compile(r"guerrilla::smtp::")),
    (HEADER, re.compile(r"guerrilla::mail::")),
    (TLS, re.compile(r"guerrilla::(tls|net::tls)\b|\brustls::|^aws_lc_")),
    (CONNECTION, re.compile(r"guerrilla::(net|server)\b")),
    (SPOOL, re.compile(r"guerrilla::(spool|delivery::spooling)\b|rusqlite|^sqlite3")),
    (CROSSING, re.compile(r"guerrilla::python::|\bpyo3")),
    (DELIVERY, re.compile(r"guerrilla::")),
    (TOKIO, re.compile(r"\b(tokio|mio)::")),
    (DATA, re.compile(r"\bmemchr::")),
)
"""By the name of a function, where nothing says which file it is of."""

_ALLOCATES: Final = re.compile(
    r"^_*(libc_)?(malloc|calloc|realloc|free|cfree|memalign|posix_memalign|aligned_alloc)(@|$)|"
    r"^_int_(malloc|free|realloc|memalign)|^(malloc_consolidate|sysmalloc|systrim|unlink_chunk|"
    r"tcache_|arena_|alloc_perturb|heap_trim|sysfree)"
)
_COPIES: Final = re.compile(r"^_*mem(move|cpy|pcpy|set|cmp|chr|rchr)")
_PYTHON: Final = re.compile(r"libpython|/python[0-9.]*$|cpython-|lib-dynload")


def part_of(sample: Sample, sources: Mapping[int, tuple[str, ...]], core: str) -> str:
    """The part that a sample belongs to.

    Args:
        sample: what was seen.
        sources: by address in the core, the source files of its functions, innermost first.
        core: what the library of the core is called.
    """
    if not sample.frames:
        return OTHER
    leaf = sample.frames[0]
    if leaf.is_kernel:
        return _in_kernel(frame.symbol for frame in sample.frames if frame.is_kernel)
    if core in leaf.where:
        return _in_core(leaf, sources.get(leaf.address, ()))
    if _PYTHON.search(leaf.where):
        return PYTHON
    if _ALLOCATES.search(leaf.symbol):
        return ALLOCATOR
    return COPIES if _COPIES.search(leaf.symbol) else LIBC


def _in_kernel(symbols: Iterable[str]) -> str:
    for symbol in symbols:
        if (part := _first(_KERNEL, symbol)) is not None:
            return part
    return OTHER


def _in_core(leaf: Frame, files: tuple[str, ...]) -> str:
    for file in files:
        if (part := _first(_SOURCES, file)) is not None:
            return part
    return _first(_SYMBOLS, leaf.symbol) or CORE


def _first(rules: Rules, text: str) -> str | None:
    return next((part for part, pattern in rules if pattern.search(text)), None)


def shares(
    samples: Iterable[Sample], sources: Mapping[int, tuple[str, ...]], core: str
) -> dict[str, float]:
    """The share of each part, in the order of `PARTS`; those that were never seen have none."""
    found: Counter[str] = Counter()
    for sample in samples:
        found[part_of(sample, sources, core)] += sample.weight  # type: ignore[assignment]
    whole = sum(found.values())
    return {part: found[part] / whole for part in PARTS if found[part]}
