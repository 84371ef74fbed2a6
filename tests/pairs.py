"""Keys and certificates for tests, made by openssl, and the files of a server that has one."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

from tests.daemons import config

_KINDS = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}


def make_pair(folder: Path, name: str, kind: str = "ec") -> tuple[bytes, bytes]:
    """A key and a certificate for this host name, as PEM."""
    key, chain = folder / f"{name}.new.key", folder / f"{name}.new.crt"
    command = ["openssl", "req", "-x509", "-newkey", *_KINDS[kind], "-noenc", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command += ["-keyout", str(key), "-out", str(chain)]
    subprocess.run(command, check=True, capture_output=True)
    return key.read_bytes(), chain.read_bytes()


def der(chain: bytes) -> bytes:
    """The certificate as a handshake shows it."""
    return ssl.PEM_cert_to_DER_cert(chain.decode())


def unverified() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Files:
    """The files that a daemon is told of, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.key, self.chain = folder / "tls.key", folder / "tls.crt"

    def write(self, key: bytes, chain: bytes) -> None:
        """Replaces both, one after the other, each at once."""
        for path, content in ((self.key, key), (self.chain, chain)):
            fresh = path.with_suffix(".part")
            fresh.write_bytes(content)
            fresh.replace(path)

    def config(self, **tls: Any) -> dict[str, Any]:
        """A config with one server that offers STARTTLS with them."""
        raw = config()
        raw["servers"][0]["tls"] = {
            "start_tls_on": True,
            "private_key_file": str(self.key),
            "public_key_file": str(self.chain),
            **tls,
        }
        return raw
