"""Secrets, wherever one may come to light: each word of a config or a client that nobody may see.

Every key that takes a secret is in the table `HOLDERS`; a test fails where one is missing.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pydantic
import pytest

from guerrilla.cli import main
from guerrilla.config import AppConfig, from_mapping, masked
from guerrilla.config.diff import changes
from guerrilla.config.masking import mask_value, may_hold_secret
from guerrilla.config.writing import readable, toml
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.engine.chain import option_keys, read_options
from guerrilla.engine.registry import Registry
from guerrilla.errors import GuerrillaError
from guerrilla.events import Event
from guerrilla.processors import TABLE
from tests.daemons import Make, config, connect
from tests.passwords import quick_bcrypt, write_users
from tests.wire import HELLO

SECRET: Final = "xyzzy-4711"
"""In the form of a URL it is the same."""

_NOWHERE: Final = "127.0.0.1:1"
"""Where nothing listens."""

HOLDERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "redis": ("Redis", {"redis_interface": _NOWHERE, "redis_password": SECRET}),
    "redis url": ("Redis", {"redis_interface": f"redis://mail:{SECRET}@{_NOWHERE}/0"}),
    "redis and sql": (
        "GuerrillaRedisDB",
        {
            "redis_interface": f"redis://mail:{SECRET}@{_NOWHERE}/0",
            "sql_driver": "mysql",
            "sql_dsn": f"mail:{SECRET}@tcp({_NOWHERE})/mail",
        },
    ),
    "mysql as in go": (
        "MySQL",
        {"sql_driver": "mysql", "sql_dsn": f"mail:{SECRET}@tcp({_NOWHERE})/mail"},
    ),
    "mysql url": ("SQL", {"sql_driver": "mysql", "sql_dsn": f"mysql://mail:{SECRET}@{_NOWHERE}/m"}),
    "postgresql url": (
        "SQL",
        {"sql_driver": "postgresql", "sql_dsn": f"postgresql://mail:{SECRET}@{_NOWHERE}/mail"},
    ),
    "postgresql words": (
        "SQL",
        {
            "sql_driver": "postgresql",
            "sql_dsn": f"host=127.0.0.1 port=1 user=mail password='{SECRET}' dbname=mail",
        },
    ),
    "webhook": (
        "HTTP",
        {
            "http_url": f"http://mail:{SECRET}@{_NOWHERE}/hooks/{SECRET}?key={SECRET}",
            "http_secret": [SECRET, f"{SECRET}-new"],
            "http_headers": {"Authorization": f"Bearer {SECRET}", "X-Mine": SECRET},
        },
    ),
    "forward": (
        "Forward",
        {
            "forward_address": _NOWHERE,
            "forward_tls": "required",
            "forward_username": "mail",
            "forward_password": SECRET,
        },
    ),
}
"""A stage, and options with a secret wherever it takes one."""

holders = pytest.mark.parametrize("name", HOLDERS)


def config_with(name: str, **top: Any) -> AppConfig:
    """A config of that holder, alone at the stage and as an alias of it."""
    stage, options = HOLDERS[name]
    chain = f"HeadersParser|Hasher|{stage}|{stage}:two"
    backend = {"save_process": chain, "processors": {"two": options}, **options}
    return from_mapping({**config(**backend), "backends": {"more": backend}, **top})


def options_of(name: str) -> pydantic.BaseModel:
    stage, options = HOLDERS[name]
    return read_options(stage, Registry().find(stage), options)


def test_every_key_for_a_secret_is_in_the_table() -> None:
    keys = {key for stage in TABLE.names for key in option_keys(Registry().find(stage))}
    tried = {key for _, options in HOLDERS.values() for key in options}
    assert {key for key in keys if may_hold_secret(key)} - tried == set()


@holders
def test_options_and_stages_show_none(name: str) -> None:
    options = options_of(name)
    processor = Registry().find(HOLDERS[name][0])(options)
    assert SECRET in str(options.model_dump())
    for text in (repr(options), str(options), f"{options!s}", repr(processor)):
        assert SECRET not in text
        assert "object at" in text or "=" in text


class Own(Processor):
    """Somebody's own, which does nothing about it."""

    class Options(Processor.Options):
        model_config = pydantic.ConfigDict(frozen=True)
        own_api_key: str
        own_url: str = ""
        own_count: int = 0


