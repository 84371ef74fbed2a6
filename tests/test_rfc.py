"""`docs/rfc.md` names tests that exist; the replies of the conversations are those of the RFCs."""

from __future__ import annotations

import re

import pytest

from tests.documents import CONVERSATION, CONVERSATIONS, ROOT, TEST, conversations, missing, rows

TEXT = (ROOT / "docs" / "rfc.md").read_text(encoding="utf-8")
ROWS = rows(TEXT)

_REPLY = re.compile(r"S: (\d+)([ -])(.*)")
_HELLO = re.compile(
    r"\S+ Hello|SIZE \d+|PIPELINING|8BITMIME|STARTTLS|AUTH PLAIN LOGIN|SMTPUTF8|CHUNKING"
    r"|BINARYMIME|DSN|LIMITS .*|XCLIENT .*|ENHANCEDSTATUSCODES|HELP"
)
"""What the replies to HELO and EHLO say, which have no enhanced codes."""

_CODES = {
    *(211, 214, 220, 221, 250, 251, 252, 354),
    *(421, 450, 451, 452, 455),
    *(500, 501, 502, 503, 504, 550, 551, 552, 553, 554, 555),
    *(454, 530),  # RFC 3207 §4
    *(235, 334, 535, 538),  # RFC 4954 §6
}
"""RFC 5321 §4.2.3, and those of the extensions that are built."""

_NEVER = "Internal error, closing the connection"
"""Behind a panic, of which none is known."""


def _replies() -> list[tuple[str, int, str, str]]:
    """Every line that a conversation expects letter by letter: its file, code, mark, text."""
    files = [
        (path.name, path.read_text(encoding="utf-8").splitlines())
        for path in sorted(CONVERSATIONS.glob("*.smtp"))
    ]
    return [
        (name, int(reply[1]), reply[2], reply[3])
        for name, lines in files
        if not any(line.startswith("V:") for line in lines)  # replies that a processor made up
        for line in lines
        if (reply := _REPLY.fullmatch(line))
    ]


def test_there_are_requirements() -> None:
    assert len(ROWS) > 80
    assert all(len(row) == 4 for row in ROWS)
    assert {row[1] for row in ROWS} == {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[2][:30]}")
def test_each_requirement_has_a_test_or_a_reason(row: list[str]) -> None:
    shown = row[3]
    plain = TEST.sub("", CONVERSATION.sub("", shown)).strip(" ,.:")
    assert CONVERSATION.search(shown) or TEST.search(shown) or len(plain) > 20


def test_the_tests_it_names_exist() -> None:
    assert len(conversations(TEXT)) > 50
    assert missing(TEXT) == []


def test_replies_have_the_codes_of_the_standards() -> None:
    replies = _replies()
    assert len(replies) > 500
    assert {code for _, code, _, _ in replies} <= _CODES
    # 512 octets with code, mark and CRLF: RFC 5321 §4.5.3.1.5.
    assert [text for _, _, _, text in replies if len(text.encode()) > 506] == []


def test_replies_have_enhanced_codes_of_their_class() -> None:
    without = []
    for name, code, _, text in _replies():
        if code // 100 == 3 or _HELLO.fullmatch(text) or (code == 220 and " SMTP " in text):
            continue
        if not re.match(rf"{code // 100}\.\d{{1,3}}\.\d{{1,3}} \S", text):
            without.append((name, code, text))
    assert without == []


def test_every_reply_of_the_core_is_in_a_test() -> None:
    """In a conversation, or where there is a clock or a second client."""
    source = (ROOT / "rust/src/smtp/fixed.rs").read_text(encoding="utf-8")
    texts = re.findall(r'Reply::fixed\(\s*\d+,\s*\([\d, ]+\),\s*"([^"]+)"', source)
    assert len(texts) > 40
    tests = [path for path in (ROOT / "tests").rglob("*") if path.suffix in {".py", ".smtp"}]
    said = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [text for text in texts if text not in said and text != _NEVER] == []
