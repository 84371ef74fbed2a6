"""A private Postfix that only sends: nothing of it listens on a port."""

from __future__ import annotations

import grp
import itertools
import os
import pwd
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.corpora import on_the_wire
from tests.services.base import Service, program
from tests.services.submitted import Outcome, Submitted
from tests.wire import HELLO, Wire, until

_DAEMONS: Final = Path("/usr/lib/postfix/sbin")
"""Where Debian has them."""

_OWNER: Final = "postfix"
_GROUP: Final = "postdrop"

_PRIVATE: Final = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("private", "saved", "trace"),
)
"""Folders of a queue that its owner has, as Postfix's own `postfix-files` says."""

# The second name is a file of `private` or `public`. Without a chroot, which has no files.
_SERVICES: Final = """\
submit    unix n - n - - smtpd
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
lmtp      unix - - n - - lmtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

_OUTCOME: Final = re.compile(
    r"postfix/(?:smtp|lmtp)\[\d+\]: (?P<id>\w+): to=<(?P<to>.*?)>, .*"
    r"status=(?P<status>sent|deferred|bounced) \((?P<said>.*)\)$"
)

_RECEIVED: Final = re.compile(
    rb"^Received: from client\.example\.org .*\n\tby sender\.example\.org .* id (\w+);?\n",
    re.MULTILINE,
)


class Postfix(Service):
    """Postfix as a sender, whose smtpd takes mails over a unix socket, and which holds them back.

    So one can look at them in its queue before they go; then `release` sends all at once. Needs
    root, as Postfix does.

    Args:
        folder: an empty one of its own, which another user can enter.
        nexthop: where every mail goes, as `default_transport` has it: `lmtp:unix:/path`.
        settings: parameters of main.cf, beside or in place of its own.
    """

    name = "postfix"

    def __init__(
        self, folder: Path, nexthop: str, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder)
        self._config, self._queue = folder / "config", folder / "queue"
        self._data = folder / "data"
        self._settings = {
            "compatibility_level": "3.7",
            "queue_directory": str(self._queue),
            "data_directory": str(self._data),
            "daemon_directory": str(_DAEMONS),
            "maillog_file": str(folder / "log"),
            "maillog_file_prefixes": str(folder),
            "mail_owner": _OWNER,
            "setgid_group": _GROUP,
            "myhostname": "sender.example.org",
            "mynetworks": "127.0.0.1/32",
            "mydestination": "",
            "alias_maps": "",
            "local_recipient_maps": "",
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
            "default_transport": nexthop,
            "smtpd_client_restrictions": "check_client_access static:HOLD",
            # Nobody is to be told of a mail that could not be sent: the log says it.
            "notify_classes": "",
            # What it would do to a message, it is not to do: no header field is added, removed or
            # written anew, no long line is broken.
            "local_header_rewrite_clients": "",
            "remote_header_rewrite_domain": "",
            "always_add_missing_headers": "no",
            "message_drop_headers": "",
            "header_size_limit": str(4 << 20),
            "smtp_line_length_limit": "0",
            "lmtp_line_length_limit": "0",
            **(settings or {}),
        }

    @property
    def _submission(self) -> str:
        return f"{self._queue}/public/submit"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def outcomes(self) -> list[Outcome]:
        """See `Sender`."""
        found = map(_OUTCOME.search, self.log.splitlines())
        return [_outcome(match) for match in found if match]

    def command(self) -> Sequence[str]:
        # Not by postfix(1), which would leave before its master does.
        return [str(_DAEMONS / "master"), "-c", str(self._config), "-s"]

    def start(self) -> None:
        """See `Service`."""
        assert os.geteuid() == 0, "Postfix runs as root alone"
        self._install()
        super().start()

    def is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self._submission)
        return True

    def submit(self, mails: Sequence[Submitted]) -> list[str]:
        """See `Sender`: by its smtpd."""
        ids = []
        with Wire(f"unix:{self._submission}") as wire:
            assert wire.ask(HELLO).startswith("250 ")
            for mail in mails:
                wire.send(mail.commands())
                codes = [wire.reply()[:3] for _ in range(len(mail.recipients) + 2)]
                assert codes == ["250"] * (len(mail.recipients) + 1) + ["354"], codes
                reply = wire.ask(on_the_wire(mail.message))
                assert reply.startswith("250 2.0.0 Ok: queued as "), reply
                ids.append(reply.split()[-1])
        return ids

    def copies(self, ids: Sequence[str]) -> list[bytes]:
        """See `Sender`."""
        text = self._run("postcat", "-bhq", *ids)
        starts = {match[1].decode(): match.start() for match in _RECEIVED.finditer(text)}
        bounds = [*(starts[one] for one in ids), len(text)]
        return [
            text[begin:end].replace(b"\n", b"\r\n") for begin, end in itertools.pairwise(bounds)
        ]

    def release(self, outcomes: int) -> None:
        """See `Sender`."""
        self._run("postsuper", "-H", "ALL")
        # What postqueue(1) says to the queue manager, and is allowed to only by /etc/postfix: look
        # for all that is incoming or deferred, whatever is thought of its receiver.
        with socket.socket(socket.AF_UNIX) as manager:
            manager.connect(f"{self._queue}/public/qmgr")
            manager.sendall(b"FADI")
        until(lambda: len(self.outcomes()) >= outcomes)

    def _run(self, name: str, *words: str) -> bytes:
        done = subprocess.run(
            [program(name), "-c", str(self._config), *words],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stderr.decode()}"
        return done.stdout

    def _install(self) -> None:
        owner, group = pwd.getpwnam(_OWNER).pw_uid, grp.getgrnam(_GROUP).gr_gid
        self._config.mkdir()
        lines = [f"{name} = {value}\n" for name, value in self._settings.items()]
        (self._config / "main.cf").write_text("".join(lines), encoding="utf-8")
        (self._config / "master.cf").write_text(_SERVICES, encoding="utf-8")
        for path in (self._queue, self._queue / "pid"):
            path.mkdir()
        for path in (self._data, *(self._queue / name for name in _PRIVATE)):
            path.mkdir(mode=0o700)
            os.chown(path, owner, -1)
        for name, mode in (("maildrop", 0o730), ("public", 0o710)):
            path = self._queue / name
            path.mkdir()
            path.chmod(mode)
            os.chown(path, owner, group)


def _outcome(match: re.Match[str]) -> Outcome:
    status: Any = match["status"]
    return Outcome(match["id"], match["to"], status, match["said"], match[0])
