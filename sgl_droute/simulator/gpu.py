"""
The queue in front of the simulated GPU: strict order of arrival, no limit, no cancelling.

Works on whatever clock it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import Factory, define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from sgl_droute.simulator.replies import BackendDead

T = TypeVar("T")


@define(eq=False)
class Entry(Generic[T]):
    """
    One piece of work in line.

    Attributes:
        begin: Called when the work reaches the GPU; returns the seconds that it takes.
        end: Called after those seconds, still before the next in line begins; returns the result.
        done: Fires with that result, or with what either of them raised.
    """

    begin: Callable[[], float]
    end: Callable[[], T]
    done: Deferred[T] = Factory(Deferred)


@define(eq=False)
class Replica:
    """
    One GPU process with its line.
    """

    clock: IReactorTime
    _line: deque[Entry[object]] = Factory(deque)
    _running: Entry[object] | None = None
    _timer: IDelayedCall | None = None

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def running(self) -> int:
        return int(self._running is not None)

    def put(self, entry: Entry[object]) -> None:
        self._line.append(entry)
        self._next()

    def kill(self, error: Exception) -> None:
        """
        Fail everything in line and on the GPU with *error*.
        """
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        lost = [entry for entry in (self._running, *self._line) if entry is not None]
        self._line.clear()
        self._running = self._timer = None
        for entry in lost:
            entry.done.errback(error)

    def _next(self) -> None:
        while self._running is None and self._line:
            entry = self._running = self._line.popleft()
            try:
                seconds = entry.begin()
            except Exception as error:
                self._running = None
                entry.done.errback(error)
                continue
            self._timer = self.clock.callLater(max(seconds, 0.0), self._finish, entry)

    def _finish(self, entry: Entry[object]) -> None:
        self._running = self._timer = None
        try:
            result = entry.end()
        except Exception as error:
            entry.done.errback(error)
        else:
            entry.done.callback(result)
        self._next()


def _replicas(gpu: GPU) -> list[Replica]:
    return [Replica(gpu.clock) for _ in range(gpu.size)]


@define(eq=False)
class GPU:
    """
    The replicas of one worker; generations take turns on them.
    """

    clock: IReactorTime
    size: int = 1
    replicas: list[Replica] = field(default=Factory(_replicas, takes_self=True))
    dead: str | None = None
    _turn: int = 0

    @property
    def waiting(self) -> int:
        return sum(replica.waiting for replica in self.replicas)

    @property
    def running(self) -> int:
        return sum(replica.running for replica in self.replicas)

    def generate(self, begin: Callable[[], float], end: Callable[[], T]) -> Deferred[T]:
        """
        Put work in the next replica's line.
        """
        replica = self.replicas[self._turn % self.size]
        self._turn += 1
        return self._put(replica, begin, end)

    async def control(self, begin: Callable[[], float], act: Callable[[], T]) -> T:
        """
        Put a control call in every replica's line, one after the other; *act* once, on the last.
        """
        for replica in self.replicas[:-1]:
            await self._put(replica, begin, lambda: None)
        return await self._put(self.replicas[-1], begin, act)

    def occupy(self, seconds: float) -> None:
        """
        Keep every replica busy for so long before what is put in its line from now on.
        """
        for replica in self.replicas:
            self._put(replica, lambda: seconds, lambda: None).addErrback(_never_mind)

    def kill(self, reason: str) -> None:
        """
        The GPU processes are gone; whatever waits fails at once, and so does what comes later.
        """
        self.dead = reason
        for replica in self.replicas:
            replica.kill(BackendDead(reason))

    def revive(self) -> None:
        self.dead = None

    def _put(
        self, replica: Replica, begin: Callable[[], float], end: Callable[[], T]
    ) -> Deferred[T]:
        entry = Entry(begin, end)
        if self.dead is None:
            replica.put(entry)  # type: ignore[arg-type]  # its own end() fits its own Deferred
        else:
            entry.done.errback(BackendDead(self.dead))
        return entry.done


def _never_mind(failure: Failure) -> None:
    failure.trap(BackendDead)
