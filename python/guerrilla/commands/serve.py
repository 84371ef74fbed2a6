"""`guerrillad serve`: runs the daemon until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import threading
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from guerrilla._core import __version__
from guerrilla.commands.common import (
    add_command,
    add_config,
    drop_output,
    find_config,
    no_config,
    program,
    sql_options,
)
from guerrilla.config import AppConfig, load, mask_value, parse_listen_interface
from guerrilla.daemon import Daemon
from guerrilla.errors import GuerrillaError
from guerrilla.processes.activation import passed_sockets
from guerrilla.processes.handover import Predecessor
from guerrilla.processes.parent import Parent
from guerrilla.processes.place import Place, count_processes
from guerrilla.processes.upgrade import Launch, Upgrade
from guerrilla.running.reloading import read_again
from guerrilla.running.signals import Signals, StoppedEarly
from guerrilla.running.systemd import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guerrilla.commands.common import Subparsers
    from guerrilla.config import ServerConfig

log = logging.getLogger("guerrilla.serve")

_OTHERS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that are obeyed beside those that stop it."""

_MORE: Final = """\
signals:
  SIGTERM, SIGINT (Ctrl-C), SIGQUIT   stop gracefully; a second one stops at once
  SIGHUP                              read the config file again
  SIGUSR1                             re-open the log files
  SIGUSR2                             start the program anew, which takes over without a gap

Without a config file the server listens on 127.0.0.1:2525 and stores nothing.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "serve", run, help_="receive mail until stopped", more=_MORE)
    add_config(parser)
    parser.add_argument(
        "-p",
        "--pid-file",
        "--pidFile",
        metavar="FILE",
        help="write the process id there (default: pid_file of the config)",
    )


def run(args: argparse.Namespace) -> int:
    """Serves; 0 after a graceful stop, 1 when sessions or workers had to be cut off.

    Raises:
        ConfigError: a bad config.
        StartError: the daemon cannot start.
    """
    launch = Launch.of_now()
    try:
        with Signals(others=_OTHERS) as signals:
            before = Predecessor.find()
            with nullcontext() if before is None else before.told():
                daemon = _daemon(args, before)
                served = _Served(daemon, launch, follows=before is not None)
                served.start(signals)
            return served.run(signals)
    except StoppedEarly as error:
        os.write(2, f"guerrillad: {error}: stopped before it had started\n".encode())
        return 0


class _Served:
    """A daemon, with the service manager and the upgrade around it.

    Args:
        daemon: what is to run.
        launch: how this program was started.
        follows: it takes the place of another one, which is the service until it has started.
    """

    def __init__(self, daemon: Daemon | Parent, launch: Launch, *, follows: bool) -> None:
        """Starts nothing."""
        self._daemon = daemon
        self._is_service = not follows
        self._manager = ServiceManager()
        self._upgrade = Upgrade(daemon, launch, self._manager.replaced_by)
        self._reader = _Reader(daemon)
        # Whoever asks for it: a signal, the control socket, a change of the file.
        daemon.around_reload = self._around_reload
        daemon.on_stop = self._stopping
        daemon.upgrader = self._upgrade.run

    def start(self, signals: Signals) -> None:
        """Starts the daemon; what was opened is closed where that fails.

        Raises:
            StartError: it cannot start.
        """
        if isinstance(self._daemon, Parent):
            signals.last = self._daemon.kill
        try:
            self._daemon.start()
            signals.queued = self._is_service = True
        except BaseException:
            self._end()
            raise

    def run(self, signals: Signals) -> int:
        """Until the end; the exit status.

        Raises:
            GivenUpError: its processes die.
        """
        daemon = self._daemon
        try:
            self._manager.ready(_status(daemon))
            self._manager.watch(daemon.is_well)
            _say(*describe(daemon))
            threading.Thread(target=_await_end, args=(daemon, signals), daemon=True).start()
            for number in signals.line():
                self._obey(number)
        finally:
            graceful = self._end()
        if isinstance(daemon, Parent) and daemon.cause is not None:
            raise GivenUpError(daemon.cause)
        return 0 if graceful else 1

    def _obey(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reader.ask()
        elif number == signal.SIGUSR1:
            _reopen_logs(self._daemon)
        elif number == signal.SIGUSR2:
            self._upgrade.run_beside()
        else:
            log.info("%s: stopping", signal.Signals(number).name)
            # The main thread has to stay free for a second signal.
            _beside(self._daemon.shutdown, "guerrilla-stop")

    def _end(self) -> bool:
        """Stops; whether gracefully."""
        self._stopping()
        # Mostly it only asks how it ended; but an error here is no reason to cut anybody off.
        graceful = self._daemon.shutdown()
        self._manager.close()
        return bool(graceful)

    @contextmanager
    def _around_reload(self) -> Iterator[None]:
        with self._upgrade.reloading(), self._manager.reloading(partial(_status, self._daemon)):
            yield

    def _stopping(self) -> None:
        """The service stops, but where another process is it: the one before, or after."""
        self._upgrade.stop()
        if self._is_service and not self._upgrade.is_done:
            self._manager.stopping()


class _Reader:
    """Reads the config file again, once for any number of signals that come meanwhile.

    In a thread of its own: behind a reload, a signal to stop would wait in line.
    """

    def __init__(self, daemon: Daemon | Parent) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self._is_wanted = self._is_under_way = False

    def ask(self) -> None:
        """Does not wait for it."""
        with self._lock:
            self._is_wanted = True
            if self._is_under_way:
                return
            self._is_under_way = True
        _beside(self._run, "guerrilla-reload")

    def _run(self) -> None:
        while self._has_more():
            read_again(self._daemon, "SIGHUP")

    def _has_more(self) -> bool:
        with self._lock:
            self._is_under_way, self._is_wanted = self._is_wanted, False
            return self._is_under_way


def _beside(run: Callable[[], object], name: str) -> None:
    """Runs it in a thread of its own, or here where there is none to be had."""
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:
        run()


class GivenUpError(GuerrillaError):
    """Its processes die, each as the one before it; the text says how."""


def _say(*lines: str) -> None:
    """Prints; that nobody reads it, or that the disk is full, is no reason not to serve."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError:
        drop_output()


