"""
A thread that a test moves by hand, and a file that fails when told to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from weakref import WeakSet

from attrs import define, field
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from sgl_droute.state.database import Database, StateError
from sgl_droute.state.sqlite import SqliteStore
from sgl_droute.state.tables import Change

_T = TypeVar("_T")


@define
class ThreadByHand:
    """
    Runs functions at once, or, while `held`, when `finish` is called.
    """

    held: bool = False
    running: bool = False
    calls: list[Callable[[], object]] = field(factory=list)

    def start(self) -> None:
        self.running = True

    def run(self, function: Callable[[], _T]) -> Deferred[_T]:
        assert self.running
        if not self.held:
            return execute(function)
        result: Deferred[_T] = Deferred()
        self.calls.append(lambda: execute(function).chainDeferred(result))
        return result

    def finish(self) -> None:
        """
        Run the function that waits; there is never more than one.
        """
        (call,) = self.calls
        self.calls.clear()
        call()

    def stop(self) -> None:
        assert not self.calls
        self.running = False


# What a test made and may have left open, as a killed process does.
MADE: WeakSet[Database] = WeakSet()


@define(eq=False)
class Failing(Database):
    """
    A file on a disk that is full while `problem` says so; `written` are the sizes of its batches.
    """

    problem: Exception | None = None
    written: list[int] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        MADE.add(self)

    def write(self, changes: Iterable[Change], *, patience: float) -> None:
        changes = list(changes)
        if self.problem is not None:
            raise self.problem
        super().write(changes, patience=patience)
        self.written.append(len(changes))

    def fill(self) -> None:
        self.problem = StateError(self.path, "the disk is full")


@define
class Bench:
    """
    A store with everything around it in a test's hands.
    """

    path: str
    job_ttl: float = 1000.0
    max_owners: int = 100
    clock: Clock = field(factory=Clock)
    thread: ThreadByHand = field(factory=ThreadByHand)
    database: Failing = field(init=False)
    store: SqliteStore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.database = Failing(self.path)
        self.store = SqliteStore(
            self.database,
            self.clock,
            self.thread,
            job_ttl=self.job_ttl,
            max_owners=self.max_owners,
        )

    def restarted(self) -> Bench:
        """
        The bench of the next process, at the same time.
        """
        clock = Clock()
        clock.advance(self.clock.seconds())
        return Bench(self.path, self.job_ttl, self.max_owners, clock)
