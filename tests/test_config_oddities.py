"""Names of TLS, those that are gone too; and what works and is odd."""

from typing import Any

import pytest

from guerrilla.config import (
    CertificateConfig,
    TLSConfig,
    from_mapping,
)
from guerrilla.config.tls import TLS12_CIPHERS, TLS13_CIPHERS
from tests.configs import KEY_FILES, server, tls

# TLS names


@pytest.mark.parametrize(
    ("named", "offered"),
    [
        ([], ("tls1.2", "tls1.3")),
        (["tls1.2"], ("tls1.2", "tls1.3")),
        (["tls1.3"], ("tls1.3",)),
        (["tls1.2", "tls1.2"], ("tls1.2",)),
        (["TLS1.0", "tls1.2"], ("tls1.2",)),
        (["ssl3.0"], ("tls1.2", "tls1.3")),
    ],
)
def test_protocols_are_a_lowest_and_a_highest(named: list[str], offered: tuple[str, ...]) -> None:
    """Of which only those still offered are left."""
    (only,) = from_mapping(tls(protocols=named)).servers
    assert only.tls.effective_protocols == offered


def test_a_list_of_ciphers_leaves_the_other_version_alone() -> None:
    """As Go does, whose lists are of TLS 1.2."""
    one = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    gone = "TLS_RSA_WITH_RC4_128_SHA"
    assert TLSConfig(ciphers=(one, gone, one)).effective_ciphers == (one, *TLS13_CIPHERS)
    three = TLS13_CIPHERS[1]
    assert TLSConfig(ciphers=(three,)).effective_ciphers == (three, *TLS12_CIPHERS)
    assert TLSConfig(ciphers=(three, one)).effective_ciphers == (three, one)
    assert TLSConfig().effective_ciphers == ()
    assert TLSConfig(curves=("P521", "P256", "P256")).effective_curves == ("P256",)


def test_one_warning_names_all_that_is_gone_in_a_server() -> None:
    """And none names what is offered."""
    raw = {
        "servers": [
            {"listen_interface": ":1"},
            {
                "listen_interface": ":2",
                "tls": {
                    "protocols": ["tls1.1", "tls1.3"],
                    "ciphers": ["tls_aes_128_gcm_sha256", "TLS_RSA_WITH_AES_128_CBC_SHA"],
                    "curves": ["P521", "x25519"],
                },
            },
        ]
    }
    config = from_mapping(raw)
    assert config.servers[1].tls.curves == ("P521", "X25519")
    (warning,) = config.warnings()
    assert warning == (
        "servers[1].tls: no longer offered and ignored: "
        "protocol tls1.1, cipher TLS_RSA_WITH_AES_128_CBC_SHA, curve P521"
    )


def test_the_client_certificate_is_asked_for_where_it_can_be_verified() -> None:
    """Unless the config says otherwise."""
    assert TLSConfig().effective_client_auth_type == "NoClientCert"
    with_roots = TLSConfig(root_cas_file="r")
    assert with_roots.effective_client_auth_type == "VerifyClientCertIfGiven"
    given = TLSConfig(root_cas_file="r", client_auth_type="RequireAnyClientCert")
    assert given.effective_client_auth_type == "RequireAnyClientCert"
    nothing_verifies = TLSConfig(client_auth_type="VerifyClientCertIfGiven")
    assert nothing_verifies.effective_client_auth_type == "NoClientCert"


def test_the_pair_of_the_section_is_the_default_certificate() -> None:
    """And every file is one to be read."""
    config = TLSConfig(
        private_key_file="k0",
        public_key_file="c0",
        root_cas_file="r",
        certificates=(CertificateConfig(private_key_file="k1", public_key_file="c1"),),
    )
    assert config.pairs == [("k0", "c0"), ("k1", "c1")]
    assert config.files == ["k0", "c0", "k1", "c1", "r"]
    assert TLSConfig(certificates=config.certificates).pairs == [("k1", "c1")]


# What works and is odd


