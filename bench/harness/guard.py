"""
Runs a command and ends it, with all processes that it started, when standard input ends.

A program that holds the other end of that pipe takes its children with it however it ends, also
when it is killed. Run as ``python guard.py GRACE COMMAND...``, where GRACE is the seconds between
asking the processes to end and killing them. Needs only the standard library.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress


def main() -> int:
    """
    The exit status of the command.
    """
    # Handlers, unlike SIG_IGN, are not inherited by the command.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    grace, command = float(sys.argv[1]), sys.argv[2:]
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while child.poll() is None:
        readable, _, _ = select.select([0, woken], [], [])
        if 0 in readable and not os.read(0, 4096):
            break
        if woken in readable:
            os.read(woken, 4096)
    return _end(child, grace)


def _end(child: subprocess.Popen[bytes], grace: float) -> int:
    _signal_group(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    # What the child started may be left when it has ended.
    _signal_group(child.pid, signal.SIGKILL)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _signal_group(leader: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


if __name__ == "__main__":
    sys.exit(main())
