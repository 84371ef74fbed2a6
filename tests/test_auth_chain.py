"""Chains that check who a client is: what each outcome becomes, and what nobody may see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest

import guerrilla
from guerrilla._core import Credentials, Login, Reply, Transaction
from guerrilla.config import from_mapping
from guerrilla.engine.backends import make_chain, tasks
from guerrilla.engine.base import Processor
from guerrilla.engine.chain import build
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.engine.worker import PoolSettings, WorkerPool
from guerrilla.errors import ConfigError, NoSuchUser, Unavailable
from guerrilla.reply import AUTHENTICATED, LOG_IN_LATER, NOT_AUTHENTICATED
from guerrilla.testing import run_authenticate
from tests.chains import chain_of, errors_logged
from tests.logins import SECRET, Asked, Batch, gives, login, throws, told

# What an outcome becomes


@pytest.mark.parametrize(
    "accepts", [guerrilla.AUTHENTICATED, Reply.ok("welcome"), Reply(250, "2.0.0", "yes")]
)
def test_a_2xx_accepts_and_the_client_hears_what_the_rfc_says(accepts: Reply) -> None:
    later = gives(NOT_AUTHENTICATED)
    assert told(gives(None), gives(accepts), later) == AUTHENTICATED
    assert (AUTHENTICATED.code, AUTHENTICATED.enhanced) == (235, "2.7.0")
    assert later.asked == []


@pytest.mark.parametrize(
    "refuses", [Reply(535, "5.7.8", "no"), Reply(550, "5.7.1", "not you"), LOG_IN_LATER]
)
def test_a_4xx_or_5xx_refuses_with_it(refuses: Reply) -> None:
    later = gives(AUTHENTICATED)
    assert told(gives(refuses), later) == refuses
    assert later.asked == []


@pytest.mark.parametrize("stages", [1, 3])
def test_who_is_passed_on_by_all_is_refused(stages: int) -> None:
    """In a plain stage, an async one and a batch: to know nobody is not to know him."""

    class Async(Processor):
        async def authenticate(  # type: ignore[override]
            self, transaction: Transaction, credentials: Credentials
        ) -> Reply | None:
            return None

    plain = [gives(None) for _ in range(stages)]
    batch = [Batch(lambda logins: [None] * len(logins)) for _ in range(stages)]
    waiting = [Async(Processor.Options()) for _ in range(stages)]
    for chain in (plain, batch, waiting, [*plain, *batch], [*batch, *waiting, *plain]):
        assert told(*chain) == NOT_AUTHENTICATED
    assert (NOT_AUTHENTICATED.code, NOT_AUTHENTICATED.enhanced) == (535, "5.7.8")


def test_a_chain_that_a_reload_left_without_stages_refuses_nobody_for_good() -> None:
    assert told() == LOG_IN_LATER
    assert (LOG_IN_LATER.code, LOG_IN_LATER.enhanced) == (454, "4.7.0")


@pytest.mark.parametrize(
    "error",
    [ValueError("oops"), Unavailable("ldap is away"), NoSuchUser(), TimeoutError(), KeyError("u")],
)
def test_what_is_raised_says_nothing_of_the_credentials(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even an error that is a refusal of mail: its text would say who has an account."""
    later = gives(AUTHENTICATED)
    assert told(throws(error), later) == LOG_IN_LATER
    assert later.asked == []
    assert "answered 454" in caplog.text or "answered 451" not in caplog.text


