"""A private Dovecot that takes mail by LMTP into maildirs, for the users that it is told of."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.services.base import Service, free_port, program
from tests.services.dovecot import NOBODY

USERS = ("a", "b", "full")
"""At any domain. The last one has room for one mail."""


class DovecotLMTP(Service):
    """Dovecot with LMTP on a port of 127.0.0.1 and on a unix socket, and nothing else.

    Args:
        folder: an empty one of its own, which others than its owner can enter.
        key: of TLS, with `certificate`: it offers STARTTLS.
        certificate: both PEM files.
    """

    name = "dovecot"

    def __init__(
        self, folder: Path, *, key: Path | None = None, certificate: Path | None = None
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._pair = (key, certificate)
        self.unix = {"forward_address": f"unix:{folder}/run/lmtp", "forward_protocol": "lmtp"}
        """Keys of Forward that lead to its socket."""
        self.tcp = {"forward_address": f"127.0.0.1:{self.port}", "forward_protocol": "lmtp"}
        """Those that lead to its port."""

    def command(self) -> Sequence[str]:
        self._prepare()
        return [program("dovecot"), "-F", "-c", str(self.folder / "dovecot.conf")]

    def is_ready(self) -> bool:
        for family, where in (
            (socket.AF_UNIX, f"{self.folder}/run/lmtp"),
            (socket.AF_INET, ("127.0.0.1", self.port)),
        ):
            with socket.socket(family) as probe:
                probe.settimeout(5)
                probe.connect(where)
                if not probe.recv(1_000).startswith(b"220 "):
                    return False
        return True

    def mails(self, user: str) -> list[bytes]:
        """The files in the maildir of a user."""
        return [path.read_bytes() for path in (self.folder / "mail" / user / "new").glob("*")]

    def _prepare(self) -> None:
        mail = self.folder / "mail"
        mail.mkdir(exist_ok=True)
        is_root = os.geteuid() == 0
        uid, gid = (NOBODY, NOBODY) if is_root else (os.geteuid(), os.getegid())
        if is_root:
            os.chown(mail, uid, gid)
        users = self.folder / "users"
        lines = [f"{user}:::::::userdb_quota_rule=*:messages={_most(user)}\n" for user in USERS]
        users.write_text("".join(lines))
        users.chmod(0o644)
        (self.folder / "dovecot.conf").write_text(self._config(uid, gid))

    def _config(self, uid: int, gid: int) -> str:
        me = pwd.getpwuid(os.geteuid()).pw_name
        key, certificate = self._pair
        tls = (
            "ssl = no" if key is None else f"ssl = yes\nssl_key = <{key}\nssl_cert = <{certificate}"
        )
        return f"""\
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/dovecot.log
protocols = lmtp
listen = 127.0.0.1
default_internal_user = {me}
default_internal_group = {grp.getgrgid(os.getegid()).gr_name}
default_login_user = {me}
{tls}
mail_location = maildir:{self.folder}/mail/%n
mail_plugins = quota
protocol lmtp {{
  mail_plugins = quota
}}
plugin {{
  quota = maildir:user
  quota_exceeded_message = Mailbox is full
}}
login_trusted_networks = 127.0.0.1
first_valid_uid = 1
first_valid_gid = 1
auth_username_format = %Ln
passdb {{
  driver = passwd-file
  args = username_format=%n {self.folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {self.folder}/users
  default_fields = uid={uid} gid={gid} home={self.folder}/mail/%n
}}
service anvil {{
  chroot =
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
"""


def _most(user: str) -> int:
    return 1 if user == "full" else 1_000_000
