"""Each value of a config: the good forms, and the bad ones."""

from typing import Any

import pytest

from guerrilla.config import (
    AppConfig,
    ListenAddress,
    ServerConfig,
    from_mapping,
    parse_listen_interface,
)
from tests.configs import KEY_FILES, backend, problem_of, server, tls

# listen_interface


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:2525", ListenAddress("tcp", "127.0.0.1", 2525)),
        ("0.0.0.0:0", ListenAddress("tcp", "0.0.0.0", 0)),
        (":25", ListenAddress("tcp", "", 25)),
        ("[::]:25", ListenAddress("tcp", "::", 25)),
        ("[0:0::1]:65535", ListenAddress("tcp", "::1", 65535)),
        ("[fe80::1%eth0]:25", ListenAddress("tcp", "fe80::1%eth0", 25)),
        ("MX.Example.com:25", ListenAddress("tcp", "mx.example.com", 25)),
        ("localhost:25", ListenAddress("tcp", "localhost", 25)),
        ("unix:/run/a b.sock", ListenAddress("unix", path="/run/a b.sock")),
        ("UNIX:/run/g.sock", ListenAddress("unix", path="/run/g.sock")),
        ("systemd:smtp", ListenAddress("systemd", name="smtp")),
        ("Systemd:my mail.socket", ListenAddress("systemd", name="my mail.socket")),
        ("systemd:25", ListenAddress("tcp", "systemd", 25)),  # a host's name
    ],
)
def test_a_listen_interface_is_read(text: str, address: ListenAddress) -> None:
    """And written again in the form that is read."""
    assert parse_listen_interface(text) == address
    assert parse_listen_interface(str(address)) == address
    assert ServerConfig(listen_interface=text).address == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected '127.0.0.1:2525', ':25', "),
        ("25", "expected '127.0.0.1:2525', ':25', "),
        ("localhost", "expected '127.0.0.1:2525', ':25', "),
        ("*:25", "expected '127.0.0.1:2525', ':25', "),
        ("a b:25", "expected '127.0.0.1:2525', ':25', "),
        ("a..b:25", "expected '127.0.0.1:2525', ':25', "),
        ("-a:25", "expected '127.0.0.1:2525', ':25', "),
        ("[::1:25", "expected an IPv6 address in brackets"),
        ("::1:25", "expected an IPv6 address in brackets"),
        ("[127.0.0.1]:25", "expected an IPv6 address in the brackets"),
        ("[]:25", "expected an IPv6 address in the brackets"),
        ("300.0.0.1:25", "expected an IPv4 address before the port"),
        ("127.0.0:25", "expected an IPv4 address before the port"),
        ("127.0.0.1:", "expected a port from 0 to 65535"),
        ("127.0.0.1:65536", "expected a port from 0 to 65535"),
        ("127.0.0.1:-1", "expected a port from 0 to 65535"),
        ("127.0.0.1:smtp", "expected a port from 0 to 65535"),
        ("127.0.0.1:٢٥", "expected a port from 0 to 65535"),
        ("systemd:", "expected the name of a socket after 'systemd:'"),
        ("systemd:a:b", "expected the name of a socket after 'systemd:'"),
        ("systemd:\n", "expected the name of a socket after 'systemd:'"),
        ("systemd:" + "a" * 256, "expected the name of a socket after 'systemd:'"),
        ("unix:", "expected an absolute path after 'unix:'"),
        ("unix:run/g.sock", "expected an absolute path after 'unix:'"),
        ("unix:/a\0b", "expected an absolute path after 'unix:'"),
        ("unix:/" + "a" * 107, "expected a socket path of at most 107 bytes"),
    ],
)
def test_a_bad_listen_interface_says_what_was_expected(text: str, message: str) -> None:
    """By the function, and by the config with its path."""
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        parse_listen_interface(text)
    assert str(caught.value).startswith(message)
    found = problem_of({"servers": [{"listen_interface": text}]})
    assert found.startswith(f"servers[0].listen_interface: {message}")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (":25", ":25"),
        ("[::1]:25", "[0:0::1]:25"),
        ("Localhost:25", "localhost:25"),
        ("unix:/a", "unix:/a"),
        ("systemd:a", "SYSTEMD:a"),
    ],
)
def test_two_servers_cannot_listen_at_one_place(first: str, second: str) -> None:
    """However it is written, and enabled or not: a reload tells servers apart by it."""
    raw = {
        "servers": [
            {"listen_interface": first},
            {"listen_interface": "127.0.0.1:1"},
            {"listen_interface": second, "is_enabled": False},
        ]
    }
    assert problem_of(raw) == (
        f"servers[2].listen_interface: {second!r} is already that of servers[0]"
    )


