"""A connection that is kept, lost and made again."""

from __future__ import annotations

import itertools

import pytest

from guerrilla.errors import Unavailable
from guerrilla.kept import FIRST_DELAY, LONGEST_DELAY, Kept, delay_after


class Place:
    """Somewhere to connect to, which can be down."""

    def __init__(self) -> None:
        self.now = 0.0
        self.down = False
        self.made = 0
        self.closed: list[int] = []

    def connect(self) -> int:
        if self.down:
            raise ConnectionRefusedError("refused")
        self.made += 1
        return self.made

    def disconnect(self, connection: int) -> None:
        self.closed.append(connection)
        raise OSError("it is broken anyway")

    def kept(self) -> Kept[int]:
        return Kept("place", self.connect, self.disconnect, clock=lambda: self.now)


def test_one_that_works_is_used_again() -> None:
    place = Place()
    kept = place.kept()
    kept.open()
    assert [kept.get(), kept.get()] == [1, 1]
    kept.close()
    kept.close()
    assert place.closed == [1]


def test_opening_says_what_went_wrong_as_it_is() -> None:
    place = Place()
    place.down = True
    with pytest.raises(ConnectionRefusedError):
        place.kept().open()


def test_a_lost_one_is_made_again_at_once() -> None:
    place = Place()
    kept = place.kept()
    kept.open()
    kept.lost()
    assert (kept.get(), place.closed) == (2, [1])


def test_while_it_is_down_it_is_tried_ever_more_seldom() -> None:
    place = Place()
    kept = place.kept()
    kept.open()
    kept.lost()
    place.down = True
    with pytest.raises(Unavailable, match=r"place: ConnectionRefusedError: refused$"):
        kept.get()
    with pytest.raises(Unavailable, match=r"refused; tried again in 0.1 s"):
        kept.get()
    tries = []
    for _ in range(2_000):
        place.now += FIRST_DELAY / 4
        with pytest.raises(Unavailable) as raised:
            kept.get()
        if str(raised.value).endswith("refused"):
            tries.append(place.now)
    delays = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert delays[0] < 4 * FIRST_DELAY
    assert LONGEST_DELAY <= delays[-1] < LONGEST_DELAY + FIRST_DELAY
    assert all(later > earlier - FIRST_DELAY for earlier, later in itertools.pairwise(delays))
    place.down = False
    place.now += LONGEST_DELAY
    assert kept.get() == 2


def test_after_a_success_the_first_delay_is_short_again() -> None:
    place = Place()
    kept = place.kept()
    for _ in range(5):
        place.down = True
        with pytest.raises(Unavailable):
            kept.get()
        place.now += LONGEST_DELAY
    place.down = False
    kept.get()
    kept.lost()
    place.down = True
    with pytest.raises(Unavailable, match=r"refused$"):
        kept.get()
    place.down = False
    place.now += FIRST_DELAY
    assert kept.get() == 2


def test_one_that_is_away_for_days_is_tried_all_the_same() -> None:
    assert [delay_after(failures) for failures in (0, 1, 1_024, 10**9)] == [
        FIRST_DELAY,
        2 * FIRST_DELAY,
        LONGEST_DELAY,
        LONGEST_DELAY,
    ]
    place = Place()
    place.down = True
    kept = place.kept()
    for _ in range(1_100):
        with pytest.raises(Unavailable, match=r"refused$"):
            kept.get()
        place.now += LONGEST_DELAY
    place.down = False
    assert kept.get() == 1
