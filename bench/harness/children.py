"""
The processes that a benchmark starts: each with a log file, none outlives the benchmark.

What they are is the business of `bench.harness.fleet` and `bench.harness.router`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

GUARD = Path(__file__).with_name("guard.py")
GRACE = 10.0
TAIL_LINES = 20


class ChildFailed(Exception):
    """A process ended early, or was not ready in time; the text holds the end of its log."""


@define(eq=False)
class Child(ProcessProtocol):
    """
    One process.

    Attributes:
        name: For messages.
        log: File with all that it printed.
        ended: Why it is gone; None while it runs.
    """

    name: str
    log: Path
    ended: str | None = field(default=None, init=False)
    transport: IProcessTransport = field(init=False)
    _gone: Deferred[None] = field(factory=Deferred, init=False)

    def check_running(self) -> None:
        """
        Raises:
            ChildFailed: It is gone.
        """
        if self.ended is not None:
            raise ChildFailed(f"{self.name}: {self.ended}\n{self.tail()}")

    def tail(self) -> str:
        """
        The last lines of its log.
        """
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    async def close(self, clock: Any) -> None:
        """
        Ask it to end; returns when it has, and kills it when that takes too long.
        """
        if self.ended is not None:
            return
        self.transport.closeStdin()
        try:
            await _shielded(self._gone).addTimeout(GRACE + 5.0, clock)
        except defer.TimeoutError:
            self.transport.signalProcess("KILL")
            await _shielded(self._gone)

    def processEnded(self, reason: Failure) -> None:
        self.ended = reason.getErrorMessage()
        self._gone.callback(None)


@define(eq=False)
class Children:
    """
    All processes of one benchmark.

    Args:
        reactor: Starts processes and provides time.
        folder: Where their logs go.
    """

    reactor: Any
    folder: Path
    _children: list[Child] = field(factory=list, init=False)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
    ) -> Child:
        """
        Run *command*, which has to end when its standard input does.

        Args:
            env: Variables besides those of this process.
            inherited: Descriptors that it gets as 3 and following.
        """
        child = Child(name, self.folder / f"{len(self._children)}-{name.replace(' ', '-')}.log")
        descriptor = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.reactor.spawnProcess(
                child,
                command[0],
                list(command),
                env={**os.environ, **(env or {})},
                childFDs={0: "w", 1: descriptor, 2: descriptor, **dict(enumerate(inherited, 3))},
            )
        finally:
            os.close(descriptor)
        self._children.append(child)
        return child

    def start_guarded(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> Child:
        """
        Run *command*, which knows nothing of standard input; it ends with all that it started.
        """
        return self.start(name, [sys.executable, str(GUARD), str(GRACE), *command], env=env)

    async def close(self) -> None:
        """
        End all; returns when all are gone.
        """
        closing = [Deferred.fromCoroutine(child.close(self.reactor)) for child in self._children]
        await DeferredList(closing)


def _shielded(waited_for: Deferred[None]) -> Deferred[None]:
    """
    Fires with *waited_for*; cancelling it leaves that alone.
    """
    waiting: Deferred[None] = Deferred()

    def fire(result: None) -> None:
        if not waiting.called:
            waiting.callback(None)

    waited_for.addCallback(fire)
    return waiting