@pytest.mark.parametrize("interface", ["127.0.0.1:0", ":0", "localhost:0", "[::1]:0"])
def test_servers_may_share_a_port_that_the_system_chooses(interface: str) -> None:
    """Each gets another one. They are told apart by their order."""
    servers = [{"listen_interface": where} for where in (interface, "127.0.0.9:0", interface)]
    config = from_mapping({"servers": servers})
    assert [server.name for server in config.servers] == [
        interface,
        "127.0.0.9:0",
        f"{interface}#2",
    ]
    assert [server.listen_interface for server in config.servers][2] == interface
    # As one server becomes the first of another config, it has the name of a first.
    alone = AppConfig(servers=(config.servers[2],))
    assert alone.servers[0].name == interface
    assert config.servers[2].name == f"{interface}#2"


# Values


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"servers": {}}, "servers: expected a list, got an object"),
        ({"servers": ["x"]}, "servers[0]: expected an object, got 'x'"),
        ({"allowed_hosts": "a"}, "allowed_hosts: expected a list, got 'a'"),
        ({"allowed_hosts": [1]}, "allowed_hosts[0]: expected a host name, "),
        ({"allowed_hosts": ["a b"]}, "allowed_hosts[0]: expected a host name, "),
        ({"allowed_hosts": [""]}, "allowed_hosts[0]: expected a host name, "),
        ({"allowed_hosts": ["127.0.0.1"]}, "allowed_hosts[0]: expected a host name, "),
        ({"allowed_hosts": ["[127.0.0.300]"]}, "allowed_hosts[0]: expected a host name, "),
        ({"allowed_hosts": ["[IPv6:1.2.3.4]"]}, "allowed_hosts[0]: expected a host name, "),
        ({"allowed_hosts": [".", "a"]}, "allowed_hosts: '.' takes every host, so it must be"),
        ({"pid_file": 1}, "pid_file: expected a text, got 1"),
        ({"pid_file": "a\0"}, "pid_file: expected a text, got "),
        ({"pid_file": "\ud800"}, "pid_file: expected a text, got "),
        ({"log_file": ["a"]}, "log_file: expected a text that is not empty, got a list"),
        ({"log_level": "loud"}, "log_level: expected one of debug, info, warning, error, "),
        ({"log_level": 1}, "log_level: expected one of debug, info, "),
        ({"log_format": "xml"}, "log_format: expected one of text, json, got 'xml'"),
        ({"max_memory": "64M"}, "max_memory: expected a size such as '64 MiB'"),
        ({"max_memory": 0}, "max_memory: expected a size of at least 64 KiB, got 0"),
        ({"processes": 1.0}, "processes: expected an integer of at least 0, got 1.0"),
        ({"processes": 2**31}, "processes: expected an integer from 0 to 2147483647, got 214"),
        ({"shutdown_timeout": "1d"}, "shutdown_timeout: expected a duration such as '30s'"),
        ({"watch_config": "true"}, "watch_config: expected true or false, got 'true'"),
        ({"ignore_unknown_keys": 1}, "ignore_unknown_keys: expected true or false, got 1"),
        ({"spool": True}, "spool: expected an object, got true"),
        ({"spool": {"max_bytes": 1}}, "spool.path: this key is required"),
        ({"metrics": {"listen_interface": 1}}, "metrics.listen_interface: expected a text such"),
        ({"metrics": {"listen_interface": "x"}}, "metrics.listen_interface: expected '127.0.0.1"),
        ({"dashboard": {"unique_helo_ratio": 2}}, "dashboard.unique_helo_ratio: expected a numb"),
        ({"backends": []}, "backends: expected an object, got a list"),
        ({"backends": {"a": 1}}, "backends.a: expected an object, got 1"),
        ({"backends": {"Default": {}}}, "backends.default: this name stands for backend_config"),
        ({"backend_config": "SQL"}, "backend_config: expected an object, got 'SQL'"),
        (backend(save_process=1), "backend_config.save_process: expected a chain such as"),
        (backend(save_process=" "), "backend_config.save_process: expected a chain of at least"),
        (backend(save_workers_size=0), "backend_config.save_workers_size: expected an integer"),
        (backend(gw_save_timeout="30"), "backend_config.gw_save_timeout: expected a duration"),
        (backend(gw_save_timeout=0), "backend_config.gw_save_timeout: expected a duration over 0"),
        (backend(log_received_mails="no"), "backend_config.log_received_mails: expected true or"),
        (backend(primary_mail_host="a b"), "backend_config.primary_mail_host: expected a host"),
        (backend(**{"import": "mod"}), "backend_config.import: expected a list, got 'mod'"),
        (backend(**{"import": [""]}), "backend_config.import[0]: expected a text that is not"),
        (backend(processors={"a": 1}), "backend_config.processors.a: expected an object, got 1"),
        (server(is_enabled="yes"), "servers[0].is_enabled: expected true or false, got 'yes'"),
        (server(listen_interface=25), "servers[0].listen_interface: expected a text such as"),
        (server(host_name="mx 1"), "servers[0].host_name: expected a host name or"),
        (server(host_name="a" * 256), "servers[0].host_name: expected a host name or"),
        (server(max_size=-1), "servers[0].max_size: expected a size that is not negative, got -1"),
        (server(max_size=True), "servers[0].max_size: expected a size such as"),
        (server(timeout="soon"), "servers[0].timeout: expected a duration such as '30s'"),
        (server(timeout=0), "servers[0].timeout: expected a duration over 0, got 0"),
        (server(max_clients=0), "servers[0].max_clients: expected an integer of at least 1, got 0"),
        (server(max_clients="9"), "servers[0].max_clients: expected an integer of at least 1, got"),
        (server(max_clients=True), "servers[0].max_clients: expected an integer of at least 1"),
        (server(tls=True), "servers[0].tls: expected an object, got true"),
        (server(protocol="imap"), "servers[0].protocol: expected one of smtp, lmtp, got 'imap'"),
        (server(extensions=["DSN"]), "servers[0].extensions: expected an object, got a list"),
        (server(extensions={"DSN": 1}), "servers[0].extensions.DSN: expected true or false, got 1"),
        (server(extensions={"DNS": True}), "servers[0].extensions: unknown extension 'DNS'; did"),
        (server(bare_newline="ok"), "servers[0].bare_newline: expected one of fix, keep, reject"),
        (server(trusted_proxies=["a"]), "servers[0].trusted_proxies[0]: expected an address or"),
        (server(trusted_proxies=[1]), "servers[0].trusted_proxies[0]: expected an address or"),
        (
            server(unix_mode="0888"),
            "servers[0].unix_mode: expected a mode in octal, as '0660', got",
        ),
        (server(unix_mode=660), "servers[0].unix_mode: expected a mode in octal, as '0660', got 6"),
        (server(unix_mode="4755"), "servers[0].unix_mode: expected a mode in octal, as '0660'"),
        (server(ipv6_prefix=129), "servers[0].ipv6_prefix: expected an integer from 1 to 128"),
        (server(max_recipients=-1), "servers[0].max_recipients: expected an integer of at least 0"),
        (server(backend="hot"), "servers[0].backend: unknown backend 'hot'"),
        (server(auth={"relay": 1}), "servers[0].auth.relay: expected true or false, got 1"),
        (tls(start_tls_on=True), "servers[0].tls.start_tls_on: needs private_key_file and"),
        (tls(tls_always_on=True, private_key_file="k"), "servers[0].tls.tls_always_on: needs"),
        (
            tls(start_tls_on=True, public_key_file="c", certificates=[KEY_FILES]),
            "servers[0].tls.public_key_file: needs private_key_file beside it",
        ),
        (
            tls(tls_always_on=True, private_key_file="k", certificates=[KEY_FILES]),
            "servers[0].tls.private_key_file: needs public_key_file beside it",
        ),
        (
            tls(start_tls_on=True, client_auth_type="requireandverifyclientcert", **KEY_FILES),
            "servers[0].tls.client_auth_type: RequireAndVerifyClientCert needs root_cas_file, a",
        ),
        (
            server(greet_delay="30s"),
            "servers[0].greet_delay: must be shorter than timeout (30 s), got 30 s",
        ),
        (tls(required=True), "servers[0].tls.required: needs start_tls_on or tls_always_on"),
        (tls(client_auth_type="Maybe"), "servers[0].tls.client_auth_type: expected one of NoCl"),
        (tls(protocols="tls1.2"), "servers[0].tls.protocols: expected a list of protocol names"),
        (tls(protocols=[1.2]), "servers[0].tls.protocols: expected a protocol name, got 1.2"),
        (tls(protocols=["tls1.4"]), "servers[0].tls.protocols: unknown protocol 'tls1.4'; did"),
        (tls(protocols=["tls1.3", "tls1.2"]), "servers[0].tls.protocols: expected the lowest pr"),
        (tls(protocols=["tls1.2"] * 3), "servers[0].tls.protocols: expected the lowest and the"),
        (tls(protocols=["tls1.0", "tls1.1"]), "servers[0].tls.protocols: none of these is offer"),
        (tls(ciphers=["TLS_MAGIC"]), "servers[0].tls.ciphers: unknown cipher 'TLS_MAGIC'"),
        (tls(ciphers=["TLS_RSA_WITH_RC4_128_SHA"]), "servers[0].tls.ciphers: none of these is"),
        (tls(curves=["P255"]), "servers[0].tls.curves: unknown curve 'P255'; did you mean"),
        (tls(curves=["P521"]), "servers[0].tls.curves: none of these is offered; usable are P2"),
        (
            tls(certificates=[KEY_FILES, {"private_key_file": "k"}]),
            "servers[0].tls.certificates[1].public_key_file: this key is required",
        ),
        (tls(certificates=["a"]), "servers[0].tls.certificates[0]: expected an object, got 'a'"),
    ],
)
def test_a_bad_value_names_its_path_and_what_was_expected(
    raw: dict[str, Any], problem: str
) -> None:
    """One line, whatever is wrong."""
    assert problem_of(raw).startswith(problem)


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("max_size", "1 MiB", 2**20),
        ("max_size", 0, 0),
        ("timeout", "1m", 60.0),
        ("timeout", 30, 30.0),
        ("timeout", 0.5, 0.5),
        ("log_file", "stdout", "stdout"),
        ("bare_newline", "Keep", "keep"),
        ("protocol", "LMTP", "lmtp"),
        ("extensions", {"chunking": False}, {"CHUNKING": False}),
        ("trusted_proxies", ["10.0.0.1/8", "::1", "192.0.2.1"], None),
        ("trusted_proxies", [], ()),
        ("host_name", "[127.0.0.1]", "[127.0.0.1]"),
        ("host_name", "mx_1.example.com", "mx_1.example.com"),
        ("data_timeout", 0, 0.0),
    ],
)
def test_a_good_value_of_a_server_is_taken(key: str, given: object, value: object) -> None:
    """In each of its forms."""
    wanted = ("10.0.0.0/8", "::1/128", "192.0.2.1/32") if value is None else value
    assert getattr(from_mapping(server(**{key: given})).servers[0], key) == wanted


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "fatal", "panic", "INFO"])
def test_log_levels(level: str) -> None:
    """In any case."""
    assert from_mapping({"log_level": level}).log_level == level.lower()


