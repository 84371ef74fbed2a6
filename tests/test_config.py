"""Reading a config: files, formats, key names, defaults, secrets."""

import json
import os
import socket
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from guerrilla.config import (
    AppConfig,
    BackendConfig,
    ServerConfig,
    from_mapping,
    load,
    loads,
    unbuilt,
)
from guerrilla.errors import ConfigError
from tests.configs import problems_of

GO_FILE = Path(__file__).parent / "data" / "goguerrilla.conf.json"

TOML = """
allowed_hosts = ["example.com", "*.example.net"]
log_level = "info"

[[servers]]
listen_interface = "0.0.0.0:25"
max_clients = 2000
tls = { start_tls_on = true, private_key_file = "mx1.key", public_key_file = "mx1.crt" }

[backend_config]
save_process = "HeadersParser|Hasher|Header|SQL"
sql_driver = "sqlite"
"""


# Defaults


def test_the_defaults_are_those_of_go_guerrilla() -> None:
    """What runs without a config file."""
    config = AppConfig.default()
    (server,) = config.servers
    assert (server.listen_interface, server.is_enabled) == ("127.0.0.1:2525", True)
    assert (server.max_clients, server.max_size, server.timeout) == (100, 10 * 2**20, 30.0)
    assert server.host_name == socket.gethostname()
    assert config.allowed_hosts == (socket.gethostname(),)
    assert (config.log_file, config.log_level) == ("stderr", "debug")
    assert config.backend_config.save_process == "HeadersParser|Header|Debugger"
    assert config.backend_config.log_received_mails
    assert config.backend_config.primary_mail_host == socket.gethostname()


def test_the_defaults_can_start_and_raise_no_warning() -> None:
    """Nothing in them is unbuilt."""
    assert unbuilt(AppConfig.default()) == []
    assert AppConfig.default().warnings() == []


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"servers": []},
        {"allowed_hosts": []},
        {"servers": None, "backend_config": None},
        {"log_file": "", "pid_file": "", "spool": {}, "dashboard": {}, "metrics": {}},
    ],
)
def test_an_empty_key_is_the_default(raw: dict[str, object]) -> None:
    """As Go's zero values are, and null."""
    assert from_mapping(raw) == AppConfig.default()


def test_a_backend_config_without_the_key_does_not_log_received_mails() -> None:
    """Only where there is no backend_config at all are they logged."""
    assert not from_mapping({"backend_config": {}}).backend_config.log_received_mails


def test_defaults_beyond_go_guerrilla() -> None:
    """Each of the documented ones."""
    config = AppConfig.default()
    (server,) = config.servers
    backend = config.backend_config
    assert (config.max_memory, config.spill_size) == (256 * 2**20, 1_280 * 2**10)
    assert (config.processes, config.shutdown_timeout, config.log_format) == (1, 60.0, "text")
    assert (server.protocol, server.bare_newline, server.helo_required) == ("smtp", "fix", True)
    assert server.trusted_proxies == ("127.0.0.0/8", "::1/128")
    assert (server.data_timeout, server.min_data_rate) == (600.0, 100)
    assert (server.max_recipients, server.max_messages, server.max_errors) == (100, 0, 5)
    assert (server.max_idle_commands, server.ipv6_prefix) == (50, 64)
    assert (server.max_header_size, server.max_received_hops) == (2**20, 50)
    assert (server.greet_delay, server.backend) == (0.0, "default")
    assert (backend.save_workers_size, backend.validate_workers_size) == (1, 1)
    assert (backend.gw_save_timeout, backend.gw_val_rcpt_timeout) == (30.0, 5.0)
    assert (backend.save_batch_size, backend.save_concurrency) == (64, 64)
    assert (backend.validate_cache_ttl, backend.breaker_failures) == (0.0, 0)
    assert (backend.breaker_reset, backend.auth_process, backend.import_) == (10.0, "", ())


# Files and formats


def test_a_config_in_go_guerrillas_form_loads() -> None:
    """Every key that it documents, read and none lost."""
    config = load(GO_FILE)
    first, second = config.servers
    assert (first.max_size, first.timeout, first.max_clients) == (1_000_000, 180.0, 1000)
    assert first.tls.effective_client_auth_type == "VerifyClientCertIfGiven"
    assert second.host_name == socket.gethostname()
    assert (second.is_enabled, second.log_file, second.tls.root_cas_file) == (False, None, None)
    assert config.backend_config.gw_save_timeout == 90.0
    assert config.backend_config.gw_val_rcpt_timeout == 2.5
    assert config.backend_config.options["redis_expire_seconds"] == 7200
    (warning,) = config.warnings()
    assert warning == (
        "servers[0].tls: no longer offered and ignored: "
        "protocol tls1.0, cipher TLS_RSA_WITH_RC4_128_SHA, curve P521"
    )
    assert unbuilt(config) == []


