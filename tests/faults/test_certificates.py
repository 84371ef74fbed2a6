"""Certificates are replaced under load: every handshake ends well, with a whole pair."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from tests.certificates import Pair, self_signed, unverified
from tests.faults.daemons import hang_up, mails_in, stats
from tests.faults.load import ROOM, sustain
from tests.faults.tally import Tally
from tests.running import RunningDaemon
from tests.wire import HELLO, Wire, until

VISITORS: Final = 5
"""Clients that come for a handshake, again and again, beside those who send."""


class Rotation:
    """The pair of a running daemon, whose files are replaced by those of others in turn."""

    def __init__(self, folder: Path) -> None:
        self.live = Pair(folder / "live.key", folder / "live.crt")
        self._others = [
            self_signed(folder, stem="one"),
            self_signed(folder, stem="two"),
            self_signed(folder, stem="three", rsa=True),
        ]
        self._turn = 0
        self.known = {pair.der() for pair in self._others}
        self.live.become(self._others[0])
        self.seen: Counter[bytes] = Counter()
        """Certificates that were shown."""
        self.broken: list[str] = []
        """Handshakes that did not end well."""
        self._lock = threading.Lock()

    def next(self) -> Pair:
        """Whose content the files get now."""
        self._turn += 1
        return self._others[self._turn % len(self._others)]

    def visit(self, port: int) -> bytes:
        """STARTTLS, and a command within; the certificate that was shown, empty where it failed."""
        shown = b""
        try:
            with Wire(port) as wire:
                assert wire.ask(HELLO).startswith("250 ")
                assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
                inner = unverified().wrap_socket(wire.socket)
                with Wire(inner, greeted=False) as within:
                    assert within.ask(HELLO).startswith("250 ")
                    shown = inner.getpeercert(binary_form=True) or b""
        except (ssl.SSLError, OSError) as error:
            with self._lock:
                self.broken.append(repr(error))
        with self._lock:
            self.seen[shown] += 1
        return shown


Between = Callable[[], object]


def by_rename(live: Pair, fresh: Pair, between: Between, half: Between) -> None:
    """Each file at once, one after the other, as certbot and most tools do it."""
    files = ((live.key, fresh.key, half), (live.certificate, fresh.certificate, between))
    for path, source, then in files:
        part = path.with_suffix(".part")
        part.write_bytes(source.read_bytes())
        part.replace(path)
        then()


def in_place(live: Pair, fresh: Pair, between: Between, half: Between) -> None:
    """Each file is emptied and written in pieces, as `cp` does it on a bad day."""
    files = ((live.key, fresh.key, half), (live.certificate, fresh.certificate, between))
    for path, source, then in files:
        octets = source.read_bytes()
        with path.open("wb", buffering=0) as file:
            for piece in (octets[:100], octets[100:]):
                between()
                file.write(piece)
        then()


def hear_of_half(daemon: RunningDaemon) -> None:
    """Has it read a key that is not that of the certificate, and waits until it has refused it."""
    before = _refusals(daemon)
    hang_up(daemon)
    until(lambda: _refusals(daemon) > before)


def _refusals(daemon: RunningDaemon) -> int:
    log = daemon.log_text()
    return log.count("what was loaded before stays in use") + log.count(
        "what was there before stays"
    )


def test_no_sender_hears_of_new_certificates(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """Also where the daemon is told to read them while they are half written."""
    rounds = 9 if full else 3
    rotation = Rotation(tmp_path)
    tls = f"[servers.tls]\nstart_tls_on = true\nwatch = true\n{rotation.live.toml()}"
    server = f"{ROOM}\n{tls}"
    ending = threading.Event()
    with RunningDaemon(tmp_path, server=server, backend="save_workers_size = 2") as daemon:

        def rotate() -> None:
            for turn in range(rounds):
                fresh = rotation.next()
                write = (by_rename, in_place)[turn % 2]
                hearing = partial(hang_up, daemon), partial(hear_of_half, daemon)
                write(rotation.live, fresh, *hearing)
                # By SIGHUP, or by itself where the last one came too early.
                until(lambda pair=fresh: rotation.visit(daemon.port) == pair.der())  # type: ignore[misc]

        def visit() -> None:
            while not ending.is_set():
                rotation.visit(daemon.port)

        with ThreadPoolExecutor(VISITORS) as pool:
            visiting = [pool.submit(visit) for _ in range(VISITORS)]
            try:
                ledger = sustain(daemon.port, rotate, tls=1.0)
            finally:
                ending.set()
            for visitor in visiting:
                visitor.result()
        found = stats(daemon)
        refusals = _refusals(daemon)
    assert not rotation.broken, rotation.broken[:5]
    assert set(rotation.seen) == rotation.known
    assert found["tls_failures"] == 0
    assert refusals >= rounds
    assert (ledger.unopened, ledger.dropped, ledger.refusals) == (0, 0, 0)
    note = f"{sum(rotation.seen.values()):,} handshakes beside"
    row = tally("new certificates", "SQLite").audit(
        ledger, mails_in(tmp_path / "mail.db"), rounds=rounds, note=note
    )
    assert (row.unanswered, row.doubled) == (0, 0)
