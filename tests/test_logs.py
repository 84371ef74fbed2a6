"""Logging: one line a record, whatever a sender writes; files that can be moved away."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.logs.form import make_formatter
from guerrilla.logs.handlers import FileHandler, StreamHandler, whole_lines
from guerrilla.logs.output import LEVELS, LogOutput, LogSettings, log_problem
from guerrilla.logs.pump import LogPump

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ guerrilla[\w.]* ")
log = logging.getLogger("guerrilla.test")


@dataclass
class Record:
    """A record as the core's."""

    level: int
    logger: str
    message: str
    created: float
    server: str | None = None
    members: str | None = None


class Batch:
    """A batch as the core's, of one record; its line says that it is the core's."""

    def __init__(self, record: Record, form: str | None) -> None:
        self.level = record.level
        self.logger = record.logger
        self.server = record.server
        self.records = [record]
        self.lines = "" if form is None else f"{form} of the core {record.message}\n"


class Source:
    """Gives its batches, then says that the core is closed."""

    def __init__(self, *batches: list[Record]) -> None:
        self._batches = list(batches)
        self.levels: list[int] = []

    def receive_logs(
        self,
        max: int,  # noqa: A002 - its name there
        timeout: float,
        form: str | None = None,
        process: int | None = None,
    ) -> list[Any] | None:
        if not self._batches:
            return None
        return [Batch(record, form) for record in self._batches.pop(0)]

    def set_log_level(self, level: int) -> None:
        self.levels.append(level)


def pumped(*batches: list[Record], output: LogOutput | None = None) -> None:
    pump = LogPump(Source(*batches), output)
    pump.start()
    pump.join(10)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Callable[[], None]], list[str]]:
    """The lines of a log file that something wrote."""

    def write(act: Callable[[], None]) -> list[str]:
        output = LogOutput(str(tmp_path / "a.log"), "debug")
        try:
            act()
        finally:
            output.close()
        return (tmp_path / "a.log").read_text("utf-8").splitlines()

    return write


Written = Callable[[Callable[[], None]], list[str]]


def test_a_record_is_a_line_with_time_level_logger_message(written: Written) -> None:
    (line,) = written(lambda: log.info("hello %s", "wörld"))
    assert LINE.match(line)
    assert line.endswith(" INFO guerrilla.test hello wörld")


