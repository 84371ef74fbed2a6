"""The example for PHP-FPM: its very files, at other places."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.fastcgi.helpers import Mailbox
from tests.running import RunningDaemon
from tests.services.phpfpm import PhpFpm
from tests.wire import HELLO, Wire

FOLDER = Path(__file__).parents[2] / "examples"


def example(name: str, **places: str) -> str:
    """The text of a file of the example, with other places in it."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    for place, other in places.items():
        assert place in text
        text = text.replace(place, other)
    return text


def test_the_example_runs(tmp_path: Path) -> None:
    """The example for FastCGI: config, pool, both scripts and the list of recipients."""
    scripts = tmp_path / "srv"
    scripts.mkdir()
    for name in ("fastcgi/save.php", "fastcgi/validate.php", "fastcgi/recipients.txt"):
        (tmp_path / "srv" / Path(name).name).write_text(example(name), encoding="utf-8")
    box = Mailbox(tmp_path / "mail")
    php = PhpFpm(tmp_path)
    php.configure(_pool(php.address, box.folder, scripts / "recipients.txt"))
    text = example(
        "fastcgi/guerrilla.toml",
        **{
            "127.0.0.1:2525": "127.0.0.1:0",
            "/run/php/guerrilla.sock": php.address,
            "/srv/guerrilla": str(scripts),
        },
    )
    with php, RunningDaemon(tmp_path, config=text) as daemon, Wire(daemon.port) as wire:
        wire.ask(HELLO)
        wire.ask(b"MAIL FROM:<from@example.org>\r\n")
        assert wire.ask(b"RCPT TO:<mallory@example.com>\r\n").startswith("550 5.1.1 ")
        for user in (b"to", b"alice"):
            assert wire.ask(b"RCPT TO:<%s@example.com>\r\n" % user).startswith("250 ")
        wire.ask(b"DATA\r\n")
        reply = wire.ask(b"Subject: hello\r\n\r\nbody\r\n.\r\n")
        assert reply.startswith("250 2.0.0 OK: queued as ")
    [(queued_id, mail)] = box.mails().items()
    assert reply.endswith(queued_id)
    assert mail.endswith(b"\r\nSubject: hello\r\n\r\nbody\r\n")
    assert box.envelope(queued_id)["rcpt_to"] == ["to@example.com", "alice@example.com"]
    assert not list(box.folder.glob("*.tmp"))


def _pool(address: str, mails: Path, recipients: Path) -> str:
    me = pwd.getpwuid(os.geteuid()).pw_name
    text = example(
        "fastcgi/pool.conf",
        **{
            "/run/php/guerrilla.sock": address,
            "= www-data": f"= {me}",
            "listen.owner = guerrilla": f"listen.owner = {me}",
            "/var/mail/guerrilla": str(mails),
            "/etc/guerrilla/recipients.txt": str(recipients),
        },
    )
    # Groups need not be named as their users are.
    return "\n".join(
        line for line in text.splitlines() if not line.startswith(("group", "listen.group"))
    )