def _daemon(args: argparse.Namespace, before: Predecessor | None) -> Daemon | Parent:
    """What runs the config file, or the defaults, with what the command line overrides.

    With the sockets of the process before it, or of systemd.
    """
    path = find_config(args.config)
    if path is None:
        _say(f"{no_config()}: starting with the defaults")
    config = AppConfig.default() if path is None else load(path)
    overrides: dict[str, Any] = {}
    if args.pid_file is not None:
        overrides["pid_file"] = args.pid_file
    if args.verbose:
        overrides["log_level"] = "debug"
    place = _place(config, path, before)
    processes = count_processes(config)
    if processes > 1:
        return Parent(config, path, processes, overrides=overrides, place=place)
    return Daemon(config, path, overrides=overrides, place=place)


def _place(config: AppConfig, path: Path | None, before: Predecessor | None) -> Place:
    """Its sockets: of the process before it, and of systemd."""
    if before is None:
        return Place(passed=passed_sockets(config, path))
    sockets = before.offer.sockets
    # Once it has started, the one before has let go of them.
    ours = frozenset(address for address, _ in sockets)
    return Place(sockets=sockets, ours=ours, passed=before.offer.passed, before=before)


def _status(daemon: Daemon | Parent) -> str:
    """A line for `systemctl status`."""
    return f"listening on {', '.join(daemon.addresses)}"


def _reopen_logs(daemon: Daemon | Parent) -> None:
    try:
        daemon.reopen_logs()
    except OSError as error:
        log.error("SIGUSR1: %s: the old log stays open", error)  # noqa: TRY400  # no fault of code


def _await_end(daemon: Daemon | Parent, signals: Signals) -> None:
    daemon.wait()
    signals.end()


def describe(daemon: Daemon | Parent) -> list[str]:
    """What a person wants to know of a daemon that has just started, a line each."""
    config = daemon.config
    backend = config.backend_config
    hosts = ", ".join(config.allowed_hosts)
    lines = [
        f"guerrilla {__version__}",
        *(f"  listening  {address}" for address in daemon.addresses),
        *_processes(daemon),
        f"  hosts      {'any' if hosts == '.' else hosts}",
        f"  chain      {backend.save_process}",
        *(f"  backend    {name}: {one.save_process}" for name, one in config.backends.items()),
    ]
    options = sql_options(backend)
    if options is not None:
        place = str(mask_value("sql_dsn", options.sql_dsn))
        if options.sql_driver.lower() in {"sqlite", "sqlite3"}:
            place = os.path.abspath(place)
        lines.append(f"  stored in  {place}, table {options.mail_table}")
    lines += [f"  warning    {warning}" for warning in daemon.warnings()]
    if daemon.addresses and not _first(config).proxy_protocol:
        lines.append(f"  try        {program()} {_trial(config, daemon.addresses[0])}")
    return [*lines, "  stop       Ctrl-C"]


def _processes(daemon: Daemon | Parent) -> list[str]:
    """A line, where there are several."""
    return [f"  processes  {daemon.processes}"] if isinstance(daemon, Parent) else []


def _first(config: AppConfig) -> ServerConfig:
    return next(server for server in config.servers if server.is_enabled)


def _trial(config: AppConfig, address: str) -> str:
    """How the first server, which is bound there, can be sent a mail."""
    server = _first(config)
    words = [f"send --to you@{_example_host(config.allowed_hosts)}"]
    if server.protocol == "lmtp":
        words.append("--lmtp")
    needs_login = server.auth.required
    tls = server.tls
    needs_tls = tls.required or (needs_login and not server.auth.allow_plaintext)
    where = _reachable(address)
    if tls.tls_always_on or (tls.start_tls_on and needs_tls):
        # A certificate has a name, and hardly ever the address of this machine.
        where = where.replace("127.0.0.1:", "localhost:", 1)
        words.append(f"--tls {'implicit' if tls.tls_always_on else 'starttls'}")
        if tls.public_key_file is not None:
            words.append(f"--ca {shlex.quote(tls.public_key_file)}")
    if needs_login:
        words.append("--user NAME")
    return " ".join([*words, f"--server {where}"])


def _example_host(hosts: tuple[str, ...]) -> str:
    """A host that is allowed, to be shown: the first that is no pattern."""
    if "." in hosts:
        return "example.com"
    plain = [host for host in hosts if not any(mark in host for mark in "*?[")]
    return plain[0] if plain else hosts[0].replace("*", "mail").replace("?", "x")


def _reachable(address: str) -> str:
    """A bound address as a client on this machine names it."""
    where = parse_listen_interface(address)
    match where.host:
        case "0.0.0.0" | "" if where.kind == "tcp":  # compared with, not bound  # noqa: S104
            return f"127.0.0.1:{where.port}"
        case "::":
            return f"[::1]:{where.port}"
    return address
