"""The `tls` section of a server, and Go's names of protocols, ciphers and curves.

Only TLS 1.2 and 1.3 with forward secrecy are offered. A name that Go-Guerrilla knew and we do not
offer is ignored with a warning, so that its configs still load; a name nobody knew is an error.
"""

from collections.abc import Collection
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BeforeValidator, model_validator

from guerrilla.config.fields import ITEMS, TABLE, Flag, MaybeText, Text, nearest, one_of
from guerrilla.config.section import Section
from guerrilla.errors import ConfigError, expected

ClientAuthType = Literal[
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]

PROTOCOLS: Final = ("tls1.2", "tls1.3")
"""The protocols that are offered, oldest first."""

TLS13_CIPHERS: Final = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
"""The cipher suites of TLS 1.3."""

TLS12_CIPHERS: Final = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
"""The cipher suites of TLS 1.2 with forward secrecy; Go names the ChaCha ones in two ways."""

CIPHERS: Final = (*TLS13_CIPHERS, *TLS12_CIPHERS)
"""The cipher suites that are offered."""

CURVES: Final = ("P256", "P384", "X25519", "X25519MLKEM768")
"""The groups that are offered for the key exchange."""

GONE_PROTOCOLS: Final = ("ssl3.0", "tls1.0", "tls1.1")
"""Protocols that are no longer offered, oldest first (RFC 7568, RFC 8996)."""

_ORDER: Final = (*GONE_PROTOCOLS, *PROTOCOLS)

GONE_CIPHERS: Final = frozenset(
    {
        "TLS_FALLBACK_SCSV",
        "TLS_RSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA",
        "TLS_RSA_WITH_AES_256_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA256",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    }
)
"""Cipher suites without forward secrecy or authenticated encryption (RFC 9325 §4.1)."""

GONE_CURVES: Final = frozenset({"P521"})
"""Groups that the cryptographic library does not offer for the key exchange."""


def _names(what: str, usable: Collection[str], gone: Collection[str]) -> BeforeValidator:
    """Takes a list of names in any case; the error for an unknown one names the nearest."""
    known = {name.casefold(): name for name in (*usable, *gone)}

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise expected(f"a list of {what} names", value)
        return tuple(one(name) for name in value)

    def one(name: object) -> str:
        if not isinstance(name, str):
            raise expected(f"a {what} name", name)
        found = known.get(name.casefold())
        if found is None:
            message = f"unknown {what} {name[:60]!r}{nearest(name, known.values())}"
            raise ValueError(message)
        return found

    return BeforeValidator(check)


class CertificateConfig(Section):
    """One certificate of several; which one is shown is chosen by the client's SNI."""

    private_key_file: Text
    """PEM file of the private key (PKCS#1, PKCS#8 or SEC1)."""

    public_key_file: Text
    """PEM file of the certificate and its chain."""