def test_toml_with_the_same_keys_is_equal(tmp_path: Path) -> None:
    """A JSON file, a TOML file, and either without a telling suffix."""
    as_json = json.dumps(
        {
            "allowed_hosts": ["example.com", "*.example.net"],
            "log_level": "info",
            "servers": [
                {
                    "listen_interface": "0.0.0.0:25",
                    "max_clients": 2000,
                    "tls": {
                        "start_tls_on": True,
                        "private_key_file": "mx1.key",
                        "public_key_file": "mx1.crt",
                    },
                }
            ],
            "backend_config": {
                "save_process": "HeadersParser|Hasher|Header|SQL",
                "sql_driver": "sqlite",
            },
        }
    )
    wanted = loads(as_json)
    assert loads(TOML, format="toml") == wanted
    for name, text in {
        "a.json": as_json,
        "a.TOML": TOML,
        "toml.conf": TOML,
        "json.conf": "\n " + as_json,
        "bom.json": "\ufeff" + as_json,
        "plain": TOML,
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert load(tmp_path / name) == wanted
        assert load(str(tmp_path / name)) == wanted


def test_loading_opens_no_other_file(tmp_path: Path) -> None:
    """Certificates, folders and modules are looked at when the daemon starts."""
    missing = str(tmp_path / "missing")
    tls = {"start_tls_on": True, "private_key_file": missing, "public_key_file": missing}
    config = from_mapping(
        {
            "pid_file": missing,
            "log_file": missing,
            "servers": [{"listen_interface": "no.such.host.invalid:25", "tls": tls}],
            "backend_config": {"import": ["no_such_module"]},
        }
    )
    assert config.backend_config.import_ == ("no_such_module",)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b"", "line 1, column 1: not JSON: Expecting value"),
        ("a.json", b'{\n "a": }', "line 2, column 7: not JSON: Expecting value"),
        ("a.json", b'{"servers": NaN}', "not JSON: NaN is no number of JSON"),
        ("a.json", b"[]", "expected an object of keys, got a list"),
        ("a.json", b"null", "expected an object of keys, got null"),
        ("a.conf", b'["a"', "line 1, column 5: not TOML: "),
        ("a.conf", b"{'a': 1}", "line 1, column 2: not JSON: "),
        ("a.conf", b"[]", "expected an object of keys, got a list"),
        ("a.toml", b"a = 1\nb = = 2", "line 2, column 5: not TOML: Invalid value"),
        ("a.toml", b"a = 1\nb = [1,", "line 2, column 8: not TOML: "),
        ("a.toml", b"a = 1\na = 2", "line 2, column 6: not TOML: Cannot overwrite a value"),
        ("a.json", b'{"log_file": "\xff"}', "not UTF-8 at byte 14"),
        ("a.json", b"9" * 5000, "not JSON: "),
        ("a.json", b'{"a":' * 100_000, "not JSON: "),
        ("a.json", b'{"a":[' * 40 + b"]}" * 40, "a[0].a[0]."),
        ("a.toml", b"processes = 0x" + b"f" * 5000, "processes: expected an integer from 0 to "),
    ],
)
def test_what_is_no_config_says_where(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    """One line that begins with the file."""
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: {problem}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A folder, and a path with a NUL, too."""
    with pytest.raises(ConfigError, match=r"none\.toml: no such file$"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"^\./none/none\.toml: no such file$"):
        load("./none/none.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"not a path$"):
        load("a\0b")


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system words it; done by hand, since root may read all."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"a\.json: cannot be read: Permission denied$"):
        load(tmp_path / "a.json")


# Key names


def test_key_names_match_in_any_case() -> None:
    """At every level, in what processors read too."""
    config = from_mapping(
        {
            "Allowed_Hosts": ["."],
            "SERVERS": [{"Listen_Interface": ":25", "TLS": {"Prefer_Server_Cipher_Suites": True}}],
            "Backend_Config": {"Save_Process": "SQL", "SQL_Driver": "sqlite", "Import": ["a"]},
            "Backends": {"Hot": {"SAVE_WORKERS_SIZE": 2}},
            "Ignore_Unknown_Keys": False,
        }
    )
    assert config.servers[0].tls.prefer_server_cipher_suites
    assert config.backend_config.options == {"sql_driver": "sqlite"}
    assert config.backend_config.import_ == ("a",)
    assert config.backends["hot"].save_workers_size == 2


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"log_lvl": 1}, "log_lvl: unknown key; did you mean 'log_level'?"),
        ({"Alowed_Hosts": []}, "Alowed_Hosts: unknown key; did you mean 'allowed_hosts'?"),
        ({"zzzzzz": 1}, "zzzzzz: unknown key"),
        ({"a\nb": 1}, r"'a\nb': unknown key"),
        (
            {"servers": [{"listen_interface": ":25", "tls": {"cihpers": []}}]},
            "servers[0].tls.cihpers: unknown key; did you mean 'ciphers'?",
        ),
        ({"spool": {"pth": "/s"}}, "spool.pth: unknown key; did you mean 'path'?"),
    ],
)
def test_an_unknown_key_names_its_path_and_the_nearest(
    raw: dict[str, object], problem: str
) -> None:
    """At every level."""
    assert problem in problems_of(raw)


def test_unknown_keys_can_be_ignored() -> None:
    """But not their bad values where they are known."""
    raw = {
        "Ignore_Unknown_Keys": True,
        "who": 1,
        "servers": [{"listen_interface": ":25", "tls": {"what": 2}}],
    }
    assert from_mapping(raw).servers[0].listen_interface == ":25"
    assert problems_of({**raw, "log_level": 3})[0].startswith("log_level: expected one of")
    assert "who: unknown key" in problems_of({**raw, "Ignore_Unknown_Keys": "yes"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"log_level": "info", "log_level": "debug"}', "log_level: this key stands here twice"),
        (
            '{"log_level": "info", "Log_Level": "debug"}',
            "Log_Level: this key stands here twice, also as 'log_level'",
        ),
        (
            '{"servers": [{"listen_interface": ":1", "tls": {"watch": false, "watch": false}}]}',
            "servers[0].tls.watch: this key stands here twice",
        ),
        (
            '{"backend_config": {"sql_dsn": "a", "SQL_DSN": "b"}}',
            "backend_config.SQL_DSN: this key stands here twice, also as 'sql_dsn'",
        ),
    ],
)
def test_a_repeated_key_is_refused(text: str, problem: str) -> None:
    """Whose value would win is nobody's guess."""
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert caught.value.problems == (f"<string>: {problem}",)


def test_a_key_repeated_by_case_is_refused_in_toml() -> None:
    """Where TOML itself takes it."""
    with pytest.raises(ConfigError, match="Log_Level: this key stands here twice"):
        loads('log_level = "info"\nLog_Level = "debug"', format="toml")


def test_every_problem_is_listed() -> None:
    """One round mends them all."""
    raw = {"who": 1, "processes": -1, "servers": [{"max_clients": "many"}, 3]}
    assert problems_of(raw) == (
        "who: unknown key",
        "servers[0].listen_interface: this key is required",
        "servers[0].max_clients: expected an integer of at least 1, got 'many'",
        "servers[1]: expected an object, got 3",
        "processes: expected an integer of at least 0, got -1",
    )


# Models


def test_a_config_is_frozen() -> None:
    """A change is a new config."""
    config = AppConfig.default()
    with pytest.raises(ValidationError):
        config.log_level = "info"  # type: ignore[misc]
    assert config.model_copy(update={"log_level": "info"}).log_level == "info"


def test_a_program_makes_a_config_by_hand() -> None:
    """With sections as objects; the same checks hold."""
    server = ServerConfig(listen_interface="127.0.0.1:0", max_size=1000)
    config = AppConfig(servers=(server,), backend_config=BackendConfig(import_=("mine",)))
    assert config.servers == (server,)
    with pytest.raises(ValidationError, match="expected an integer of at least 1"):
        ServerConfig(listen_interface=":25", max_clients=0)
    fixed = ServerConfig(listen_interface="127.0.0.1:2525")
    with pytest.raises(ValidationError, match="servers"):
        AppConfig(servers=(fixed, fixed))


def test_every_key_has_a_description_and_a_schema() -> None:
    """From which the documentation and the sample are made."""
    schema = AppConfig.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert len(sections) == len(_all_sections(AppConfig))
    for section in sections:
        for key, field in section["properties"].items():
            assert field.get("description", "").endswith("."), (section["title"], key)


def _all_sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    from guerrilla.config.section import section_in  # noqa: PLC0415 - no public name

    inner = {section_in(field.annotation) for field in model.model_fields.values()}
    return {model}.union(*(_all_sections(section) for section in inner if section is not None))
