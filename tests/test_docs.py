"""What the documents say is true: code runs, configs load, links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from _pytest.mark import ParameterSet

from guerrilla import Envelope, Reply
from guerrilla.config import (
    AppConfig,
    ClientAuthType,
    ServerConfig,
    TLSConfig,
    from_mapping,
    load,
    loads,
)
from guerrilla.config.app import SpoolConfig
from guerrilla.config.server import AuthConfig
from guerrilla.config.tls import (
    CIPHERS,
    CURVES,
    GONE_CIPHERS,
    GONE_CURVES,
    GONE_PROTOCOLS,
    PROTOCOLS,
)
from guerrilla.engine.chain import build
from guerrilla.engine.registry import DECORATED, Registry

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for folder in (
        ROOT,
        ROOT / "docs",
        ROOT / "docs" / "processors",
        ROOT / "benches",
        ROOT / "tests" / "corpus",
    )
    for path in folder.glob("*.md")
)
EXAMPLE = ROOT / "examples" / "processor.py"

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
_TARGET = re.compile(r"make ([a-z][a-z-]*)")


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Every fenced block of these languages, with the name of its document."""
    return [
        (path.name, code)
        for path in DOCUMENTS
        for language, code in _FENCE.findall(path.read_text(encoding="utf-8"))
        if language in languages
    ]


def named(found: list[tuple[str, str]]) -> list[ParameterSet]:
    return [pytest.param(code, id=f"{name}-{n}") for n, (name, code) in enumerate(found)]


def test_there_are_documents() -> None:
    names = {path.name for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "flow.md"} <= names
    assert {"limits.md", "tls.md", "proxies.md", "rfc.md", "security.md"} <= names
    assert {"config.md", "control.md", "logs.md", "deploy.md", "reload.md", "spool.md"} <= names


@pytest.mark.parametrize("code", named(blocks("python")))
def test_python_blocks_are_python(code: str) -> None:
    assert ast.parse(code).body


@pytest.mark.parametrize("code", named(blocks("toml", "json")))
def test_config_blocks_load(code: str) -> None:
    is_json = code.lstrip().startswith("{")
    config = loads(code, format="json" if is_json else "toml", source="a block")
    assert config.servers


