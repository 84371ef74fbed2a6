"""Replies of a far side, whole and in pieces, and what is none."""

from __future__ import annotations

import pytest

from guerrilla._core import Reply
from guerrilla.forward.replies import MAX_LINE, FarReply, ReplyReader
from guerrilla.forward.steps import ProtocolError

READ = [
    (b"250 ok\r\n", FarReply(250, ("ok",))),
    (b"250\r\n", FarReply(250, ("",))),
    (b"250 \r\n", FarReply(250, ("",))),
    (b"250 ok\n", FarReply(250, ("ok",))),
    (b"550 5.1.1 no such user\r\n", FarReply(550, ("no such user",), "5.1.1")),
    (b"550 5.1.1\r\n", FarReply(550, ("",), "5.1.1")),
    (b"550-5.1.1 no\r\n550 5.1.1 user\r\n", FarReply(550, ("no", "user"), "5.1.1")),
    (b"550-5.1.1 no\n550 user\n", FarReply(550, ("no", "user"), "5.1.1")),
    (b"250-mx\r\n250-SIZE 10\r\n250\r\n", FarReply(250, ("mx", "SIZE 10", ""))),
    # An enhanced code of another class is a text like any other.
    (b"550 2.1.1 what\r\n", FarReply(550, ("2.1.1 what",))),
    (b"550 5.1.1x what\r\n", FarReply(550, ("5.1.1x what",))),
    (b"354 go\r\n", FarReply(354, ("go",))),
]


@pytest.mark.parametrize(("octets", "reply"), READ)
def test_it_is_read_in_one_piece_and_octet_by_octet(octets: bytes, reply: FarReply) -> None:
    reader = ReplyReader()
    reader.feed(octets + b"250 next\r\n")
    assert reader.next() == reply
    assert reader.next() == FarReply(250, ("next",))
    assert not reader.has_more
    for index in range(len(octets)):
        assert reader.next() is None
        reader.feed(octets[index : index + 1])
    assert reader.next() == reply


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"150 wait\r\n",
        b"600 no\r\n",
        b"250_ok\r\n",
        b"250-one\r\n550 other\r\n",
        b"\x16\x03\x01\x00\xa5\x01\n",
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"x" * (MAX_LINE + 1),
        b"250-and so on\r\n" * 10_000,
    ],
)
def test_what_is_no_reply(octets: bytes) -> None:
    reader = ReplyReader()
    reader.feed(octets)
    with pytest.raises(ProtocolError):
        reader.next()


@pytest.mark.parametrize(
    ("octets", "passed_on"),
    [
        (b"550 5.1.1 no such user", Reply(550, "5.1.1", "no such user")),
        (b"452-4.2.2 full\r\n452 4.2.2 very", Reply(452, "4.2.2", "full very")),
        (b"451 wait", Reply(451, "4.0.0", "wait")),
        (b"599", Reply(599, "5.0.0", "No reason given")),
        (b"250 2.6.0 queued", Reply(250, "2.6.0", "queued")),
        # What ends the far side's connection does not end ours.
        (b"421 4.3.2 going down", Reply(451, "4.3.2", "going down")),
        # Our own login is no reason for a bounce.
        (b"530 5.7.0 log in first", Reply(451, "4.7.0", "log in first")),
        (b"535 no", Reply(451, "4.0.0", "no")),
        # What is not ASCII is told as our client can hear it; what is not printable is not told.
        ("550 gr\u00fc\u00dfe\tx\x1b[1m".encode(), Reply(550, "5.0.0", "gr\u00fc\u00dfe?x?[1m")),
        ("550 a\u202eb\u2028\u0085\ufffd".encode(), Reply(550, "5.0.0", "a?b???")),
        # It took the mail, whatever it makes of its enhanced code.
        (b"250 2.00.0 ok", Reply(250, "2.0.0", "2.00.0 ok")),
        (b"250 2.999.0 ok", Reply(250, "2.999.0", "ok")),
        (b"550 5.1.1 \xff", Reply(550, "5.1.1", "?")),
    ],
)
def test_it_is_passed_on_code_for_code(octets: bytes, passed_on: Reply) -> None:
    reader = ReplyReader()
    reader.feed(octets + b"\r\n")
    reply = reader.next()
    assert reply is not None
    assert reply.passed_on() == passed_on
    assert (reply.passed_on().enhanced, reply.passed_on().text) == (
        passed_on.enhanced,
        passed_on.text,
    )


def test_a_long_text_is_cut_to_what_a_reply_of_ours_holds() -> None:
    reader = ReplyReader()
    reader.feed(b"550-%s\r\n" % (b"x" * 500) * 40 + b"550 end\r\n")
    reply = reader.next()
    assert reply is not None
    assert len(reply.passed_on().text) == 1_000


@pytest.mark.parametrize("word", [1, 26, 90, 200])
def test_a_long_text_of_other_characters_too(word: int) -> None:
    """Each is as long as ten in a reply to who hears no UTF-8."""
    text = " ".join(["\U00020000" * word] * (500 // word))
    assert len(FarReply(250, (text,)).passed_on().text) == 200


def test_a_code_that_answers_no_command_is_no_reply_of_ours() -> None:
    with pytest.raises(ProtocolError, match="it said 354 go"):
        FarReply(354, ("go",)).passed_on()