@pytest.mark.parametrize(
    "host",
    [
        ".",
        "localhost",
        "example.com",
        "*.example.com",
        "mx?.example.com",
        "mx[12].example.com",
        "[127.0.0.1]",
        "[IPv6:2001:db8::1]",
        "[ipv6:::1]",
    ],
)
def test_allowed_hosts(host: str) -> None:
    """Names, patterns, literals, and the one that stands for all."""
    assert from_mapping({"allowed_hosts": [f" {host} "]}).allowed_hosts == (host,)


def test_the_sections_of_later_features_are_read() -> None:
    """With the defaults of their keys."""
    config = from_mapping(
        {
            "spool": {"path": "/s", "max_bytes": "1 GiB"},
            "dashboard": {"unique_helo_ratio": 1},
            "metrics": {"listen_interface": "[::1]:9090"},
        }
    )
    assert config.spool is not None
    assert (config.spool.max_bytes, config.spool.max_age) == (2**30, 432_000.0)
    assert config.dashboard is not None
    assert (config.dashboard.unique_helo_ratio, config.dashboard.max_window) == (1.0, 86_400.0)
    assert config.metrics is not None
    assert config.metrics.listen_interface == "[::1]:9090"


def test_a_server_names_one_of_the_backends_in_any_case() -> None:
    """And `default` is backend_config."""
    raw = {**server(backend="HOT"), "backends": {"Hot": {}}}
    assert from_mapping(raw).servers[0].backend == "hot"
    assert from_mapping(server(backend="Default")).servers[0].backend == "default"


def test_a_config_is_equal_to_one_read_from_the_same_values() -> None:
    """On which a reload's comparison rests."""
    raw = {**server(tls=KEY_FILES), **backend(sql_dsn="a")}
    assert from_mapping(raw) == from_mapping(raw)
    assert from_mapping(raw) != AppConfig.default()
