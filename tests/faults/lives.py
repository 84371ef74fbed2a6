"""A daemon that ends in the middle and comes back, on the same folders, while senders go on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from tests.faults.stores import Store
from tests.ledger import Ledger, wait_for
from tests.running import RunningDaemon

_JITTER: Final = 0.03
"""Seconds after the count of mails says so, at most: it comes between any two steps, not only
right behind an answer."""


class Lives:
    """The lives of one daemon, each of which begins with what the one before left behind.

    Args:
        folder: where it runs; its config and log come there.
        store: where it stores.
        config: more lines of TOML, by part.
        environment: of its processes.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        config: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.store = store
        self._folder = folder
        self._config = dict(config or {})
        self._environment = environment
        self._daemon: RunningDaemon | None = None
        folder.mkdir(exist_ok=True)

    @property
    def daemon(self) -> RunningDaemon:
        """The one that runs now."""
        assert self._daemon is not None
        return self._daemon

    def where(self) -> int:
        """Its port, for senders.

        Raises:
            ConnectionRefusedError: it does not run.
        """
        daemon = self._daemon
        if daemon is None:
            raise ConnectionRefusedError
        return daemon.port

    def start(self) -> None:
        """Begins a life."""
        config = self.store.config(**self._config)
        self._daemon = RunningDaemon(self._folder, config=config, environment=self._environment)

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        daemon, self._daemon = self.daemon, None
        daemon.kill()

    def stop(self) -> None:
        """Ends it well, once all has come to where it is looked for."""
        wait_for(self.store.is_drained)
        daemon, self._daemon = self.daemon, None
        daemon.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._daemon is not None:
            self.kill()

    def killer(
        self,
        mails: int,
        times: int,
        *,
        between: Callable[[random.Random], object] = lambda _: None,
        seed: int = 1,
    ) -> Callable[[Ledger], None]:
        """For `deliver(disturb=…)`: kills it at random moments, and starts it again.

        Args:
            mails: how many are sent.
            times: how often it is killed; the last time some mails are still to come.
            between: called between two lives.
            seed: of the moments.
        """
        chance = random.Random(seed)
        part = mails * 9 // 10 // times
        moments = [turn * part + chance.randrange(1, part) for turn in range(times)]

        def disturb(ledger: Ledger) -> None:
            for moment in moments:
                wait_for(lambda moment=moment: ledger.settled >= moment)  # type: ignore[misc]
                time.sleep(chance.random() * _JITTER)
                self.kill()
                between(chance)
                self.start()

        return disturb
