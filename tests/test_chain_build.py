"""Chains made from a config, and the built-in processors in them."""

from __future__ import annotations

import logging
from typing import ClassVar

import pydantic
import pytest

from guerrilla._core import Envelope
from guerrilla.engine.base import Processor
from guerrilla.engine.chain import build
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.errors import ConfigError, expected
from guerrilla.reply import TRY_LATER, Outcome
from tests.chains import Mail, fate

# Building


class Wanting(Processor):
    class Options(pydantic.BaseModel):
        limit: int = 3
        place: str

    seen: ClassVar[list[pydantic.BaseModel]] = []

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.seen.append(options)

    def save(self, envelope: Envelope) -> Outcome:
        return None


@pytest.fixture
def registry() -> Registry:
    registry = Registry(DECORATED)
    registry.add("Wanting", Wanting)
    return registry


def test_each_processor_reads_its_own_keys(registry: Registry) -> None:
    chain = build("Hasher| wanting ", "save", {"place": "here", "other": 1}, registry)
    assert [name for name, _ in chain.stages] == ["Hasher", "wanting"]
    assert chain.stages[1][1].options.model_dump() == {"limit": 3, "place": "here"}


def test_everything_wrong_is_told_at_once_with_its_key(registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        build("HeaderParser|Wanting", "save", {"limit": "many"}, registry)
    unknown, *keys = caught.value.problems
    assert "'HeaderParser'" in unknown
    assert "'HeadersParser'" in unknown
    assert sorted(key.split(":")[0] for key in keys) == [
        "backend_config.limit",
        "backend_config.place",
    ]


def test_a_key_may_be_spelt_otherwise_than_its_field(registry: Registry) -> None:
    class Aliased(Processor):
        class Options(pydantic.BaseModel):
            class_: str = pydantic.Field(alias="Class")

    registry.add("Aliased", Aliased)
    chain = build("Aliased", "save", {"class": "a"}, registry)
    assert chain.stages[0][1].options.model_dump() == {"class_": "a"}


class Secretive(Processor):
    class Options(pydantic.BaseModel):
        api_token: int = 0
        user_password: str = ""
        size: int = 0

        @pydantic.field_validator("user_password")
        @classmethod
        def _long(cls, value: str) -> str:
            if value:
                raise expected("a long one", value)
            return value


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"api_token": "hunter2"}, "got '***' (read by Secretive)"),
        ({"user_password": "hunter2"}, ": expected a long one, got '***' (read by Secretive)"),
        ({"size": "many"}, "got 'many' (read by Secretive)"),
    ],
)
def test_a_secret_that_is_wrong_is_not_shown(
    registry: Registry, values: dict[str, object], problem: str
) -> None:
    registry.add("Secretive", Secretive)
    with pytest.raises(ConfigError) as caught:
        build("Secretive", "save", values, registry)
    (line,) = caught.value.problems
    assert line.startswith(f"backend_config.{next(iter(values))}: ")
    assert line.endswith(problem)
    assert "hunter2" not in line


def test_an_error_while_making_one_is_told(registry: Registry) -> None:
    class Broken(Processor):
        def __init__(self, options: pydantic.BaseModel) -> None:
            message = "no licence"
            raise RuntimeError(message)

    registry.add("Broken", Broken)
    with pytest.raises(ConfigError, match="Broken: RuntimeError: no licence"):
        build("Broken", "save", {}, registry)


# The built-in ones


def test_the_standard_chain(mail: Mail) -> None:
    envelope = mail("hi", "one@example.com", "two@example.com")
    values = {"primary_mail_host": "mx.example.net"}
    with build("HeadersParser|Hasher|Header|Debugger", "save", values, Registry()) as chain:
        chain.run([envelope])
    assert fate(envelope) == "accepted"
    assert len(envelope.hashes) == 2
    assert b"mx.example.net" in envelope.delivery_header_for(1)


def test_debugger_logs_sender_recipients_and_headers(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "guerrilla")
    envelope = mail("hi", "one@example.com")
    with build("Debugger", "save", {"log_received_mails": True}, Registry()) as chain:
        chain.run([envelope])
    for part in (envelope.queued_id, "from@example.org", "one@example.com", "Subject"):
        assert part in caplog.text


def test_debugger_is_silent_unless_told(mail: Mail, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "guerrilla")
    with build("Debugger", "save", {}, Registry()) as chain:
        chain.run([mail()])
    assert caplog.text == ""


def test_debugger_fails_on_purpose_after_a_sleep_of_one(
    mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("guerrilla.processors.debugger.time.sleep", slept.append)
    for seconds in (1, 2):
        envelope = mail()
        with build("Debugger", "save", {"sleep_seconds": seconds}, Registry()) as chain:
            chain.run([envelope])
        assert fate(envelope) == (TRY_LATER if seconds == 1 else "accepted")
    assert slept == [1, 2]
