"""The exception tree."""

import pickle

import pytest

from guerrilla import errors


@pytest.mark.parametrize(
    ("kind", "code", "enhanced"),
    [
        (errors.NoSuchUser, 550, "5.1.1"),
        (errors.UserSuspended, 550, "5.2.1"),
        (errors.QuotaExceeded, 452, "4.2.2"),
        (errors.StorageNotAvailable, 451, "4.3.0"),
        (errors.StorageTooBusy, 451, "4.3.2"),
        (errors.StorageTimeout, 451, "4.4.1"),
        (errors.StorageError, 451, "4.3.0"),
    ],
)
def test_each_delivery_error_has_its_reply(
    kind: type[errors.DeliveryError], code: int, enhanced: str
) -> None:
    """Code, enhanced code of the same class, and a text that can be replaced."""
    assert (kind.code, kind.enhanced) == (code, enhanced)
    assert enhanced.startswith(str(code)[0])
    assert str(kind()) == kind.text
    assert str(kind("alice is away")) == "alice is away"
    assert issubclass(kind, errors.GuerrillaError)


def test_an_unknown_user_is_told_as_go_guerrilla_tells_it() -> None:
    """Unless it was raised with a text."""
    assert str(errors.NoSuchUser()) == "User unknown in local recipient table"


def test_unavailable_is_no_delivery_error() -> None:
    """It concerns a whole batch, not one mail."""
    assert issubclass(errors.Unavailable, errors.GuerrillaError)
    assert not issubclass(errors.Unavailable, errors.DeliveryError)


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.StartError])
def test_a_list_of_problems_is_a_line_each(
    kind: type[errors.ConfigError] | type[errors.StartError],
) -> None:
    """One problem may come as a text."""
    error = kind(["a: bad", "b: worse"])
    assert error.problems == ("a: bad", "b: worse")
    assert str(error) == "a: bad\nb: worse"
    assert kind("one").problems == ("one",)
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_a_config_error_is_a_value_error() -> None:
    """A start error is none."""
    assert issubclass(errors.ConfigError, ValueError)
    assert not issubclass(errors.StartError, ValueError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ("a\nb", r"'a\nb'"),
        ({"a": 1}, "an object"),
        ([1], "a list"),
    ],
)
def test_a_bad_value_is_shown_as_a_config_has_it(value: object, text: str) -> None:
    """On one line."""
    assert errors.shown(value) == text


def test_a_long_value_is_cut() -> None:
    """A megabyte in a config makes no megabyte of log."""
    assert errors.shown(16**9000) == "a huge integer"
    assert len(errors.shown("x" * 10**6)) == 60
