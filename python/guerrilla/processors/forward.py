"""Forward: hands mails on to another server, by SMTP or LMTP."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from guerrilla._core import Address
from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, StartError, Unavailable
from guerrilla.forward import (
    Connection,
    LoginRefusedError,
    LostError,
    Mail,
    Peer,
    ProtocolError,
    RefusedError,
    Result,
)
from guerrilla.forward.client import client_of
from guerrilla.forward.commands import Path
from guerrilla.forward.place import ForwardOptions, peer_of
from guerrilla.kept import Kept
from guerrilla.reply import TRY_LATER, Replies, Reply, fold

if TYPE_CHECKING:
    from collections.abc import Callable

    from guerrilla._core import Envelope, Transaction
    from guerrilla.reply import Outcome

__all__ = ["Forward"]

log = logging.getLogger("guerrilla.processors.forward")

NOBODY: Final = Reply(554, "5.5.1", "No valid recipients")

_Value = TypeVar("_Value")


class Forward(Processor):
    """Hands each mail on to an SMTP or LMTP server, and passes its replies back code for code.

    A mail is saved when that server has taken it. Where it is away, or closes the connection, the
    answer is `451`. In `validate_process` it asks that server about each recipient.
    """

    stores: ClassVar[bool] = True

    class Options(ForwardOptions):
        """Keys of `backend_config`."""

    def __init__(self, options: Options) -> None:
        """Connects to nothing."""
        super().__init__(options)
        self._options = options
        self._peer: Peer | None = None
        name = f"next server {options.forward_address}"
        self._kept = Kept(name, self._connect, Connection.close)

    def open(self) -> None:
        """Connects, and logs in where that is asked for.

        Raises:
            ConfigError: it does not know us by this password, a file of TLS cannot be read, or a
                name is missing.
            StartError: the server cannot be reached, or will not have us.
        """
        self._peer = peer_of(self._options)
        try:
            self._kept.open()
        except (RefusedError, LostError, ProtocolError) as error:
            kind = ConfigError if isinstance(error, LoginRefusedError) else StartError
            raise kind(self._told(str(error))) from error
        except OSError as error:
            why = self._told(f"cannot connect: {error.strerror or error}")
            raise StartError(why) from error

    def close(self) -> None:
        """Closes the connection."""
        self._kept.close()

    def save(self, envelope: Envelope) -> Outcome:
        """Hands the mail on, for all of its recipients at once.

        Raises:
            guerrilla.errors.Unavailable: the server is away, or did not answer in time.
        """
        if envelope.expired:  # while the mails before it in the batch were handed on
            return TRY_LATER
        if not envelope.rcpt_to:
            return NOBODY
        # LMTP has a reply for each recipient (RFC 2033 section 4.2), SMTP one for all.
        is_lmtp = envelope.protocol == "LMTP"
        apart = is_lmtp or len(envelope.rcpt_to) == 1
        mail = _mail(envelope)

        def relay(far: Connection) -> Result | None:
            if envelope.expired:  # while that connection was made
                return None
            return far.relay(mail, apart=apart, timeout=self._time_left(envelope))

        result = self._ask(envelope.queued_id, envelope, relay)
        if result is None:
            return TRY_LATER
        if result.doubt:
            log.error(
                "%s: perhaps taken by %s: %s", envelope.queued_id, self._kept.name, result.doubt
            )
        return self._outcome(envelope, result, is_lmtp)

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        """Asks whether the server would take the recipient.

        Raises:
            guerrilla.errors.Unavailable: the server is away, or did not answer in time.
        """
        sender, path = _sender(transaction), _path(recipient)
        declared = sender.value("SIZE")
        size = int(declared) if declared.isascii() and declared.isdigit() else 0
        timeout = self._options.forward_timeout
        reply = self._ask(
            f"RCPT TO:<{recipient}>",
            transaction,
            lambda far: far.verify(sender, path, size=size, timeout=timeout),
        )
        return None if reply.is_success else reply

    def _time_left(self, envelope: Envelope) -> float:
        """Seconds that a mail may take: it must not be taken once its sender was told 451."""
        most = 2 * self._options.gw_save_timeout
        # Never more than all of it: our clock may have been set back.
        left = min(envelope.received_at + most - time.time(), most)
        # Over, it is a mail that came from no socket, or our clock was set forward.
        return min(self._options.forward_timeout, left if left > 0 else math.inf)

    def _connect(self) -> Connection:
        if self._peer is None:
            raise RuntimeError("it is not open")
        return Connection(self._peer, self._options.forward_timeout)

    def _told(self, why: str) -> str:
        return f"backend_config.forward_address: {self._options.forward_address}: {why}"

    def _ask(
        self, name: str, transaction: Transaction, use: Callable[[Connection], _Value]
    ) -> _Value:
        """One transaction on the kept connection, on another one where that has just ended.

        Args:
            name: of what it is about, for the log.
            transaction: of our client.
            use: that with the next server.

        Raises:
            Unavailable: each transaction would fail now.
        """
        client = client_of(transaction) if self._options.forward_xclient else None
        connection = self._connection()
        is_used = connection.is_used
        try:
            if client is not None:
                connection.introduce(client, self._options.forward_timeout)
            value = use(connection)
        except LostError as error:
            self._kept.lost()
            if not is_used:
                raise Unavailable(f"{self._kept.name}: {error}") from error
            # Nothing of it can have been taken: the end of the message was not sent.
            log.info("%s: sent again on a new connection: %s", name, error)
            return self._ask(name, transaction, use)
        except (RefusedError, ProtocolError, OSError) as error:
            self._kept.lost()
            raise Unavailable(f"{self._kept.name}: {error}") from error
        except BaseException:
            self._kept.lost()
            raise
        if not connection.is_clean:
            self._kept.lost()
        return value

    def _connection(self) -> Connection:
        """The kept connection, or another one where that has ended or is too old."""
        connection = self._kept.get()
        is_over = connection.is_used and connection.idle >= self._options.forward_keep
        if connection.is_usable and not is_over:
            return connection
        self._kept.lost()
        connection = self._kept.get()
        if not connection.is_usable:
            self._kept.lost()
            raise Unavailable(f"{self._kept.name}: it says what it was not asked")
        return connection

    def _outcome(self, envelope: Envelope, result: Result, is_lmtp: bool) -> Outcome:
        """What the sender is told; None where all of it is saved."""
        told = [reply for reply in result.replies if reply is not None]
        taken = [reply for reply in told if reply.is_success]
        if len(taken) == len(envelope.rcpt_to):
            log.info("%s: taken by %s: %s", envelope.queued_id, self._kept.name, taken[0].text)
            return None
        if is_lmtp:
            return Replies(told)
        # Not all of it is saved, so it must not be 250 for those who would be, or are, taken.
        refusal = fold([reply for reply in told if not reply.is_success])
        if taken:
            log.warning(
                "%s: %d of %d recipients have it and its sender is told %d for all",
                envelope.queued_id, len(taken), len(envelope.rcpt_to), refusal.code,
            )  # fmt: skip
        return refusal


def _mail(envelope: Envelope) -> Mail:
    head = envelope.added_headers + envelope.delivery_header
    # What was never announced as UTF-8 goes on as what it is: old mail that is not quite right.
    has_utf8_header = envelope.smtputf8 and not (
        head.isascii() and bytes(envelope.header_data).isascii()
    )
    return Mail(
        sender=_sender(envelope),
        recipients=[_path(recipient) for recipient in envelope.rcpt_to],
        head=head,
        data=envelope.data,
        has_utf8_header=has_utf8_header,
    )


def _sender(transaction: Transaction) -> Path:
    sender = transaction.mail_from
    if sender.is_null:
        return Path("", transaction.parameters)
    return Path(str(sender), transaction.parameters, _in_ascii(sender))


def _path(recipient: Address) -> Path:
    return Path(str(recipient), recipient.parameters, _in_ascii(recipient))


def _in_ascii(address: Address) -> str:
    """With its host in A-form; empty where that makes no difference, or does not help."""
    if address.host.isascii() or not address.user.isascii():
        return ""
    return str(Address(address.user, address.ascii_host))
