"""A private PHP-FPM."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from guerrilla.fcgi import Connection
from tests.services.base import STOP_TIMEOUT, Service, free_port, program


class PhpFpm(Service):
    """PHP-FPM with one pool, on a unix socket or a port, without any configuration of the machine.

    Args:
        folder: an empty one of its own.
        tcp: whether it listens on a port of 127.0.0.1 in place of a unix socket.
        children: processes of the pool, each for one connection.
        environment: what the scripts find with `getenv`.
        pool: more lines for the pool.
        values: settings of PHP for the pool, by name.
    """

    name = "php-fpm"

    def __init__(
        self,
        folder: Path,
        *,
        tcp: bool = False,
        children: int = 4,
        environment: Mapping[str, str] | None = None,
        pool: Sequence[str] = (),
        values: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.kind = "tcp" if tcp else "unix"
        self.address = f"127.0.0.1:{free_port()}" if tcp else str(folder / "fpm.sock")
        lines = [
            "[tests]",
            f"listen = {self.address}",
            "pm = static",
            f"pm.max_children = {children}",
            # Only root changes its user; then it has to say which one.
            *(["user = root", "group = root"] if os.geteuid() == 0 else []),
            # What Debian's php.ini has for production.
            "php_value[display_errors] = 0",
            "php_value[log_errors] = 1",
            *pool,
            *(f"env[{name}] = {value}" for name, value in (environment or {}).items()),
            *(f"php_admin_value[{name}] = {value}" for name, value in (values or {}).items()),
        ]
        self.configure("\n".join(lines))

    def configure(self, pool: str) -> None:
        """Sets its pool in place of the one that it was made with; before it starts."""
        # Without a limit the master waits for a script that hangs when it is to stop.
        top = ["[global]", f"error_log = {self.folder / 'fpm.log'}", "process_control_timeout = 2"]
        self._config = self.folder / "fpm.conf"
        self._config.write_text("\n".join([*top, pool, ""]), encoding="utf-8")

    @property
    def keys(self) -> dict[str, object]:
        """The keys of `backend_config` that lead to it."""
        return {"fcgi_connection_type": self.kind, "fcgi_connection_address": self.address}

    def command(self) -> Sequence[str]:
        names = sorted((path.name for path in Path("/usr/sbin").glob("php-fpm*")), reverse=True)
        root = ["-R"] if os.geteuid() == 0 else []
        binary = program(*names, "php-fpm")
        return [binary, "--nodaemonize", "-n", *root, "-y", str(self._config)]

    def is_ready(self) -> bool:
        host, _, port = self.address.rpartition(":")
        Connection((host, int(port)) if self.kind == "tcp" else self.address, 5).close()
        return True

    def workers(self) -> list[int]:
        """The processes of its pool."""
        assert self.process is not None
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(word) for word in text.split()]

    def kill(self) -> None:
        """Ends it and its workers at once: those outlive their master and would go on serving."""
        workers = []
        for pid in self.workers() if self.process else []:
            with contextlib.suppress(ProcessLookupError):  # One that has just ended by itself.
                workers.append(os.pidfd_open(pid))
        super().kill()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker, signal.SIGKILL)
            assert select.select([worker], [], [], STOP_TIMEOUT)[0], "a worker did not end"
            os.close(worker)

    def pause(self) -> None:
        super().pause()
        _signal(self.workers(), signal.SIGSTOP)

    def resume(self) -> None:
        _signal(self.workers(), signal.SIGCONT)
        super().resume()


def _signal(workers: Sequence[int], number: signal.Signals) -> None:
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
