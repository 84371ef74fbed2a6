"""FastCGI: hands mails and recipients to scripts, by PHP-FPM or any other FastCGI server."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

import pydantic

from guerrilla.config.fields import Flag, PositiveSeconds, one_of
from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, StartError, Unavailable, expected
from guerrilla.fcgi import Connection, LostError, ProtocolError
from guerrilla.fcgi.form import CONTENT_TYPE, form
from guerrilla.fcgi.response import UnclearError, parse, saved, validated
from guerrilla.kept import Kept
from guerrilla.reply import TRY_LATER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guerrilla._core import Address, Envelope, Reply, Transaction
    from guerrilla.fcgi.connection import Place
    from guerrilla.fcgi.records import Answer
    from guerrilla.reply import Outcome

__all__ = ["FastCGI"]

log = logging.getLogger("guerrilla.processors.fastcgi")

PATH_LIMIT: Final = 107
"""Octets of the path of a unix socket: what `sockaddr_un` of unix(7) has room for."""
MAX_PORT: Final = 65_535
FIELDS_LIMIT: Final = 100_000
"""More fields than any mail has recipients."""
PHP_VALUES: Final = f"post_max_size=0\nmax_input_vars={FIELDS_LIMIT}\nenable_post_data_reading=1"
"""Settings of PHP for our requests, as PHP-FPM takes them: without them a script is run without the
mail where it is over `post_max_size`, and may say SAVED all the same."""

_ConnectionType = Annotated[Literal["unix", "tcp"], one_of("unix", "tcp")]


class FastCGI(Processor):
    """Posts each mail to one script, and asks another one about each recipient.

    A mail is saved when the script says `SAVED`. Where the server is away, or the script fails or
    says anything else, the answer is `451 4.3.0`.
    """

    stores: ClassVar[bool] = True

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        fcgi_script_filename_save: str = ""
        """The script that saves a mail: its path as the FastCGI server sees it."""
        fcgi_script_filename_validate: str = ""
        """The script that is asked about a recipient, likewise; for `validate_process`."""
        fcgi_connection_type: _ConnectionType = "unix"
        """How the server is reached."""
        fcgi_connection_address: str
        """The path of its unix socket, or `host:port`."""
        fcgi_timeout: PositiveSeconds = 10.0
        """Time that a script may take for a mail or a recipient, the way to it included."""
        fcgi_repeat: Flag = False
        """Posts a mail once more, with the same `queued_id`, where the server closes a kept
        connection without a word. For scripts that save a `queued_id` once however often they get
        it."""

        @pydantic.field_validator("fcgi_script_filename_save", "fcgi_script_filename_validate")
        @classmethod
        def _script(cls, path: str) -> str:
            if path and (not path.startswith("/") or "\0" in path):
                raise expected("an absolute path", path)
            return path

        @pydantic.field_validator("fcgi_connection_address")
        @classmethod
        def _address(cls, address: str, info: pydantic.ValidationInfo) -> str:
            if info.data.get("fcgi_connection_type") == "tcp":
                _host_and_port(address)
            elif not 0 < len(os.fsencode(address)) <= PATH_LIMIT or "\0" in address:
                raise expected(f"the path of a unix socket, of 1 to {PATH_LIMIT} octets", address)
            return address

    def __init__(self, options: Options) -> None:
        """Connects to nothing."""
        super().__init__(options)
        self._options = options
        address = options.fcgi_connection_address
        self._place: Place = (
            address if options.fcgi_connection_type == "unix" else _host_and_port(address)
        )
        self.php_values = PHP_VALUES
        """What is asked of PHP for a mail; see `PHP_VALUES`."""
        self._kept = Kept(f"FastCGI server {address}", self._connect, Connection.close)

    def open(self) -> None:
        """Connects.

        Raises:
            ConfigError: no script is named.
            StartError: the server cannot be reached.
        """
        options = self._options
        scripts = options.fcgi_script_filename_save, options.fcgi_script_filename_validate
        if not any(scripts):
            msg = (
                "backend_config.fcgi_script_filename_save, fcgi_script_filename_validate: "
                "expected the path of a script in one of them or both"
            )
            raise ConfigError(msg)
        try:
            self._kept.open()
        except OSError as error:
            msg = f"backend_config.fcgi_connection_address: {options.fcgi_connection_address}: "
            raise StartError(f"{msg}cannot connect: {error.strerror or error}") from error
        for script in scripts:
            # No error: the server may have its own file system. Nor is the script called to try it,
            # since it might take that for a mail.
            if script and not os.path.exists(script):
                log.warning("%s: not found here; the FastCGI server has to have it", script)

    def close(self) -> None:
        """Closes the connection."""
        self._kept.close()

    def save(self, envelope: Envelope) -> Outcome:
        """Posts the mail, for all of its recipients at once.

        Raises:
            guerrilla.errors.Unavailable: the server is away, or did not answer in time.
        """
        if envelope.expired:  # while the mails before it in the batch were saved
            return TRY_LATER
        name = envelope.queued_id
        script = self._options.fcgi_script_filename_save
        if not script:
            log.error("%s: not saved: fcgi_script_filename_save is not set", name)
            return TRY_LATER
        mail = bytes(envelope)
        content = form(_fields(envelope, mail))
        params = _params(script, envelope) | {
            "REQUEST_METHOD": "POST",
            "QUERY_STRING": "",
            "CONTENT_TYPE": CONTENT_TYPE,
            "CONTENT_LENGTH": str(len(content)),
            "PHP_ADMIN_VALUE": self.php_values,
        }
        repeat = self._options.fcgi_repeat
        try:
            response = parse(self._ask(name, params, content, repeat=repeat))
            return saved(response, len(mail))
        except (UnclearError, LostError) as error:
            self._failed(f"{name}: not saved by {script}: {error}")
            return TRY_LATER

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        """Asks about the recipient.

        Raises:
            guerrilla.errors.Unavailable: the server is away, or did not answer in time.
        """
        name = f"RCPT TO:<{recipient}>"
        script = self._options.fcgi_script_filename_validate
        if not script:
            log.error("%s: not checked: fcgi_script_filename_validate is not set", name)
            return TRY_LATER
        query = form({"rcpt_to": str(recipient)}).decode()
        params = _params(script, transaction) | {"REQUEST_METHOD": "GET", "QUERY_STRING": query}
        try:
            return validated(parse(self._ask(name, params, b"", repeat=True)))
        except (UnclearError, LostError) as error:
            self._failed(f"{name}: not checked by {script}: {error}")
            return TRY_LATER

    def _failed(self, text: str) -> None:
        # A process whose script failed may be about to end; the next mail shall not hear of it.
        self._kept.lost()
        log.error("%s", text)

    def _connect(self) -> Connection:
        return Connection(self._place, self._options.fcgi_timeout)

    def _ask(self, name: str, params: Mapping[str, str], content: bytes, *, repeat: bool) -> Answer:
        """One request on the kept connection.

        Args:
            name: of what is asked about, for the log.
            params: of the request.
            content: of the request.
            repeat: whether it may be sent again where the script may have had it already.

        Raises:
            LostError: this request failed; the next may not.
            Unavailable: each request would fail now.
        """
        connection = self._kept.get()
        if not connection.is_usable:  # closed by the server, as it does from time to time
            self._kept.lost()
            connection = self._kept.get()
        may_repeat = connection.is_used
        try:
            answer = connection.ask(params, content, self._options.fcgi_timeout)
        except LostError as error:
            self._kept.lost()
            if not (may_repeat and (error.untouched or (error.unanswered and repeat))):
                raise
            log.info("%s: sent again on a new connection: %s", name, error)
            return self._ask(name, params, content, repeat=repeat)
        except (ProtocolError, OSError) as error:
            self._kept.lost()
            raise Unavailable(f"{self._kept.name}: {error}") from error
        if answer.errors:
            said = answer.errors.decode("utf-8", "backslashreplace")
            log.warning("%s: %s complained: %s", name, params["SCRIPT_FILENAME"], said)
        return answer


def _params(script: str, transaction: Transaction) -> dict[str, str]:
    """What is the same for each request: the variables of CGI (RFC 3875 §4.1)."""
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "guerrilla",
        "SERVER_NAME": transaction.host_name,
        "SERVER_PORT": "25",
        "REMOTE_ADDR": "127.0.0.1",  # who asks is this daemon; its client is the field remote_ip
        "SCRIPT_FILENAME": script,
        "SCRIPT_NAME": script,
        "REQUEST_URI": script,
    }


def _fields(envelope: Envelope, mail: bytes) -> dict[str, str | bytes]:
    """What the script has in `$_POST`, the mail last."""
    fields: dict[str, str | bytes] = {
        "remote_ip": envelope.remote_ip,
        "subject": envelope.subject,
        "tls_on": "true" if envelope.tls else "false",
        "helo": envelope.helo,
        "mail_from": "" if envelope.mail_from.is_null else str(envelope.mail_from),
        "queued_id": envelope.queued_id,
        "body_size": str(len(mail)),
    }
    for number, recipient in enumerate(envelope.rcpt_to):
        fields[f"rcpt_to_{number}"] = str(recipient)
    return fields | {"body": mail}


def _host_and_port(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_bracketed else host
    is_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= MAX_PORT
    if not (colon and bare and is_port) or (":" in bare and not is_bracketed):
        raise expected("host:port, such as '127.0.0.1:9000' or '[::1]:9000'", address)
    return bare, int(port)
