"""Names of processors: where they come from, and what happens when nobody knows one."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import guerrilla
from guerrilla import processors
from guerrilla._core import Address, Credentials, Envelope, Transaction, make_login
from guerrilla.engine.base import Processor, implements
from guerrilla.engine.chain import build
from guerrilla.engine.installed import ENTRY_POINTS
from guerrilla.engine.registry import DECORATED, Registry, import_modules
from guerrilla.errors import ConfigError
from guerrilla.reply import Reply

NO = Reply.reject()


class Mine(Processor):
    """Of a test."""


class Other(Processor):
    """Another of a test."""


@pytest.fixture
def _python_path() -> Iterator[None]:
    """Restores what an import changes."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_every_name_of_the_table_loads() -> None:
    registry = Registry()
    for name in processors.TABLE.names:
        assert issubclass(registry.find(name), Processor)


@pytest.mark.parametrize("name", ["HeadersParser", "headersparser", " HEADERSPARSER "])
def test_names_are_found_in_any_case(name: str) -> None:
    assert Registry().find(name).__name__ == "HeadersParser"


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'Debuger'.*'Debugger'"):
        Registry().find("Debuger")


def test_an_unknown_name_without_a_near_one_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"'xyzzy'.*HeadersParser"):
        Registry().find("xyzzy")


def test_ones_own_come_before_the_built_in_ones() -> None:
    registry = Registry(DECORATED)
    registry.add("header", Mine)
    assert registry.find("Header") is Mine
    assert DECORATED.find("Header") is not Mine


def test_the_contract_has_authenticate_which_passes_on() -> None:
    login = make_login(Credentials("joe", "secret"))
    stage = Processor(Processor.Options())
    assert stage.authenticate(login.transaction, login.credentials) is None
    assert stage.authenticate_batch([login]) == [None]


def test_a_parent_is_asked() -> None:
    parent = Registry()
    parent.add("Mine", Mine)
    assert Registry(parent).find("mine") is Mine


def test_two_of_one_name_are_an_error() -> None:
    registry = Registry()
    registry.add("Mine", Mine)
    registry.add("Mine", Mine)
    with pytest.raises(ValueError, match="there is a processor Mine already"):
        registry.add("mine", Other)


@pytest.mark.parametrize("name", ["", " ", "a|b", "a\nb"])
def test_a_name_that_cannot_stand_in_a_chain_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        Registry().add(name, Mine)


@pytest.mark.parametrize("thing", [Mine(Processor.Options()), int, "Mine"])
def test_what_is_no_processor_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="subclass of Processor"):
        Registry().add("Mine", thing)


def test_names_are_sorted_as_their_authors_write_them() -> None:
    registry = Registry(DECORATED)
    registry.add("aaa", Mine)
    registry.add("HEADER", Other)
    names = registry.names()
    assert names[:2] == ["250", "aaa"]
    assert "HEADER" in names
    assert "Header" not in names


def test_a_function_is_a_processor(mail: Callable[..., Envelope]) -> None:
    @guerrilla.processor("NoInvoices")
    def no_invoices(envelope: Envelope) -> Reply | None:
        return NO if "invoice" in envelope.subject else None

    good, bad = mail("hello"), mail("invoice")
    with build("noinvoices", "save", {}, DECORATED) as chain:
        assert not chain.stores
        chain.run([good, bad])
    assert (good.answered, bad.answered) == (None, NO)
    assert no_invoices(bad) == NO


def test_an_async_function_is_a_processor(mail: Callable[..., Envelope]) -> None:
    @guerrilla.processor("Slow", stores=True)
    async def slow(envelope: Envelope) -> Reply | None:
        return NO

    envelope = mail()
    with build("Slow", "save", {}, DECORATED) as chain:
        assert chain.stores
        chain.run([envelope])
    assert envelope.answered == NO


def test_a_class_can_be_decorated() -> None:
    @guerrilla.processor("Decorated")
    class Decorated(Processor):
        stores = True

    assert DECORATED.find("decorated") is Decorated


def test_a_validator_and_a_processor_of_one_name_are_one(mail: Callable[..., Envelope]) -> None:
    @guerrilla.processor("Both")
    def save(envelope: Envelope) -> Reply | None:
        return NO

    @guerrilla.validator("both")
    def validate(transaction: Transaction, recipient: Address) -> Reply | None:
        return None

    both = DECORATED.find("Both")(Processor.Options())
    assert implements(both, "save")
    assert implements(both, "validate")


def test_a_function_of_a_taken_name_is_refused() -> None:
    guerrilla.processor("Taken")(Mine)
    with pytest.raises(ValueError, match="Taken"):

        @guerrilla.processor("taken")
        def taken(envelope: Envelope) -> None: ...


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="a function or a class"):
        guerrilla.processor("x")(3)  # type: ignore[type-var]


@pytest.mark.usefixtures("_python_path")
def test_a_module_beside_the_config_file_is_imported(tmp_path: Path) -> None:
    (tmp_path / "engine_shout.py").write_text(
        "import guerrilla\nimport engine_shout_help\n"
        "@guerrilla.processor('EngineShout')\ndef shout(envelope): return None\n"
    )
    (tmp_path / "engine_shout_help.py").write_text("")
    assert import_modules(["engine_shout"], tmp_path) == []
    assert DECORATED.find("engineshout").__module__ == "engine_shout"


@pytest.mark.usefixtures("_python_path")
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import engine_missing", "engine_missing"),
        ("def", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_module_that_fails_is_told(tmp_path: Path, source: str, told: str) -> None:
    (tmp_path / "engine_bad.py").write_text(source)
    (problem,) = import_modules(["engine_bad"], tmp_path)
    assert problem.startswith("backend_config.import: engine_bad: ")
    assert told in problem


def test_a_module_that_is_not_there_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    path = list(sys.path)
    try:
        (problem,) = import_modules(["engine_nowhere"], tmp_path)
    finally:
        sys.path[:] = path
    assert "engine_nowhere" in problem
    assert str(tmp_path) in problem


@pytest.fixture
def entry_point(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes an installed package offer `Installed` under a target."""

    def offer(target: str) -> None:
        point = importlib.metadata.EntryPoint("Installed", target, ENTRY_POINTS)
        monkeypatch.setattr(
            "guerrilla.engine.registry.importlib.metadata.entry_points",
            lambda *, group: [point] if group == ENTRY_POINTS else [],
        )

    return offer


def test_an_installed_package_offers_processors(entry_point: Callable[[str], None]) -> None:
    entry_point("guerrilla.processors.hasher:Hasher")
    assert Registry().find("installed").__name__ == "Hasher"
    assert "Installed" in Registry().names()


@pytest.mark.parametrize("target", ["engine_nowhere:X", "guerrilla.reply:fold"])
def test_an_installed_one_that_does_not_load_is_told(
    entry_point: Callable[[str], None], target: str
) -> None:
    entry_point(target)
    with pytest.raises(ConfigError, match="Installed"):
        Registry().find("Installed")


def test_a_built_in_one_without_its_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    table = processors.Table({"Odd": "guerrilla.processors.nowhere:Odd"})
    monkeypatch.setattr("guerrilla.engine.registry.TABLE", table)
    with pytest.raises(ConfigError, match=r"odd cannot be loaded: .*nowhere"):
        Registry().find("odd")
