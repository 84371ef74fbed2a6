"""`guerrillad` that tells its counters: `telling.py serve -c FILE`.

Whoever connects to `counters.sock` in its folder reads them as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from unittest import mock

from guerrilla import cli
from guerrilla.commands import serve
from guerrilla.daemon import Daemon


class Telling(Daemon):
    """A daemon beside whose work a thread tells how it is."""

    def start(self) -> None:
        """Starts that thread first."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("counters.sock")
        listening.listen()
        threading.Thread(target=self._tell, args=(listening,), daemon=True).start()
        super().start()

    def _tell(self, listening: socket.socket) -> None:
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(json.dumps(self.stats()).encode())


if __name__ == "__main__":
    with mock.patch.object(serve, "Daemon", Telling):
        sys.exit(cli.main())
