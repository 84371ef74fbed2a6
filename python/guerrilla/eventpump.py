"""Events of mails and connections, from the core to those who have subscribed."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from guerrilla.events import ConnectionEvent, Event, MailEvent

if TYPE_CHECKING:
    from guerrilla._core import Core, Transaction
    from guerrilla.events import EventBus

log = logging.getLogger("guerrilla.events")

_MAILS: Final = (Event.MAIL_SAVED, Event.MAIL_REFUSED)
_CONNECTIONS: Final = (Event.CONNECTION_OPENED, Event.CONNECTION_CLOSED)
_BATCH: Final = 512
_WAIT: Final = 1.0


class EventPump:
    """The thread that publishes them, started with the first who wants to hear of any.

    Before that the core makes none, and there is no thread.
    """

    def __init__(self, core: Core, bus: EventBus) -> None:
        """Looks who has subscribed, now and whenever that changes."""
        self._core = core
        self._bus = bus
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        bus.on_change = self.look
        self.look()

    def look(self) -> None:
        """Tells the core what somebody would hear."""
        mails, connections = (any(map(self._bus.has, kind)) for kind in (_MAILS, _CONNECTIONS))
        with self._lock:
            self._core.want_events(mails, connections)
            if self._thread is None and (mails or connections):
                run = threading.Thread(target=self._run, name="guerrilla-events", daemon=True)
                self._thread = run
                run.start()

    def end(self) -> None:
        """Waits for the last event, after the core was closed."""
        self._bus.on_change = lambda: None
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (events := self._core.receive_events(_BATCH, _WAIT)) is not None:
            for event in events:
                match event:
                    case (opened, client):
                        self._publish_connection(opened, client)
                    case (transaction, queued_id, size, reply):
                        mail = MailEvent.about(transaction, queued_id, size, reply)
                        self._bus.publish(mail.event, mail)

    def _publish_connection(self, opened: bool, client: Transaction) -> None:
        event = Event.CONNECTION_OPENED if opened else Event.CONNECTION_CLOSED
        if self._bus.has(event):
            found = ConnectionEvent(
                client.client_id, client.server, client.remote_ip, client.remote_port
            )
            self._bus.publish(event, found)