EXAMPLES = sorted(
    path for path in (ROOT / "examples").rglob("*.toml") if path.name != "pyproject.toml"
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_config_examples_load(path: Path) -> None:
    config = load(path)
    assert config.servers
    assert config.warnings() == []


def test_every_example_is_named_in_a_document() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    examples = [path for path in (ROOT / "examples").rglob("*") if path.is_file()]
    names = [str(path.relative_to(ROOT)) for path in examples if path.suffix != ".pyc"]
    assert "examples/nginx/nginx.conf" in names
    assert [name for name in names if name not in text] == []


def test_every_server_that_is_an_example_is_run_by_a_test() -> None:
    """With its very file, by its name below `examples`; so are those for systemd and logrotate."""
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    folders = [path for path in (ROOT / "examples").iterdir() if path.is_dir()]
    files = [path for folder in folders for path in folder.iterdir() if path.suffix != ".pyc"]
    names = [str(path.relative_to(ROOT / "examples")) for path in files if path.is_file()]
    assert len(names) >= 4
    assert [name for name in names if f'"{name}"' not in tests] == []


def test_the_readme_shows_the_example_as_it_is() -> None:
    readme = [code for document, code in blocks("python") if document == "README.md"]
    assert EXAMPLE.read_text(encoding="utf-8") in readme


def test_the_readme_processor_works_in_a_chain() -> None:
    runpy.run_path(str(EXAMPLE))  # as an import, but leaves no module for other tests to find
    refused = Envelope.create(b"Subject: Your INVOICE\r\n\r\nPay.\r\n", rcpt_to=["b@example.com"])
    taken = Envelope.create(b"Subject: Lunch?\r\n\r\nAt one.\r\n", rcpt_to=["b@example.com"])
    names = "HeadersParser|NoInvoices"
    with build(names, "save", {}, Registry(DECORATED)) as chain:
        chain.run([refused, taken])
    assert refused.answered == Reply.reject("5.7.1", "no invoices here")
    # The end of the chain accepted it, which is an answer: there can be no other.
    assert taken.answered is None
    assert taken.answer(Reply.retry()) is False


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = _LINK.findall(path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_make_targets_that_documents_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    texts = [code for _, code in blocks("sh")]
    texts += re.findall(
        r"`(make [^`]*)`", "".join(p.read_text(encoding="utf-8") for p in DOCUMENTS)
    )
    asked = {name for text in texts for name in _TARGET.findall(text)}
    assert {"serve", "test", "build"} <= asked
    assert asked - targets == set()


def test_every_dependency_is_justified() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    crates = re.findall(r"^\[(?:dev-)?dependencies\]\n((?:.+\n)*)", manifest, re.MULTILINE)
    names = re.findall(r"^([a-z][\w-]*) = ", "".join(crates), re.MULTILINE)
    for path in (ROOT / "requirements").glob("*.in"):
        names += re.findall(r"^([a-z][\w-]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    package = ROOT / "tests" / "clients" / "node" / "package.json"
    names += json.loads(package.read_text(encoding="utf-8"))["dependencies"]
    assert {"tokio", "pyo3", "pydantic", "pytest"} <= set(names)
    unexplained = [
        name for name in names if not re.search(rf"^\|.*\b{name}\b.*\|", text, re.MULTILINE)
    ]
    assert unexplained == []


def test_lock_files_say_where_nothing_came_from() -> None:
    """An index, a mirror or a folder of whoever made them would fail or mislead everybody else."""
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        assert "--hash=sha256:" in text
        assert re.findall(r"https?://|--(?:extra-)?index-url|--find-links|file:|\s/\w", text) == []


def test_the_lock_of_node_pins_by_hash() -> None:
    lock = ROOT / "tests" / "clients" / "node" / "package-lock.json"
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    pinned = {name: package for name, package in packages.items() if name}
    assert pinned
    for name, package in pinned.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_no_package_index_is_named() -> None:
    """Which one is used is the machine's own setting."""
    hosts = re.compile(
        r"\b(?:(?:pypi|pythonhosted|crates|npmjs|goproxy|golang)\.(?:org|io)|npmjs\.com)\b"
    )
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "Cargo.toml", *DOCUMENTS]
    files += [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    clients = ROOT / "tests" / "clients"
    files += [path for folder in ("go", "node") for path in (clients / folder).iterdir()]
    assert [path.name for path in files if hosts.search(path.read_text(encoding="utf-8"))] == []


def rows(document: str) -> dict[str, list[str]]:
    """The rows of all tables of a document by their first cell, which is code; the others."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    found = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


NO_LIMITS = {
    "is_enabled", "listen_interface", "unix_mode", "host_name", "log_file", "log_level",
    "xclient_on", "tls", "protocol", "extensions", "proxy_protocol", "trusted_proxies",
    "backend", "auth",
}  # fmt: skip
"""The keys of a server that are neither a limit nor a manner."""


def test_every_limit_is_documented_with_its_default() -> None:
    documented = rows("limits.md")
    limits = set(ServerConfig.model_fields) - NO_LIMITS
    process = {"max_memory", "spill_size"}
    auth = {"failure_delay", "max_failures"}
    spool = {"max_bytes", "min_free", "max_age"}
    assert set(documented) == limits | process | auth | spool
    values = {
        name: tomllib.loads(f"x = {cells[0].strip('`')}")["x"] for name, cells in documented.items()
    }
    server = {"listen_interface": "127.0.0.1:2525", **{name: values[name] for name in limits}}
    config = from_mapping({"servers": [server], **{name: values[name] for name in process}})
    assert config.servers[0].model_dump(include=limits) == AppConfig.default().servers[
        0
    ].model_dump(include=limits)
    of_auth = {name: values[name] for name in auth}
    assert AuthConfig.model_validate(of_auth) == AuthConfig()
    of_spool = {name: values[name] for name in spool}
    assert SpoolConfig.model_validate({"path": "s", **of_spool}) == SpoolConfig(path="s")
    assert config.model_dump(include=process) == AppConfig.default().model_dump(include=process)


def test_every_key_of_tls_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "tls.md").read_text(encoding="utf-8")
    assert [name for name in TLSConfig.model_fields if f"`{name}`" not in text] == []
    for name, (cell, *_) in rows("tls.md").items():
        if name in TLSConfig.model_fields and cell.startswith("`"):
            value = tomllib.loads(f"x = {cell.strip('`')}")["x"]
            default = TLSConfig.model_fields[name].default
            assert value == (list(default) if isinstance(default, tuple) else default), name


def test_every_name_of_tls_is_documented() -> None:
    """In the table of names; of the many ciphers that are gone it names the kinds."""
    text = (ROOT / "docs" / "tls.md").read_text(encoding="utf-8")
    names = [
        *PROTOCOLS,
        *CURVES,
        *CIPHERS,
        *GONE_PROTOCOLS,
        *GONE_CURVES,
        *get_args(ClientAuthType),
    ]
    shown = [name for name in names if not name.endswith("CHACHA20_POLY1305")]
    assert [name for name in shown if f"`{name}`" not in text] == []
    known = {*names, *GONE_CIPHERS}
    assert set(re.findall(r"`(TLS_[A-Z0-9_]+)`", text)) <= known


def test_the_keys_of_proxies_are_documented_with_their_defaults() -> None:
    documented = rows("proxies.md")
    for name in ("xclient_on", "proxy_protocol", "trusted_proxies"):
        value = tomllib.loads(f"x = {documented[name][0].strip('`')}")["x"]
        default = ServerConfig.model_fields[name].default
        assert value == (list(default) if isinstance(default, tuple) else default), name
    names = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN"]
    assert [name for name in names if name not in documented] == []


def test_versions_agree() -> None:
    """The Rust that the build asks for is the one that the README names."""
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    [rust] = re.findall(r'^rust-version = "(.*)"$', manifest, re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Rust {rust} or newer" in readme
    assert json.dumps(">=3.11") in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "Python 3.11 or newer" in readme


def test_each_fuzz_target_says_what_it_holds_the_core_to() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = text.partition("| target | is given to |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `([a-z0-9]+)` \|", table, re.MULTILINE)
    targets = sorted(path.stem for path in (ROOT / "fuzz" / "fuzz_targets").glob("*.rs"))
    assert sorted(named) == targets
    assert targets == sorted(path.name for path in (ROOT / "fuzz" / "corpus").iterdir())