@pytest.mark.parametrize(
    "evil",
    ["\n", "\r\n", "\x00", "\x1b[2J", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\x0b", "\x0c"],
)
def test_no_sender_forges_a_line(written: Written, evil: str) -> None:
    forged = f"a{evil}2026-01-01T00:00:00.000Z INFO guerrilla.smtp b"
    (line,) = written(lambda: log.warning("from %s", forged))
    assert LINE.match(line)
    assert evil not in line
    assert "\\" in line


def test_a_traceback_cannot_be_taken_for_records(written: Written) -> None:
    def fail() -> None:
        try:
            raise ValueError("x\n2026-01-01T00:00:00.000Z INFO guerrilla.smtp \x1b[2J")  # noqa: TRY301
        except ValueError:
            log.exception("failed")

    first, *others = written(fail)
    assert LINE.match(first)
    assert len(others) > 2
    assert all(line.startswith("  | ") for line in others)
    assert not any("\x1b" in line for line in others)


def test_lone_surrogates_are_written_somehow(written: Written) -> None:
    (line,) = written(lambda: log.info("a\udcffb"))
    assert line.endswith("a\\udcffb")


@pytest.mark.parametrize(("name", "number"), [*LEVELS.items(), ("INFO", logging.INFO)])
def test_a_level_hides_what_is_below_it(tmp_path: Path, name: str, number: int) -> None:
    path = tmp_path / "a.log"
    output = LogOutput(str(path), name)
    log.log(number, "at")
    log.log(number - 1, "below")
    assert output.level == number
    output.close()
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["at"]


def test_a_level_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    output = LogOutput(str(path), "error")
    log.info("hidden")
    output.set_level("info")
    log.info("shown")
    output.close()
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["shown"]


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_a_standard_stream(stream: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = LogOutput(stream, "debug")
    log.info("hello")
    output.close()
    captured = capsys.readouterr()
    assert "hello" in (captured.err if stream == "stderr" else captured.out)


def test_off_writes_nothing_and_asks_the_core_for_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    output = LogOutput("off", "debug")
    log.error("hello")
    level = output.level
    output.close()
    assert capsys.readouterr() == ("", "")
    assert level == logging.CRITICAL


@pytest.mark.parametrize("name", ["guerrilla", ""])
def test_off_asks_the_core_for_what_an_application_listens_to(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    heard = logging.StreamHandler()
    logging.getLogger(name).addHandler(heard)
    output = LogOutput("off", "info")
    level = output.level
    output.close()
    logging.getLogger(name).removeHandler(heard)
    assert level == logging.INFO


def test_off_asks_for_nothing_that_does_not_reach_the_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("guerrilla"), "propagate", False)
    output = LogOutput("off", "info")
    level = output.level
    output.close()
    assert level == logging.CRITICAL


class FullDisk(io.StringIO):
    """A stream that cannot be written to while it is full."""

    full = True

    def flush(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_once_until_a_record_goes_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = LogOutput(str(tmp_path / "a.log"), "debug")
    handler = output._handler
    assert isinstance(handler, logging.StreamHandler)
    disk = FullDisk()
    file = handler.setStream(disk)
    assert file is not None
    file.close()
    for _ in range(3):
        log.info("lost")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"guerrilla: log_file: {tmp_path / 'a.log'}: No space left on device: records are lost"
    )
    assert output.lost == 3
    disk.full = False
    log.info("written")
    assert output.lost == 3
    assert capsys.readouterr().err == ""
    disk.full = True
    log.info("lost")
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert output.lost == 4
    output.change(LogSettings("off"))
    assert output.lost == 4
    output.close()


def test_a_full_disk_hinders_neither_another_file_nor_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.log"
    path.symlink_to("/dev/full")
    output = LogOutput(str(path), "debug")
    log.info("lost")
    path.unlink()
    output.reopen()
    log.info("written")
    output.close()
    assert path.read_text().endswith("written\n")
    path.unlink()
    path.symlink_to("/dev/full")
    output = LogOutput(str(path), "debug")
    log.info("lost")
    output.close()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_lines_of_the_core_that_are_lost_are_counted_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = StreamHandler(FullDisk())
    handler.write("one\ntwo\n")
    handler.write("three\n")
    assert handler.lost == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_record_that_is_wrong_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("guerrilla"), "propagate", False)
    output = LogOutput(str(tmp_path / "a.log"), "debug")
    log.info("%d mails", "many")
    output.close()
    assert "test_logs.py" in capsys.readouterr().err


def test_after_the_end_everything_is_as_before(tmp_path: Path) -> None:
    root = logging.getLogger("guerrilla")
    before, level = list(root.handlers), root.level
    output = LogOutput(str(tmp_path / "a.log"), "error")
    assert root.handlers != before
    output.close()
    assert (root.handlers, root.level) == (before, level)


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "a.log", tmp_path / "a.log.1"
    output = LogOutput(str(path), "debug")
    log.info("one")
    path.rename(moved)
    log.info("two")
    output.reopen()
    log.info("three")
    output.close()
    assert [line.split()[-1] for line in moved.read_text().splitlines()] == ["one", "two"]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["three"]


def test_a_file_that_cannot_be_opened_anew_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    output = LogOutput(str(folder / "a.log"), "debug")
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        output.reopen()
    log.info("still")
    output.close()
    assert "still" in (tmp_path / "moved" / "a.log").read_text()


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogOutput(str(tmp_path / "nowhere" / "a.log"), "debug")


def test_records_of_the_core_keep_their_time(written: Written) -> None:
    made = 1_700_000_000.25
    first, second = written(
        lambda: pumped(
            [Record(logging.INFO, "smtp", "100 % of %s", made)], [], [Record(40, "net", "x", made)]
        )
    )
    assert first == "2023-11-14T22:13:20.250Z INFO guerrilla.smtp 100 % of %s"
    assert second == "2023-11-14T22:13:20.250Z ERROR guerrilla.net x"


def test_records_of_the_core_obey_levels_and_cannot_forge_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    output = LogOutput(str(path), "warning")
    pumped([Record(20, "smtp", "hidden", 0.0), Record(30, "smtp", "HELO a\r\nb", 0.0)])
    output.close()
    (line,) = path.read_text().splitlines()
    assert line.endswith("HELO a\\r\\nb")


@pytest.mark.parametrize(("process", "writes"), [(None, 1), (3, 2)])
def test_only_who_shares_a_stream_writes_it_in_parts(
    monkeypatch: pytest.MonkeyPatch, process: int | None, writes: int
) -> None:
    found: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            found.append(text)
            return len(text)

    monkeypatch.setattr("sys.stderr", Stream())
    output = LogOutput("stderr", "info", process=process)
    (handler,) = [one for one in logging.getLogger("guerrilla").handlers if one.filters]
    assert isinstance(handler, StreamHandler)
    handler.write(("x" * 3_000 + "\n") * 2)
    output.close()
    assert len(found) == writes


def test_a_record_that_cannot_be_logged_does_not_stop_the_others(written: Written) -> None:
    lines = written(
        lambda: pumped([Record("x", "smtp", "bad", 0.0)], [Record(20, "smtp", "good", 0.0)])  # type: ignore[arg-type]
    )
    assert any(line.endswith("good") for line in lines)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a\nb\nc\n", ["a\nb\n", "c\n"]),
        ("aaaaaaaa\nb\n", ["aaaaaaaa\n", "b\n"]),
        ("é\né\n", ["é\n", "é\n"]),
        ("a\u2028b\nc\nd", ["a\u2028b\n", "c\nd"]),
        ("a\ud800\n", ["a\ud800\n"]),
    ],
)
def test_what_goes_to_a_pipe_is_cut_behind_lines(text: str, parts: list[str]) -> None:
    assert list(whole_lines(text, 5)) == parts


