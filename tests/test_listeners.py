"""Listeners of every kind: IPv4, IPv6 and unix sockets, several of them over one backend."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from tests.cores import core
from tests.running import DaemonError, RunningDaemon, listeners
from tests.wire import Wire


def test_several_servers_of_every_kind_share_one_backend(tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    interfaces = ["127.0.0.1:0", "[::1]:0", f"unix:{path}"]
    with RunningDaemon(tmp_path, config=listeners(tmp_path, *interfaces)) as daemon:
        assert len(daemon.addresses) == 3
        assert daemon.addresses[1].startswith("[::1]:")
        assert daemon.addresses[2] == f"unix:{path}"
        for index, address in enumerate(daemon.addresses):
            with Wire(address) as client:
                assert client.greeting.startswith(f"220 mx{index}.example.com ")
                reply = client.deliver(b"Subject: to %d\r\n\r\nbody" % index)
                assert reply.startswith("250 2.0.0 ")
        rows = daemon.rows()
    assert [row["subject"] for row in rows] == ["to 0", "to 1", "to 2"]
    assert not path.exists()


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_mode_of_a_unix_socket_is_not_the_umasks(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for mode in (None, 0o660, 0o606):
            path = tmp_path / f"{mode}.sock"
            with core(server={"address": f"unix:{path}", "unix_mode": mode}):
                found = stat.S_IMODE(path.lstat().st_mode)
            assert found == (0o777 & ~umask if mode is None else mode)
    finally:
        os.umask(before)


def test_half_open_and_gone_clients_of_a_unix_socket(tmp_path: Path) -> None:
    interface = f"unix:{tmp_path}/mail.sock"
    with RunningDaemon(tmp_path, config=listeners(tmp_path, interface)) as daemon:
        with Wire(interface).begin() as client:
            client.send(b"Subject: half open\r\n\r\n.\r\n")
            client.finish_sending()
            assert client.reply().startswith("250 ")
            assert client.rest() == []
        with Wire(interface).begin() as client:
            client.send(b"Subject: gone\r\n\r\n")
        with Wire(interface) as client:
            assert client.deliver(b"Subject: last\r\n\r\nbody").startswith("250 ")
        assert [row["subject"] for row in daemon.rows()] == ["half open", "last"]


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    config = listeners(tmp_path, f"unix:{path}")
    first = RunningDaemon(tmp_path, config=config)
    with Wire(first.addresses[0]) as client:
        assert client.greeting.startswith("220 ")
    first.kill()
    assert path.is_socket()
    with RunningDaemon(tmp_path, config=config) as second, Wire(second.addresses[0]) as client:
        assert client.greeting.startswith("220 ")
    assert not path.exists()


def test_a_socket_that_is_listened_to_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(DaemonError) as told:
            RunningDaemon(tmp_path, config=listeners(tmp_path, f"unix:{path}"))
        (line,) = str(told.value).splitlines()
        assert f"unix:{path}" in line
        assert "in use" in line
        assert path.is_socket()
