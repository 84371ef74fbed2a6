"""Envelopes as an async iterator: who gets them, who answers, and what nobody answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import guerrilla
from guerrilla import TAKEN, Daemon, Envelope, Envelopes, Reply, Stream
from guerrilla.config import from_mapping
from guerrilla.reply import TRY_LATER
from tests.chains import Batch, chain_of, fate, fates
from tests.daemons import config, connect, send
from tests.wire import until

Mail = Callable[..., Envelope]
pytestmark = pytest.mark.filterwarnings("error")


def daemon(stream: Stream | None = None, **backend: Any) -> Daemon:
    """A daemon whose envelopes a stream has; its `save_process` names nothing that exists."""
    keys = {"save_process": "Nonesuch", **backend}
    return Daemon(from_mapping(config(**keys)), backend=stream or Stream())


async def sent(receiver: Daemon, *subjects: str) -> list[int]:
    """The codes that senders of these mails hear, who send at the same time."""
    results = await asyncio.gather(
        *(asyncio.to_thread(send, receiver, subject) for subject in subjects)
    )
    return [code for code, _ in results]


async def answer_all(envelopes: Envelopes) -> list[str]:
    """Answers by subject, until the daemon has stopped."""
    seen = []
    async for envelope in envelopes:
        seen.append(envelope.subject)
        envelope.answer(Reply.reject() if envelope.subject == "bad" else None)
    return seen


def test_a_loop_gets_envelopes_and_answers_them() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            consumer = asyncio.create_task(answer_all(receiver.envelopes()))
            assert await sent(receiver, "good", "bad", "good") == [250, 550, 250]
        assert sorted(await consumer) == ["bad", "good", "good"]

    asyncio.run(main())


def test_a_loop_may_run_in_another_thread_than_the_daemon() -> None:
    seen: list[str] = []
    with daemon() as receiver:
        envelopes = receiver.envelopes()
        thread = threading.Thread(target=lambda: seen.extend(asyncio.run(answer_all(envelopes))))
        thread.start()
        assert [send(receiver, subject)[0] for subject in ("good", "bad")] == [250, 550]
    thread.join(10)
    assert seen == ["good", "bad"]


def test_the_loop_may_be_within_the_daemons_block() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            sender = asyncio.create_task(sent(receiver, "a", "b"))
            count = 0
            async for envelope in receiver.envelopes():
                assert envelope.answer(Reply.ok("got it"))
                count += 1
                if count == 2:
                    break
            assert await sender == [250, 250]

    asyncio.run(main())


def test_answers_need_no_order_and_block_no_worker() -> None:
    """With one worker and batches of one, the first mail is answered last."""

    async def main() -> None:
        async with daemon(save_batch_size=1) as receiver:
            envelopes = receiver.envelopes()
            sender = asyncio.create_task(sent(receiver, "a", "b", "c"))
            held = [await anext(envelopes) for _ in range(3)]
            for envelope in reversed(held):
                envelope.answer()
            assert await sender == [250, 250, 250]
            await envelopes.aclose()

    asyncio.run(main())


def test_several_consumers_share_the_envelopes() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            tasks = [asyncio.create_task(answer_all(receiver.envelopes())) for _ in range(3)]
            assert await sent(receiver, *"abcdef") == [250] * 6
        seen = [await task for task in tasks]
        assert sorted(subject for one in seen for subject in one) == list("abcdef")

    asyncio.run(main())


def test_recipients_are_not_asked_about_unless_the_config_says_so() -> None:
    @guerrilla.validator("StreamUsers")
    def users(transaction: object, recipient: guerrilla.Address) -> Reply | None:
        return Reply.reject("5.1.1", "who?") if recipient.user == "nobody" else None

    async def main() -> None:
        async with daemon() as receiver:
            assert "validate_workers" not in receiver.stats()
        async with daemon(validate_process="StreamUsers") as receiver:
            found = await asyncio.to_thread(send, receiver, "a", "nobody@example.com")
            assert found == (550, b"5.1.1 who?")

    asyncio.run(main())


def test_an_envelope_that_is_dropped_is_answered_451() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            envelopes = receiver.envelopes()
            sender = asyncio.create_task(sent(receiver, "a"))
            await anext(envelopes)  # and nobody keeps it
            assert await sender == [451]
            await envelopes.aclose()

    asyncio.run(main())


def test_without_a_consumer_a_sender_hears_451_at_the_time_limit() -> None:
    async def main() -> None:
        stream = Stream()
        async with daemon(stream, gw_save_timeout="6s") as receiver:
            begun = time.monotonic()
            assert await sent(receiver, "late") == [451]
            assert time.monotonic() - begun < 11.9  # not the limit of one that is being stored
            # Whoever comes now must not store what its sender will send again.
            sender = asyncio.create_task(sent(receiver, "fresh"))
            envelope = await anext(receiver.envelopes())
            assert envelope.subject == "fresh"
            envelope.answer()
            assert await sender == [250]

    asyncio.run(main())


def test_a_sender_waits_longer_for_a_consumer_that_has_its_mail() -> None:
    """As for a stage that stores: a mail that is being saved should not be sent twice."""

    async def main() -> None:
        async with daemon(gw_save_timeout="5s") as receiver:
            envelopes = receiver.envelopes()
            sender = asyncio.create_task(sent(receiver, "a"))
            envelope = await anext(envelopes)
            await asyncio.sleep(5.2)
            assert envelope.answer()
            assert await sender == [250]
            await envelopes.aclose()

    asyncio.run(main())


def test_a_mail_whose_sender_is_gone_is_left_out() -> None:
    async def main() -> None:
        stream = Stream()
        async with daemon(stream) as receiver:
            wire = connect(receiver)
            wire.begin().send(b"Subject: gone\r\n\r\n.\r\n")
            await asyncio.to_thread(until, lambda: stream.waiting)
            wire.reset()
            await asyncio.to_thread(until, lambda: not receiver.stats()["connections_open"])
            sender = asyncio.create_task(sent(receiver, "here"))
            envelope = await anext(receiver.envelopes())
            assert envelope.subject == "here"
            envelope.answer()
            assert await sender == [250]

    asyncio.run(main())


def test_a_task_that_is_cancelled_leaves_what_it_has_to_451() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            entered = asyncio.Event()

            async def slow() -> None:
                async for envelope in receiver.envelopes():
                    entered.set()
                    await asyncio.sleep(60)
                    envelope.answer()

            consumer = asyncio.create_task(slow())
            sender = asyncio.create_task(sent(receiver, "a"))
            await entered.wait()
            consumer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await consumer
            del consumer  # whose error has the frame that has the envelope
            assert await sender == [451]

    asyncio.run(main())


def test_a_wait_can_have_a_time_limit() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            envelopes = receiver.envelopes()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(envelopes), 0.05)
            sender = asyncio.create_task(sent(receiver, "a"))
            (await anext(envelopes)).answer()
            assert await sender == [250]
            await envelopes.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(envelopes)

    asyncio.run(main())


def test_a_stop_waits_for_a_consumer() -> None:
    async def main() -> None:
        async with daemon() as receiver:
            sender = asyncio.create_task(sent(receiver, "a"))
            envelopes = receiver.envelopes()
            envelope = await anext(envelopes)
            asyncio.get_running_loop().call_later(0.2, envelope.answer)
        assert await sender == [250]

    asyncio.run(main())


def test_a_stop_without_a_consumer_answers_451_at_once() -> None:
    async def main() -> None:
        stream = Stream()
        async with daemon(stream) as receiver:
            sender = asyncio.create_task(sent(receiver, "a"))
            await asyncio.to_thread(until, lambda: stream.waiting)
            begun = time.monotonic()
        assert await sender == [451]
        assert time.monotonic() - begun < 10  # the time limit of the mail is 30 s

    asyncio.run(main())


@pytest.mark.parametrize("end", ["close", "forget", "cancel"])
def test_a_consumer_that_ends_while_the_daemon_stops_leaves_nobody_waiting(
    mail: Mail, end: str
) -> None:
    stream = Stream()
    consumer: Envelopes | None = stream.envelopes()
    assert consumer is not None
    if end == "cancel":
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(anext(consumer), 0.01))
    stream.save_batch([before := mail("before")])
    if end == "close":
        asyncio.run(consumer.aclose())
    elif end == "forget":
        consumer = None  # as `break` does
    assert not before.expired  # another consumer may come
    stream.stop()
    stream.save_batch([after := mail("after")])
    assert fates([before, after]) == [TRY_LATER] * 2
    del consumer


def test_a_consumer_that_ends_after_the_stop_leaves_nobody_waiting(mail: Mail) -> None:
    stream = Stream()
    consumer = stream.envelopes()
    stream.stop()
    stream.save_batch([waiting := mail("waiting")])
    assert not waiting.expired
    asyncio.run(consumer.aclose())
    assert waiting.answered == TRY_LATER


def test_a_stream_can_begin_again(mail: Mail) -> None:
    stream = Stream()
    stream.stop()
    stream.end()
    stream.begin()
    stream.save_batch([again := mail("again")])
    assert asyncio.run(anext(stream.envelopes())) is again


def test_a_stream_is_one_daemons_at_a_time() -> None:
    """The end of another one would take this one's consumers along."""
    stream = Stream()
    other = daemon(stream)

    async def main() -> None:
        async with daemon(stream) as receiver:
            consumer = asyncio.create_task(answer_all(receiver.envelopes()))
            with pytest.raises(RuntimeError, match="another daemon's"):
                await asyncio.to_thread(other.start)
            assert await sent(receiver, "good") == [250]
        assert await consumer == ["good"]

    asyncio.run(main())
    with other:  # now it is free
        assert other.addresses


