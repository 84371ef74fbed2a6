"""Keys and certificates for tests: made new, small, for this machine's own names."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NAMES: Final = ("localhost", "127.0.0.1", "mx.example.com")
"""What the certificate of a server under test is for."""

_DAYS: Final = "2"
_EC: Final = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
_RSA: Final = ("rsa:2048",)


@dataclass(frozen=True)
class Pair:
    """The PEM files of a private key and of its certificate."""

    key: Path
    certificate: Path

    def toml(self) -> str:
        """As lines of a `tls` section."""
        return f"private_key_file = '{self.key}'\npublic_key_file = '{self.certificate}'\n"


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
    openssl(
        *("req", "-x509", "-nodes", "-days", _DAYS, "-subj", f"/CN={names[0]}"),
        *("-newkey", *(_RSA if rsa else _EC), "-keyout", pair.key, "-out", pair.certificate),
        *("-addext", f"subjectAltName={','.join(map(_alternative, names))}"),
    )
    return pair


def traditional(pair: Pair) -> Pair:
    """The same pair with its key in the old form of its kind: PKCS#1 of RSA, SEC1 of EC."""
    other = Pair(pair.key.with_suffix(".old.key"), pair.certificate)
    openssl("pkey", "-in", pair.key, "-traditional", "-out", other.key)
    return other


class Authority:
    """A private certification authority, which issues certificates to clients."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._pair = Pair(folder / f"{name}.key", folder / f"{name}.crt")
        openssl(
            *("req", "-x509", "-nodes", "-days", _DAYS, "-subj", f"/CN={name}"),
            *("-newkey", *_EC, "-keyout", self._pair.key, "-out", self._pair.certificate),
            *("-addext", "keyUsage=critical,keyCertSign"),
        )

    @property
    def certificate(self) -> Path:
        """Its own certificate, for a `root_cas_file`."""
        return self._pair.certificate

    def issue(self, subject: str) -> Pair:
        """A client's pair; the subject as openssl writes one, `/O=Example/CN=client`."""
        stem = f"{self._name}-client"
        pair = Pair(self._folder / f"{stem}.key", self._folder / f"{stem}.crt")
        request = self._folder / f"{stem}.csr"
        extensions = self._folder / f"{stem}.ext"
        extensions.write_text("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
        openssl(
            *("req", "-new", "-nodes", "-subj", subject),
            *("-newkey", *_EC, "-keyout", pair.key, "-out", request),
        )
        openssl(
            *("x509", "-req", "-days", _DAYS, "-in", request, "-extfile", extensions),
            *("-CA", self._pair.certificate, "-CAkey", self._pair.key, "-CAcreateserial"),
            *("-out", pair.certificate),
        )
        return pair


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


def _alternative(name: str) -> str:
    return f"IP:{name}" if name.replace(".", "").isdigit() else f"DNS:{name}"
