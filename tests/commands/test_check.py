"""`guerrillad check`: the effective config, warnings, and what a start would refuse."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field

import guerrilla
from guerrilla.cli import main
from guerrilla.config import from_mapping, load, loads
from guerrilla.config.diff import changes
from guerrilla.engine.base import Processor
from guerrilla.errors import StartError, Unavailable
from guerrilla.processors.sql import SQL
from guerrilla.running import checking, parts
from guerrilla.running.checking import check, effective
from guerrilla.running.privileges import Identity
from tests.configs import backend, server
from tests.running import listeners

SOUND = 'save_process = "HeadersParser|Header|SQL"\nsql_dsn = "mail.db"\n'


def write(text: str, name: str = "guerrilla.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_effective_config_is_toml_that_loads(capsys: pytest.CaptureFixture[str]) -> None:
    path = write(f'allowed_hosts = ["example.com"]\n[backend_config]\n{SOUND}')
    assert main(["check"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    config = loads(shown.out, format="toml")
    # With the defaults of the stages, which the file does not have.
    assert config.backend_config.options["mail_table"] == "new_mail"
    assert config.backend_config.options["sql_max_conn_lifetime"] == 0
    keys = config.backend_config.options.keys() - {"sql_dsn"}
    extra = config.backend_config.model_copy()
    for key in keys:
        del (extra.model_extra or {})[key]
    assert config.model_copy(update={"backend_config": extra}) == load(path)


def test_secrets_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        '[backend_config]\nsave_process = "Debugger|Keen"\nkeen_password = "hidden1"\n'
        'redis_interface = "redis://u:hidden2@host:1/"\nkeen_dsn = "u:hidden3@tcp(host)/db"\n'
    )

    @guerrilla.processor("Keen")
    class Keen(Processor):
        class Options(BaseModel):
            plain: str = Field("", validation_alias="keen_password")
            keen_dsn: str = ""
            keen_token: str = "hidden4"

    assert main(["check"]) == 0
    shown = capsys.readouterr()
    assert "hidden" not in shown.out + shown.err
    assert shown.out.count("***") == 4
    assert "plain =" not in shown.out


def test_a_time_of_a_stage_is_shown_as_one() -> None:
    config = from_mapping(backend(save_process="SQL"))
    assert effective(config)["backend_config"]["sql_max_conn_lifetime"] == 0


def test_warnings_are_told_and_strict_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    write('[backend_config]\nsave_process = "Header"\n', "a.toml")
    warning = (
        "guerrillad: warning: a.toml: save_process stores nothing: mail is accepted and discarded\n"
    )
    for arguments, status in (([], 0), (["--strict"], 1)):
        assert main(["check", "-c", "a.toml", *arguments]) == status
        shown = capsys.readouterr()
        assert shown.err == warning
        assert 'save_process = "Header"' in shown.out


def test_strict_is_content_where_there_are_no_warnings() -> None:
    write(f"[backend_config]\n{SOUND}")
    assert main(["-c", "guerrilla.toml", "check", "--strict"]) == 0


def test_without_a_file_it_looks_at_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().err.startswith("guerrillad: no config file here (")


def test_every_problem_is_told_by_its_key(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        'pid_file = "gone/a.pid"\nlog_file = "gone/a.log"\n'
        'metrics = { listen_interface = ":1" }\ndashboard = { tick_interval = 1 }\n'
        "[[servers]]\n"
        'listen_interface = "127.0.0.1:0"\n'
        'tls = { start_tls_on = true, private_key_file = "no.key", public_key_file = "no.crt" }\n'
        '[backend_config]\nsave_process = "Hedder|SQL"\nmail_table = "a b"\nmail_tabel = "c"\n',
        "bad.toml",
    )
    assert main(["check", "-c", "bad.toml", "--connect"]) == 1
    lines = capsys.readouterr().err.splitlines()
    told = [line.split(": ")[2] for line in lines if not line.startswith("guerrillad: warning")]
    assert set(told) == {
        "metrics", "dashboard", "backend_config.save_process", "backend_config.mail_table",
        "backend_config.mail_tabel", "pid_file", "log_file",
        "servers[0].tls.private_key_file", "servers[0].tls.public_key_file",
    }  # fmt: skip
    assert all(line.startswith("guerrillad: bad.toml: ") for line in lines)
    assert not Path("mail.db").exists()


def test_a_file_that_does_not_load_is_told_as_serve_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("max_clientz = 1\nlog_level = 3\n")
    assert main(["check"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 2
    assert "guerrilla.toml: max_clientz: unknown key" in shown.err
    assert "guerrilla.toml: log_level: expected one of debug" in shown.err


def test_a_line_cannot_be_forged_by_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    write('[backend_config]\nsave_process = "A\\u001b[2J\\nguerrillad: fine"\n')
    assert main(["check"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_connect_opens_and_closes_the_stages() -> None:
    did: list[str] = []

    @guerrilla.processor("Opener")
    class Opener(Processor):
        stores: ClassVar[bool] = True

        def open(self) -> None:
            did.append(threading.current_thread().name)

        def close(self) -> None:
            did.append("close")

        def save(self, envelope: object) -> None:
            pass

        def validate(self, transaction: object, recipient: object) -> None:
            pass

    config = from_mapping(backend(save_process="Opener", validate_process="Opener"))
    assert check(config).problems == ()
    assert did == []
    assert check(config, connect=True) == check(config)
    assert did == ["guerrilla-check-save", "close", "guerrilla-check-validate", "close"]


def test_connect_says_what_cannot_be_opened(capsys: pytest.CaptureFixture[str]) -> None:
    write('[backend_config]\nsave_process = "SQL"\nsql_dsn = "gone/mail.db"\n')
    assert main(["check"]) == 0
    capsys.readouterr()
    assert main(["check", "--connect"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("guerrillad: guerrilla.toml: backend_config.sql_dsn: ")


def test_connect_tries_every_stage_of_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    """What comes behind one that fails is tried too, and what did open is closed again."""
    did: list[str] = []

    @guerrilla.processor("Between")
    class Between(Processor):
        def open(self) -> None:
            did.append("open")

        def close(self) -> None:
            did.append("close")

        def save(self, envelope: object) -> None:
            pass

    @guerrilla.processor("Leaver")
    class Leaver(Processor):
        def open(self) -> None:
            raise SystemExit(3)

        def save(self, envelope: object) -> None:
            pass

    write(
        "[backend_config]\n"
        'save_process = "SQL|Leaver|Between|SQL:hot"\nvalidate_process = "SQL:far"\n'
        'sql_dsn = "gone/one.db"\n'
        '[backend_config.processors.hot]\nsql_dsn = "gone/two.db"\n'
        '[backend_config.processors.far]\nsql_dsn = "gone/three.db"\n'
        '[backends.spare]\nsave_process = "SQL|SQL:hot"\nsql_dsn = "gone/four.db"\n'
        '[backends.spare.processors.hot]\nsql_dsn = "gone/five.db"\n'
    )
    assert main(["check", "--connect"]) == 1
    lines = [
        line.removeprefix("guerrillad: guerrilla.toml: ").partition(": ")[0]
        for line in capsys.readouterr().err.splitlines()
        if "warning" not in line
    ]
    assert lines == [
        "backend_config.sql_dsn",
        "Leaver",
        "backend_config.processors.hot.sql_dsn",
        "backend_config.processors.far.sql_dsn",
        "backends.spare.sql_dsn",
        "backends.spare.processors.hot.sql_dsn",
    ]
    assert did == ["open", "close"]


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("oh"), SystemExit(3)])
def test_connect_survives_whatever_a_stage_raises(error: BaseException) -> None:
    @guerrilla.processor("Raiser")
    class Raiser(Processor):
        def open(self) -> None:
            raise error

    (problem,) = check(from_mapping(backend(save_process="Raiser")), connect=True).problems
    assert problem.startswith("Raiser: ")


def test_connect_does_not_wait_for_ever() -> None:
    release = threading.Event()

    @guerrilla.processor("Hanger")
    class Hanger(Processor):
        def open(self) -> None:
            release.wait(30)

    config = from_mapping(backend(save_process="Hanger"))
    try:
        (problem,) = check(config, connect=True, open_limit=0.05).problems
    finally:
        release.set()
    assert problem == "backend_config.save_process: Hanger: open has not ended within 0.05 s"


def test_connect_makes_its_database(capsys: pytest.CaptureFixture[str]) -> None:
    write(f"[backend_config]\n{SOUND}")
    assert main(["check", "--connect", "--strict"]) == 0
    assert Path("mail.db").exists()
    assert capsys.readouterr().err == ""


def test_ports_of_a_running_daemon_are_left_to_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        write(listeners(tmp_path, f"127.0.0.1:{port}"))
        assert main(["check", "--connect", "--strict"]) == 0


def test_a_log_file_is_not_made(tmp_path: Path) -> None:
    write('log_file = "a.log"\npid_file = "a.pid"\n')
    assert main(["check"]) == 0
    assert os.listdir(tmp_path) == ["guerrilla.toml"]
    Path("a.log").mkdir()
    assert main(["check"]) == 1


def test_a_file_whose_folder_does_not_take_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"log_file": "gone/a.log", "pid_file": "gone/a.pid", "control_socket": "gone/a.sock"}

    def told(raw: dict[str, str]) -> list[str]:
        lines = [line for line in check(from_mapping(raw)).problems if "not built" not in line]
        return [line.partition(": ")[2] for line in lines]

    assert told(keys) == [f"{path}: No such file or directory" for path in keys.values()]
    here = {key: os.path.basename(path) for key, path in keys.items()}
    assert told(here) == []
    with socket.socket(socket.AF_UNIX) as running:
        running.bind("a.sock")
        assert told(here) == []
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert told(here) == [f"{path}: Permission denied" for path in here.values()]
    assert told({"control_socket": "off"}) == []


def test_modules_beside_the_file_are_imported(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sub").mkdir()
    write(
        'import guerrilla\n@guerrilla.processor("Besides")\ndef s(envelope): pass\n',
        "sub/besides_for_check.py",
    )
    write(
        '[backend_config]\nimport = ["besides_for_check"]\nsave_process = "Besides"\n',
        "sub/a.toml",
    )
    command = [sys.executable, "-m", "guerrilla", "check", "-c", "sub/a.toml"]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    write('[backend_config]\nimport = ["gone_for_check"]\n')
    assert main(["check"]) == 1
    assert "no module 'gone_for_check'" in capsys.readouterr().err


def test_what_connect_makes_belongs_to_the_user_of_the_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the daemon, which is that user, could not write its own database."""
    did: list[object] = []
    somebody = Identity("user", "somebody", 500, 501, (501,))
    monkeypatch.setattr(parts, "wanted_identity", lambda config: somebody)
    monkeypatch.setattr(checking, "become", did.append)
    monkeypatch.setattr(SQL, "open", lambda stage: did.append("open"))
    config = from_mapping(backend(save_process="SQL", sql_dsn="mail.db"))
    assert check(config).problems == ()
    assert did == []
    assert check(config, connect=True).problems == ()
    assert did == [somebody, "open"]

    def refuse(who: Identity) -> None:
        raise StartError("user: cannot become somebody")

    monkeypatch.setattr(checking, "become", refuse)
    assert check(config, connect=True).problems == ("user: cannot become somebody",)
    assert did == [somebody, "open"]


