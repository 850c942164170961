"""
What a scheduler does where predictions do not hold, workers leave and jobs are refused.
"""

from __future__ import annotations

import pytest

from sgl_droute.errors import NoWorker, Refused, TooLate
from sgl_droute.fleet.capabilities import ANYTHING, READING, VIDEO
from tests.fleet.scheduling import Stage, stage, url_of

# Seconds of work that no client should ask for.
ABSURD = 1e9


def nothing_left(made: Stage) -> bool:
    """
    Whether no job or thing is remembered.
    """
    scheduler = made.scheduler
    return not (scheduler.floor.running or scheduler._things or len(scheduler.line))


# Abandoned jobs.


@pytest.mark.parametrize("pace", [0.1, 20.0])
def test_abandoned_work_counts_within_reason(pace: float) -> None:
    """
    A job whose client left takes its slot for 8 times the usual of its kind on that worker, or 60
    s if that is less, whatever it asked for.
    """
    made = stage("a", learned={"a": pace}, concurrency=1)
    usual = made.scheduler.speeds.usual(made.worker("a"), "image")
    most = max(8 * usual, 60.0)
    assert (most > 60.0) == (pace > 1)
    made.submit("x", ABSURD)
    made.abandon("x")
    assert not made.submit("y", 1.0)
    made.wait(most - 0.1)
    assert "y" not in made.homes
    made.wait(0.2)
    assert made.homes["y"] == "a"


def test_shortened_work_behind_another() -> None:
    """
    A job that is abandoned while it has not begun counts no more than one that runs.
    """
    made = stage("a", learned={"a": 1.0}, concurrency=2)
    made.submit("x", 10.0)
    made.submit("y", ABSURD)
    made.abandon("y")
    assert made.station("a").free == pytest.approx(70.0)


def test_abandoned_work_stays_short() -> None:
    """
    What is learned later of its worker does not make an abandoned job as long as it was.
    """
    made = stage("a", concurrency=2)
    made.submit("x", 1.0)
    made.submit("y", ABSURD)
    made.abandon("y")
    made.finish("x", took=5.0)
    usual = made.scheduler.speeds.usual(made.worker("a"), "image")
    assert 0 < made.station("a").free <= max(8 * usual, 60.0)


def test_nothing_takes_longer_than_the_longest() -> None:
    """
    No job is expected to take more than `Rules.longest` seconds.
    """
    made = stage("a", longest=300.0)
    made.submit("x", ABSURD)
    assert made.ends["x"] == 300.0
    assert made.station("a").free == 300.0


def test_nothing_that_is_learned_exceeds_the_longest() -> None:
    """
    A job under way is not expected to exceed `Rules.longest` when its worker turns out slower.
    """
    made = stage("a", longest=300.0, concurrency=2)
    made.submit("x", 200.0)
    made.submit("y", 1.0)
    made.finish("y", took=10.0)
    assert made.station("a").free <= 300.0


def test_nobody_is_sent_away_for_hours() -> None:
    """
    Whoever finds the line full is to come back within an hour, however long the line is.
    """
    made = stage("a", concurrency=1, queue_size=5)
    for number in range(6):
        made.submit(f"{number}", ABSURD)
    with pytest.raises(Refused) as refused:
        made.submit("x")
    assert refused.value.fields["retry_after"] == 3600
    assert refused.value.headers == {"Retry-After": "3600"}


# Workers that are removed.


def test_a_video_of_a_worker_that_is_gone() -> None:
    """
    A video whose worker was removed before the answer came leaves nothing behind.
    """
    made = stage("a")
    made.submit("v", want=VIDEO)
    made.pool.remove(url_of("a"))
    made.make("v")
    assert nothing_left(made)


@pytest.mark.parametrize("first", ["the client", "the worker"])
def test_abandoned_jobs_of_a_worker_that_is_gone(first: str) -> None:
    """
    Abandoned jobs of a removed worker are forgotten at once, whoever left first.
    """
    made = stage("a", "b")
    home = made.submit("x", 1000.0)
    if first == "the client":
        made.abandon("x")
        made.pool.remove(url_of(home))
    else:
        made.pool.remove(url_of(home))
        made.abandon("x")
    assert nothing_left(made)


# Deadlines.


def test_deadlines_and_turns() -> None:
    """
    With fair turns a client that has nothing in line is not refused for the long line of another,
    who is.
    """
    made = stage("a", learned={"a": 1.0}, concurrency=1, fair=True)
    for number in range(100):
        made.submit(f"{number}", client="A")
    with pytest.raises(TooLate):
        made.submit("x", client="A", deadline=10.0)
    made.submit("y", client="B", deadline=10.0)
    job = made.scheduler.line.get("y")
    assert job is not None
    assert made.scheduler.line.position(job) == 2


def test_deadlines_of_workers_that_batch() -> None:
    """
    Where a worker has more slots than replicas nobody knows when jobs end: no deadline is refused.
    """
    made = stage("a", learned={"a": 10.0}, concurrency=8)
    for number in range(7):
        made.submit(f"{number}")
    assert made.submit("x", deadline=20.0) == "a"
    assert not made.submit("y", deadline=20.0)


def test_reading_has_no_deadline() -> None:
    """
    What needs no GPU is not refused for its deadline, busy as all workers may be.
    """
    made = stage("a")
    for number in range(6):
        made.submit(f"{number}", 100.0, want=ANYTHING)
        made.now += 100.0
        made.finish(f"{number}", took=100.0)
    made.submit("x", 100.0)
    assert made.submit("y", None, want=READING, deadline=made.now + 5.0) == "a"


# Groups, slow starts and events.


@pytest.mark.parametrize("facts", [{"dead": True}, {"asleep": True}, {"disabled": True}])
def test_a_group_whose_worker_takes_no_work(facts: dict[str, bool]) -> None:
    """
    A group moves once when its worker takes no work, and is not scattered over the others.
    """
    made = stage("a", "b", "c", group_margin=5)
    home = made.submit("g", group="g")
    made.finish("g")
    made.change(home, **facts)
    homes = {made.submit(f"{number}", group="g") for number in range(6)}
    assert len(homes) == 1
    assert homes != {home}
    made.change(home, **dict.fromkeys(facts, False))
    made.finish("0")
    assert {made.submit("h", group="g")} == homes


def test_reading_does_not_end_a_slow_start() -> None:
    """
    A worker that came late has to do jobs well before it gets more at once: answers to GETs are no
    sign of that.
    """
    made = stage("a")
    made.submit("x")
    made.finish("x")
    made.pool.add(url_of("b"))
    made.change("a", disabled=True)
    for number in range(4):
        assert made.submit(f"{number}", want=READING) == "b"
        made.finish(f"{number}")
    assert made.station("b").start == 1


def test_why_a_job_was_refused() -> None:
    """
    Who watches is told that there is no worker in the word that clients are told.
    """
    made = stage("a")
    made.change("a", dead=True)
    with pytest.raises(NoWorker) as refused:
        made.submit("x")
    assert refused.value.reason == "no_worker"
    assert [(event.name, event.reason) for event in made.events] == [
        ("submitted", ""),
        ("refused", "no_worker"),
    ]
