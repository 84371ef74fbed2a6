"""Replies: one a recipient, folded to one, and made from errors."""

from __future__ import annotations

import pytest

from guerrilla import errors
from guerrilla.reply import TRY_LATER, Replies, Reply, fold, reply_for

OK = Reply.ok()
OK_TOO = Reply.ok("stored")
LATER = Reply.retry()
FULL = Reply(452, "4.2.2", "full")
NO = Reply.reject()
UNKNOWN = Reply(550, "5.1.1", "unknown")


@pytest.mark.parametrize(
    ("replies", "folded"),
    [
        ([OK], OK),
        ([OK_TOO, OK], OK_TOO),
        ([OK, LATER], LATER),
        ([NO, FULL, LATER], FULL),
        ([LATER, NO, OK], LATER),
        ([OK, NO], NO),
        ([UNKNOWN, OK, NO], UNKNOWN),
    ],
)
def test_replies_fold_to_the_one_that_loses_no_mail(replies: list[Reply], folded: Reply) -> None:
    assert fold(Replies(replies)) == folded


def test_nothing_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match="no replies"):
        fold([])


def test_replies_hold_replies_only() -> None:
    with pytest.raises(TypeError, match="not str"):
        Replies([OK, "250 OK"])  # type: ignore[list-item]


def test_replies_is_a_tuple() -> None:
    assert Replies([OK, NO]) == (OK, NO)


@pytest.mark.parametrize(
    ("error", "code", "enhanced"),
    [
        (errors.NoSuchUser(), 550, "5.1.1"),
        (errors.UserSuspended(), 550, "5.2.1"),
        (errors.QuotaExceeded(), 452, "4.2.2"),
        (errors.StorageNotAvailable(), 451, "4.3.0"),
        (errors.StorageTooBusy(), 451, "4.3.2"),
        (errors.StorageTimeout(), 451, "4.4.1"),
        (errors.StorageError(), 451, "4.3.0"),
    ],
)
def test_an_error_has_its_reply(error: Exception, code: int, enhanced: str) -> None:
    reply = reply_for(error)
    assert (reply.code, reply.enhanced) == (code, enhanced)


def test_an_error_may_bring_its_text() -> None:
    assert reply_for(errors.NoSuchUser("nobody of that name")).text == "nobody of that name"


@pytest.mark.parametrize("text", ["two\r\nlines", "sch\u0085n", "\x00", "a\u2028b"])
def test_a_text_that_is_no_reply_is_replaced_and_the_code_stays(text: str) -> None:
    reply = reply_for(errors.NoSuchUser(text))
    assert (reply.code, reply.text) == (550, errors.NoSuchUser.text)


def test_a_text_may_be_of_any_script() -> None:
    assert reply_for(errors.NoSuchUser("没有 schön 😀")).text == "没有 schön 😀"


def test_an_error_of_ones_own_with_a_bad_code_becomes_451() -> None:
    class Strange(errors.DeliveryError):
        code = 999

    assert reply_for(Strange()) == TRY_LATER


@pytest.mark.parametrize("error", [ValueError("x"), errors.Unavailable("gone"), SystemExit(1)])
def test_any_other_error_is_passing(error: BaseException) -> None:
    assert reply_for(error) == TRY_LATER
    assert (TRY_LATER.code, TRY_LATER.enhanced) == (451, "4.3.0")
