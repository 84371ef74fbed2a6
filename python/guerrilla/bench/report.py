"""What is told of a load: figures for programs, and a table for people."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guerrilla import __version__
from guerrilla.commands.common import column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from guerrilla._core import Latency, LoadFigures

__all__ = ["Asked", "has_failed", "summary", "table"]

_ENDS: Final = {
    "duration": "ended after its duration",
    "unopened": "ended at once: no connection could be opened",
    "gave-up": "ended early: no connection could be opened any more",
    "stopped": "ended by Ctrl-C",
}
_SHOWN: Final = 120
"""Characters of what a server said."""
_REFUSES: Final = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """What a load was to be."""

    target: str
    is_own: bool
    connections: int
    size: str
    rate: float | None
    tls: str | None
    lmtp: bool
    pipelining: bool
    per_connection: int
    processes: int
    threads: int


def summary(asked: Asked, figures: LoadFigures, cpu: float | None) -> dict[str, Any]:
    """Everything, as `--json` writes it. Times are seconds.

    Args:
        asked: what was to be done.
        figures: what became of it.
        cpu: seconds of CPU of the daemon, where it was our own.
    """
    seconds, accepted = figures["seconds"], figures["accepted"]
    done = accepted + figures["refused"] + figures["failed"]
    latency = {"from_dot": figures["from_dot"]}
    if asked.rate is not None:
        latency["from_due"] = figures["from_due"]
    return {
        "version": __version__,
        "target": asked.target,
        "own_daemon": asked.is_own,
        "processes": asked.processes if asked.is_own else None,
        "loop": "closed" if asked.rate is None else "open",
        "rate": asked.rate,
        "size": asked.size,
        "tls": asked.tls,
        "lmtp": asked.lmtp,
        "pipelining": asked.pipelining,
        "connections": asked.connections,
        "per_connection": asked.per_connection,
        "threads": asked.threads,
        "ended": figures["ended"],
        "seconds": seconds,
        "messages": {
            "accepted": accepted,
            "refused": figures["refused"],
            "failed": figures["failed"],
            "unfinished": figures["begun"] - done,
            "unsent": figures["unsent"],
        },
        "messages_per_second": _per(accepted, seconds),
        "octets_per_second": _per(figures["octets"], seconds),
        "connections_made": figures["connections"],
        "server_cpu_per_message": None if cpu is None or not done else cpu / done,
        "latency": latency,
        "replies": _by_code(figures),
        "refusals": [
            {"at": at, "code": code, "count": count, "text": text}
            for at, code, count, text in figures["replies"]
            if code >= _REFUSES and at != "quit"  # where all is said and done
        ],
        "errors": [
            {"kind": kind, "at": at, "count": count, "text": text}
            for kind, at, count, text in figures["errors"]
        ],
        "timeline": {
            "seconds": figures["part"],
            "accepted": [part[0] for part in figures["parts"]],
            "other": [part[1] for part in figures["parts"]],
        },
    }


def has_failed(told: Mapping[str, Any]) -> bool:
    """Whether anything was not as it should be."""
    messages = told["messages"]
    is_whole = told["ended"] in ("done", "duration", "stopped") and messages["accepted"] > 0
    return not is_whole or bool(
        messages["refused"] or messages["failed"] or told["errors"] or told["refusals"]
    )


def table(told: Mapping[str, Any]) -> str:
    """The same for a person."""
    rows: list[tuple[str, str | None]] = [
        ("target", _target(told)),
        ("load", _load(told)),
        ("messages", _messages(told["messages"], told["seconds"])),
        ("rate", _rate(told)),
    ]
    # What a user of the server waits for comes first.
    for name, what in (("from_due", "when it was due"), ("from_dot", "the final dot")):
        if name in told["latency"]:
            rows += [(f"latency from {what} to the reply", None), *_latency(told["latency"][name])]
    rows.append(("replies", _listed(f"{code}: {n:,}" for code, n in told["replies"].items())))
    rows += _named("refusals", [(f"{one['code']} at {one['at']}", one) for one in told["refusals"]])
    rows += _named("errors", [(f"{one['kind']} at {one['at']}", one) for one in told["errors"]])
    if told["ended"] in _ENDS:
        rows.append(("", _ENDS[told["ended"]]))
    width = max(len(name) for name, text in rows if text is not None)
    lines = [name if text is None else f"{name:<{width}}  {text}".rstrip() for name, text in rows]
    return "\n".join(lines)


def _target(told: Mapping[str, Any]) -> str:
    if not told["own_daemon"]:
        return str(told["target"])
    count = told["processes"]
    processes = (
        ""
        if count == 1
        else f", {count or 'as many processes as cores'}" + (" processes" if count else "")
    )
    return f"{told['target']}, a daemon of its own that keeps nothing{processes}"


def _load(told: Mapping[str, Any]) -> str:
    loop = "closed loop" if told["loop"] == "closed" else f"open loop, {told['rate']:,g} messages/s"
    count = told["per_connection"]
    words = [
        loop,
        f"{told['connections']:,} connection{'s' * (told['connections'] != 1)}",
        f"{told['size']} a message",
        f"{count:,} a connection" if count else "",
        "LMTP" if told["lmtp"] else "",
        {"starttls": "STARTTLS", "implicit": "TLS"}.get(told["tls"], ""),
        "pipelining" if told["pipelining"] else "",
    ]
    return _listed(words)


def _messages(messages: Mapping[str, int], seconds: float) -> str:
    words = [f"{messages['accepted']:,} accepted"]
    words += [
        f"{messages[name]:,} {name}"
        for name in ("refused", "failed", "unfinished", "unsent")
        if messages[name]
    ]
    return f"{_listed(words)} in {seconds:.2f} s"


def _rate(told: Mapping[str, Any]) -> str:
    words = [
        f"{told['messages_per_second']:,.0f} messages/s",
        f"{told['octets_per_second'] / (1 << 20):,.1f} MiB/s",
    ]
    if told["server_cpu_per_message"] is not None:
        words.append(f"{told['server_cpu_per_message'] * 1e6:,.0f} µs CPU of the daemon a message")
    return _listed(words)


def _latency(latency: Latency) -> Iterator[tuple[str, str]]:
    if not latency["count"]:
        yield "  ms", "no message had a reply"
        return
    names = ("p50", "p90", "p99", "p99_9", "max")
    values = (latency["p50"], latency["p90"], latency["p99"], latency["p99_9"], latency["max"])
    texts = [f"{value * 1_000:,.3f}" for value in values]
    widths = [max(len(text), 5) for text in texts]
    heads = [name.replace("_", ".") for name in names]
    yield "", "  ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    yield "  ms", "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))


def _named(title: str, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str]]:
    if not found:
        yield title, "none"
    for name, (what, one) in zip(
        itertools.chain([title], itertools.repeat("")), found, strict=False
    ):
        text = f" ({column(one['text'], _SHOWN)})" if one["text"] else ""
        yield name, f"{what}: {one['count']:,}{text}"


def _by_code(figures: LoadFigures) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, code, count, _ in sorted(figures["replies"], key=lambda reply: reply[1]):
        counts[str(code)] = counts.get(str(code), 0) + count
    return counts


def _listed(words: Iterator[str] | Sequence[str]) -> str:
    return ", ".join(word for word in words if word) or "none"


def _per(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
