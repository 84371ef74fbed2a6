"""The forms of a log, and the logs of servers: who writes what where."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.logs.handlers import FileHandler
from guerrilla.logs.output import LogOutput, LogSettings, ServerLog, log_problem
from guerrilla.logs.pump import LogPump
from tests.test_logs import Batch, Record, Source, pumped

log = logging.getLogger("guerrilla.test")
MEMBERS = '"message":"id: 250 OK","id":"id","to":["a@b"],"size":3'


def files_of(output: LogOutput) -> list[str]:
    """The paths of all logs that are files."""
    found = output._handlers.values()
    return [one.baseFilename for one in found if isinstance(one, FileHandler)]


@pytest.fixture(autouse=True)
def _heard_again() -> Iterator[None]:
    """Undoes `opened`."""
    yield
    logging.getLogger("guerrilla").propagate = True


def opened(*args: Any, **keys: Any) -> LogOutput:
    """A log that nobody hears beside us, as in the program: pytest listens above.

    Not in a fixture: it would listen to a logger that keeps its records to itself before the test.
    """
    logging.getLogger("guerrilla").propagate = False
    return LogOutput(*args, **keys)


def objects(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a log, one a line."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def words(path: Path) -> list[str]:
    """The last word of each line."""
    return [line.split()[-1] for line in path.read_text(encoding="utf-8").splitlines()]


def test_json_is_an_object_a_line(tmp_path: Path) -> None:
    output = opened(str(tmp_path / "a"), "debug", "json")
    log.info("hello %s", "wörld", extra={"queue": 3, "what": tmp_path})
    output.close()
    (entry,) = objects(tmp_path / "a")
    stamp = entry.pop("time")
    assert time.strptime(stamp.partition(".")[0], "%Y-%m-%dT%H:%M:%S")
    assert stamp.endswith("Z")
    assert entry == {
        "level": "INFO",
        "logger": "guerrilla.test",
        "message": "hello wörld",
        "queue": 3,
        "what": repr(tmp_path),
    }


@pytest.mark.parametrize(
    "evil",
    ["\n", '"', '", "level": "CRITICAL', "\\", "\u2028", "\x85", "\x00", "\udcff", "}\n{"],
)
def test_no_sender_forges_a_member_or_a_line(tmp_path: Path, evil: str) -> None:
    output = opened(str(tmp_path / "a"), "debug", "json")
    log.info("from %s", evil)
    output.close()
    assert len((tmp_path / "a").read_text("utf-8").splitlines()) == 1
    for entry in objects(tmp_path / "a"):
        assert list(entry) == ["time", "level", "logger", "message"]
        assert (entry["level"], entry["message"]) == ("INFO", f"from {evil}")


def test_extras_take_no_other_members_place(tmp_path: Path) -> None:
    output = opened(str(tmp_path / "a"), "debug", "json")
    log.info("hello", extra={"level": "x", "time": "y", "logger": "z"})
    output.close()
    (entry,) = objects(tmp_path / "a")
    assert (entry["level"], entry["logger"]) == ("INFO", "guerrilla.test")
    assert entry["time"] != "y"


def test_a_traceback_and_a_stack_are_members(tmp_path: Path) -> None:
    output = opened(str(tmp_path / "a"), "debug", "json")
    try:
        raise ValueError("a\nb")  # noqa: TRY301
    except ValueError:
        log.exception("failed", stack_info=True)
    output.close()
    (entry,) = objects(tmp_path / "a")
    assert entry["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["exception"].endswith("ValueError: a\nb")
    assert "test_log_formats" in entry["stack"]


def test_the_fields_of_a_message_are_members(tmp_path: Path) -> None:
    """Where others hear it too, it goes through `logging`; they find the fields in `mail`."""
    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = heard.append  # type: ignore[method-assign,assignment]
    logger = logging.getLogger("guerrilla.mail")
    output = opened(str(tmp_path / "a"), "debug", "json")
    logger.addHandler(listener)
    try:
        pumped([Record(20, "mail", "id size=3", 0.25, members=MEMBERS)], output=output)
    finally:
        logger.removeHandler(listener)
        output.close()
    (entry,) = objects(tmp_path / "a")
    assert entry == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "INFO",
        "logger": "guerrilla.mail",
        "message": "id: 250 OK",
        "id": "id",
        "to": ["a@b"],
        "size": 3,
    }
    (record,) = heard
    assert record.mail == json.loads(f"{{{MEMBERS}}}")  # type: ignore[attr-defined]
    assert record.getMessage() == "id size=3"


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_cores_lines_are_written_as_they_are_where_nobody_else_listens(
    tmp_path: Path, form: str
) -> None:
    output = opened(str(tmp_path / "a"), "debug", form)
    pumped([Record(20, "net", "1", 0.0), Record(20, "mail", "2", 0.0)], output=output)
    output.close()
    lines = (tmp_path / "a").read_text().splitlines()
    assert lines == [f"{form} of the core {number}" for number in (1, 2)]


def test_a_line_of_another_form_is_not_used(tmp_path: Path) -> None:
    """The form was changed between: the record is formatted anew."""
    output = opened(str(tmp_path / "a"), "debug", "json")
    output.write([Batch(Record(20, "net", "hello", 0.0), "text")], "text")  # type: ignore[list-item]
    output.close()
    (entry,) = objects(tmp_path / "a")
    assert entry["message"] == "hello"


def test_a_filter_of_a_logger_is_asked_about_the_cores_records(tmp_path: Path) -> None:
    output = opened(str(tmp_path / "a"), "debug")
    logger = logging.getLogger("guerrilla.net")

    def keeps(record: logging.LogRecord) -> bool:
        return "keep" in record.getMessage()

    logger.addFilter(keeps)
    try:
        pumped([Record(20, "net", text, 0.0) for text in ("keep", "drop")], output=output)
    finally:
        logger.removeFilter(keeps)
        output.close()
    assert words(tmp_path / "a") == ["keep"]


def logs(folder: Path, *servers: ServerLog, level: str = "info") -> LogOutput:
    return opened(str(folder / "main"), level, servers=servers)


def said(server: str | None, level: int, text: str) -> Record:
    return Record(level, "net", text, 0.0, server)


def test_a_server_has_a_log_of_its_own_beside_the_main_one(tmp_path: Path) -> None:
    output = logs(tmp_path, ServerLog("a", str(tmp_path / "a")), ServerLog("b"))
    pumped([said(name, 20, f"of-{name}") for name in ("a", "b", None)], output=output)
    log.info("daemon")
    output.close()
    assert words(tmp_path / "a") == ["of-a"]
    assert words(tmp_path / "main") == ["of-b", "of-None", "daemon"]


def test_a_server_whose_log_is_off_is_silent(tmp_path: Path) -> None:
    output = logs(tmp_path, ServerLog("a", "off"))
    pumped([said("a", 50, "hidden"), said("b", 20, "shown")], output=output)
    assert output.level == logging.INFO
    output.close()
    assert words(tmp_path / "main") == ["shown"]


@pytest.mark.parametrize("own", [False, True])
def test_a_server_has_a_level_of_its_own(tmp_path: Path, own: bool) -> None:
    file = str(tmp_path / "a") if own else None
    output = logs(tmp_path, ServerLog("a", file, "debug"), ServerLog("b", file, "error"))
    assert output.level == logging.DEBUG
    assert logging.getLogger("guerrilla.mail").isEnabledFor(logging.INFO)
    records = [said(n, level, f"{n}{level}") for n in "abc" for level in (10, 20, 30, 40)]
    pumped(records, output=output)
    log.debug("hidden")
    output.close()
    of_servers, of_others = ["a10", "a20", "a30", "a40", "b40"], ["c20", "c30", "c40"]
    if own:
        assert words(tmp_path / "a") == of_servers
        assert words(tmp_path / "main") == of_others
    else:
        assert words(tmp_path / "main") == of_servers + of_others


def test_one_file_is_opened_once_whoever_names_it(tmp_path: Path) -> None:
    main = str(tmp_path / "main")
    other = str(tmp_path / "x" / ".." / "main")
    (tmp_path / "x").mkdir()
    output = logs(tmp_path, ServerLog("a", main), ServerLog("b", other))
    assert files_of(output) == [main]
    pumped([said("a", 20, "1"), said("b", 20, "2"), said("c", 20, "3")], output=output)
    output.close()
    assert words(tmp_path / "main") == ["1", "2", "3"]


def test_every_file_is_opened_anew_also_when_one_cannot_be(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    output = logs(tmp_path, *(ServerLog(n, str(tmp_path / n / "log")) for n in "ab"))
    (tmp_path / "a").rename(tmp_path / "gone")
    (tmp_path / "b" / "log").rename(tmp_path / "b" / "old")
    with pytest.raises(FileNotFoundError) as caught:
        output.reopen()
    assert str(tmp_path / "a" / "log") in str(caught.value)
    pumped([said("a", 20, "1"), said("b", 20, "2")], output=output)
    output.close()
    assert words(tmp_path / "gone" / "log") == ["1"]
    assert (words(tmp_path / "b" / "log"), words(tmp_path / "b" / "old")) == (["2"], [])


def test_logs_are_changed_while_they_are_written_to(tmp_path: Path) -> None:
    output = logs(tmp_path, ServerLog("a", str(tmp_path / "a")))
    log.info("1")
    pumped([said("a", 20, "1")], output=output)
    servers = (ServerLog("a", str(tmp_path / "a"), "error"), ServerLog("b", str(tmp_path / "b")))
    output.change(LogSettings(str(tmp_path / "new"), "warning", "json", servers))
    log.info("hidden")
    log.warning("2")
    pumped([said(n, level, f"{level}") for n in "ab" for level in (20, 40)], output=output)
    before = set(files_of(output))
    output.close()
    assert before == {str(tmp_path / name) for name in ("new", "a", "b")}
    assert words(tmp_path / "main") == ["1"]
    assert [entry["message"] for entry in objects(tmp_path / "new")] == ["2"]
    assert (tmp_path / "b").read_text() == "json of the core 40\n"
    assert (tmp_path / "a").read_text() == "text of the core 1\njson of the core 40\n"


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    output = logs(tmp_path)
    bad = ServerLog("b", str(tmp_path / "nowhere" / "b"))
    settings = LogSettings(str(tmp_path / "new"), "error", "json", (bad,))
    with pytest.raises(FileNotFoundError) as caught:
        output.change(settings)
    assert caught.value.filename == bad.file
    log.info("still")
    assert files_of(output) == [str(tmp_path / "main")]
    output.close()
    assert words(tmp_path / "main") == ["still"]


def test_the_core_follows_the_level(tmp_path: Path) -> None:
    output = logs(tmp_path, ServerLog("a", None, "error"))
    source = Source()
    pump = LogPump(source, output)
    output.set_level("debug")
    output.set_level("error")
    pump.join()
    output.set_level("info")
    output.close()
    assert source.levels == [logging.DEBUG, logging.ERROR]


def test_a_log_that_cannot_be_opened_is_told_by_its_key(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere" / "b")
    off = {"is_enabled": False, "log_file": nowhere, "listen_interface": "127.0.0.1:25"}
    config = from_mapping(
        {
            "log_file": "off",
            "servers": [off, {"listen_interface": "127.0.0.1:26", "log_file": nowhere}],
        }
    )
    with pytest.raises(OSError, match="nowhere") as caught:
        LogOutput.from_settings(LogSettings.of(config))
    reason = "No such file or directory"
    assert log_problem(config, caught.value) == f"servers[1].log_file: {nowhere}: {reason}"
