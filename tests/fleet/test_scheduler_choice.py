"""
Who gets work, by example: whoever is able and well, and of those the one with
the least work.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from attrs import evolve

from sgl_droute.errors import BadRequest, NotFound, NoWorker
from sgl_droute.fleet.capabilities import ANYTHING, IMAGE, MESH, READING, REALTIME, VIDEO, Want
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.worker import Probe
from tests.fleet.scheduling import Stage, able, stage, url_of

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")


def served(play: Stage, want: Want = ANYTHING, **facts: Any) -> str:
    """
    Who gets a job that ends at once.
    """
    id = f"quick{len(play.order)}"
    name = play.submit(id, want=want, **facts)
    play.finish(id, well=False)
    return name


# Who may be chosen.


def test_sequential_requests_are_shared_evenly() -> None:
    """
    Three idle workers and twelve requests in a row: 4, 4, 4.
    """
    for algorithm in ("least-request", "round-robin", "least-work"):
        play = stage("a", "b", "c", algorithm=algorithm)
        assert Counter(served(play) for _ in range(12)) == {"a": 4, "b": 4, "c": 4}


def test_a_former_registration() -> None:
    """
    A worker that was removed and registered again does not inherit the end of old requests.
    """
    play = stage("a")
    play.submit("before")
    play.pool.remove(url_of("a"))
    play.pool.add(url_of("a"))
    play.submit("after")
    play.finish("before")
    assert play.worker("a").in_flight == 1
    assert play.station("a").count == 1
    play.finish("after")
    assert (play.worker("a").in_flight, play.station("a").count) == (0, 0)


def test_nobody() -> None:
    """
    Where nobody can take a job now that is said at once, also while others wait.
    """
    play = stage("a", concurrency=1)
    able(play.pool, "a", "T2I")
    play.submit("running")
    play.submit("waiting")
    with pytest.raises(BadRequest, match=r"^No video-capable workers available"):
        play.submit("video", want=VIDEO)
    assert [event.name for event in play.events][-2:] == ["submitted", "refused"]
    empty = stage()
    with pytest.raises(NoWorker, match="No workers registered in the pool"):
        empty.submit("x")
    assert len(empty.scheduler.line) == 0


def test_doubtful_workers_are_the_last_resort() -> None:
    """
    A new worker whose first check failed gets work only while nobody else is left.
    """
    play = stage("loading", "well")
    play.pool.record_probe(play.worker("loading"), BAD, threshold=3)
    play.pool.record_probe(play.worker("well"), GOOD, threshold=3)
    assert [served(play) for _ in range(3)] == ["well"] * 3
    assert served(play, without=frozenset({url_of("well")})) == "loading"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_next_worker_is_another(algorithm: str) -> None:
    """
    A job whose workers cannot be reached is offered to each of them once.
    """
    names = [f"w{number}" for number in range(10)]
    play = stage(*names, algorithm=algorithm)
    tried = [play.submit("j")] + [play.unreached("j") for _ in range(9)]
    assert sorted(tried) == names
    with pytest.raises(NoWorker):
        play.unreached("j")
    assert all(worker.in_flight == 0 for worker in play.pool)
    assert not play.scheduler.floor.running


def mixed() -> Stage:
    play = stage("image", "video", "mesh")
    able(play.pool, "image", "T2I")
    able(play.pool, "video", "T2V")
    able(play.pool, "mesh", "I2M")
    return play


def test_requests_go_to_those_who_are_able() -> None:
    """
    In a mixed fleet every kind of request meets its kind of worker.
    """
    play = mixed()
    for _ in range(4):
        assert [served(play, want) for want in (IMAGE, VIDEO, MESH)] == ["image", "video", "mesh"]


def test_unknown_counts_as_able() -> None:
    """
    A worker that has not said what it serves is tried.
    """
    play = mixed()
    play.pool.add(url_of("new"))
    play.pool.remove(url_of("video"))
    assert served(play, VIDEO) == "new"


def test_images_go_to_the_unable_if_need_be() -> None:
    """
    Where no usable worker makes images, one of them says so itself; not while another is left.
    """
    play = mixed()
    play.change("image", dead=True)
    assert served(play, IMAGE) in ("video", "mesh")
    play.pool.add(url_of("new"))
    assert {served(play, IMAGE) for _ in range(5)} == {"new"}


def test_the_model_chooses() -> None:
    """
    Of several models the named one is used; a name that nobody has is no wish. The other model is
    no substitute for one that is served, if not now.
    """
    play = stage("a", "b")
    desks = play.scheduler.floor.desks
    assert not desks.several_models
    able(play.pool, "a", "T2I", model="org/a")
    able(play.pool, "b", "T2I", model="org/b")
    assert desks.several_models
    assert {served(play, evolve(IMAGE, model="org/b")) for _ in range(3)} == {"b"}
    assert {served(play, evolve(IMAGE, model="org/c")) for _ in range(2)} == {"a", "b"}
    play.change("b", dead=True)
    with pytest.raises(NoWorker):
        play.submit("x", want=evolve(IMAGE, model="org/b"))


def test_strict_model() -> None:
    """
    When told so, a name that nobody serves is 404; one that a silent worker may serve goes there.
    """
    play = stage("a", strict_model=True)
    able(play.pool, "a", "T2I", model="org/a")
    assert play.scheduler.floor.desks.several_models
    assert served(play, evolve(IMAGE, model="org/a")) == "a"
    with pytest.raises(NotFound, match="'org/c'"):
        play.submit("x", want=evolve(IMAGE, model="org/c"))
    play.pool.add(url_of("new"))
    assert served(play, evolve(IMAGE, model="org/c")) == "new"
    assert served(play, evolve(IMAGE, model="org/a")) == "a"


def test_names_that_are_served_no_more_are_forgotten() -> None:
    """
    What clients ask for leaves no trace behind once nobody serves it.
    """
    play = stage("a", "b")
    for number in range(50):
        able(play.pool, "a", "T2I", model=f"org/{number}")
        assert served(play, evolve(IMAGE, model=f"org/{number}")) == "a"
        served(play, evolve(IMAGE, model=f"other/{number}"))
    assert len(play.scheduler.floor.desks) <= 3


def test_one_session_per_worker() -> None:
    """
    Two workers take two realtime sessions; a third is refused until one of them has ended.
    """
    play = stage("a", "b")
    first, second = play.submit("one", want=REALTIME), play.submit("two", want=REALTIME)
    assert {first, second} == {"a", "b"}
    with pytest.raises(NoWorker, match=r"No eligible video-capable .*: 2 in a realtime session$"):
        play.submit("three", want=REALTIME)
    play.finish("two")
    assert play.submit("four", want=REALTIME) == second


def test_a_session_of_a_former_registration() -> None:
    """
    A worker that was removed and registered again is not held full by the session of before.
    """
    play = stage("a")
    play.submit("one", want=REALTIME)
    play.pool.remove(url_of("a"))
    play.pool.add(url_of("a"))
    assert play.submit("two", want=REALTIME) == "a"


def test_a_worker_in_session_is_the_last_able_one() -> None:
    """
    Other work goes to whoever shares no GPU with a session, even if that worker has more to do or
    has yet to pass a health check; but sooner to a session's worker than to one that is unable.
    """
    play = stage("a", "b", "mesh")
    able(play.pool, "a", "T2V", "T2I")
    able(play.pool, "b", "T2V", "T2I")
    able(play.pool, "mesh", "I2M")
    busy = play.submit("session", want=REALTIME)
    other = {"a": "b", "b": "a"}[busy]
    assert {play.submit(f"image{number}") for number in range(5)} == {other}
    play.pool.record_probe(play.worker(other), BAD, threshold=3)
    assert served(play, IMAGE) == other
    play.change(other, draining=True)
    assert served(play, IMAGE) == busy
    assert served(play, VIDEO) == busy


def test_reading_takes_no_slot() -> None:
    """
    What costs no GPU time is not held up by limits, and no work is held up by it; but it counts
    among the requests that may be open.
    """
    play = stage("a", concurrency=1, max_running=3)
    assert play.submit("image") == "a"
    assert play.submit("next") == ""
    assert play.submit("list", want=READING) == "a"
    assert play.station("a").taken == 1
    assert play.submit("content", want=READING) == "a"
    assert play.submit("more", want=READING) == ""
    play.finish("list")
    assert play.homes["more"] == "a"


# Least work.


def test_least_work_goes_where_the_job_ends_first() -> None:
    """
    A worker with two short jobs is better than one with one that is long; least-request thinks
    otherwise.
    """
    found = {}
    for algorithm in ("least-work", "least-request"):
        play = stage("a", "b", algorithm=algorithm)
        first = play.submit("long", 100)
        other = {"a": "b", "b": "a"}[first]
        assert play.submit("short", 1) == other
        found[algorithm] = play.submit("next", 1) == play.submit("last", 1) == other
    assert found == {"least-work": True, "least-request": False}


def test_least_work_knows_how_fast_workers_are() -> None:
    """
    A job behind another on a worker of four times the speed ends before one that begins at once.
    """
    play = stage("slow", "fast", algorithm="least-work")
    play.change("slow", speed=0.5)
    play.change("fast", speed=2.0)
    homes = [play.submit(f"j{number}", 10) for number in range(5)]
    assert homes == ["fast", "fast", "fast", "slow", "fast"] or homes == [
        "fast",
        "fast",
        "fast",
        "fast",
        "slow",
    ]
    assert play.bounds["j1"].start == 5.0
    assert play.bounds["j1"].end == 10.0


def test_what_is_learned_of_one_worker_is_believed_of_all() -> None:
    """
    Workers that have done nothing yet are not taken for as slow as was believed before there was
    any measurement, of whatever model.
    """
    play = stage(*"abcd", *"wxyz", algorithm="least-work")
    for name in "abcd":
        able(play.pool, name, "T2I", model="org/first")
    for name in "wxyz":
        able(play.pool, name, "T2I", model="org/second")
    first, second = evolve(IMAGE, model="org/first"), evolve(IMAGE, model="org/second")
    for want in (first, second):
        play.submit(f"warm {want.model}", 10, want=want)
    for want in (first, second):
        play.finish(f"warm {want.model}", took=1.0)
    for want in (first, second):
        homes = [play.submit(f"{want.model} {number}", 10, want=want) for number in range(4)]
        assert len(set(homes)) == 4


def test_what_is_learned_counts_for_jobs_under_way() -> None:
    """
    When a worker turns out slower than believed, what it has already is predicted anew.
    """
    play = stage("a", algorithm="least-work")
    play.submit("one", 10)
    play.submit("two", 10)
    assert play.station("a").free == 20.0
    play.wait(15.0)
    play.finish("one", took=15.0)
    assert play.station("a").free > 15.0 + 10.0
