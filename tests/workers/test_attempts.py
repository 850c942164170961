"""
A job is brought to one worker after the other until one is reached, and ends exactly once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sgl_droute.errors import NotConnected, NoWorker, Refused, WorkerFailed, WorkerTimeout
from sgl_droute.fleet.capabilities import IMAGE
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Rate, Speeds
from sgl_droute.workers.attempts import Turn, with_worker
from sgl_droute.workers.turns import Turns

REFUSED = NotConnected("http://w:1", "connection refused")


@define(eq=False)
class Road:
    """
    The way to workers that take one job at a time; the test says what becomes of each attempt.

    Attributes:
        attempts: The turns that jobs had, each with what its end is told by.
        events: What the scheduler told.
        order: For tests that make attempts of their own.
    """

    turns: Turns
    clock: Clock
    attempts: list[tuple[Turn, Deferred[str]]] = field(factory=list)
    events: list[Event] = field(factory=list)
    order: list[str] = field(factory=list)

    def send(self, id: str, seconds: float = 10.0) -> Deferred[Any]:
        """
        A job on its way; the result is what came of it, an exception included.
        """
        job = Job(id=id, want=IMAGE, demand=Known(seconds), submitted=self.clock.seconds())
        sent = Deferred.fromCoroutine(with_worker(self.turns, job, self.attempt))
        return sent.addErrback(lambda failure: failure.value)

    def attempt(self, turn: Turn) -> Awaitable[str]:
        result: Deferred[str] = Deferred()
        self.attempts.append((turn, result))
        return result

    def fail(self, error: Exception, number: int = -1) -> None:
        self.attempts[number][1].errback(Failure(error))

    def succeed(self, number: int = -1, **facts: Any) -> None:
        turn, result = self.attempts[number]
        for name, value in facts.items():
            setattr(turn, name, value)
        result.callback("done")

    @property
    def homes(self) -> list[str]:
        return [turn.worker.url for turn, _ in self.attempts]

    @property
    def loads(self) -> list[int]:
        return [worker.in_flight for worker in self.turns.pool]

    def told(self, id: str) -> list[str]:
        return [event.reason or event.name for event in self.events if event.job.id == id]


def road(*names: str, **rules: Any) -> Road:
    pool, clock = Pool(), Clock()
    for name in names:
        pool.add(f"http://{name}:1")
    scheduler = Scheduler(pool, Speeds(Rate(1.0)), Rules(**{"concurrency": 1, **rules}))
    made = Road(Turns(scheduler, clock), clock)
    scheduler.watch(made.events.append)
    return made


def result_of(sent: Deferred[Any]) -> Any:
    """
    What is there now; fails the test if nothing is.
    """
    found: list[Any] = []
    sent.addCallback(found.append)
    assert found, "no result yet"
    return found[0]


def test_all_goes_well() -> None:
    """
    The attempt's result is the caller's, and what its worker told is learned.
    """
    made = road("a")
    sent = made.send("x")
    assert made.loads == [1]
    made.succeed(took=4.0, well=True)
    assert result_of(sent) == "done"
    assert made.loads == [0]
    assert made.told("x") == ["submitted", "bound", "well"]
    [worker] = made.turns.pool
    shown: Any = made.turns.scheduler.speeds.shown(worker)
    assert shown["image"]["samples"] == 1


def test_a_bad_answer_teaches_nothing() -> None:
    """
    An answer that is an error of the worker ends the job and says nothing of its speed.
    """
    made = road("a")
    sent = made.send("x")
    made.succeed()
    assert result_of(sent) == "done"
    assert made.told("x")[-1] == "failed"
    [worker] = made.turns.pool
    assert made.turns.scheduler.speeds.shown(worker) == {}


def test_the_next_worker() -> None:
    """
    A worker that was not reached costs the attempt only; it is doubted, and not tried again.
    """
    made = road("a", "b", "c")
    sent = made.send("x")
    for _ in range(2):
        made.fail(REFUSED)
        assert sum(made.loads) == 1
    made.succeed(well=True)
    assert result_of(sent) == "done"
    assert sorted(made.homes) == ["http://a:1", "http://b:1", "http://c:1"]
    doubted = {worker.url for worker in made.turns.pool if worker.doubtful}
    assert set(made.homes[:2]) <= doubted
    assert made.loads == [0, 0, 0]


def test_nobody_is_reached() -> None:
    """
    When no other worker is left the last failure is the caller's.
    """
    made = road("a", "b")
    sent = made.send("x")
    made.fail(NotConnected("http://w:1", "first"))
    last = NotConnected("http://w:1", "last")
    made.fail(last)
    assert result_of(sent) is last
    assert made.loads == [0, 0]
    assert made.told("x")[-1] == "no_worker"


def test_the_others_are_busy() -> None:
    """
    A job that was not brought to its worker waits for one of the others, in its old place.
    """
    made = road("a", "b")
    made.send("x")
    sent = made.send("y")
    made.send("z")
    made.fail(REFUSED)
    assert len(made.attempts) == 2
    made.succeed(0, well=True)
    assert [turn.job.id for turn, _ in made.attempts] == ["x", "y", "y"]
    assert made.homes[0] == made.homes[2]
    made.succeed(well=True)
    assert result_of(sent) == "done"
    assert made.attempts[-1][0].job.id == "z"


@pytest.mark.parametrize("error", [WorkerFailed("http://a:1", "it broke"), ValueError("a bug")])
def test_an_attempt_that_fails(error: Exception) -> None:
    """
    Any other failure ends the job: its worker may have seen it, and nobody else may.
    """
    made = road("a", "b")
    sent = made.send("x")
    made.fail(error)
    assert result_of(sent) is error
    assert len(made.attempts) == 1
    assert made.loads == [0, 0]
    assert made.told("x")[-1] == "failed"
    made.send("y")
    made.send("z")
    assert len(made.attempts) == 3


@pytest.mark.parametrize(
    "error", [CancelledError(), WorkerTimeout("http://a:1", "no response within 5 s")]
)
def test_a_worker_that_works_on(error: Exception) -> None:
    """
    When the client is gone, or gave no more time, the worker is busy until the predicted end.
    """
    made = road("a")
    sent = made.send("x", 10.0)
    made.send("y")
    made.clock.advance(4.0)
    made.fail(error)
    assert result_of(sent) is error
    assert made.loads == [0]
    assert len(made.attempts) == 1
    made.clock.advance(5.9)
    assert len(made.attempts) == 1
    made.clock.advance(0.2)
    assert len(made.attempts) == 2


def test_a_client_that_leaves_the_line() -> None:
    """
    Who leaves while it waits has had no attempt.
    """
    made = road("a")
    first = made.send("x")
    sent = made.send("y")
    sent.cancel()
    assert isinstance(result_of(sent), CancelledError)
    made.succeed(well=True)
    assert result_of(first) == "done"
    assert len(made.attempts) == 1
    assert made.told("y") == ["submitted", "abandoned"]


def test_a_client_that_leaves_after_the_answer_began() -> None:
    """
    Once the GPU is done nothing is left that the worker could be busy with.
    """
    made = road("a")
    sent = made.send("x")
    made.send("y")
    made.clock.advance(3.0)
    assert made.attempts[0][0].answered() == 3.0
    assert len(made.attempts) == 2
    made.fail(CancelledError(), 0)
    assert isinstance(result_of(sent), CancelledError)
    assert made.loads == [1]
    made.send("z")
    assert len(made.attempts) == 2


def test_a_video() -> None:
    """
    What makes a video holds its slot when its request has ended, until the video has.
    """
    made = road("a")
    sent = made.send("x")
    made.attempts[0][0].made("video", "v")
    made.succeed(well=True)
    assert result_of(sent) == "done"
    assert made.loads == [0]
    made.send("y")
    assert len(made.attempts) == 1
    made.turns.ended("video", "v", 7.0, True)
    assert len(made.attempts) == 2
    assert made.told("x")[-1] == "well"


def test_refusals() -> None:
    """
    Who is not let in has no attempt.
    """
    made = road("a", queue_size=0)
    made.send("x")
    assert isinstance(result_of(made.send("y")), Refused)
    assert len(made.attempts) == 1
    assert isinstance(result_of(road().send("x")), NoWorker)


def test_nobody_is_left_while_it_waits() -> None:
    """
    Who waits when the last worker leaves is told so.
    """
    made = road("a")
    made.send("x")
    sent = made.send("y")
    made.turns.pool.remove("http://a:1")
    made.clock.advance(0)
    assert isinstance(result_of(sent), NoWorker)


def test_every_wait_is_in_its_context() -> None:
    """
    A job waits in the context that was given for that, the first time and each time after.
    """
    made = road("a", "b")
    made.send("x")
    made.send("y")
    inside: list[str] = []

    @contextmanager
    def waiting() -> Iterator[None]:
        inside.append("in")
        yield
        inside.append("out")

    job = Job(id="z", want=IMAGE, demand=Known(1.0))
    sent = Deferred.fromCoroutine(with_worker(made.turns, job, made.attempt, waiting))
    assert inside == ["in"]
    made.succeed(0, well=True)
    assert inside == ["in", "out"]
    made.send("u")
    made.fail(REFUSED)
    assert inside == ["in", "out", "in"]
    made.succeed(1, well=True)
    assert inside == ["in", "out"] * 2
    made.succeed(well=True)
    assert result_of(sent) == "done"


def test_a_line_that_rushes() -> None:
    """
    However many jobs are done at once one after the other, it takes no more stack than one.
    """
    made = road("a")
    first = made.send("first")

    async def at_once(turn: Turn) -> str:
        made.order.append(turn.job.id)
        return turn.job.id

    sent = [
        Deferred.fromCoroutine(with_worker(made.turns, Job(id=f"{n}", want=IMAGE), at_once))
        for n in range(3000)
    ]
    made.succeed(well=True)
    assert result_of(first) == "done"
    assert [result_of(each) for each in sent] == made.order == [f"{n}" for n in range(3000)]
    assert made.loads == [0]


def test_an_end_of_its_own() -> None:
    """
    What goes wrong behind the answer of one job is not the next one's business.
    """
    made = road("a")
    sent: list[Callable[[], Any]] = []
    for number in range(20):
        waiting = made.send(f"{number}")
        sent.append(lambda waiting=waiting: result_of(waiting))  # type: ignore[misc]
    for number in range(20):
        if number % 3 == 0:
            made.fail(WorkerFailed("http://a:1", "cut"))
        else:
            made.succeed(well=True)
    results = [each() for each in sent]
    assert [isinstance(each, WorkerFailed) for each in results] == [n % 3 == 0 for n in range(20)]
    assert made.loads == [0]
    assert [turn.job.id for turn, _ in made.attempts] == [f"{n}" for n in range(20)]