def test_a_full_queue_holds_the_workers_until_there_is_room(
    mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guerrilla.stream._LOOK", 60)  # it is woken, not left to look
    stream = Stream(max_waiting=2)
    mails = [mail(subject) for subject in "abc"]
    worker = threading.Thread(target=stream.save_batch, args=(mails,))
    worker.start()

    async def main() -> None:
        await asyncio.to_thread(until, lambda: stream.waiting == 2)
        worker.join(0.3)
        assert worker.is_alive()
        assert stream.waiting == 2
        consumer = stream.envelopes()
        assert [(await anext(consumer)).subject for _ in mails] == ["a", "b", "c"]

    asyncio.run(main())
    worker.join(10)
    assert not worker.is_alive()


def test_a_full_queue_makes_room_of_what_nobody_waits_for(mail: Mail) -> None:
    stream = Stream(max_waiting=1)
    late, fresh = mail("late"), mail("fresh")
    stream.save_batch([late])
    late.answer(TRY_LATER)  # as its time limit does
    stream.save_batch([fresh])
    assert asyncio.run(anext(stream.envelopes())) is fresh


def test_the_end_frees_a_worker_and_every_consumer(mail: Mail) -> None:
    stream = Stream(max_waiting=1)
    mails = [mail(subject) for subject in "abc"]
    worker = threading.Thread(target=stream.save_batch, args=(mails,))
    worker.start()

    async def main() -> None:
        other = Stream()
        waiting = [asyncio.create_task(anext(other.envelopes(), None)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.to_thread(other.end)
        assert await asyncio.gather(*waiting) == [None, None]

    asyncio.run(main())
    stream.end()
    worker.join(10)
    assert fates(mails) == [TRY_LATER] * 3
    stream.save_batch([later := mail("later")])
    assert fate(later) == TRY_LATER


def test_a_loop_that_is_gone_takes_no_wake_up(mail: Mail) -> None:
    stream = Stream()
    gone = asyncio.new_event_loop()
    lost = stream.envelopes()
    gone.run_until_complete(asyncio.wait([gone.create_task(anext(lost))], timeout=0.01))
    pending = asyncio.all_tasks(gone)

    async def main() -> None:
        task = asyncio.create_task(anext(stream.envelopes()))
        await asyncio.sleep(0)
        gone.close()
        stream.save_batch([mail("a")])
        assert (await asyncio.wait_for(task, 5)).subject == "a"

    asyncio.run(main())
    for task in pending:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_daemon_without_a_stream_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"backend=guerrilla\.Stream\(\)"):
        Daemon().envelopes()
    with pytest.raises(ValueError, match="at least 1"):
        Stream(0)


def test_a_stage_may_take_what_it_answers_later(mail: Mail) -> None:
    mails = [mail("a"), mail("b")]
    with chain_of(Batch(lambda batch: [TAKEN, None])) as chain:
        chain.run(mails)
    assert not mails[0].expired
    assert mails[0].answer(Reply.reject())
    assert fate(mails[1]) == "accepted"