def test_lines_of_one_of_several_processes_say_which() -> None:
    record = logging.makeLogRecord(
        {"name": "guerrilla.smtp", "levelname": "INFO", "msg": "hi", "created": 0.0}
    )
    assert make_formatter("text", 12).format(record) == (
        "1970-01-01T00:00:00.000Z INFO guerrilla.smtp[12] hi"
    )
    entry = json.loads(make_formatter("json", 12).format(record))
    assert (entry["logger"], entry["process"], entry["message"]) == ("guerrilla.smtp", 12, "hi")
    assert "process" not in json.loads(make_formatter("json").format(record))


def test_a_pipe_that_nobody_reads_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"is a pipe that nobody reads: start its reader first: .*a"):
        LogOutput(str(path), "debug")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        output = LogOutput(str(path), "debug")
        log.info("one")
        (handler,) = output._handlers.values()
        # What its reader does not take at once is waited for, as of a pipe that is stdout.
        assert isinstance(handler, FileHandler)
        assert handler.stream is not None
        assert os.get_blocking(handler.stream.fileno())
        assert os.read(reader, 1000).endswith(b" one\n")
    finally:
        os.close(reader)
    with pytest.raises(OSError, match="is a pipe that nobody reads"):
        output.reopen()
    output.close()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(2, "gone", "a.log"), "log_file: a.log: gone"),
        (OSError(2, "gone", os.path.abspath("b.log")), f"servers[1].log_file: {os.getcwd()}/b.log"),
        (OSError(2, "gone"), "log_file: a.log: gone"),
        (OSError(2, "gone", "off.log"), "log_file: off.log: gone"),
    ],
)
def test_a_log_that_cannot_be_opened_is_told_with_its_key(error: OSError, line: str) -> None:
    servers = [
        {"listen_interface": "127.0.0.1:0", "log_file": "off.log", "is_enabled": False},
        {"listen_interface": "127.0.0.2:0", "log_file": "b.log"},
    ]
    config = from_mapping({"log_file": "a.log", "servers": servers})
    assert log_problem(config, error).startswith(line)
