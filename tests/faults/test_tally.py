"""The verdict can be a bad one, and the table says what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import self_signed
from tests.faults import table
from tests.faults.tally import Tally
from tests.ledger import Ledger, Mail, deliver, mixed_mails
from tests.running import RunningDaemon

MAILS = [Mail(str(number), b"X-Ledger: %d\r\n\r\nhello\r\n" % number) for number in range(4)]
HEADER = b"Received: by mx\r\n"
RECEIVED = b"Received: from a\r\n\tby mx with ESMTP id %s;\r\n\tnow\r\n"


def ledger() -> Ledger:
    """The first accepted, the second after a lost answer and a 4xx; one refused; one unanswered."""
    made = Ledger(MAILS, may_reject=True)
    made.accepted.update(["0", "1"])
    made.unanswered.update(["1", "3"])
    made.deferred.update(["1"])
    made.rejected.update(["2"])
    return made


def stored(*numbers: int) -> list[bytes]:
    return [HEADER + MAILS[number].message for number in numbers]


@pytest.fixture
def rows() -> list[table.Row]:
    """Of a session of its own: what is tried here is no fault."""
    return []


@pytest.fixture
def judge(rows: list[table.Row]) -> Tally:
    return Tally(rows, "fault", "store")


def test_a_row_has_what_was_counted(rows: list[table.Row], judge: Tally) -> None:
    row = judge.audit(ledger(), stored(0, 1, 1, 3), rounds=7, note="why")
    assert rows == [row]
    assert row.cells == ["fault", "store", "7", "6", "2", "1", "1", "2", "4", "0", "1", "why"]
    assert len(row.cells) == len(table.HEAD)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        pytest.param(stored(0), r"1 answered 250 and not stored: \['1'\]", id="lost"),
        pytest.param(stored(0, 1, 2), "2: stored 1 times, 0 attempts", id="a stored 5xx"),
        pytest.param(stored(0, 0, 1), "0: stored 2 times, 1 attempts", id="a copy too many"),
        pytest.param(stored(0, 1, 1, 1), "1: stored 3 times, 2 attempts", id="a copy of a 4xx"),
        pytest.param(stored(0, 1, 3, 3), "3: stored 2 times, 1 attempts", id="unanswered twice"),
    ],
)
def test_what_is_wrong_fails_and_has_no_row(
    rows: list[table.Row], judge: Tally, found: list[bytes], error: str
) -> None:
    with pytest.raises(AssertionError, match=error):
        judge.audit(ledger(), found)
    assert rows == []


def test_another_try_is_not_what_was_answered(judge: Tally) -> None:
    ours, other = "a" * 26, "b" * 26
    made = ledger()
    made.queued["1"] = ours
    copies = {one: RECEIVED % one.encode() + MAILS[1].message for one in (ours, other)}
    assert judge.audit(made, [*stored(0), copies[other], copies[ours]]).doubled == 1
    # Without any field of ours, as where a chain has no Header, nobody can say which it is.
    judge.audit(made, [*stored(0), MAILS[1].message])
    for found in ([copies[other]], stored(1)):
        with pytest.raises(AssertionError, match=r"only other tries stored: \['1'\]"):
            judge.audit(made, [*stored(0), *found])


@pytest.mark.parametrize(
    "before",
    [b"of another\r\n", b"A: b\r\n\r\n", b"A b\r\n", b"\r\n", b"A: b\rC: d\r\n"],
)
def test_what_is_no_header_field_before_a_message_fails(judge: Tally, before: bytes) -> None:
    with pytest.raises(AssertionError, match="0: before it"):
        judge.audit(ledger(), [before + MAILS[0].message, *stored(1)])


def test_a_4xx_may_be_stored_where_that_is_said(judge: Tally) -> None:
    row = judge.audit(ledger(), stored(0, 1, 1, 1), deferred_may_be_stored=True)
    assert row.doubled == 2
    with pytest.raises(AssertionError, match="2 copies, at most 1"):
        judge.audit(ledger(), stored(0, 1, 1, 1), deferred_may_be_stored=True, most_copies=1)


def test_mails_that_were_to_come_by_tls_and_did_not_fail(judge: Tally) -> None:
    secret = RECEIVED.replace(b"ESMTP", b"ESMTPS") % (b"a" * 26) + MAILS[0].message
    judge.audit(ledger(), [secret, *stored(1)], tls=1)
    with pytest.raises(AssertionError, match="1 came by TLS, 2 were to"):
        judge.audit(ledger(), [secret, *stored(1)], tls=2)


def test_a_5xx_that_nobody_expected_fails(judge: Tally) -> None:
    strict = ledger()
    strict.may_reject = False
    strict.rejections.append("554 5.0.0 no")
    with pytest.raises(AssertionError, match=r"554 5\.0\.0 no"):
        judge.audit(strict, stored(0, 1))


def test_the_page_gets_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{table.BEGIN}old\n{table.END}\nafter\n")
    rows = [table.Row("b", "SQL"), table.Row("a", "SQL", 2, 5_000, 4_000, stored=4_001, doubled=1)]
    for _ in range(2):
        table.write(table.in_order(rows), page)
    text = page.read_text()
    assert text.startswith("before\n\n<!-- faults")
    assert text.endswith("<!-- end of faults -->\n\nafter\n")
    assert "| a | SQL | 2 | 5,000 | 4,000 | 0 | 0 | 0 | 4,001 | 0 | 1 |  |\n| b | SQL |" in text
    assert text.count("In all: sent 5,000, answered 4,000, stored 4,001, lost 0, doubled 1.") == 1
    assert text.count("old") == 0
    assert table.as_lines(rows)[-1] == "sent 5,000, answered 4,000, stored 4,001, lost 0, doubled 1"


def test_a_part_of_the_table_does_not_take_the_place_of_all(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{table.BEGIN}{table.END}")
    rows = [table.Row("a", "SQL"), table.Row("a", "Redis"), table.Row("b", "SQL")]
    table.write(rows, page)
    whole = page.read_text()
    with pytest.raises(AssertionError, match=r"no rows of \[\('a', 'Redis'\)\]"):
        table.write([rows[0], rows[2], table.Row("c", "Redis")], page)
    assert page.read_text() == whole


def test_the_page_has_its_marks() -> None:
    text = table.PAGE.read_text(encoding="utf-8")
    assert text.count(table.BEGIN) == text.count(table.END) == 1
    assert text.index(table.BEGIN) < text.index(table.END)


def test_mixed_mails_are_of_all_sizes_and_each_its_own() -> None:
    mails = mixed_mails(1_000, first=500)
    sizes = sorted(len(mail.message) for mail in mails)
    assert sizes[0] < 300
    assert sizes[-1] > 300_000
    assert sum(sizes) < 50_000_000
    assert [mail.token for mail in mails] == [f"{number:06d}" for number in range(500, 1_500)]
    assert mixed_mails(10) == mixed_mails(10)


def test_a_daemon_without_a_fault(tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    """Half of the senders say STARTTLS; one mail in five is refused for good."""
    mails = mixed_mails(200)
    for number, mail in list(enumerate(mails))[::5]:  # of these one half is sent by TLS, too
        mails[number] = Mail(mail.token, mail.message.replace(b"Subject:", b"X-Refuse:", 1))
    (tmp_path / "refusing.py").write_text(REFUSING)
    with RunningDaemon(
        tmp_path,
        chain="HeadersParser|RefuseMarked|Header|SQL",
        server=f"[servers.tls]\nstart_tls_on = true\n{self_signed(tmp_path).toml()}",
        backend='import = ["refusing"]',
    ) as daemon:
        ports = iter([daemon.port] * 1_000)
        sent = deliver(lambda: next(ports), mails, connections=50, tls=0.5, may_reject=True)
        rows = [bytes(row["mail"]) for row in daemon.rows()]
    row = tally("none", "SQLite").audit(sent, rows, note="half of them by STARTTLS")
    assert sent.queued.keys() == sent.accepted.keys()  # So each has been looked for by its id.
    assert (row.sent, row.answered, row.rejected, row.stored, row.doubled) == (200, 160, 40, 160, 0)
    assert sum(b" with ESMTPS " in mail for mail in rows) == 80


REFUSING = """\
from guerrilla import Reply, processor


@processor("RefuseMarked")
def refuse_marked(envelope):
    return Reply.reject("5.7.1", "not wanted") if "X-Refuse" in envelope.header else None
"""
