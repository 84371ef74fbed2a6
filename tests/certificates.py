"""Keys and certificates for tests, and TLS clients that trust them."""

from __future__ import annotations

import os
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from guerrilla._core import make_certificate
from tests.daemons import config
from tests.wire import Wire

NAMES: Final = ("mx.example.com", "localhost", *(f"127.0.0.{last}" for last in range(1, 9)))
"""What the certificate of a server under test is for."""

_DAYS: Final = 2
_EC: Final = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True)
class Pair:
    """The PEM files of a private key and of its certificate."""

    key: Path
    certificate: Path

    def toml(self) -> str:
        """As lines of a `tls` section."""
        return f"private_key_file = '{self.key}'\npublic_key_file = '{self.certificate}'\n"

    def der(self) -> bytes:
        """The certificate as a handshake shows it."""
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())

    def become(self, other: Pair) -> None:
        """Gets the content of another pair, one file after the other, each at once."""
        for path, source in ((self.key, other.key), (self.certificate, other.certificate)):
            fresh = path.with_suffix(".part")
            fresh.write_bytes(source.read_bytes())
            fresh.replace(path)

    def section(self, **tls: Any) -> dict[str, Any]:
        """A `tls` section that offers STARTTLS with it, and has these keys."""
        files = {"private_key_file": str(self.key), "public_key_file": str(self.certificate)}
        return {"start_tls_on": True, **files, **tls}

    def config(self, **tls: Any) -> dict[str, Any]:
        """A config of a daemon within the test, with one server that has this section."""
        raw = config()
        raw["servers"][0]["tls"] = self.section(**tls)
        return raw


def self_signed(folder: Path, *names: str, stem: str = "server", rsa: bool = False) -> Pair:
    """A pair that is its own authority, as a client that trusts the file needs.

    Args:
        folder: where the two files come.
        names: what it is for: host names and IP addresses; `NAMES` by default.
        stem: of the files' names.
        rsa: an RSA key in place of one on P-256.
    """
    pair = Pair(folder / f"{stem}.key", folder / f"{stem}.crt")
    names = names or NAMES
    if rsa:
        alternatives = [f"{'IP' if _is_ip(name) else 'DNS'}:{name}" for name in names]
        openssl(
            *("req", "-x509", "-nodes", "-days", f"{_DAYS}", "-subj", f"/CN={names[0]}"),
            *("-newkey", "rsa:2048", "-keyout", pair.key, "-out", pair.certificate),
            *("-addext", f"subjectAltName={','.join(alternatives)}"),
        )
    else:
        key, certificate = make_certificate(names, _DAYS)
        pair.key.write_text(key)
        pair.certificate.write_text(certificate)
    return pair


def traditional(pair: Pair) -> Pair:
    """The same pair with its key in the old form of its kind: PKCS#1 of RSA, SEC1 of EC."""
    other = Pair(pair.key.with_suffix(".old.key"), pair.certificate)
    openssl("pkey", "-in", pair.key, "-traditional", "-out", other.key)
    return other


class Authority:
    """A private certification authority.

    Args:
        folder: where its files come.
        name: of it, and the beginning of their names.
        above: the authority that has signed it; by default it is a root.
    """

    def __init__(self, folder: Path, name: str, above: Authority | None = None) -> None:
        self._folder, self._name = folder, name
        self._pair = Pair(folder / f"{name}.key", folder / f"{name}.crt")
        extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign"
        self._sign(self._pair, f"/CN={name}", extensions, above or self)

    @property
    def certificate(self) -> Path:
        """Its own certificate, as for a `root_cas_file`."""
        return self._pair.certificate

    def issue(self, subject: str) -> Pair:
        """A client's pair; the subject as openssl writes one, `/O=Example/CN=client`."""
        return self._issue("client", subject, "extendedKeyUsage=clientAuth")

    def issue_server(self) -> Pair:
        """A pair of a server, for `NAMES`."""
        names = [f"{'IP' if _is_ip(name) else 'DNS'}:{name}" for name in NAMES]
        extensions = f"extendedKeyUsage=serverAuth\nsubjectAltName={','.join(names)}"
        return self._issue("server", f"/CN={NAMES[0]}", extensions)

    def _issue(self, kind: str, subject: str, extensions: str) -> Pair:
        stem = f"{self._name}-{kind}"
        pair = Pair(self._folder / f"{stem}.key", self._folder / f"{stem}.crt")
        self._sign(pair, subject, f"basicConstraints=CA:FALSE\n{extensions}", self)
        return pair

    def _sign(self, pair: Pair, subject: str, extensions: str, signer: Authority) -> None:
        request, file = pair.key.with_suffix(".csr"), pair.key.with_suffix(".ext")
        file.write_text(f"{extensions}\n")
        openssl(
            *("req", "-new", "-nodes", "-subj", subject),
            *("-newkey", *_EC, "-keyout", pair.key, "-out", request),
        )
        by = ("-CA", signer.certificate, "-CAkey", signer._pair.key, "-CAcreateserial")
        openssl(
            *("x509", "-req", "-days", f"{_DAYS}", "-in", request, "-extfile", file),
            *(("-signkey", pair.key) if pair is signer._pair else by),
            *("-out", pair.certificate),
        )


def unverified() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting(pair: Pair, client: Pair | None = None) -> ssl.SSLContext:
    """A client that trusts this certificate alone, and may show one itself."""
    context = ssl.create_default_context(cafile=os.fspath(pair.certificate))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


def encrypted(wire: Wire, *, greeted: bool = False, name: str | None = None) -> Wire:
    """The connection after its handshake, whatever certificate was shown.

    Args:
        wire: one that is ready for it.
        greeted: whether a greeting comes then.
        name: the host that the client asks for.
    """
    return Wire(unverified().wrap_socket(wire.socket, server_hostname=name), greeted=greeted)


def openssl(*words: str | Path) -> None:
    """Runs a command of openssl that must do what it is told."""
    done = subprocess.run(
        ["openssl", *(os.fspath(word) for word in words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")


def _is_ip(name: str) -> bool:
    return name.replace(".", "").isdigit()
