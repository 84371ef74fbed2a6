"""A daemon within a program, as its users type it. Checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

import guerrilla
from guerrilla import (
    AppConfig,
    Backend,
    BackendConfig,
    Check,
    ConfigError,
    Daemon,
    Envelope,
    Envelopes,
    GuerrillaError,
    Outcome,
    Processor,
    Reply,
    ServerConfig,
    StartError,
    Stream,
    TLSConfig,
    __version__,
)

assert_type(__version__, str)
guerrilla.NoSuchName  # type: ignore[attr-defined] # noqa: B018

config = AppConfig(
    servers=(ServerConfig(listen_interface=":25", tls=TLSConfig(start_tls_on=True)),),
    backend_config=BackendConfig(save_process="SQL"),
)
assert_type(config.servers[0].timeout, float)
AppConfig(log_level="loud")  # type: ignore[arg-type]


class Own:
    """A custom backend derives from nothing."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        return [None for _ in envelopes]

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        return [None for _ in checks]


own: Backend = Own()
Daemon(config, backend=Own)
Daemon(config, backend=Processor)  # type: ignore[arg-type] # wants options
Daemon(config, backend=lambda: 7)  # type: ignore[arg-type, return-value]


def run(daemon: Daemon) -> None:
    try:
        with daemon as running:
            assert_type(running, Daemon)
            assert_type(running.addresses, list[str])
            assert_type(running.stats(), dict[str, Any])
            assert_type(running.wait(1.0), bool)
    except (ConfigError, StartError) as error:
        assert_type(error.problems, tuple[str, ...])
    except GuerrillaError:
        pass


async def iterate() -> None:
    async with Daemon(config, backend=Stream(max_waiting=10)) as daemon:
        assert_type(daemon, Daemon)
        envelopes = daemon.envelopes()
        assert_type(envelopes, Envelopes)
        async for envelope in envelopes:
            assert_type(envelope, Envelope)
            assert_type(envelope.answer(Reply.ok()), bool)
            envelope.answer("250")  # type: ignore[arg-type]
        await envelopes.aclose()
