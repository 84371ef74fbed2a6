"""Several backends: who saves what, and what a reload does to them."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest

from guerrilla._core import Address, Check, Envelope, Transaction
from guerrilla.commands.control import describe
from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.backends import backends_of, keep_backends, placed_in
from guerrilla.engine.base import Processor
from guerrilla.engine.supervisor import Supervisor
from guerrilla.engine.worker import SPARE
from guerrilla.errors import ConfigError, StartError
from guerrilla.events import Event
from guerrilla.reply import Outcome, Reply
from guerrilla.running.checking import check, effective
from tests.chains import Mail
from tests.daemons import problems, starting
from tests.pools import HANG_AFTER, Bench
from tests.reloads import shows
from tests.wire import HELLO, TRANSACTION, Wire, until

MAIL = b"Subject: hello"


class Box(Processor):
    """Keeps subjects by the name of the box; a box that is shut keeps its worker waiting."""

    stores = True
    kept: ClassVar[dict[str, list[str]]]
    opened: ClassVar[dict[str, list[str]]]
    closed: ClassVar[list[str]]
    shut: ClassVar[dict[str, threading.Event]]

    class Options(pydantic.BaseModel):
        box: str = "main"
        refused_user: str = ""

    options: Options

    def open(self) -> None:
        if self.options.box == "broken":
            message = "the box is broken"
            raise StartError([message])
        self.opened[self.options.box].append(threading.current_thread().name)

    def close(self) -> None:
        self.closed.append(self.options.box)

    def save(self, envelope: Envelope) -> Outcome:
        if self.options.box in self.shut:
            assert self.shut[self.options.box].wait(30)
        self.kept[self.options.box].append(envelope.subject)
        return None

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        return Reply(550, "5.1.1", "who?") if recipient.user == self.options.refused_user else None


@pytest.fixture
def box() -> Iterator[type[Box]]:
    """A class of the test's own."""

    class Own(Box):
        kept: ClassVar[dict[str, list[str]]] = defaultdict(list)
        opened: ClassVar[dict[str, list[str]]] = defaultdict(list)
        closed: ClassVar[list[str]] = []
        shut: ClassVar[dict[str, threading.Event]] = {}

    yield Own
    for event in Own.shut.values():
        event.set()


def raw(backends: dict[str, dict[str, Any]], *servers: str, **main: Any) -> dict[str, Any]:
    """A config with a server for each of these backends."""
    chain = {"save_process": "HeadersParser|Box"}
    return {
        "servers": [
            {
                "listen_interface": f"127.0.0.{n}:0",
                "host_name": f"mx{n}.example.com",
                "backend": name,
            }
            for n, name in enumerate(servers, 1)
        ],
        "allowed_hosts": ["example.com"],
        "log_file": "off",
        "backend_config": {**chain, **main},
        "backends": {name: {**chain, "box": name, **keys} for name, keys in backends.items()},
    }


