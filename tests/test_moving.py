"""Servers that move while clients come, in one process and in several: nobody is refused."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import pytest

from guerrilla.cli import main
from tests.running import RunningDaemon, listeners
from tests.services.base import free_port


class Clients:
    """Clients of a port that come all the time, and what they hear first."""

    def __init__(self, port: int) -> None:
        self.heard: Counter[str] = Counter()
        self.tries: Counter[int] = Counter()
        """How often each had to ask again to be connected, which is after a second at first."""
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def more(self, count: int) -> None:
        """Waits until so many more have come."""
        wanted = self.heard.total() + count
        while self.heard.total() < wanted:
            time.sleep(0.002)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), 30) as client:
                    self.tries[_repeats(client)] += 1
                    self.heard[client.recv(1000)[:4].decode() or "closed"] += 1
                    client.sendall(b"QUIT\r\n")
                    while client.recv(1000):
                        pass
            except OSError as error:
                self.heard[repr(error)] += 1
            time.sleep(0.002)  # not to use up all ports


def _repeats(client: socket.socket) -> int:
    """What the kernel has sent again on a connection: `tcpi_total_retrans`, behind 23 others."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", info, 100)[0])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_moves_and_nobody_is_refused(tmp_path: Path, processes: int, shared: bool) -> None:
    port = free_port()

    def config(interface: str) -> str:
        lines = [f"processes = {processes}", f"shared_sockets = {str(shared).lower()}"]
        return "\n".join([*lines, listeners(tmp_path, interface)])

    places = [f"127.0.0.1:{port}", f"0.0.0.0:{port}", f":{port}", f"localhost:{port}"]
    with (
        RunningDaemon(tmp_path, config=config(places[0])) as daemon,
        Clients(port) as clients,
    ):
        for place in [*places[1:], *places]:
            clients.more(20)
            daemon.config_file.write_text(config(place))
            assert main(["reload", "-c", str(daemon.config_file)]) == 0
        clients.more(20)
    assert clients.heard.keys() <= {"220 ", "421 "}
    assert clients.heard["220 "] >= 100
