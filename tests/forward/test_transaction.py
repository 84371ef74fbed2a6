"""Transactions step by step, without a socket: what is said, and what each recipient gets."""

from __future__ import annotations

import pytest

from guerrilla._core import Reply
from guerrilla.forward.commands import NEEDS_BINARY, NEEDS_UTF8, TOO_LARGE, Path
from guerrilla.forward.replies import FarReply
from guerrilla.forward.steps import Heard, LostError, ProtocolError
from guerrilla.forward.transaction import IN_DOUBT, TOO_MANY, Mail, Result, relay, verify
from tests.forward.helpers import ALL, MESSAGE, PIPELINED, extensions, path, talk

OK = "250 2.1.0 ok\n"
GO = "354 go\n"
NO = "550 5.1.1 no such user\n"
LATER = "451 4.7.1 later\n"
TAKEN = "250 2.0.0 queued\n"

ONE = b"MAIL FROM:<from@example.org>\r\nRCPT TO:<a@example.com>\r\n"
TWO = ONE + b"RCPT TO:<b@example.com>\r\n"
DOT = MESSAGE + b".\r\n"
DATA = b"DATA\r\n"
RSET = b"RSET\r\n"

ok = Reply(250, "2.0.0", "queued")
no = Reply(550, "5.1.1", "no such user")
later = Reply(451, "4.7.1", "later")


def mail(*users: str, data: bytes = MESSAGE, **keys: str | None) -> Mail:
    return Mail(
        path("from@example.org", **keys), [path(f"{u}@example.com") for u in users], b"", data
    )


def hand_over(
    what: Mail,
    *answers: str | Heard,
    offers: tuple[str, ...] = PIPELINED,
    lmtp: bool = False,
    apart: bool = True,
) -> tuple[list[bytes], Result]:
    return talk(relay(what, extensions(*offers), lmtp=lmtp, apart=apart), *answers)


# --- In what order -------------------------------------------------------------------------------


def test_one_recipient_takes_two_round_trips() -> None:
    said, result = hand_over(mail("a"), OK + OK + GO, TAKEN)
    assert said == [ONE + DATA, DOT]
    assert result == Result([ok])


def test_a_reply_that_is_one_for_all_is_each_ones() -> None:
    said, result = hand_over(mail("a", "b"), OK + OK + OK + GO, TAKEN)
    assert said == [TWO + DATA, DOT]
    assert result == Result([ok, ok])


def test_who_may_have_to_stop_asks_for_the_data_last() -> None:
    said, result = hand_over(mail("a", "b"), OK + OK + OK, GO, TAKEN, apart=False)
    assert said == [TWO, DATA, DOT]
    assert result == Result([ok, ok])


def test_without_pipelining_each_command_waits() -> None:
    said, result = hand_over(mail("a", "b"), OK, OK, OK, GO, TAKEN, offers=())
    assert said == [*TWO.splitlines(keepends=True), DATA, DOT]
    assert result == Result([ok, ok])


def test_what_is_not_binary_goes_by_data() -> None:
    """A reply too many, which came late, would be that of a chunk; it is no 354."""
    message = b"Subject: x\r\n\r\n.\r\n"
    said, result = hand_over(mail("a", data=message), OK + OK + GO, TAKEN, offers=ALL)
    assert said == [
        b"MAIL FROM:<from@example.org> SIZE=17\r\nRCPT TO:<a@example.com>\r\nDATA\r\n",
        b"Subject: x\r\n\r\n..\r\n.\r\n",
    ]
    assert result == Result([ok])
    with pytest.raises(ProtocolError, match="to DATA"):
        hand_over(mail("a"), OK * 3, offers=ALL)


def test_binary_mail_arrives_octet_for_octet() -> None:
    message = b"Subject: x\n\r\0\n.\n\xff"
    said, result = hand_over(mail("a", data=message, BODY="BINARYMIME"), OK + OK, TAKEN, offers=ALL)
    assert said[0].startswith(b"MAIL FROM:<from@example.org> SIZE=17 BODY=BINARYMIME\r\n")
    assert said[1] == b"BDAT 17 LAST\r\n" + message
    assert result == Result([ok])


