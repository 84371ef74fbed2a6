"""Durations and sizes."""

import math

import pytest
from pydantic import BaseModel, ValidationError

from guerrilla.units import MAX_BYTES, MAX_SECONDS, Bytes, Seconds, parse_bytes, parse_seconds


class _Options(BaseModel):
    wait: Seconds = 1.0
    room: Bytes = 1


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0.0),
        (30, 30.0),
        (0.25, 0.25),
        (MAX_SECONDS, float(MAX_SECONDS)),
        ("0", 0.0),
        ("0s", 0.0),
        ("-0s", 0.0),
        ("30s", 30.0),
        ("+5s", 5.0),
        (" 5s ", 5.0),
        ("1h2m3.5s", 3723.5),
        ("3s1h", 3603.0),
        ("500ms", 0.5),
        ("1us", 0.000001),
        ("1\u00b5s", 0.000001),
        ("1\u03bcs", 0.000001),
        ("1ns", 0.000000001),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("0.1s", 0.1),
    ],
)
def test_a_duration_is_read(given: object, seconds: float) -> None:
    """Every form that Go writes, and plain numbers."""
    assert parse_seconds(given) == seconds


@pytest.mark.parametrize(
    "given",
    [
        "",
        "s",
        "30",
        "soon",
        "1d",
        "1 s",
        "1h 2m",
        "1.2.3s",
        "++5s",
        "5S",
        "٣s",
        ".s",
        True,
        None,
        [],
    ],
)
def test_what_is_no_duration_is_refused_with_the_good_forms(given: object) -> None:
    """A unit is required in a text, as in Go."""
    with pytest.raises(ValueError, match=r"^expected a duration such as '30s'.*, got "):
        parse_seconds(given)


@pytest.mark.parametrize("given", [math.inf, -math.inf, math.nan])
def test_a_duration_is_finite(given: float) -> None:
    """TOML can write inf and nan."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_seconds(given)


@pytest.mark.parametrize("given", [-1, -0.5, "-1s", "-1h2m"])
def test_a_negative_duration_is_refused(given: object) -> None:
    """Go would take it."""
    with pytest.raises(ValueError, match="expected a duration that is not negative, got "):
        parse_seconds(given)


@pytest.mark.parametrize("given", [MAX_SECONDS + 1, "9999999h", 10**400])
def test_a_duration_over_100_years_is_refused(given: object) -> None:
    """It would overflow where a lock waits for it."""
    with pytest.raises(ValueError, match="expected a duration of at most 100 years, got "):
        parse_seconds(given)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (0, 0),
        (MAX_BYTES, MAX_BYTES),
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("10kB", 10_000),
        ("10MB", 10_000_000),
        ("1 GB", 10**9),
        ("2TB", 2 * 10**12),
        ("1 KiB", 1024),
        ("64 MiB", 64 * 2**20),
        ("64mib", 64 * 2**20),
        ("1 GiB", 2**30),
        ("1TiB", 2**40),
        ("1.5 MiB", 3 * 2**19),
        (" 1 MiB ", 2**20),
    ],
)
def test_a_size_is_read(given: object, size: int) -> None:
    """Powers of 1000 and of 1024."""
    assert parse_bytes(given) == size


@pytest.mark.parametrize(
    "given", ["", "MiB", "64M", "64k", "1  MiB", "1 XiB", "much", "1e3", 1.0, True, None, {}]
)
def test_what_is_no_size_is_refused_with_the_good_forms(given: object) -> None:
    """64M could be either."""
    with pytest.raises(ValueError, match=r"^expected a size such as '64 MiB'.*, got "):
        parse_bytes(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (-1, "not negative"),
        ("-1 MiB", "not negative"),
        ("0.5B", "a whole number of bytes"),
        (MAX_BYTES + 1, "at most 8 EiB"),
        ("9999999 TiB", "at most 8 EiB"),
    ],
)
def test_a_size_out_of_range_is_refused(given: object, message: str) -> None:
    """Each with its own reason."""
    with pytest.raises(ValueError, match=message):
        parse_bytes(given)


def test_units_are_types_for_the_options_of_a_processor() -> None:
    """A model's field reads the same forms."""
    options = _Options.model_validate({"wait": "1m", "room": "1 KiB"})
    assert (options.wait, options.room) == (60.0, 1024)
    with pytest.raises(ValidationError, match="expected a duration"):
        _Options.model_validate({"wait": "soon"})