@pytest.mark.parametrize("outcome", ["235", True, 1, (), object()])
def test_what_is_no_outcome_accepts_nobody(
    outcome: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert told(gives(outcome)) == LOG_IN_LATER
    (record,) = errors_logged(caplog)
    assert "Asked gave no outcome but" in record.getMessage()
    assert record.getMessage().endswith(": answered 454")


@pytest.mark.parametrize("outcomes", [[], [AUTHENTICATED] * 3, None, AUTHENTICATED, "yes"])
def test_outcomes_that_are_not_one_a_login_accept_nobody(
    outcomes: object, caplog: pytest.LogCaptureFixture
) -> None:
    both = [login(), login("ann")]
    with chain_of(Batch(lambda _: outcomes), task="authenticate") as chain:
        chain.run(both)
    assert [one.answered for one in both] == [LOG_IN_LATER] * 2
    assert "answered 454" in caplog.text


def test_a_batch_that_raises_is_asked_again_one_by_one() -> None:
    def given(logins: Sequence[Login]) -> list[Reply | None]:
        if len(logins) > 1:
            raise ValueError
        return [AUTHENTICATED if logins[0].credentials.username == "joe" else None]

    both = [login(), login("ann")]
    stage = Batch(given)
    with chain_of(stage, task="authenticate") as chain:
        chain.run(both)
    assert [one.answered for one in both] == [AUTHENTICATED, NOT_AUTHENTICATED]
    assert stage.sizes == [2, 1, 1]


def test_async_stages_run_beside_each_other_until_their_time_limit() -> None:
    together = asyncio.Barrier(2)

    class Slow(Processor):
        async def authenticate(  # type: ignore[override]
            self, transaction: Transaction, credentials: Credentials
        ) -> Reply | None:
            if credentials.username == "late":
                await asyncio.Event().wait()
            await together.wait()
            return AUTHENTICATED

    three = [login(), login("late"), login("ann")]
    with chain_of(Slow(Processor.Options()), task="authenticate", auth_timeout=0.2) as chain:
        assert chain.most(64) == 64
        chain.run(three)
    assert [one.answered for one in three] == [AUTHENTICATED, LOG_IN_LATER, AUTHENTICATED]


# Whom else a client may act as


def test_nobody_acts_as_another_unless_the_stage_says_that_it_decides_that() -> None:
    assert told(gives(AUTHENTICATED), authorization_identity="joe") == AUTHENTICATED
    assert told(gives(AUTHENTICATED), authorization_identity="ann") == NOT_AUTHENTICATED
    assert told(gives(AUTHENTICATED), authorization_identity="Joe") == NOT_AUTHENTICATED

    class Deciding(Asked):
        authorizes = True

    decides = Deciding(lambda _user, _password: AUTHENTICATED)
    assert told(decides, authorization_identity="ann") == AUTHENTICATED


# Chains of a config


def values(**backend: Any) -> Any:
    return from_mapping({"backend_config": {"save_process": "Debugger", **backend}})


def test_there_are_workers_for_it_only_where_the_chain_is() -> None:
    assert tasks(values(), "default", None) == ["save"]
    both = values(auth_process="AuthFile", validate_process="SQL")
    assert tasks(both, "default", None) == ["save", "validate", "authenticate"]


def test_a_processor_that_checks_no_credentials_is_an_error_at_start() -> None:
    with pytest.raises(ConfigError) as caught:
        build("Debugger|Hashr|SQL:x", "authenticate", {}, Registry(DECORATED))
    debugger, unknown, sql = caught.value.problems
    assert debugger == (
        "backend_config.auth_process: Debugger checks no credentials: it has no authenticate method"
    )
    assert unknown.startswith("backend_config.auth_process: unknown processor 'Hashr'")
    assert sql.startswith("backend_config.auth_process: SQL:x checks no credentials")


def test_its_place_is_that_of_its_backend() -> None:
    config = from_mapping({"backends": {"hot": {"auth_process": "Debugger"}}})
    with pytest.raises(ConfigError, match=r"^backends\.hot\.auth_process: Debugger checks no"):
        make_chain(config, Registry(DECORATED), "hot", "authenticate", None)


def test_a_function_becomes_a_stage() -> None:
    @guerrilla.authenticator("Door")
    async def door(transaction: Transaction, credentials: Credentials) -> Reply | None:
        is_near = transaction.remote_ip.startswith("10.")
        return guerrilla.AUTHENTICATED if is_near and credentials.password == "sesame" else None

    assert run_authenticate("Door", "joe", "sesame", remote_ip="10.0.0.1") == AUTHENTICATED
    assert run_authenticate("Door", "joe", "sesame") == NOT_AUTHENTICATED
    assert run_authenticate([door], "joe", "sesame", remote_ip="10.0.0.1") == AUTHENTICATED
    with pytest.raises(ConfigError, match="checks no credentials"):
        run_authenticate("Debugger", "joe", "sesame")


def test_one_name_may_be_a_processor_a_validator_and_an_authenticator() -> None:
    @guerrilla.processor("All", stores=True)
    def save(envelope: guerrilla.Envelope) -> None: ...

    @guerrilla.authenticator("All")
    def authenticate(transaction: Transaction, credentials: Credentials) -> Reply | None:
        return AUTHENTICATED

    found = DECORATED.find("all")
    assert found.stores
    assert build("All", "save", {}, DECORATED).stores
    assert run_authenticate("All", "joe", "x") == AUTHENTICATED


# A backend of one's own


class Own:
    """Its factory is the class itself."""

    logins: ClassVar[list[str]] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def save_batch(self, envelopes: Sequence[guerrilla.Envelope]) -> list[None]:
        return [None] * len(envelopes)

    def validate_batch(self, checks: Sequence[guerrilla.Check]) -> list[None]:
        return [None] * len(checks)

    def authenticate_batch(self, logins: Sequence[Login]) -> list[Reply | None]:
        return [AUTHENTICATED if one.credentials.username == "joe" else None for one in logins]


class Silent(Own):
    authenticates = False


def test_a_backend_of_ones_own_is_asked_where_it_has_the_method() -> None:
    assert tasks(values(), "default", Own) == ["save", "validate", "authenticate"]
    assert tasks(values(), "default", Silent) == ["save", "validate"]
    assert tasks(values(), "default", partial(Own)) == ["save", "validate"]
    three = [login(), login("ann"), login("joe", authorization_identity="ann")]
    chain = make_chain(values(), Registry(DECORATED), "default", "authenticate", Own)
    with chain:
        chain.run(three)
    accepted = [one.answered == AUTHENTICATED for one in three]
    assert accepted == [True, False, True]


def test_a_chain_is_asked_beside_a_backend_that_has_not_the_method() -> None:
    @guerrilla.authenticator("Door")
    def door(transaction: Transaction, credentials: Credentials) -> Reply | None:
        return AUTHENTICATED

    config = values(auth_process="Door")
    assert tasks(config, "default", Silent) == ["save", "validate", "authenticate"]
    with make_chain(config, Registry(DECORATED), "default", "authenticate", Silent) as chain:
        assert [name for name, _ in chain.stages] == ["Door"]


# Workers


def test_a_worker_takes_one_login_at_a_time_where_more_would_only_wait() -> None:
    assert chain_of(gives(None), task="authenticate").most(64) == 1
    assert chain_of(gives(None), Batch(list), task="authenticate").most(64) == 64
    assert chain_of(gives(None)).most(64) == 64


def test_what_escapes_the_stages_is_answered_454(
    caplog: pytest.LogCaptureFixture, until: Callable[[Callable[[], object]], None]
) -> None:
    asked = login()
    batches: list[list[Login]] = [[asked]]
    pool: WorkerPool[Login] = WorkerPool(
        PoolSettings("authenticate", 1, 64, 5.0),
        lambda: chain_of(throws(SystemExit(SECRET)), task="authenticate"),
        lambda _most, _timeout: batches.pop() if batches else None,
    )
    pool.open()
    pool.begin()
    until(lambda: asked.answered)
    assert pool.end(5)
    assert asked.answered == LOG_IN_LATER
    assert "failed: answered 454: PLAIN login of client" in caplog.text
    assert SECRET not in caplog.text