def test_bare_line_ends_smuggle_nothing() -> None:
    """As `bare_newline = "keep"` has them."""
    message = b"x\n.\nMAIL FROM:<evil@example.org>\n\r.\rQUIT"
    said, _ = hand_over(mail("a", data=message), OK, OK, GO, TAKEN, offers=())
    fixed = b"x\r\n.\r\nMAIL FROM:<evil@example.org>\r\n\r\n.\r\nQUIT"
    assert said[-1] == fixed.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n"


# --- Who is refused ------------------------------------------------------------------------------


def test_refused_recipients_have_their_reply_and_the_others_the_mail() -> None:
    said, result = hand_over(mail("a", "b", "c"), OK + NO + OK + LATER + GO, TAKEN)
    assert said[-1] == DOT
    assert result == Result([no, ok, later])


@pytest.mark.parametrize(("answer", "reply"), [(NO, no), (LATER, later)])
def test_who_has_one_reply_for_all_has_the_mail_taken_for_all_or_none(
    answer: str, reply: Reply
) -> None:
    said, result = hand_over(mail("a", "b"), OK + OK + answer, OK, apart=False)
    assert said == [TWO, RSET]
    assert result == Result([None, reply])


def test_nobody_is_taken() -> None:
    said, result = hand_over(mail("a", "b"), OK + NO + LATER + "503 no\n", OK)
    assert said == [TWO + DATA, RSET]
    assert result == Result([no, later])


def test_data_that_is_granted_to_nobody_ends_the_connection() -> None:
    """Whatever was sent then would be a message."""
    said, result = hand_over(mail("a"), OK + NO + GO)
    assert said == [ONE + DATA]
    assert result == Result([no], is_clean=False)
    _, result = hand_over(mail("a"), NO + OK + GO)
    assert result == Result([no], is_clean=False)


def test_a_sender_that_is_refused_is_each_recipients_reply() -> None:
    said, result = hand_over(mail("a", "b"), NO + "503 no\n" * 3)
    assert said == [TWO + DATA]
    assert result == Result([no, no])
    said, result = hand_over(mail("a", "b"), LATER, offers=())
    assert said == [b"MAIL FROM:<from@example.org>\r\n"]
    assert result == Result([later, later])


def test_data_that_is_refused_is_the_reply_of_those_who_were_taken() -> None:
    said, result = hand_over(mail("a", "b"), OK + NO + OK + LATER, OK)
    assert said == [TWO + DATA, RSET]
    assert result == Result([no, later])


@pytest.mark.parametrize("apart", [True, False])
def test_the_message_is_refused(apart: bool) -> None:
    answers = [OK * 3 + GO] if apart else [OK * 3, GO]
    _, result = hand_over(mail("a", "b"), *answers, LATER, apart=apart)
    assert result == Result([later, later])


def test_a_chunk_that_is_refused_needs_a_reset() -> None:
    said, result = hand_over(mail("a", BODY="BINARYMIME"), OK + OK, LATER, OK, offers=ALL)
    assert said[-1] == RSET
    assert result == Result([later])


def test_a_reset_that_fails_ends_the_connection() -> None:
    for answer in ("500 what?\n", ""):
        _, result = hand_over(mail("a", "b"), OK + OK + NO, answer, apart=False)
        assert result == Result([None, no], is_clean=False)


# --- LMTP ----------------------------------------------------------------------------------------


def test_lmtp_has_a_reply_for_each_who_was_taken() -> None:
    answers = TAKEN + "452 4.2.2 full\n"
    _, result = hand_over(mail("a", "b", "c"), OK + OK + NO + OK + GO, answers, lmtp=True)
    assert result == Result([ok, no, Reply(452, "4.2.2", "full")])