def test_what_a_start_finds_beside_the_config_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerrilla.running.privileges.os.geteuid", lambda: 0)
    monkeypatch.setattr("guerrilla.running.startup.resource.getrlimit", lambda _: (1000, 1000))
    raw = server(listen_interface=":25", max_clients=1001, xclient_on=True)
    raw["servers"][0]["trusted_proxies"] = ["0.0.0.0/0"]
    found = check(from_mapping(raw))
    assert [line.partition(":")[0] for line in found.warnings] == [
        "servers[0].trusted_proxies",
        "user",
    ]
    (problem,) = found.problems
    assert problem.startswith("servers: max_clients adds up to ")


def test_a_host_that_nobody_knows_is_told() -> None:
    (problem,) = check(from_mapping(server(listen_interface="no-such-host.invalid:25"))).problems
    assert problem.startswith("servers[0].listen_interface: ")


def test_unknown_accounts_are_told() -> None:
    config = from_mapping({"user": "nobody-of-this-name", "group": "no-group-either"})
    assert [line.partition(":")[0] for line in check(config).problems] == ["user", "group"]


OLD = """
[[servers]]
listen_interface = "127.0.0.1:2525"
[[servers]]
listen_interface = "127.0.0.1:2526"
"""


def test_diff_prints_the_events_of_a_reload(capsys: pytest.CaptureFixture[str]) -> None:
    write(OLD, "old.toml")
    write(
        'log_level = "info"\n[[servers]]\nlisten_interface = "127.0.0.1:2525"\ntimeout = "1m"\n'
        f'[[servers]]\nlisten_interface = ":2527"\n[backend_config]\n{SOUND}'
        'redis_interface = "redis://u:hidden@h/"\n',
        "new.toml",
    )
    assert main(["check", "--strict", "--diff", "old.toml", "new.toml"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "hidden" not in shown.out
    expected = changes(load("old.toml"), load("new.toml"))
    assert shown.out.splitlines() == [str(change) for change in expected]
    events = [line.split()[0].rstrip(":") for line in shown.out.splitlines()]
    wanted = ["log_level", "new_config", "backend_config"]
    assert {f"config_change:{name}" for name in wanted} <= set(events)
    for name in ("new_server", "remove_server", "timeout"):
        assert f"server_change:{name}" in events


def test_diff_of_what_a_reload_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    write(OLD, "old.toml")
    write("[backend_config]\nsave_process = 'Hedder'\n", "new.toml")
    assert main(["check", "--diff", "old.toml", "new.toml"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("guerrillad: new.toml: backend_config.save_process: unknown")
    write("a = 1", "old.toml")
    assert main(["check", "--diff", "old.toml", "gone.toml"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "guerrillad: old.toml: a: unknown key",
        "guerrillad: gone.toml: no such file",
    ]


def test_diff_warns_of_the_new_config(capsys: pytest.CaptureFixture[str]) -> None:
    write(f"[backend_config]\n{SOUND}", "old.toml")
    write("", "new.toml")
    assert main(["check", "--diff", "old.toml", "new.toml", "--strict"]) == 1
    assert capsys.readouterr().err.startswith("guerrillad: warning: new.toml: save_process stores")
    assert main(["check", "--diff", "new.toml", "old.toml", "--strict"]) == 0


WRONG: list[Any] = [
    ["check", "--diff", "a.toml"],
    ["check", "--diff", "a.toml", "b.toml", "-c", "c.toml"],
    ["check", "--diff", "a.toml", "b.toml", "--connect"],
    ["check", "extra"],
]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("guerrillad check: ")
