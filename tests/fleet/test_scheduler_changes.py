"""
What changes while jobs wait, by example: workers come, go or cannot be reached, jobs are cancelled;
and what the scheduler tells of it.
"""

from __future__ import annotations

import pytest

from sgl_droute.errors import BadRequest, Cancelled, DeadlinePassed, NotFound, NotWaiting, NoWorker
from sgl_droute.fleet.capabilities import IMAGE, READING, VIDEO
from tests.fleet.scheduling import able, stage, url_of

# Workers that come and go.


def test_the_last_able_worker_goes() -> None:
    """
    Jobs that nobody can serve any more leave the line, and are told why; others wait on.
    """
    play = stage("image", "video", concurrency=1)
    able(play.pool, "image", "T2I")
    able(play.pool, "video", "T2V")
    for id, want in (("i1", IMAGE), ("v1", VIDEO), ("i2", IMAGE), ("v2", VIDEO), ("v3", VIDEO)):
        play.submit(id, want=want)
    play.change("video", draining=True)
    assert play.scheduler.due() == 0.0
    play.wait(0.0)
    assert set(play.dropped) == {"v2", "v3"}
    assert all(isinstance(error, NoWorker) for error in play.dropped.values())
    assert "1 draining" in str(play.dropped["v2"])
    assert "i2" in play.scheduler.line


@pytest.mark.parametrize("how", ["removed", "dead", "asleep", "disabled", "unable"])
def test_jobs_do_not_wait_for_nobody(how: str) -> None:
    """
    However the last worker is lost.
    """
    play = stage("a", concurrency=1)
    play.submit("running", want=VIDEO)
    play.submit("waiting", want=VIDEO)
    if how == "removed":
        play.pool.remove(url_of("a"))
    elif how == "unable":
        able(play.pool, "a", "T2I")
    else:
        play.change("a", **{how: True})
    play.wait(0.0)
    assert set(play.dropped) == {"waiting"}
    assert isinstance(
        play.dropped["waiting"], BadRequest if how in ("removed", "unable") else NoWorker
    )


def test_jobs_wait_for_a_worker_that_catches_up() -> None:
    """
    A worker that only lacks adapters is back soon; not so if it is drained meanwhile.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    for id in ("first", "second"):
        play.submit(id)
    play.change("a", stale=True)
    play.finish("running")
    play.wait(10.0)
    assert not play.dropped
    play.change("a", stale=False)
    play.wait(0.0)
    assert play.homes["first"] == "a"
    play.change("a", stale=True)
    play.wait(0.0)
    play.change("a", draining=True)
    play.wait(0.0)
    assert set(play.dropped) == {"second"}


def test_a_worker_that_comes_takes_what_waits() -> None:
    """
    Nobody has to end for that.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    play.submit("waiting")
    play.pool.add(url_of("b"))
    play.wait(0.0)
    assert play.homes["waiting"] == "b"


def test_what_runs_on_a_worker_that_leaves() -> None:
    """
    It ends in peace, and no other worker is the emptier for it.
    """
    play = stage("a", "b", concurrency=1)
    homes = {id: play.submit(id) for id in ("one", "two")}
    play.pool.remove(url_of(homes["one"]))
    play.submit("next")
    play.finish("one")
    assert "next" not in play.homes
    assert set(play.scheduler.floor.running) == {"two"}


# Not reached.


def test_a_job_that_was_not_brought_to_its_worker() -> None:
    """
    It has its old place again, before those that came later, and never goes to that worker.
    """
    play = stage("a", "b", concurrency=1)
    homes = {id: play.submit(id) for id in ("one", "two")}
    play.submit("three")
    play.pool.record_unreached(play.worker(homes["one"]))
    assert play.unreached("one") == ""
    assert play.homes.get("three") is None, "the other one is full, and this was not reached"
    play.finish("two")
    assert play.homes["one"] == homes["two"]
    assert play.worker(homes["one"]).in_flight == 0
    play.pool.record_answer(play.worker(homes["one"]))
    play.wait(0.0)
    assert play.homes["three"] == homes["one"]


def test_a_deadline_that_came_while_a_worker_was_tried() -> None:
    """
    A job that comes back too late leaves at once.
    """
    play = stage("a", "b", concurrency=1)
    play.submit("one", deadline=5.0)
    play.submit("two")
    play.wait(10.0)
    play.unreached("one")
    play.wait(0.0)
    assert isinstance(play.dropped["one"], DeadlinePassed)


# Cancelled.


def test_cancel() -> None:
    """
    What waits can be cancelled, and its client is told; what runs cannot, as workers cannot.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    play.submit("waiting")
    play.cancel("waiting")
    error = play.dropped["waiting"]
    assert isinstance(error, Cancelled)
    assert (error.status, error.reason) == (409, "cancelled")
    assert play.events[-1].name == "cancelled"
    with pytest.raises(NotFound):
        play.cancel("waiting")
    with pytest.raises(NotWaiting) as caught:
        play.cancel("running")
    assert caught.value.reason == "running"
    play.finish("running")
    with pytest.raises(NotFound):
        play.cancel("running")


# What is told.


def test_why() -> None:
    """
    A job that asks is told of the workers it could have gone to, the earliest end first.
    """
    play = stage(*(f"w{number}" for number in range(20)), algorithm="least-work")
    play.change("w7", speed=2.0)
    home = play.submit("first", 10, why=True)
    told = play.bounds["first"].candidates
    assert home == "w7"
    assert len(told) == 16
    assert (told[0].url, told[0].start, told[0].end) == (url_of("w7"), 0.0, 5.0)
    assert [each.end for each in told[1:]] == [10.0] * 15
    play.submit("second", 10)
    assert play.bounds["second"].candidates == ()


def test_events() -> None:
    """
    A job is told of from its arrival to its one end, with its worker and what was predicted.
    """
    play = stage("a", concurrency=1)
    play.submit("one", 10)
    play.submit("two", 10)
    play.wait(12.0)
    play.finish("one", took=11.0)
    play.finish("two", well=False)
    told = [
        (each.name, each.time, each.job.id, each.worker, each.start, each.end, each.took)
        for each in play.events
    ]
    url = url_of("a")
    assert [each[:4] for each in told] == [
        ("submitted", 0.0, "one", None),
        ("bound", 0.0, "one", url),
        ("submitted", 0.0, "two", None),
        ("ended", 12.0, "one", url),
        ("bound", 12.0, "two", url),
        ("ended", 12.0, "two", url),
    ]
    assert told[1][4:] == (0.0, 10.0, None)
    assert told[3][4:] == (None, None, 11.0)
    assert [play.events[3].reason, play.events[5].reason] == ["well", "failed"]


def test_no_end_is_told_twice() -> None:
    """
    A request that ends twice is an error of the program.
    """
    play = stage("a")
    play.submit("one")
    play.finish("one")
    with pytest.raises(KeyError):
        play.finish("one")


def test_alarms_do_not_pile_up() -> None:
    """
    A long run in which nothing is late leaves no more to come back to than there are jobs.
    """
    play = stage("a", learned={"a": 1.0}, concurrency="auto")
    play.submit("long", 1e6)
    play.submit("waiting", 10)
    for number in range(1000):
        play.submit(f"read{number}", want=READING)
        play.finish(f"read{number}")
    assert len(play.scheduler._alarms) < 10