def test_lmtp_by_bdat() -> None:
    what = mail("a", "b", BODY="BINARYMIME")
    said, result = hand_over(what, OK * 3, TAKEN + NO, OK, offers=ALL, lmtp=True)
    assert said[-1] == RSET
    assert result == Result([ok, no])


def test_lmtp_that_ends_between_its_replies() -> None:
    _, result = hand_over(mail("a", "b"), OK * 3 + GO, TAKEN, lmtp=True)
    assert result.replies == [ok, IN_DOUBT]
    assert not result.is_clean
    assert result.doubt


# --- Connections that end ------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [("",), (OK,), (OK + OK,), (OK + OK + GO, Heard(lost="gone"))])
def test_before_the_end_of_the_message_nothing_was_taken(answers: tuple[str | Heard, ...]) -> None:
    with pytest.raises(LostError):
        hand_over(mail("a"), *answers)


@pytest.mark.parametrize("answers", [("",), (OK, ""), (OK, OK, "")])
def test_likewise_without_pipelining(answers: tuple[str, ...]) -> None:
    with pytest.raises(LostError):
        hand_over(mail("a"), *answers, offers=())


def test_after_the_end_of_the_message_nobody_knows() -> None:
    _, result = hand_over(mail("a"), OK + OK + GO, "")
    assert result == Result([IN_DOUBT], is_clean=False, doubt="it closed the connection")
    assert IN_DOUBT.code == 451


def test_what_makes_no_sense_after_the_end_leaves_it_in_doubt() -> None:
    _, result = hand_over(mail("a"), OK + OK + GO, GO)
    assert result == Result([IN_DOUBT], is_clean=False, doubt="it said 354 go")
    # Who was answered before it has it; whose the replies behind it are nobody knows.
    _, result = hand_over(mail("a", "b", "c"), OK * 4 + GO, TAKEN + GO + TAKEN, lmtp=True)
    assert result.replies == [ok, IN_DOUBT, IN_DOUBT]
    assert (result.is_clean, result.doubt) == (False, "it said 354 go")


def test_a_reason_that_came_before_the_end_is_told() -> None:
    _, result = hand_over(mail("a"), NO)
    assert result == Result([no], is_clean=False)


def test_a_message_that_is_refused_before_it_is_sent() -> None:
    early = Heard([FarReply(552, ("too big",), "5.3.4")], unsent=True)
    _, result = hand_over(mail("a", "b"), OK * 3 + GO, early, lmtp=True)
    assert result == Result([Reply(552, "5.3.4", "too big")] * 2, is_clean=False)


def test_a_message_that_is_taken_before_it_is_sent_is_not() -> None:
    with pytest.raises(ProtocolError, match="before it had heard all"):
        hand_over(mail("a"), OK + OK + GO, Heard([FarReply(250)], unsent=True))


@pytest.mark.parametrize(
    "answers",
    [
        (GO + OK + GO,),
        (OK + GO + GO,),
        (OK + OK + OK,),
        (OK + OK + GO, Heard([FarReply(334)], unsent=True)),
    ],
)
def test_replies_that_make_no_sense(answers: tuple[str, ...]) -> None:
    with pytest.raises(ProtocolError):
        hand_over(mail("a"), *answers)


# --- What cannot be said -------------------------------------------------------------------------


def test_a_mail_that_the_far_side_cannot_have_is_not_begun() -> None:
    assert hand_over(mail("a", BODY="BINARYMIME")) == ([], Result([NEEDS_BINARY]))
    assert hand_over(mail("a"), offers=("SIZE 5",)) == ([], Result([TOO_LARGE]))
    header = Mail(path(), [path()], b"", MESSAGE, has_utf8_header=True)
    assert hand_over(header) == ([], Result([NEEDS_UTF8]))


def test_a_recipient_that_cannot_be_said() -> None:
    said, result = hand_over(mail("a", "\u00fc"), OK + OK + GO, TAKEN)
    assert said == [ONE + DATA, DOT]
    assert result == Result([ok, NEEDS_UTF8])
    assert hand_over(mail("a", "\u00fc"), apart=False) == ([], Result([None, NEEDS_UTF8]))


