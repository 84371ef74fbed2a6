"""The control socket: what `guerrillad reload`, `status`, `stop` and the like talk to.

One JSON object a line, both ways. A request is `{"command": "status"}`, with an object of
`arguments` where it takes some; its answer is `{"ok": true, "result": …}`, or
`{"ok": false, "errors": ["…"]}`, a reload's with both. A connection may ask several things, one
after the other.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from guerrilla.config.writing import readable
from guerrilla.control import sockets
from guerrilla.control.requests import MAX_LINE, read_request
from guerrilla.control.spool import COMMANDS, DeskError, NoSpoolError
from guerrilla.errors import ConfigError, StartError, UpgradeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from os import PathLike

    from guerrilla.config import AppConfig
    from guerrilla.control.requests import Request
    from guerrilla.control.spool import Desk

log = logging.getLogger("guerrilla.control")

MAX_CLIENTS: Final = 8
"""Connections at a time; one more is told so and closed, once it has waited."""

ROOM_TIMEOUT: Final = 1.0
"""Seconds that one more waits for a place: who asks again and again comes sooner than the end of
his connection before is seen."""

TIMEOUT: Final = 10.0
"""Seconds for a request to come whole, and for an answer to be read."""

_PATIENCE: Final = 1.0
"""Seconds that answers under way have at the end."""

_PAUSE: Final = 0.5
"""Seconds after a connection that could not be taken, as without a free descriptor."""

STOP_GRACE: Final = 30.0
"""Seconds over `shutdown_timeout` that a stop may take, for workers and chains that close."""

_DOING: Final = frozenset(
    {"reload", "reopen-logs", "stop", "upgrade", "spool-retry", "spool-drop", "spool-replay"}
)
"""The commands that are worth a line at info."""

OFF: Final = "off"
"""As `control_socket`: none."""

Answer = dict[str, Any]


class Report(Protocol):
    """What a reload came to."""

    @property
    def changes(self) -> Sequence[object]:
        """What was published; each is a line for people by `str`."""

    @property
    def failures(self) -> Sequence[str]:
        """What could not be applied, a line each."""

    @property
    def warnings(self) -> Sequence[str]:
        """What works and is hardly meant, a line each."""

    @property
    def ok(self) -> bool:
        """Whether all was applied."""


class Controlled(Protocol):
    """What the socket needs of a daemon. All may be called from any thread."""

    @property
    def config(self) -> AppConfig:
        """What is in force."""

    def reload_config_file(self) -> Report:
        """Reads the config file again; raises `ConfigError` where nothing was applied."""

    def reopen_logs(self) -> None:
        """Opens the log files anew; raises `OSError` where one cannot be."""

    def shutdown(self) -> object:
        """Stops gracefully, and returns when it has stopped."""

    def status(self) -> dict[str, Any]:
        """What it does now, in values of JSON."""

    def stats(self) -> dict[str, Any]:
        """All its counters."""

    def spool_desk(self) -> Desk:
        """Who answers a client what it asks of the spool."""

    @property
    def upgrader(self) -> Callable[[], dict[str, Any]]:
        """Has the program started anew and take over; raises `UpgradeError` where it does not."""


def control_path(config: AppConfig, config_file: str | PathLike[str] | None) -> str | None:
    """Where the control socket is: the key, else beside the pid file, else beside the config.

    None where there is neither, or it is turned off. Relative to the working directory.
    """
    if config.control_socket is not None:
        return None if config.control_socket == OFF else config.control_socket
    beside = config.pid_file or config_file
    return f"{os.fspath(beside)}.sock" if beside is not None else None


def open_control(
    daemon: Controlled,
    config_file: str | PathLike[str] | None,
    opened: ExitStack,
    replaced: str | None = None,
) -> Control | None:
    """Starts the control socket of the daemon's config; `opened` stops it.

    One that nobody asked for and that cannot be is no reason not to serve mail: it is logged.

    Args:
        daemon: what is controlled.
        config_file: where its config came from.
        opened: what undoes it.
        replaced: the path where the process before this one answers until `Control.take`.

    Raises:
        StartError: `control_socket` is set, and it cannot be made.
    """
    path = control_path(daemon.config, config_file)
    if path is None:
        return None
    control = Control(daemon, path)
    try:
        if replaced is not None and control.path == os.path.abspath(replaced):
            control.start_beside()
        else:
            control.start()
    except OSError as error:
        problem = f"{path}: {error.strerror or error}"
        if daemon.config.control_socket is not None:
            raise StartError(f"control_socket: {problem}") from error
        log.warning("no control socket: %s; control_socket can name another place", problem)
        return None
    opened.callback(control.stop)
    return control


def move_control(
    control: Control | None, config: AppConfig, config_file: str | PathLike[str] | None
) -> None:
    """Has the control socket where those look for it who read the config of now.

    As after a reload with another pid file. Where it cannot be there it stays, and that is logged.
    """
    path = control_path(config, config_file)
    if control is None or path is None:
        return
    try:
        control.move(path)
    except OSError as error:
        reason = error.strerror or error
        log.warning("the control socket stays at %s: %s: %s", control.path, path, reason)


class Control:
    """The server's side: a thread that takes connections, and one for each of them.

    Args:
        daemon: what is controlled.
        path: of the socket; made by `start`, removed by `stop`.
        timeout: seconds for a request to come whole, and for an answer to be read.
    """

    def __init__(
        self, daemon: Controlled, path: str | PathLike[str], timeout: float = TIMEOUT
    ) -> None:
        """Opens nothing."""
        self.path = os.path.abspath(path)
        self._daemon = daemon
        self._timeout = timeout
        self._listener: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self.file = self.path
        """Where the socket is now: beside the path, until it takes that from another one."""
        self._thread = threading.Thread(target=self._run, name="guerrilla-control", daemon=True)
        self._room = threading.Condition()
        """Guards the clients; told where one goes."""
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._ended = threading.Event()
        self._stopper: threading.Thread | None = None
        self._commands: dict[str, Callable[[], Answer]] = {
            "reload": self._reload,
            "upgrade": self._upgrade,
            "reopen-logs": self._reopen_logs,
            "stop": self._stop_daemon,
            "status": lambda: _good(self._daemon.status()),
            "stats": lambda: _good(self._daemon.stats()),
            "config": lambda: _good(readable(self._daemon.config)),
        }

    def start(self) -> None:
        """Makes the socket and takes connections.

        Raises:
            OSError: somebody listens there, or it cannot be made.
        """
        self._listener = sockets.listen(self.path)
        self._identity = sockets.identity(self.path)
        self._thread.start()

    def start_beside(self) -> None:
        """The same where another process answers at the path, until `take`.

        Raises:
            OSError: it cannot be made.
        """
        self._listener, self.file = sockets.listen_beside(self.path)
        self._identity = sockets.identity(self.file)
        self._thread.start()

    def take(self) -> None:
        """Is at the path from now on, in place of another one: somebody answers at every moment.

        Raises:
            OSError: it cannot be; it stays beside.
        """
        if self.file != self.path:
            os.rename(self.file, self.path)
            self.file = self.path

    def take_back(self) -> None:
        """Is at the path again, where another one was in between.

        Raises:
            OSError: it cannot be.
        """
        if self._listener is None or sockets.identity(self.path) == self._identity:
            return
        listener, beside = sockets.listen_beside(self.path)
        known = sockets.identity(beside)
        try:
            os.rename(beside, self.path)
        except OSError:
            listener.close()
            sockets.remove(beside, known)
            raise
        self._listen_at(listener, known)

    def move(self, path: str | PathLike[str]) -> None:
        """Listens elsewhere from now on; connections that are open go on.

        Raises:
            OSError: somebody listens there, or it cannot be made; it stays where it is.
        """
        path = os.path.abspath(path)
        if path == self.path or self._listener is None or self._ended.is_set():
            return
        listener = sockets.listen(path)
        sockets.remove(self.path, self._identity)
        self.path = self.file = path
        self._listen_at(listener, sockets.identity(path))

    def stop(self) -> None:
        """Removes the socket and ends all connections. What is answered has a moment for it."""
        if self._listener is None:
            return
        # First, so that nobody comes who would not be answered.
        sockets.remove(self.file, self._identity)
        self._ended.set()
        with self._room:
            self._room.notify()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # Wakes who waits in `accept`.
        self._thread.join(_PATIENCE)
        self._listener.close()
        with self._room:
            clients = dict(self._clients)
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RD)  # It is not to wait for another request.
        limit = time.monotonic() + _PATIENCE
        for thread in clients.values():
            if thread is not threading.current_thread():
                thread.join(max(0.0, limit - time.monotonic()))

    def _listen_at(self, listener: socket.socket, known: tuple[int, int] | None) -> None:
        before, self._listener, self._identity = self._listener, listener, known
        if before is not None:
            with suppress(OSError):
                before.shutdown(socket.SHUT_RDWR)  # Wakes who waits in `accept`, and closes it.

    def _run(self) -> None:
        listener = self._listener
        while not self._ended.is_set() and listener is not None:
            try:
                client, _ = listener.accept()
            except OSError as error:
                if listener is not self._listener:
                    # It has moved, and nobody is left in its queue.
                    listener.close()
                    listener = self._listener
                elif not self._ended.is_set():
                    log.error("a connection cannot be taken: %s", error)  # noqa: TRY400
                    self._ended.wait(_PAUSE)
                continue
            self._take(client)

    def _take(self, client: socket.socket) -> None:
        client.settimeout(self._timeout)
        thread = threading.Thread(
            target=self._serve, args=(client,), name="guerrilla-control-client", daemon=True
        )
        with self._room:
            if self._room.wait_for(self._has_room, ROOM_TIMEOUT) and not self._ended.is_set():
                self._clients[client] = thread
                thread.start()
                return
        with client, suppress(OSError):
            client.setblocking(False)
            client.sendall(_line(_bad(f"more than {MAX_CLIENTS} connections at a time")))

    def _has_room(self) -> bool:
        """Whether there is a place, or none is wanted any more."""
        return len(self._clients) < MAX_CLIENTS or self._ended.is_set()

    def _serve(self, client: socket.socket) -> None:
        desk = self._daemon.spool_desk()
        try:
            with client:
                for line in self._lines(client):
                    self._obey(line, client, desk)
        except OSError as error:  # It went away, or does not read what it asked for.
            log.debug("a control connection ended: %s", error)
        except Exception:
            log.exception("a control connection failed")
        finally:
            desk.close()
            with self._room:
                self._clients.pop(client, None)
                self._room.notify()

    def _obey(self, line: bytes, client: socket.socket, desk: Desk) -> None:
        try:
            request = read_request(line, [*self._commands, *COMMANDS])
        except ValueError as error:
            client.sendall(_line(_bad(str(error))))
            return
        name = request.command
        level = logging.INFO if name in _DOING else logging.DEBUG
        log.log(level, "%s, as %s asks", name, _who(client))
        answer = self._refusal(name, client) or self._run_command(request, desk)
        client.sendall(_line(answer))
        if name == "stop" and answer["ok"]:
            # The end of the connection says that the daemon has stopped.
            self._ended.wait(self._daemon.config.shutdown_timeout + STOP_GRACE)

    def _refusal(self, name: str, client: socket.socket) -> Answer | None:
        """What is not for everybody who may open the socket.

        That may be the user whose rights the processes of root's have that receive mail: a program
        that root starts anew is not to be started by who may have changed what it finds.
        """
        if name != "upgrade" or _peer(client)[1] in (0, os.geteuid()):
            return None
        return _bad("only root may have a program of root's started anew")

    def _run_command(self, request: Request, desk: Desk) -> Answer:
        name, arguments = request
        try:
            if name in COMMANDS:
                return _of_spool(desk, name, arguments)
            if arguments:
                return _bad(f"{name} takes no arguments")
            return self._commands[name]()
        except Exception as error:
            log.exception("%s failed", name)
            return _bad(f"{type(error).__name__}: {error}: the log has more")

    def _lines(self, client: socket.socket) -> Iterator[bytes]:
        """Requests as they come, each within the time limit; too long a one is the last."""
        data = b""
        while True:
            limit = time.monotonic() + self._timeout
            while b"\n" not in data and len(data) <= MAX_LINE:
                client.settimeout(max(0.001, limit - time.monotonic()))
                more = client.recv(MAX_LINE)
                if not more:
                    if data.strip():
                        yield data
                    return
                data += more
            client.settimeout(self._timeout)
            line, _, data = data.partition(b"\n")
            if len(line) > MAX_LINE:
                client.sendall(_line(_bad(f"a request has at most {MAX_LINE} bytes")))
                return
            yield line

    def _reload(self) -> Answer:
        try:
            report = self._daemon.reload_config_file()
        except ConfigError as error:
            for problem in error.problems:
                log.error("reload: %s", problem)  # noqa: TRY400  # no fault of code
            log.error("reload: nothing of the config was applied")  # noqa: TRY400
            return _bad(*error.problems) | {"result": {"changes": [], "warnings": []}}
        answer: Answer = {
            "ok": report.ok,
            "result": {
                "changes": [str(change) for change in report.changes],
                "warnings": list(report.warnings),
            },
        }
        return answer if report.ok else answer | {"errors": list(report.failures)}

    def _upgrade(self) -> Answer:
        try:
            return _good(self._daemon.upgrader())
        except UpgradeError as error:
            return _bad(*str(error).splitlines())

    def _reopen_logs(self) -> Answer:
        try:
            self._daemon.reopen_logs()
        except OSError as error:
            return _bad(f"{error}: the old log stays open")
        return _good(None)

    def _stop_daemon(self) -> Answer:
        """Answers at once; the connection then lasts until the daemon has stopped."""
        with self._room:
            if self._stopper is None:
                # The daemon's end stops this socket too, and waits for its threads.
                self._stopper = threading.Thread(
                    target=self._daemon.shutdown, name="guerrilla-stop", daemon=True
                )
                self._stopper.start()
        timeout = self._daemon.config.shutdown_timeout
        return _good({"pid": os.getpid(), "shutdown_timeout": timeout})


def _of_spool(desk: Desk, name: str, arguments: Mapping[str, Any]) -> Answer:
    try:
        return _good(desk.answer(name, arguments))
    except NoSpoolError:
        return _bad("this daemon has no spool")
    except (ValueError, LookupError, DeskError) as error:
        return _bad(*str(error).splitlines())
    except OSError as error:
        return _bad(f"{error.filename or 'the spool'}: {error.strerror or error}")


def _good(result: object) -> Answer:
    return {"ok": True, "result": result}


def _bad(*errors: str) -> Answer:
    return {"ok": False, "errors": list(errors)}


def _line(answer: Answer) -> bytes:
    # JSON escapes the line ends within texts; what is none of its values becomes a text.
    return json.dumps(answer, default=str).encode("ascii") + b"\n"


def _who(client: socket.socket) -> str:
    """Process and user at the other end, for the log."""
    pid, uid = _peer(client)
    return f"process {pid} of user {uid}"


def _peer(client: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the kernel knows them."""
    size = struct.calcsize("3i")
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, _ = struct.unpack("3i", found)
    return pid, uid
