"""`async with Daemon(…)`: started and stopped in a thread, whatever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

import guerrilla
from guerrilla import Daemon, Stream
from guerrilla.config import from_mapping
from tests.daemons import config
from tests.test_stream import daemon


def test_a_start_that_fails_raises() -> None:
    async def main() -> None:
        raw = config(save_process="Nonesuch")
        async with Daemon(from_mapping(raw)):
            pytest.fail("it cannot have started")

    with pytest.raises(guerrilla.StartError, match="Nonesuch"):
        asyncio.run(main())


def test_a_cancelled_start_leaves_no_daemon() -> None:
    entered, release = threading.Event(), threading.Event()

    class Slow(Stream):
        def open(self) -> None:
            entered.set()
            release.wait(10)

    receiver = daemon(Slow())

    async def main() -> None:
        task = asyncio.create_task(receiver.__aenter__())
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()  # what a thread opens cannot be left behind
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert receiver.wait(0)


def test_a_cancelled_stop_is_finished_first() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            task = asyncio.create_task(receiver.__aexit__(None, None, None))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert receiver.wait(0)

    asyncio.run(main())
