"""
Jobs get their turns on the reactor, one decision after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sgl_droute.errors import (
    Cancelled,
    DeadlinePassed,
    NotFound,
    NotWaiting,
    NoWorker,
    RouterError,
)
from sgl_droute.fleet.capabilities import IMAGE
from sgl_droute.fleet.decisions import Bound
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Rate, Speeds
from sgl_droute.workers.turns import Turns


@define(eq=False)
class Asker:
    """
    Whoever submitted a job.

    Attributes:
        log: What happened to all askers, in order.
        waits: Whether it is in the context of those who wait.
    """

    job: Job
    log: list[str]
    bound: Bound | None = None
    error: Exception | None = None
    waits: bool = False
    waited: int = 0
    turn: Deferred[Any] = field(factory=Deferred)

    async def ask(self, turns: Turns, *, again: bool = False) -> None:
        submit = turns.once_more if again else turns.submitted
        try:
            self.bound = await submit(self.job, self._waiting)
            self.log.append(f"{self.job.id} bound")
        except (RouterError, CancelledError) as error:
            self.error = error
            self.log.append(f"{self.job.id} {type(error).__name__}")

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self.waits = True
        self.waited += 1
        try:
            yield
        finally:
            self.waits = False


@define(eq=False)
class Desk:
    """
    Turns at workers that take one job at a time, if the rules say nothing else.
    """

    turns: Turns
    clock: Clock
    log: list[str] = field(factory=list)

    def ask(self, id: str, work: float = 10.0, **facts: Any) -> Asker:
        """
        A job of so many seconds, submitted now.
        """
        now = self.clock.seconds()
        job = Job(id=id, want=IMAGE, demand=Known(work), submitted=now, **facts)
        return self.again(Asker(job, self.log))

    def again(self, asker: Asker, *, unreached: bool = False) -> Asker:
        asker.turn = Deferred.fromCoroutine(asker.ask(self.turns, again=unreached))
        return asker

    @property
    def loads(self) -> list[int]:
        return [worker.in_flight for worker in self.turns.pool]


def desk(*names: str, **rules: Any) -> Desk:
    pool, clock = Pool(), Clock()
    for name in names:
        pool.add(f"http://{name}:1")
    scheduler = Scheduler(pool, Speeds(Rate(1.0)), Rules(**{"concurrency": 1, **rules}))
    return Desk(Turns(scheduler, clock), clock)


def test_a_turn_at_once() -> None:
    """
    A job that needs not wait has its worker before anything else happens, and never waited.
    """
    made = desk("a")
    asker = made.ask("x")
    assert asker.bound is not None
    assert asker.bound.worker.url == "http://a:1"
    assert asker.waited == 0
    assert made.clock.getDelayedCalls() == []


def test_a_turn_later() -> None:
    """
    A job waits within its context until a slot is free.
    """
    made = desk("a")
    first, second = made.ask("x"), made.ask("y")
    assert (second.bound, second.waits, second.waited) == (None, True, 1)
    made.turns.finish(first.job, took=None, well=True)
    assert second.bound is not None
    assert (second.waits, second.waited) == (False, 1)
    assert made.loads == [1]


def test_a_slot_that_is_free_before_the_request_has_ended() -> None:
    """
    Once the GPU is done with a job the next one has its turn, while the answer is still on its way.
    """
    made = desk("a")
    first, second = made.ask("x"), made.ask("y")
    made.turns.answered(first.job)
    assert second.bound is not None
    assert made.loads == [2]
    made.turns.finish(first.job, took=None, well=True)
    assert made.loads == [1]


def test_who_leaves_the_line() -> None:
    """
    Who leaves while waiting is out of the line at once, and its place is nobody's.
    """
    made = desk("a")
    first, second, third = made.ask("x"), made.ask("y"), made.ask("z")
    second.turn.cancel()
    assert not second.waits
    assert isinstance(second.error, CancelledError)
    assert "y" not in made.turns.scheduler.line
    made.turns.finish(first.job, took=None, well=True)
    assert third.bound is not None
    assert made.loads == [1]


def test_who_is_cancelled() -> None:
    """
    A job that was cancelled in line is told so; it waits no more.
    """
    made = desk("a")
    made.ask("x")
    second = made.ask("y")
    made.turns.cancel("y")
    assert isinstance(second.error, Cancelled)
    assert not second.waits
    with pytest.raises(NotFound):
        made.turns.cancel("y")
    with pytest.raises(NotWaiting):
        made.turns.cancel("x")


def test_time_passes() -> None:
    """
    What is due comes when its time has come, though nothing else happens.
    """
    made = desk("a")
    made.ask("x")
    late = made.ask("y", deadline=7.0)
    sooner = made.ask("z", deadline=3.0)
    made.clock.advance(2.9)
    assert sooner.waits
    made.clock.advance(0.2)
    assert isinstance(sooner.error, DeadlinePassed)
    assert late.waits
    made.clock.advance(4.0)
    assert isinstance(late.error, DeadlinePassed)


def test_no_timer_for_nobody() -> None:
    """
    When nobody waits nothing is left to be called, whatever was expected before.
    """
    made = desk("a")
    first, second = made.ask("x"), made.ask("y", deadline=1000.0)
    made.turns.finish(first.job, took=None, well=True)
    made.turns.finish(second.job, took=None, well=True)
    for _ in range(10):
        made.clock.advance(1000.0)
    assert made.clock.getDelayedCalls() == []


def test_work_that_nobody_waits_for() -> None:
    """
    A worker whose client left is free at the predicted end of that job.
    """
    made = desk("a")
    first, second = made.ask("x", 10.0), made.ask("y")
    made.clock.advance(4.0)
    made.turns.abandon(first.job)
    assert second.waits
    made.clock.advance(5.9)
    assert second.waits
    made.clock.advance(0.2)
    assert second.bound is not None


def test_the_fleet_changes() -> None:
    """
    A worker that comes serves who waits; when the last one is gone who waits is told so.
    """
    made = desk("a")
    made.ask("x")
    second, third = made.ask("y"), made.ask("z")
    made.turns.pool.add("http://b:1")
    made.clock.advance(0)
    assert second.bound is not None
    for name in "ab":
        made.turns.pool.remove(f"http://{name}:1")
    made.clock.advance(0)
    assert isinstance(third.error, NoWorker)


def test_a_job_that_was_not_brought_to_its_worker() -> None:
    """
    A job that comes back has its old place, and may wait once more.
    """
    made = desk("a", "b")
    first, second = made.ask("x"), made.ask("y")
    third = made.ask("z")
    made.again(second, unreached=True)
    assert second.waits
    made.turns.finish(first.job, took=None, well=True)
    assert made.log == ["x bound", "y bound", "z bound", "y bound"]
    assert third.bound is not None
    assert third.bound.worker.url != first.bound.worker.url  # type: ignore[union-attr]


def test_what_follows_comes_behind() -> None:
    """
    What somebody does when its turn comes is decided after the turns that were given with it.
    """
    made = desk("a", "b")
    first, second = made.ask("x"), made.ask("y")
    third, fourth = made.ask("z"), made.ask("u")
    third.turn.addCallback(lambda _: made.turns.finish(third.job, took=None, well=True))
    made.ask("v")
    made.turns.finish(first.job, took=None, well=True)
    assert made.log[2:] == ["z bound", "u bound"]
    made.turns.finish(second.job, took=None, well=True)
    made.turns.finish(fourth.job, took=None, well=True)
    assert made.log[2:] == ["z bound", "u bound", "v bound"]


def test_who_leaves_between_decision_and_turn() -> None:
    """
    A job whose client leaves after it was given a worker, and before it was told so, gives that
    back.
    """
    made = desk("a", "b")
    first = made.ask("x")
    made.ask("y")
    third, fourth, fifth = made.ask("z", deadline=5.0), made.ask("u"), made.ask("v")
    third.turn.addCallback(lambda _: fourth.turn.cancel())
    made.clock.pump([])
    # At 5 s one is dropped and one is free: both are decided before anybody is told.
    made.clock.rightNow = 5.0
    made.turns.finish(first.job, took=None, well=True)
    assert isinstance(third.error, DeadlinePassed)
    assert isinstance(fourth.error, CancelledError)
    assert fifth.bound is not None
    assert made.loads == [1, 1]


def test_who_cannot_begin_to_wait() -> None:
    """
    A job whose body cannot be put aside while it waits leaves the line, and takes nobody's slot
    later.
    """

    @contextmanager
    def broken() -> Iterator[None]:
        raise MemoryError
        yield

    made = desk("a")
    first = made.ask("x")
    job = Job(id="y", want=IMAGE, demand=Known(10.0))
    second = Deferred.fromCoroutine(made.turns.submitted(job, broken))
    assert isinstance(second.result, Failure)
    second.result.trap(MemoryError)
    second.addErrback(lambda failed: None)
    assert "y" not in made.turns.scheduler.line
    made.turns.finish(first.job, took=None, well=True)
    assert made.loads == [0]


def test_a_refusal_holds_up_nobody() -> None:
    """
    What was decided before somebody was refused is carried out all the same.
    """
    made = desk("a", queue_size=1)
    made.ask("x")
    second = made.ask("y", deadline=5.0)
    made.clock.rightNow = 5.0
    third, fourth = made.ask("z"), made.ask("u")
    assert fourth.error is not None
    made.clock.advance(0)
    assert isinstance(second.error, DeadlinePassed)
    assert third.waits


@pytest.mark.parametrize("number", [1, 3])
def test_all_have_their_turn(number: int) -> None:
    """
    Of a hundred jobs each has one turn, in order, never more than there are slots, and nothing is
    left.
    """
    made = desk("a", "b", concurrency=number)
    askers = [made.ask(f"{n}", 1.0) for n in range(100)]
    done = 0
    while done < len(askers):
        assert max(made.loads) <= number
        made.turns.finish(askers[done].job, took=1.0, well=True)
        done += 1
    assert made.log == [f"{n} bound" for n in range(100)]
    assert made.loads == [0, 0]
    assert len(made.turns.scheduler.line) == 0
