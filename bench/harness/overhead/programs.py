"""
The programs that are measured: each with a log file, none outlives the benchmark.

Unlike `bench.harness.children` it needs no reactor: this benchmark does one thing at a time.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define

from bench.harness.children import GRACE, GUARD, TAIL_LINES
from bench.harness.overhead.procfs import Usage, processes_below, usage

READY_WITHIN = 60.0
_QUIET_WITHIN = 60.0
_GLANCE = 0.5
# A program that takes less than this share of a core does nothing but wait.
_QUIET = 0.05


class ProgramFailed(Exception):
    """A program ended early, or did not do what it must; the text says what."""


@define(eq=False)
class Program:
    """
    One program, which may be several processes.

    Attributes:
        name: For messages.
        log: File with all that it printed.
        port: Of 127.0.0.1, where it answers.
    """

    name: str
    log: Path
    port: int
    _guard: subprocess.Popen[bytes]

    def processes(self) -> list[int]:
        """
        Ids of its processes.
        """
        return processes_below(self._guard.pid)

    def usage(self) -> Usage:
        """
        What all its processes have used together.

        Raises:
            ProgramFailed: It is gone.
        """
        self.check_running()
        return usage(self.processes())

    def check_running(self) -> None:
        """
        Raises:
            ProgramFailed: It is gone; the text holds the end of its log.
        """
        if self._guard.poll() is not None:
            raise ProgramFailed(f"{self.name} ended\n{self.tail()}")

    def tail(self) -> str:
        """
        The last lines of its log.
        """
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    def ask(self, path: str, body: bytes | None = None, timeout: float = 10.0) -> tuple[int, bytes]:
        """
        Status and body of its answer to a GET of *path*, or to a POST of *body*.

        Raises:
            OSError, HTTPException: There is none.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        """
        Returns when ``/health`` answers 200.

        Raises:
            ProgramFailed: It ended, or took too long.
        """
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            self.check_running()
            with suppress(OSError, http.client.HTTPException):
                if self.ask("/health")[0] == 200:
                    return
            time.sleep(0.05)
        raise ProgramFailed(f"{self.name} was not ready after {READY_WITHIN:g} s\n{self.tail()}")

    def wait_until_quiet(self) -> None:
        """
        Returns when it has done what it does after its start, or after a minute.
        """
        deadline = time.monotonic() + _QUIET_WITHIN
        while time.monotonic() < deadline:
            before = self.usage().cpu
            time.sleep(_GLANCE)
            if self.usage().cpu - before < _QUIET * _GLANCE:
                return


@contextmanager
def running(name: str, command: Sequence[str], port: int, folder: Path) -> Iterator[Program]:
    """
    A program that is ready, until the end of the context.

    Args:
        folder: Where its log goes.

    Raises:
        ProgramFailed: It does not start.
    """
    log = folder / f"{name.replace(' ', '-')}-{port}.log"
    with log.open("ab") as output:
        # The guard ends the program when its standard input does: also when this process is killed.
        guard = subprocess.Popen(
            [sys.executable, str(GUARD), str(GRACE), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        program = Program(name, log, port, guard)
        program.wait_until_ready()
        yield program
    finally:
        _close(guard)


def _close(guard: subprocess.Popen[bytes]) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(GRACE + 5.0)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
