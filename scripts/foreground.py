"""Runs a command as the terminal's foreground job and takes its exit status.

make dies of the terminal's SIGINT even when its recipe ends well. So the command gets a process
group of its own, and Ctrl-C reaches only that; signals sent to this program are passed on.
"""

import os
import signal
import subprocess
import sys


def give_terminal(group: int) -> None:
    """Makes `group` the foreground group of the terminal on stdin, where there is one."""
    if os.isatty(0):
        os.tcsetpgrp(0, group)


def main(command: list[str]) -> int:
    """Runs `command` to its end; its exit status, 128 + N when signal N ended it."""
    # A group in the background may only take the terminal while it ignores this one.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    child = subprocess.Popen(command, process_group=0, restore_signals=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    give_terminal(child.pid)
    try:
        while True:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            # Ctrl-Z: the whole job stops, and goes on when the shell says so.
            give_terminal(os.getpgrp())
            os.killpg(0, signal.SIGSTOP)
            give_terminal(child.pid)
            os.killpg(child.pid, signal.SIGCONT)
    finally:
        give_terminal(os.getpgrp())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
