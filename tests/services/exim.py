"""A private Exim that only sends, from the package that scripts/unpack-exim.sh unpacks."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal

from tests.corpora import on_the_wire
from tests.services.dovecot import NOBODY
from tests.services.submitted import Outcome, Submitted
from tests.wire import HELLO

_UNPACKED: Final = Path(__file__).parent.parent.parent / "build" / "exim"

_BINARY: Final = _UNPACKED / "usr" / "sbin" / "exim4"

_OWNER: Final = "Debian-exim"
"""The user that the binary looks for when it starts; which one that is, does not matter."""

# What it would do to a message, it is not to do: header fields stay as they are.
_CONFIG: Final = """\
exim_path = {binary}
exim_user = {user}
exim_group = {group}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path =
keep_environment = ^LD_ : ^NSS_WRAPPER_
primary_hostname = sender.example.org
never_users =
trusted_users = {name}
deliver_drop_privilege
message_size_limit = 0
header_maxsize = 4M
header_line_maxsize = 4M
allow_utf8_domains
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
return_path_remove = false
delivery_date_remove = false
envelope_to_remove = false
acl_not_smtp = accept
acl_smtp_mail = sending
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin acl
sending:
  accept control = suppress_local_fixups
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = {port}
  message_linelength_limit = 1G
  {transport}
begin retry
* * F,1d,1s
"""

_ACCEPTED: Final = re.compile(r"^250 OK id=(\S+)\r?$", re.MULTILINE)
_OUTCOME: Final = re.compile(
    r"^\S+ \S+ (?P<id>\S+) (?P<mark>=>|->|==|\*\*) (?P<to>\S+)(?: <\S*>)? R=all T=out (?P<how>.*)$"
)
_STATUS: Final[Mapping[str, Literal["sent", "deferred", "bounced"]]] = {
    "=>": "sent",
    "->": "sent",
    "==": "deferred",
    "**": "bounced",
}
_SAID: Final = re.compile(r' C="(.*)"$')

CHUNKED: Final = " K "
"""How its log marks a delivery by BDAT."""
KEPT: Final = "[127.0.0.1]* "
"""How it marks one over the connection of the mail before."""


class Exim:
    """Exim as a sender: it takes mails into its queue, and sends them when it is told to.

    Args:
        folder: an empty one of its own, which another user can enter.
        port: of 127.0.0.1, where every mail goes.
        transport: more options of its smtp transport.
        keep: whether a connection is for many mails.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        transport: Mapping[str, str] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self._folder, self._keep = folder, keep
        me = pwd.getpwuid(NOBODY if os.geteuid() == 0 else os.geteuid())
        for path in (folder / "spool", folder / "log"):
            path.mkdir()
            os.chown(path, me.pw_uid, me.pw_gid)
        self._env = self._environment(me)
        options = [f"{name} = {value}" for name, value in (transport or {}).items()]
        self._config = folder / "exim.conf"
        text = _CONFIG.format(
            folder=folder,
            binary=_BINARY,
            user=me.pw_uid,
            group=me.pw_gid,
            name=pwd.getpwuid(os.geteuid()).pw_name,
            port=port,
            transport="\n  ".join(options),
        )
        self._config.write_text(text, encoding="utf-8")

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self._folder / "log" / "main").read_text(encoding="utf-8", errors="replace")

    def outcomes(self) -> list[Outcome]:
        """See `Sender`."""
        found = map(_OUTCOME.match, self.log.splitlines())
        return [_outcome(match) for match in found if match]

    def submit(self, mails: Sequence[Submitted]) -> list[str]:
        """See `Sender`: by SMTP, over a pipe."""
        session = b"".join(mail.commands() + on_the_wire(mail.message) for mail in mails)
        said = self._run("-odq", "-bs", "-bnq", text=HELLO + session + b"QUIT\r\n").decode()
        ids = _ACCEPTED.findall(said)
        assert len(ids) == len(mails), said[-1_000:]
        return ids

    def copies(self, ids: Sequence[str]) -> list[bytes]:
        """See `Sender`."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            shown = threads.map(lambda one: self._run("-Mvc", one), ids)
            return [message.replace(b"\n", b"\r\n") for message in shown]

    def release(self, outcomes: int) -> None:
        """See `Sender`."""
        # It ends when each mail has had its turn. The double q routes all before it sends, so that
        # it knows what else goes over a connection; it runs itself anew for each of these.
        self._run("-qqff" if self._keep else "-qff")
        assert len(self.outcomes()) == outcomes, self.log[-2_000:]

    def _run(self, *words: str, text: bytes = b"") -> bytes:
        done = subprocess.run(
            [os.fspath(_BINARY), "-C", os.fspath(self._config), *words],
            input=text,
            env=self._env,
            capture_output=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        return done.stdout

    def _environment(self, me: pwd.struct_passwd) -> dict[str, str]:
        """In which the user that the binary looks for is the one who runs it, or nobody."""
        [preload] = _UNPACKED.glob("usr/lib/*/libnss_wrapper.so")
        users, groups = self._folder / "passwd", self._folder / "group"
        known = [f"{one.pw_name}:x:{one.pw_uid}:{one.pw_gid}::/:/bin/sh" for one in pwd.getpwall()]
        owner = f"{_OWNER}:x:{me.pw_uid}:{me.pw_gid}::/:/bin/sh"
        users.write_text("\n".join([*known, owner, ""]), encoding="utf-8")
        groups.write_text(f"{_OWNER}:x:{me.pw_gid}:\n", encoding="utf-8")
        return {
            "PATH": os.defpath,
            "LD_PRELOAD": os.fspath(preload),
            "LD_LIBRARY_PATH": os.fspath(preload.parent),
            "NSS_WRAPPER_PASSWD": os.fspath(users),
            "NSS_WRAPPER_GROUP": os.fspath(groups),
        }


def _outcome(match: re.Match[str]) -> Outcome:
    said = _SAID.search(match["how"])
    text = said[1] if said else match["how"]
    return Outcome(match["id"], match["to"], _STATUS[match["mark"]], text, match[0])