def test_a_processor_of_somebodys_own_is_looked_after() -> None:
    options = Own.Options(own_api_key=SECRET, own_url=f"https://me:{SECRET}@example.com/")
    assert repr(options) == (
        "Options(own_api_key='***', own_url='https://me:***@example.com/', own_count=0)"
    )
    with pytest.raises(pydantic.ValidationError) as raised:
        Own.Options(own_api_key=[SECRET], own_count=SECRET)  # type: ignore[arg-type]
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "is_secret"),
    [
        *((key, True) for key in ("api_key", "http_apikey", "AccessKey", "x_private_key")),
        *((key, False) for key in ("private_key_file", "keys", "monkey", "public_key_file")),
    ],
)
def test_a_key_is_a_secret_by_its_name(key: str, is_secret: bool) -> None:
    assert (mask_value(key, SECRET) == "***") is is_secret


@holders
def test_no_form_of_a_config_shows_one(name: str) -> None:
    found = config_with(name)
    less = from_mapping(config())
    moved = changes(less, found) + changes(found, less)
    texts = [
        repr(found),
        str(found),
        json.dumps(masked(found)),
        toml(readable(found)),
        *(str(change) for change in moved),
        *(repr(change.payload) for change in moved),
    ]
    assert len(moved) > 1
    assert [text for text in texts if SECRET in text] == []


@holders
def test_a_wrong_value_beside_one_is_told_without_it(name: str) -> None:
    stage, options = HOLDERS[name]
    processor = Registry().find(stage)
    errors: list[Exception] = []
    for key, given in options.items():
        for wrong in ([given, given], {"a": given}, f"{given}\0", f"{given}/ x?y#z"):
            for make in (
                functools.partial(read_options, stage, processor),
                processor.Options.model_validate,
            ):
                try:
                    make({**options, key: wrong})
                except (GuerrillaError, pydantic.ValidationError) as error:
                    errors.append(error)
    assert len(errors) > len(options)
    assert [str(error) for error in errors if SECRET in everything_of(error)] == []


def everything_of(error: BaseException) -> str:
    """What a log, a debugger or a person may see of an error, its causes among it."""
    return f"{error!r}\n{error}\n" + "".join(traceback.format_exception(error))


def everything_in(caplog: pytest.LogCaptureFixture) -> str:
    form = logging.Formatter("%(name)s %(message)s")
    return "\n".join(f"{form.format(record)}{vars(record)!r}" for record in caplog.records)


@pytest.fixture
def running() -> Iterator[Callable[[AppConfig], Daemon]]:
    made: list[Daemon] = []

    def make(config: AppConfig) -> Daemon:
        made.append(Daemon(config))
        return made[-1]

    yield make
    for daemon in made:
        daemon.shutdown(5)