@pytest.mark.parametrize(
    ("raw", "warning"),
    [
        (
            tls(start_tls_on=True, tls_always_on=True, **KEY_FILES),
            "servers[0].tls.start_tls_on: has no effect beside tls_always_on",
        ),
        (
            tls(start_tls_on=True, client_auth_type="VerifyClientCertIfGiven", **KEY_FILES),
            "servers[0].tls.client_auth_type: VerifyClientCertIfGiven needs root_cas_file, so no",
        ),
        (
            tls(start_tls_on=True, client_auth_type="NoClientCert", root_cas_file="r", **KEY_FILES),
            "servers[0].tls.root_cas_file: is not used, since client_auth_type is NoClientCert",
        ),
        (
            server(xclient_on=True, trusted_proxies=["10.0.0.0/8", "0.0.0.0/0"]),
            "servers[0].trusted_proxies: with 0.0.0.0/0 anybody can pretend, by xclient_on, to be",
        ),
        (
            server(proxy_protocol=True, xclient_on=True, trusted_proxies=["0.0.0.0/0", "::/0"]),
            "servers[0].trusted_proxies: with 0.0.0.0/0 and ::/0 anybody can pretend, by xclient",
        ),
        (
            server(proxy_protocol=True, trusted_proxies=[]),
            "servers[0].trusted_proxies: is empty, so nobody can connect; ",
        ),
        (
            server(xclient_on=True, trusted_proxies=[]),
            "servers[0].trusted_proxies: is empty, so nobody can use XCLIENT; ",
        ),
    ],
)
def test_what_is_odd_is_warned_of(raw: dict[str, Any], warning: str) -> None:
    """It loads, and one line says what comes of it."""
    (line,) = from_mapping(raw).warnings()
    assert line.startswith(warning)


def test_a_mode_that_lets_anybody_in_or_nobody_is_warned_of() -> None:
    def warnings(interface: str, mode: str, **keys: Any) -> tuple[str, ...]:
        one = {"listen_interface": interface, "unix_mode": mode, **keys}
        return tuple(from_mapping({"servers": [one]}).warnings())

    (line,) = warnings("127.0.0.1:0", "0660")
    assert line.startswith("servers[0].unix_mode: has no effect, as the server listens on no unix")
    assert warnings("unix:/run/g.sock", "0666") == ()
    assert warnings("unix:/run/g.sock", "0660", xclient_on=True) == ()
    (line,) = warnings("unix:/run/g.sock", "0666", xclient_on=True)
    assert line.startswith("servers[0].unix_mode: with 0666 every user of this machine who gets")


@pytest.mark.parametrize(
    "raw",
    [
        tls(client_auth_type="RequireAndVerifyClientCert"),
        tls(tls_always_on=True, required=True, **KEY_FILES),
        tls(start_tls_on=True, client_auth_type="RequestClientCert", **KEY_FILES),
        tls(start_tls_on=True, root_cas_file="r", **KEY_FILES),
        server(trusted_proxies=["0.0.0.0/0"]),
        server(xclient_on=True, proxy_protocol=True),
        server(greet_delay="29s"),
        {
            "servers": [
                {
                    "listen_interface": "unix:/run/g.sock",
                    "proxy_protocol": True,
                    "trusted_proxies": [],
                }
            ]
        },
    ],
)
def test_what_is_not_odd_is_not_warned_of(raw: dict[str, Any]) -> None:
    """A section that is off may hold anything."""
    assert from_mapping(raw).warnings() == []


# The spool


@pytest.mark.parametrize(
    ("max_bytes", "max_size", "keys", "found"),
    [
        ("1 MiB", "2 MiB", {}, [0]),
        ("2 MiB", "2 MiB", {}, []),
        (0, "2 MiB", {}, []),
        ("1 MiB", 0, {}, []),
        ("1 MiB", "2 MiB", {"is_enabled": False}, []),
        ("1 MiB", "2 MiB", {"backend": "direct"}, []),
    ],
)
def test_a_spool_that_is_smaller_than_a_message(
    max_bytes: object, max_size: object, keys: dict[str, Any], found: list[int]
) -> None:
    raw = {
        **server(max_size=max_size, **keys),
        "spool": {"path": "spool", "max_bytes": max_bytes},
        "backend_config": {"save_process": "250|SQL"},
        "backends": {"direct": {"save_process": "SQL"}},
    }
    assert from_mapping(raw).warnings() == [
        f"spool.max_bytes: is less than max_size of servers[{index}], so that a message of that "
        "size is never taken"
        for index in found
    ]
