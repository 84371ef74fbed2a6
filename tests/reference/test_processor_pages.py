"""Every built-in processor has a page: its options are the models', its example can be started."""

from __future__ import annotations

import os
import re
import smtplib
from pathlib import Path

import pytest

from guerrilla.cli import main
from guerrilla.config import chain_names, loads
from guerrilla.processors import TABLE
from guerrilla.reference.keys import option_keys, options_of
from guerrilla.reference.processors import index, names_of, readers_of, written
from tests.reference.pages import FOLDER, INDEX, examples, files, pages, sections
from tests.reference.test_reference import WRITE
from tests.running import RunningDaemon

PAGES = [pytest.param(path, id=path.name) for path in pages()]

ORDER = ["Needs", "Options", "Schema", "Example", "What a sender sees"]
"""The sections of a page; a processor without a table has no schema, and a page may have more."""

REPLY = re.compile(r"`[245]\d\d [245]\.\d\.\d{1,2}( [^`]+)?`")

LOCAL = ("HeadersParser", "Header", "Hasher", "Debugger", "SQL")
"""Those whose example needs no server; the others run theirs beside their own tests."""


def keys_of(name: str) -> set[str]:
    return {key.name for key in option_keys(options_of(name))}


def test_every_name_has_one_page() -> None:
    names = [name for path in pages() for name in names_of(path.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(TABLE.names)
    assert {path.name for path in pages()} >= {"header.md", "hasher.md", "sql.md"}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_named_for_its_first_processor(path: Path) -> None:
    first, *_ = names_of(path.read_text(encoding="utf-8"))
    assert path.name == f"{first.lower()}.md"


@pytest.mark.parametrize("path", PAGES)
def test_its_options_are_those_of_the_models(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if os.environ.get(WRITE):
        path.write_text(written(text), encoding="utf-8")
        text = path.read_text(encoding="utf-8")
    assert text == written(text), f"set {WRITE}=1 to write it anew"
    readers, names = readers_of(text), names_of(text)
    assert readers
    assert set(readers) <= set(names)
    told = set().union(*(keys_of(name) for name in readers))
    assert {name: keys_of(name) - told for name in names} == {name: set() for name in names}


def test_the_index_names_all_of_them() -> None:
    text = INDEX.read_text(encoding="utf-8")
    if os.environ.get(WRITE):
        INDEX.write_text(index(text, files()), encoding="utf-8")
        text = INDEX.read_text(encoding="utf-8")
    assert text == index(text, files()), f"set {WRITE}=1 to write it anew"
    for name in TABLE.names:
        assert f"| [`{name}`]({files()[name.casefold()]}) |" in text


@pytest.mark.parametrize("name", TABLE.names)
def test_every_option_has_a_meaning(name: str) -> None:
    keys = option_keys(options_of(name))
    assert [key.name for key in keys if not key.meaning.endswith(".") or not key.kind] == []


@pytest.mark.parametrize("path", PAGES)
def test_it_has_its_sections_in_order(path: Path) -> None:
    found = [heading for heading in sections(path) if heading in ORDER]
    assert found == [heading for heading in ORDER if heading in found]
    assert set(ORDER) - set(found) <= {"Schema"}


@pytest.mark.parametrize("path", PAGES)
def test_it_says_what_a_sender_sees(path: Path) -> None:
    """A row for each cause, which ends with a reply."""
    text = sections(path)["What a sender sees"]
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert head == "| what went wrong | reply |"
    assert rows
    replies = [row.removesuffix(" |").rpartition(" | ")[2] for row in rows]
    assert [reply for reply in replies if not REPLY.fullmatch(reply)] == []


@pytest.mark.parametrize("name", TABLE.names)
def test_its_example_passes_the_check(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a chain of one of them names it."""
    monkeypatch.chdir(tmp_path)
    asked: set[str] = set()
    for text in examples(name):
        (tmp_path / "guerrilla.toml").write_text(text, encoding="utf-8")
        assert main(["check", "-c", "guerrilla.toml"]) == 0, capsys.readouterr().err
        assert "stores nothing" not in capsys.readouterr().err
        backend = loads(text, format="toml").backend_config
        for chain in (backend.save_process, backend.validate_process, backend.auth_process):
            asked |= {stage.partition(":")[0].casefold() for stage in chain_names(chain)}
    page = (FOLDER / files()[name.casefold()]).read_text(encoding="utf-8")
    assert asked & {other.casefold() for other in names_of(page)}


@pytest.mark.parametrize("name", LOCAL)
def test_its_example_runs(name: str, tmp_path: Path) -> None:
    text, *_ = examples(name)  # The others need a server.
    place = '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
    with (
        RunningDaemon(tmp_path, config=f"{text}\n{place}") as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        message = "Subject: hello\r\n\r\nbody\r\n"
        assert client.sendmail("from@example.org", ["to@example.com"], message) == {}
        (row,) = daemon.rows()
    assert row["recipient"] == "to@example.com"
    assert row["subject"] == "hello"