@holders
def test_a_start_that_fails_shows_none(
    name: str, running: Callable[[AppConfig], Daemon], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    daemon = running(config_with(name))
    with pytest.raises(GuerrillaError) as raised:
        daemon.start()
    assert SECRET not in everything_of(raised.value)
    assert SECRET not in everything_in(caplog)
    assert SECRET not in json.dumps(daemon.status())
    assert SECRET not in repr(daemon)


@holders
def test_a_reload_to_it_shows_none(
    name: str, running: Callable[[AppConfig], Daemon], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    plain = {"save_process": "HeadersParser|Debugger"}
    daemon = running(from_mapping(config(**plain)))
    seen: list[str] = []
    for event in Event:
        daemon.subscribe(event, lambda payload: seen.append(repr(payload)))
    daemon.start()
    try:
        seen.append(repr(daemon.reload_config(config_with(name))))
    except GuerrillaError as error:
        seen.append(everything_of(error))
    text = "\n".join([*seen, everything_in(caplog), json.dumps(daemon.status())])
    assert "what was there before stays" in text
    assert SECRET not in text


@holders
def test_commands_show_none(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    stage, options = HOLDERS[name]
    raw = config(save_process=stage, **options)
    path, old = tmp_path / "g.json", tmp_path / "old.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    old.write_text(json.dumps(config(save_process="Debugger")), encoding="utf-8")
    told = ""
    for words in (
        ["check", "-c", str(path)],
        ["check", "-c", str(path), "--connect"],
        ["check", "--diff", str(old), str(path)],
        ["serve", "-c", str(path), "-v"],
    ):
        assert main(words) in (0, 1)
        out, err = capsys.readouterr()
        told += out + err
    assert stage in told
    assert SECRET not in told + everything_in(caplog)


# --- What clients say ----------------------------------------------------------------------------

_B64: Final = base64.b64encode(SECRET.encode())
_PLAIN: Final = base64.b64encode(f"\0alice\0{SECRET}".encode())

MISTAKES: Final[Mapping[str, tuple[bytes, ...]]] = {
    "a wrong password": (b"AUTH PLAIN " + _PLAIN,),
    "in an answer": (b"AUTH PLAIN", _PLAIN),
    "line by line": (b"AUTH LOGIN", base64.b64encode(b"alice"), _B64),
    "as the name": (b"AUTH LOGIN " + _B64, b"*"),
    "as a mechanism's": (b"AUTH XOAUTH2 " + _B64,),
    "not encoded": (b"AUTH PLAIN " + SECRET.encode(),),
    "encoded badly": (b"AUTH PLAIN " + _B64 + b"!",),
    "too long": (b"AUTH PLAIN " + b"A" * 13_000 + _PLAIN,),
    "as a command": (_B64, SECRET.encode(), SECRET.encode() + b"\0"),
    "behind a command": (b"NOOP " + SECRET.encode(), b"VRFY " + SECRET.encode()),
    "as a proxy that is none": (b"XCLIENT LOGIN=" + SECRET.encode(),),
}
"""Ways in which a client shows its password, by which none of them gets in."""


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("allowed", [True, False])
def test_no_log_has_what_a_client_tells_at_auth(
    make: Make, tmp_path: Path, form: str, allowed: bool
) -> None:
    users = write_users(tmp_path / "users", f"alice:{quick_bcrypt('another')}")
    log = tmp_path / "daemon.log"
    raw = config(auth_process="AuthFile", auth_file=str(users))
    raw |= {"log_file": str(log), "log_level": "debug", "log_format": form}
    raw["servers"][0]["auth"] = {"allow_plaintext": allowed, "failure_delay": 0}
    seen: list[str] = []
    with make(raw) as daemon:
        for event in Event:
            daemon.subscribe(event, lambda payload: seen.append(repr(payload)))
        for lines in MISTAKES.values():
            with connect(daemon) as wire:
                wire.ask(HELLO)
                replies = [wire.ask(line + b"\r\n") for line in lines]
                assert not any(reply.startswith("235") for reply in replies)
        seen.append(json.dumps(daemon.status()))
    text = log.read_text(encoding="utf-8") + "\n".join(seen)
    assert text.count("connected") == len(MISTAKES)
    for told in (SECRET, _B64.decode(), _PLAIN.decode()):
        assert told not in text


def test_a_mail_keeps_the_name_alone(make: Make, tmp_path: Path) -> None:
    """In what is serialised, as for the spool, and in what is printed of it."""
    users = write_users(tmp_path / "users", f"alice:{quick_bcrypt(SECRET)}")
    raw = config(auth_process="AuthFile", auth_file=str(users))
    raw["servers"][0]["auth"] = {"allow_plaintext": True}
    kept: list[Any] = []

    class Seer(Processor):
        stores = True

        def save(self, envelope: Any) -> None:
            kept.append((envelope.auth, envelope.to_bytes(), repr(envelope)))

    raw["backend_config"]["save_process"] = "Seer"
    daemon = make(raw)
    daemon.add_processor("Seer", Seer)
    with daemon, connect(daemon) as wire:
        wire.ask(HELLO)
        assert wire.ask(b"AUTH PLAIN " + _PLAIN + b"\r\n").startswith("235 ")
        assert wire.ask(b"MAIL FROM:<a@example.com>\r\n").startswith("250 ")
        assert wire.ask(b"RCPT TO:<b@example.com>\r\n").startswith("250 ")
        assert wire.ask(b"DATA\r\n").startswith("354 ")
        assert wire.ask(b"Subject: hello\r\n\r\n.\r\n").startswith("250 ")
    ((auth, octets, text),) = kept
    assert auth == "alice"
    assert b"alice" in octets
    for told in (SECRET.encode(), _B64, _PLAIN):
        assert told not in octets + text.encode()


def test_the_core_prints_none_of_what_it_waits_for(make: Make) -> None:
    """A stage that hangs while it has the credentials, and a client that goes."""
    seen: list[str] = []

    class Curious(Processor):
        def authenticate(self, transaction: Any, credentials: Any) -> None:
            seen.extend(map(repr, (transaction, credentials, vars(type(credentials)))))
            seen.append(str(credentials))

    raw = config(auth_process="Curious")
    raw["servers"][0]["auth"] = {"allow_plaintext": True, "failure_delay": 0}
    daemon = make(raw)
    daemon.add_processor("Curious", Curious)
    with daemon, connect(daemon) as wire:
        wire.ask(HELLO)
        wire.ask(b"AUTH PLAIN " + _PLAIN + b"\r\n")
    assert len(seen) == 4
    assert SECRET not in "\n".join(seen)
