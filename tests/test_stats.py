"""Figures of a running daemon."""

from __future__ import annotations

from tests.daemons import Keeper, Make, config, connect
from tests.wire import until


def test_replies_are_counted_by_their_codes(make: Make) -> None:
    raw = config()
    raw["servers"][0]["max_clients"] = 1
    with make(raw) as daemon:
        with connect(daemon) as wire:
            assert wire.deliver(b"Subject: counted").startswith("250 ")
            assert wire.ask(b"WHAT\r\n").startswith("500 ")
            with connect(daemon, greeted=False) as refused:
                assert refused.reply().startswith("421 ")
            assert wire.ask(b"QUIT\r\n").startswith("221 ")
        figures = daemon.stats()
    found = {name: value for name, value in figures.items() if name.startswith("replies_")}
    # EHLO, MAIL, RCPT and the message.
    assert found == {
        "replies_220": 1,
        "replies_221": 1,
        "replies_250": 4,
        "replies_354": 1,
        "replies_421": 1,
        "replies_500": 1,
    }


def test_the_age_of_the_queue_is_that_of_the_oldest_mail_in_it(
    make: Make, keeper: type[Keeper]
) -> None:
    with make() as daemon, connect(daemon) as first, connect(daemon) as second:
        assert daemon.stats()["queue_age_ms"] == 0
        first.begin().send(b"Subject: hang\r\n\r\n.\r\n")
        assert keeper.entered.wait(20)
        second.begin().send(b"Subject: waits\r\n\r\n.\r\n")
        until(lambda: daemon.stats()["queue_age_ms"] > 50)
        assert daemon.stats()["queue_depth"] == 1
        keeper.release.set()
        assert second.reply().startswith("250 ")
        assert daemon.stats()["queue_age_ms"] == 0