@pytest.fixture
def start(box: type[Box]) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons that know the boxes, and stops them."""

    def release() -> None:
        for event in box.shut.values():
            event.set()

    with starting("Box", box, release) as run:
        yield lambda config, **keys: run(from_mapping(config), **keys)


Start = Callable[..., Daemon]


def wire(daemon: Daemon, index: int = 0) -> Wire:
    return Wire(daemon.addresses[index])


def send(daemon: Daemon, subject: str, index: int = 0) -> str:
    with wire(daemon, index) as client:
        return client.deliver(b"Subject: " + subject.encode())


def test_each_server_has_its_own(start: Start, box: type[Box]) -> None:
    daemon = start(raw({"Hot": {}, "cold": {}}, "default", "hot", "COLD"))
    for index in range(3):
        assert send(daemon, f"to {index}", index).startswith("250 ")
    assert box.kept == {"main": ["to 0"], "Hot": ["to 1"], "cold": ["to 2"]}
    assert box.opened["Hot"] == ["guerrilla-save-hot-1"]
    assert box.opened["main"] == ["guerrilla-save-1"]
    stats = daemon.stats()
    assert json.loads(json.dumps(stats)) == stats
    assert list(stats["backends"]) == ["default", "hot", "cold"]
    assert (
        stats["backends"]["hot"] | {"queue_depth": 0, "save_workers": 1} == stats["backends"]["hot"]
    )
    assert (stats["save_workers"], stats["queue_depth"]) == (1, 0)
    counted = {(one["backend"], one["stage"]): one["count"] for one in stats["stages"]}
    assert counted["hot", "Box"] == counted["cold", "Box"] == counted["default", "Box"] == 1
    status = daemon.status()
    assert status["backends"]["hot"]["save_process"] == "HeadersParser|Box"
    assert [server["backend"] for server in status["servers"]] == ["default", "hot", "cold"]
    assert "  backend    hot: HeadersParser|Box" in describe(status)


def test_one_that_hangs_holds_up_no_other_and_has_its_own_time(
    start: Start, box: type[Box]
) -> None:
    box.shut["slow"] = threading.Event()
    daemon = start(raw({"slow": {"gw_save_timeout": "200ms"}}, "default", "slow"))
    with wire(daemon, 1) as slow:
        slow.begin().send(MAIL + b"\r\n\r\n.\r\n")
        assert send(daemon, "past it").startswith("250 ")
        # It was claimed: twice its time.
        assert slow.reply().startswith("451 4.3.0 ")
    assert daemon.stats()["queue_depth"] == 0


def test_recipients_are_checked_by_the_backend_of_the_server(start: Start) -> None:
    strict = {"validate_process": "Box", "refused_user": "nobody"}
    daemon = start(raw({"strict": strict}, "default", "strict"))
    answers = []
    for index in range(2):
        with wire(daemon, index) as client:
            client.ask(HELLO)
            client.ask(b"MAIL FROM:<a@example.org>\r\n")
            answers.append(client.ask(b"RCPT TO:<nobody@example.com>\r\n"))
    assert [answer[:3] for answer in answers] == ["250", "550"]
    assert daemon.stats()["backends"]["strict"]["validate_workers"] == 1
    assert "validate_workers" not in daemon.stats()


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            raw({"hot": {"save_process": "Boxx"}}, "default"),
            "backends.hot.save_process: unknown processor 'Boxx'",
        ),
        (
            raw({"hot": {"validate_process": "Nowhere"}}, "default"),
            "backends.hot.validate_process: unknown processor 'Nowhere'",
        ),
        (raw({"hot": {"box": 7}}, "default"), "backends.hot.box: Input should be a valid string"),
        (
            raw({"hot": {"bax": "a"}}, "default"),
            "backends.hot.bax: unknown key; did you mean 'box'",
        ),
        (
            raw({"hot": {"import": ["no_such"]}}, "default"),
            "backends.hot.import: no_such: no module",
        ),
        (raw({"hot": {"box": "broken"}}, "default"), "backends.hot: the box is broken"),
    ],
)
def test_what_is_wrong_is_told_by_its_place(
    box: type[Box], config: dict[str, Any], line: str
) -> None:
    try:
        daemon = Daemon(from_mapping(config))
        daemon.add_processor("Box", box)
        found = problems(daemon)
    except ConfigError as error:
        found = error.problems
    assert any(problem.startswith(line) for problem in found), found


def test_an_unknown_backend_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(raw({"archive": {}}, "default", "archiv"))
    assert caught.value.problems == (
        "<mapping>: servers[1].backend: unknown backend 'archiv'; did you mean 'archive'?",
    )
    with pytest.raises(ConfigError, match="two of the name 'hot'"):
        from_mapping(raw({"hot": {}, "HOT": {}}, "default"))
    with pytest.raises(ConfigError, match=r"backends\.default"):
        from_mapping(raw({"default": {}}, "default"))


def test_a_warning_names_its_backend(start: Start) -> None:
    daemon = start(raw({"sink": {"save_process": "HeadersParser"}}, "default"))
    assert daemon.warnings() == [
        "backends.sink: save_process stores nothing: mail is accepted and discarded"
    ]


def test_a_backend_of_ones_own_stands_for_the_default_one(start: Start, box: type[Box]) -> None:
    class Own:
        saved: ClassVar[list[str]] = []

        def open(self) -> None: ...

        def close(self) -> None: ...

        def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
            self.saved.extend(envelope.subject for envelope in envelopes)
            return [None for _ in envelopes]

        def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
            return [None for _ in checks]

    daemon = start(raw({"hot": {}}, "default", "hot"), backend=Own)
    assert send(daemon, "own").startswith("250 ")
    assert send(daemon, "box", 1).startswith("250 ")
    assert (Own.saved, box.kept["Hot"], box.kept["hot"]) == (["own"], [], ["box"])
    stages = {(one["backend"], one["task"], one["stage"]) for one in daemon.stats()["stages"]}
    assert ("default", "save", "backend") in stages
    assert ("hot", "save", "Box") in stages


def test_check_looks_at_all_of_them(tmp_path: Path) -> None:
    sql = {"save_process": "SQL", "sql_dsn": str(tmp_path / "hot.db")}
    config = raw({"hot": sql, "cold": {**sql, "sql_dsn": str(tmp_path / "no" / "cold.db")}}, "hot")
    config["backend_config"] = {"save_process": "HeadersParser"}
    for backend in config["backends"].values():
        del backend["box"]
    looked_at = check(from_mapping(config))
    assert (looked_at.problems, (tmp_path / "hot.db").exists()) == ((), False)
    found = check(from_mapping(config), connect=True)
    assert (tmp_path / "hot.db").exists()
    (problem,) = found.problems
    assert problem.startswith("backends.cold.sql_dsn: ")
    shown = effective(from_mapping(config))["backends"]["hot"]
    assert (shown["mail_table"], shown["save_workers_size"]) == ("new_mail", 1)


def test_the_example_saves_apart(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "examples" / "backends.toml").read_text()
    text = text.replace("127.0.0.1:2525", "127.0.0.1:0").replace("127.0.0.1:2526", "127.0.0.2:0")
    path = tmp_path / "backends.toml"
    for name in ("mail", "archive"):
        text = text.replace(f'"{name}.db"', json.dumps(str(tmp_path / f"{name}.db")))
    path.write_text(text)
    with Daemon.from_file(path) as daemon:
        assert send(daemon, "kept", 1).startswith("250 ")
        stages = {(one["backend"], one["stage"]): one["count"] for one in daemon.stats()["stages"]}
    assert (stages["archive", "SQL"], stages["default", "SQL"]) == (1, 0)


# --- Reloads --------------------------------------------------------------------------------------


def reload(daemon: Daemon, config: dict[str, Any]) -> None:
    """One that succeeds."""
    new = from_mapping(config)
    assert daemon.reload_config(new).failures == ()
    assert daemon.config == new


def test_figures_can_be_asked_for_in_the_middle_of_a_reload(start: Callable[..., Daemon]) -> None:
    """When the config in force has a backend no longer whose workers are still there."""
    daemon = start(raw({"hot": {}}, "default", "hot"))
    parts = daemon._parts
    assert parts is not None
    parts.config = from_mapping(raw({}, "default"))
    assert list(daemon.stats()["backends"]) == ["default"]
    assert daemon.stats()["save_workers"] == 1


@shows("between transactions", "servers[].backend")
def test_a_server_moves_between_transactions(start: Start, box: type[Box]) -> None:
    daemon = start(raw({}, "default"))
    with wire(daemon) as old, wire(daemon) as idle:
        old.begin()
        reload(daemon, raw({"hot": {}}, "hot"))
        assert old.ask(b"Subject: begun\r\n\r\n.\r\n").startswith("250 ")
        assert old.deliver(b"Subject: next").startswith("250 ")
        assert idle.deliver(b"Subject: idle").startswith("250 ")
    assert box.kept == {"main": ["begun"], "hot": ["next", "idle"]}


@shows("at once", "backends")
def test_only_what_changed_is_replaced(start: Start, box: type[Box]) -> None:
    daemon = start(raw({"hot": {}, "cold": {}}, "hot", "cold"))
    reload(daemon, raw({"hot": {"save_workers_size": 2}, "cold": {}}, "hot", "cold"))
    assert [len(box.opened[name]) for name in ("main", "hot", "cold")] == [1, 3, 1]
    until(lambda: box.closed == ["hot"])
    assert daemon.stats()["backends"]["hot"]["save_workers"] == 2
    reload(daemon, raw({"cold": {}, "new": {}}, "new", "cold"))
    until(lambda: box.closed == ["hot"] * 3)
    assert list(daemon.stats()["backends"]) == ["default", "cold", "new"]
    assert [len(box.opened[name]) for name in ("main", "cold", "new")] == [1, 1, 1]


def test_what_is_queued_for_one_that_goes_is_saved(start: Start, box: type[Box]) -> None:
    gate = box.shut["hot"] = threading.Event()
    daemon = start(raw({"hot": {"save_batch_size": 1}}, "hot", "default"))
    clients = [wire(daemon) for _ in range(4)]
    begun = wire(daemon).begin()
    for number, client in enumerate(clients):
        client.begin().send(b"Subject: %d\r\n\r\n.\r\n" % number)
    until(lambda: daemon.stats()["backends"]["hot"]["queue_depth"] == 3)
    reload(daemon, raw({}, "default", "default"))
    assert "hot" not in daemon.stats()["backends"]
    assert send(daemon, "meanwhile").startswith("250 ")
    gate.set()
    for client in clients:
        assert client.reply().startswith("250 ")
        client.close()
    # A transaction that began with it keeps its workers for it.
    assert box.closed == []
    assert begun.ask(b"Subject: late\r\n\r\n.\r\n").startswith("250 ")
    until(lambda: box.closed == ["hot"])
    begun.close()
    assert sorted(box.kept["hot"]) == ["0", "1", "2", "3", "late"]
    assert box.kept["main"] == ["meanwhile"]
    figures = daemon.stats()
    assert (figures["messages_accepted"], figures["messages_deferred"]) == (6, 0)


def test_one_that_comes_back_while_it_goes_is_another(start: Start, box: type[Box]) -> None:
    daemon = start(raw({"hot": {}}, "hot"))
    with wire(daemon) as old:
        old.begin()
        reload(daemon, raw({}, "default"))
        reload(daemon, raw({"hot": {"box": "again"}}, "hot"))
        assert send(daemon, "new").startswith("250 ")
        assert box.closed == []
        assert old.ask(b"Subject: old\r\n\r\n.\r\n").startswith("250 ")
        assert old.deliver(b"Subject: next").startswith("250 ")
    until(lambda: box.closed == ["hot"])
    assert box.kept == {"hot": ["old"], "again": ["new", "next"]}


def test_a_worker_of_one_that_goes_is_replaced_as_long_as_it_is_needed(
    start: Start, box: type[Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = box.save

    def save(self: Box, envelope: Envelope) -> Outcome:
        if envelope.subject == "exit":
            raise SystemExit(1)
        return keep(self, envelope)

    monkeypatch.setattr(box, "save", save)
    daemon = start(raw({"hot": {}}, "hot"))
    with wire(daemon) as first, wire(daemon) as second:
        first.begin()
        second.begin()
        reload(daemon, raw({}, "default"))
        assert first.ask(b"Subject: exit\r\n\r\n.\r\n").startswith("451 ")
        assert second.ask(b"Subject: saved\r\n\r\n.\r\n").startswith("250 ")
    until(lambda: box.closed == ["hot", "hot"])
    assert box.kept["hot"] == ["saved"]


def test_one_that_cannot_open_leaves_what_was_there(start: Start, box: type[Box]) -> None:
    daemon = start(raw({"hot": {}, "cold": {}}, "hot", "cold"))
    new = raw({"hot": {"box": "broken"}, "bad": {"box": "broken"}}, "hot", "bad", "bad")
    new["allowed_hosts"] = ["."]
    report = daemon.reload_config(from_mapping(new))
    assert report.failures == (
        "backends.hot: the box is broken",
        "backends.bad: the box is broken",
        "servers[2].backend: bad could not be started",
    )
    # Its server stays with what it had, and so that stays.
    assert [server.backend for server in daemon.config.servers] == ["hot", "cold"]
    assert list(daemon.config.backends) == ["hot", "cold"]
    assert daemon.config.allowed_hosts == (".",)
    assert len(daemon.addresses) == 2
    for index in range(2):
        assert send(daemon, "stays", index).startswith("250 ")
    assert (box.kept["hot"], box.kept["cold"], box.closed) == (["stays"], ["stays"], [])
    # The next one tries again.
    reload(daemon, raw({"bad": {"box": "good"}}, "bad", "bad", "bad"))
    assert [send(daemon, "now", index)[:3] for index in range(3)] == ["250"] * 3
    assert box.kept["good"] == ["now"] * 3


def test_checks_begin_and_end_with_the_backend(start: Start) -> None:
    daemon = start(raw({"hot": {}}, "hot"))
    strict = {"validate_process": "Box", "refused_user": "to"}
    with wire(daemon) as client:
        client.ask(HELLO)
        client.send(TRANSACTION)
        assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        reload(daemon, raw({"hot": strict}, "hot"))
        assert client.ask(b".\r\n").startswith("250 ")
        client.ask(b"MAIL FROM:<a@example.org>\r\n")
        assert client.ask(b"RCPT TO:<to@example.com>\r\n").startswith("550 ")
        reload(daemon, raw({}, "default"))
        assert client.ask(b"RCPT TO:<to@example.com>\r\n").startswith("550 ")
        client.ask(b"RSET\r\n")
        client.ask(b"MAIL FROM:<a@example.org>\r\n")
        assert client.ask(b"RCPT TO:<to@example.com>\r\n").startswith("250 ")


def test_a_change_of_backends_is_published(start: Start) -> None:
    daemon = start(raw({"hot": {}}, "default"))
    heard: list[object] = []
    daemon.subscribe(Event.BACKEND_CONFIG, heard.append)
    reload(daemon, raw({"hot": {"save_workers_size": 2}}, "default"))
    assert len(heard) == 1
    reload(daemon, raw({"hot": {"save_workers_size": 2}}, "hot"))
    assert len(heard) == 1
    reload(daemon, raw({}, "default"))
    assert len(heard) == 2


def test_a_stop_ends_one_that_still_goes(start: Start, box: type[Box]) -> None:
    daemon = start(raw({"hot": {}}, "hot"))
    with wire(daemon) as client:
        client.begin()
        reload(daemon, raw({}, "default"))
        stopped = threading.Thread(target=daemon.shutdown)
        stopped.start()
        assert client.ask(b"Subject: last\r\n\r\n.\r\n").startswith("250 ")
        stopped.join(20)
        assert not stopped.is_alive()
    assert sorted(box.closed) == ["hot", "main"]


# --- Parts ----------------------------------------------------------------------------------------


def test_hanging_workers_close_the_intake_of_their_backend(mail: Mail) -> None:
    benches = [Bench(), Bench(backend="hot")]
    intake: list[tuple[str, bool]] = []
    for bench in benches:
        name = bench.pool.settings.backend
        bench.pool.set_intake = lambda is_open, name=name: intake.append((name, is_open))  # type: ignore[misc]
        bench.start()
    hot = benches[1]
    supervisor = Supervisor([bench.pool for bench in benches])
    for number in range(1 + SPARE):
        until(lambda number=number: len(hot.trials) > number)  # type: ignore[misc]
        hot.hang(mail, number, now=number * 1000.0)
        hot.pool.check(number * 1000.0 + HANG_AFTER)
        supervisor._adjust_intake()
    assert intake == [("hot", False)]
    for bench in benches:
        bench.stop()


def test_problems_get_the_place_of_their_backend() -> None:
    lines = ["backend_config.import: a: b", "SQL: c", "backends.hot.x: d"]
    assert placed_in("default", lines) == lines
    assert placed_in("hot", lines) == [
        "backends.hot.import: a: b",
        "backends.hot: SQL: c",
        "backends.hot.x: d",
    ]


def test_what_fails_keeps_what_was_there() -> None:
    def config(*servers: str, **backends: int) -> AppConfig:
        keys = {name: {"save_workers_size": size} for name, size in backends.items()}
        return from_mapping(raw(keys, *servers, save_workers_size=backends.get("main", 1)))

    old, new = config("a", "b", a=1, b=1), config("a", "c", a=2, c=2)
    kept, homeless = keep_backends(old, new, ["a", "c"])
    sizes = {name: one.save_workers_size for name, one in backends_of(kept).items()}
    assert sizes == {"default": 1, "a": 1, "b": 1}
    assert ([server.backend for server in kept.servers], homeless) == (["a", "b"], [])