def test_a_host_has_an_ascii_form() -> None:
    sender = Path("from@b\u00fccher.example", {}, "from@xn--bcher-kva.example")
    recipient = Path("to@\u00fc.example", {}, "to@xn--tda.example")
    what = Mail(sender, [recipient], b"", MESSAGE)
    said, result = hand_over(what, OK + OK + GO, TAKEN)
    assert said[0] == (
        b"MAIL FROM:<from@xn--bcher-kva.example>\r\nRCPT TO:<to@xn--tda.example>\r\nDATA\r\n"
    )
    assert result == Result([ok])
    said, _ = hand_over(what, OK + OK + GO, TAKEN, offers=ALL)
    assert said[0].decode().splitlines() == [
        "MAIL FROM:<from@b\u00fccher.example> SIZE=24 SMTPUTF8",
        "RCPT TO:<to@\u00fc.example>",
        "DATA",
    ]
    talked = verify(sender, recipient, extensions(*PIPELINED), size=0)
    said, (reply, _) = talk(talked, OK * 3)
    assert b"<to@xn--tda.example>" in said[0]
    assert reply.code == 250


@pytest.mark.parametrize("apart", [True, False])
def test_it_is_named_no_more_recipients_than_it_takes(apart: bool) -> None:
    offers = (*PIPELINED, "LIMITS MAILMAX=9 RCPTMAX=2")
    what = mail("a", "\u00fc", "b", "c", "d")
    if apart:
        said, result = hand_over(what, OK * 3 + GO, TAKEN, offers=offers)
        assert said == [TWO + DATA, DOT]
        assert result == Result([ok, NEEDS_UTF8, ok, TOO_MANY, TOO_MANY])
        assert TOO_MANY.code == 452
    else:  # it would answer so for those beyond, and nobody would have the mail
        what = mail("a", "b", "c")
        assert hand_over(what, offers=offers, apart=False) == ([], Result([None, None, TOO_MANY]))
    said, result = hand_over(mail("a", "b"), OK * 3 + GO, TAKEN, offers=offers)
    assert result == Result([ok, ok])


def test_utf8_where_it_can_be_said() -> None:
    said, result = hand_over(mail("\u00fc"), OK + OK + GO, TAKEN, offers=ALL)
    first, second, *_ = said[0].decode().split("\r\n")
    assert first.endswith(" SMTPUTF8")
    assert second == "RCPT TO:<\u00fc@example.com>"
    assert result == Result([ok])


# --- Questions -----------------------------------------------------------------------------------


def question(
    *answers: str, offers: tuple[str, ...] = PIPELINED
) -> tuple[list[bytes], tuple[Reply, bool]]:
    talked = verify(path("from@example.org"), path("a@example.com"), extensions(*offers), size=9)
    return talk(talked, *answers)


def test_a_question_is_one_round_trip() -> None:
    said, (reply, is_clean) = question(OK + NO + OK)
    assert said == [ONE + RSET]
    assert (reply, is_clean) == (no, True)


@pytest.mark.parametrize(
    ("offers", "answers", "found"),
    [
        (PIPELINED, (OK + OK + OK,), (Reply(250, "2.1.0", "ok"), True)),
        (PIPELINED, (NO + "503 no\n" + OK,), (no, True)),
        (PIPELINED, (OK + LATER + "500 what?\n",), (later, False)),
        (PIPELINED, (OK + LATER,), (later, False)),
        ((), (OK, NO, OK), (no, True)),
        ((), (NO,), (no, True)),
        ((), (OK, NO, ""), (no, False)),
        (("SIZE 5",), (), (TOO_LARGE, True)),
    ],
)
def test_its_answer(offers: tuple[str, ...], answers: tuple[str, ...], found: object) -> None:
    assert question(*answers, offers=offers)[1] == found


def test_a_question_that_nobody_answers() -> None:
    for answers in (("",), (OK,)):
        with pytest.raises(LostError):
            question(*answers)