class TLSConfig(Section):
    """TLS of a server: `servers[].tls`."""

    start_tls_on: Flag = False
    """Offers STARTTLS (RFC 3207)."""

    tls_always_on: Flag = False
    """Starts every connection with TLS, without STARTTLS (RFC 8314); wins over `start_tls_on`."""

    private_key_file: MaybeText = None
    """PEM file of the private key (PKCS#1, PKCS#8 or SEC1)."""

    public_key_file: MaybeText = None
    """PEM file of the certificate and its chain."""

    root_cas_file: MaybeText = None
    """PEM file of the authorities that client certificates are verified against."""

    client_auth_type: Annotated[ClientAuthType, one_of(*get_args(ClientAuthType))] | None = None
    """Which client certificate is asked for. Default: `VerifyClientCertIfGiven` where
    `root_cas_file` is set, else `NoClientCert`. What verifies needs `root_cas_file`."""

    protocols: Annotated[tuple[str, ...], _names("protocol", PROTOCOLS, GONE_PROTOCOLS)] = ()
    """The lowest and the highest protocol, of `tls1.2` and `tls1.3`. Default: both."""

    ciphers: Annotated[tuple[str, ...], _names("cipher", CIPHERS, GONE_CIPHERS)] = ()
    """The cipher suites that are offered, by Go's names. Default: all that are good. A list without
    one of TLS 1.3, or without one of 1.2, leaves the suites of that version as they are."""

    curves: Annotated[tuple[str, ...], _names("curve", CURVES, GONE_CURVES)] = ()
    """The groups of the key exchange, by Go's names. Default: all that are good."""

    prefer_server_cipher_suites: Flag = True
    """Chooses by our order of ciphers, AES-128-GCM first, instead of the client's."""

    required: Flag = False
    """Answers `530 5.7.0` to MAIL before TLS."""

    watch: Flag = False
    """Takes over changed key, certificate and authority files by itself."""

    certificates: Annotated[tuple[Annotated[CertificateConfig, TABLE], ...], ITEMS] = ()
    """More certificates, chosen by SNI. The default is the pair of this section, else the first."""

    @property
    def is_on(self) -> bool:
        """Whether the server speaks TLS at all."""
        return self.start_tls_on or self.tls_always_on

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (private key file, certificate file); the first is the default."""
        pairs = [(pair.private_key_file, pair.public_key_file) for pair in self.certificates]
        if self.private_key_file is not None and self.public_key_file is not None:
            pairs.insert(0, (self.private_key_file, self.public_key_file))
        return pairs

    @property
    def files(self) -> list[str]:
        """Every file that is read: keys, certificates, authorities."""
        files = [file for pair in self.pairs for file in pair]
        return [*files, self.root_cas_file] if self.root_cas_file else files

    @property
    def effective_ciphers(self) -> tuple[str, ...]:
        """The cipher suites that are offered; empty for all.

        Go's lists say nothing of TLS 1.3, and must not turn it off; so each version that none is
        named of keeps all of its own.
        """
        named = dict.fromkeys(name for name in self.ciphers if name in CIPHERS)
        for version in (TLS13_CIPHERS, TLS12_CIPHERS):
            if named and named.keys().isdisjoint(version):
                named |= dict.fromkeys(version)
        return tuple(named)

    @property
    def effective_curves(self) -> tuple[str, ...]:
        """The groups of the key exchange that are offered; empty for all."""
        return tuple(dict.fromkeys(name for name in self.curves if name in CURVES))

    @property
    def effective_client_auth_type(self) -> ClientAuthType:
        """What is asked for: `client_auth_type`, its default, or nothing where nothing verifies."""
        if self.client_auth_type in (None, "VerifyClientCertIfGiven"):
            return "VerifyClientCertIfGiven" if self.root_cas_file else "NoClientCert"
        return self.client_auth_type

    @property
    def effective_protocols(self) -> tuple[str, ...]:
        """The protocols that are offered, oldest first; empty when only gone ones are left."""
        lowest, highest = self._protocol_range()
        return tuple(name for name in _ORDER[lowest : highest + 1] if name in PROTOCOLS)

    def ignored(self) -> list[str]:
        """What is named and no longer offered, as `protocol tls1.0`."""
        return [
            f"{what} {name}"
            for what, names, gone in (
                ("protocol", self.protocols, GONE_PROTOCOLS),
                ("cipher", self.ciphers, GONE_CIPHERS),
                ("curve", self.curves, GONE_CURVES),
            )
            for name in names
            if name in gone
        ]

    @model_validator(mode="after")
    def _leaves_something_usable(self) -> Self:
        problems = [*self._protocol_problems()]
        for key, names, usable in (
            ("ciphers", self.ciphers, CIPHERS),
            ("curves", self.curves, CURVES),
        ):
            if names and not set(names) & set(usable):
                problems.append(f"{key}: none of these is offered; usable are {', '.join(usable)}")
        problems += self._key_problems()
        if problems:
            raise ConfigError(problems)
        return self

    def _protocol_range(self) -> tuple[int, int]:
        """Indices into `_ORDER`: of the lowest and the highest protocol."""
        named = [_ORDER.index(name) for name in self.protocols]
        lowest, highest = (*named, *(0, len(_ORDER) - 1)[len(named) :])
        return lowest, highest

    def _protocol_problems(self) -> list[str]:
        if len(self.protocols) > 2:  # noqa: PLR2004 - a lowest and a highest
            return ["protocols: expected the lowest and the highest protocol, got more than two"]
        lowest, highest = self._protocol_range()
        if lowest > highest:
            return ["protocols: expected the lowest protocol first"]
        if not self.effective_protocols:
            return [f"protocols: none of these is offered; usable are {', '.join(PROTOCOLS)}"]
        return []

    def _key_problems(self) -> list[str]:
        if not self.is_on:
            return ["required: needs start_tls_on or tls_always_on"] if self.required else []
        if not self.pairs:
            key = "start_tls_on" if self.start_tls_on else "tls_always_on"
            return [f"{key}: needs private_key_file and public_key_file, or certificates"]
        problems = []
        if (self.private_key_file is None) != (self.public_key_file is None):
            halves = ["private_key_file", "public_key_file"]
            given, missing = halves if self.private_key_file else reversed(halves)
            problems.append(f"{given}: needs {missing} beside it")
        if self.client_auth_type == "RequireAndVerifyClientCert" and self.root_cas_file is None:
            problems.append(
                "client_auth_type: RequireAndVerifyClientCert needs root_cas_file, a PEM file of "
                "the authorities that sign the certificates of clients"
            )
        return problems
