"""What the tests of FastCGI share: where mails go, and a stage that leads to PHP-FPM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guerrilla._core import Address, make_check
from guerrilla.processors.fastcgi import FastCGI
from guerrilla.reply import Reply
from tests.services.phpfpm import PhpFpm

EXAMPLES = Path(__file__).parents[2] / "examples" / "fastcgi"
SAVE = str(EXAMPLES / "save.php")
VALIDATE = str(EXAMPLES / "validate.php")
UNRULY = str(Path(__file__).parents[1] / "data" / "unruly.php")


class Mailbox:
    """The folder that `examples/fastcgi/save.php` saves into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """For the pool."""
        return {"MAIL_FOLDER": str(self.folder), "RECIPIENTS": str(EXAMPLES / "recipients.txt")}

    def mails(self) -> dict[str, bytes]:
        """What is stored, by `queued_id`."""
        return {path.stem: path.read_bytes() for path in self.folder.glob("*.eml")}

    def envelope(self, queued_id: str) -> dict[str, Any]:
        """What is stored beside it."""
        text = (self.folder / f"{queued_id}.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        return found


def options(php: PhpFpm, **keys: object) -> dict[str, object]:
    """Keys of `backend_config` for the example's scripts; `keys` are more of them or others."""
    scripts = {"fcgi_script_filename_save": SAVE, "fcgi_script_filename_validate": VALIDATE}
    return {**php.keys, **scripts, **keys}


def opened(php: PhpFpm, **keys: object) -> FastCGI:
    """A stage that is open."""
    stage = FastCGI(FastCGI.Options.model_validate(options(php, **keys)))
    stage.open()
    return stage


def ask(stage: FastCGI, user: str) -> Reply | None:
    """What is said of `user@example.com`."""
    transaction = make_check("any@example.com").transaction
    return stage.validate(transaction, Address(user, "example.com"))
