"""
Every rule of scheduling by example, in virtual time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from attrs import evolve

from sgl_droute.errors import (
    BadRequest,
    Cancelled,
    DeadlinePassed,
    NotFound,
    NotWaiting,
    NoWorker,
    Refused,
    TooLate,
)
from sgl_droute.fleet.capabilities import (
    ANYTHING,
    EDIT,
    IMAGE,
    MESH,
    READING,
    REALTIME,
    VIDEO,
    Want,
)
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


# Slots.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_slots(algorithm: str) -> None:
    """
    With a limit of one each, two workers have two jobs, and the others wait for their turns in
    order of arrival.
    """
    play = stage("a", "b", algorithm=algorithm, concurrency=1)
    homes = [play.submit(f"j{number}") for number in range(5)]
    assert sorted(homes) == ["", "", "", "a", "b"]
    play.finish("j1")
    assert play.homes["j2"] == homes[1]
    play.finish("j0")
    assert play.homes["j3"] == homes[0]
    assert "j4" not in play.homes


def test_without_a_limit_nobody_waits() -> None:
    """
    By default workers queue for themselves, as behind any proxy.
    """
    play = stage("a", "b")
    assert all(play.submit(f"j{number}") for number in range(100))


def test_a_limit_of_its_own() -> None:
    """
    What an operator says of a worker counts more than what the fleet has, in both directions and at
    once.
    """
    play = stage("a", "b", concurrency=1)
    play.change("a", concurrency=3)
    assert Counter(play.submit(f"j{number}") for number in range(5)) == {"a": 3, "b": 1, "": 1}
    play.change("b", concurrency=0)
    play.wait(0.0)
    assert play.homes["j4"] == "b"
    play.change("b", concurrency=2)
    play.submit("j5")
    play.finish("j4")
    assert play.homes["j5"] == "b", "b had two and has room for one"


def test_replicas() -> None:
    """
    With ``auto`` a worker of three replicas has three jobs, each of which runs at once; when it
    comes to have one only, no more are given to it until it has done what is too much.
    """
    play = stage("a", "b", concurrency="auto")
    able(play.pool, "a", "T2I", replicas=3)
    able(play.pool, "b", "T2I")
    assert Counter(play.submit(f"j{number}", 10) for number in range(6)) == {"a": 3, "b": 1, "": 2}
    assert {play.ends[id] for id in play.order} == {10.0}
    able(play.pool, "a", "T2I", replicas=1)
    there = [id for id, home in play.homes.items() if home == "a"]
    play.finish(there[0])
    play.finish(there[1])
    assert len(play.order) == 4
    play.finish(there[2])
    assert len(play.order) == 5
    assert len(play.station("a").lanes) == 1


def test_a_job_holds_its_slot_until_its_thing_is_made() -> None:
    """
    The answer to the creation of a video frees nothing; its end does.
    """
    play = stage("a", concurrency=1)
    play.submit("video", 30, want=VIDEO)
    play.make("video")
    assert play.worker("a").in_flight == 0
    play.submit("next")
    play.wait(40.0)
    assert "next" not in play.homes
    play.thing_ended("video")
    assert play.homes["next"] == "a"


def test_a_slot_is_free_when_the_answer_begins() -> None:
    """
    While a client downloads its image the GPU has nothing to do with it.
    """
    play = stage("a", concurrency=1)
    play.submit("image")
    play.submit("next")
    play.follow(play.scheduler.answered("image", play.now))
    assert play.homes["next"] == "a"
    assert play.worker("a").in_flight == 2
    play.finish("image")
    assert play.worker("a").in_flight == 1


def test_things_that_others_asked_for() -> None:
    """
    A video that a worker has from elsewhere takes a slot until it is made; of one that left the
    fleet nothing is remembered.
    """
    play = stage("a", concurrency=1)
    thing = "video", "theirs"
    play.scheduler.thing_opened(thing, play.worker("a"), 0.0)
    play.scheduler.thing_opened(thing, play.worker("a"), 0.0)
    assert play.submit("mine") == ""
    play.thing_ended("theirs")
    assert play.homes["mine"] == "a"
    former = play.worker("a")
    play.pool.remove(url_of("a"))
    play.scheduler.thing_opened(thing, former, 0.0)
    assert not play.scheduler._things
    assert set(play.scheduler.floor.running) == {"mine"}


def test_no_more_requests_open_than_allowed() -> None:
    """
    However many slots there are, the requests beyond ``max_running`` wait.
    """
    play = stage("a", "b", max_running=3)
    assert [bool(play.submit(f"j{number}")) for number in range(5)] == [True] * 3 + [False] * 2
    assert play.scheduler.full
    play.finish("j1")
    play.abandon("j0")
    assert set(play.homes) == {"j0", "j1", "j2", "j3", "j4"}


# Bind ahead.


def test_the_next_job_is_bound_just_before_the_end() -> None:
    """
    A second before the predicted end of a job whose worker is known the next one follows, and no
    other behind that.
    """
    play = stage("a", learned={"a": 1.0}, concurrency="auto", bind_ahead=1.0)
    for id in ("first", "second", "third"):
        play.submit(id, 10)
    play.wait(8.99)
    assert play.order == ["first"]
    play.wait(0.02)
    assert play.order == ["first", "second"]
    assert play.bounds["second"].start == 10.0
    play.wait(30.0)
    assert play.order == ["first", "second"]
    play.finish("first")
    assert play.order == ["first", "second"]


def test_short_jobs_follow_at_once() -> None:
    """
    Behind a job that takes less than the time to bind ahead, the next is bound at once.
    """
    play = stage("a", learned={"a": 1.0}, concurrency="auto", bind_ahead=1.0)
    assert [play.submit(id, 0.5) for id in ("first", "second", "third")] == ["a", "a", ""]
    play.finish("first")
    assert play.order == ["first", "second", "third"]


def test_nothing_is_bound_ahead_on_a_guess() -> None:
    """
    While the speed of a worker is not learned, or its limit is a number, the next job waits for the
    end of the one that runs.
    """
    guess = stage("a", learned={"a": 1.0}, samples=4, concurrency="auto")
    number = stage("a", learned={"a": 1.0}, concurrency=1)
    for play in (guess, number):
        play.submit("first", 10)
        play.submit("second", 10)
        play.wait(30.0)
        assert play.order == ["first"]
        play.finish("first")
        assert play.order == ["first", "second"]


def test_a_limit_that_becomes_auto_while_a_job_runs() -> None:
    """
    Binding ahead begins with the job that runs.
    """
    play = stage("a", learned={"a": 1.0}, concurrency=1)
    play.submit("first", 10)
    play.submit("second", 10)
    play.wait(2.0)
    play.change("a", concurrency="auto")
    play.wait(7.5)
    assert play.order == ["first", "second"]


# Hand over.


def test_videos_are_handed_over() -> None:
    """
    After 20 s a video goes to the worker with the earliest predicted end, over its limit; an image
    of the same time does not.
    """
    play = stage("a", "b", learned={"a": 1.0, "b": 1.0}, concurrency=1)
    long, short = play.submit("one", 100), play.submit("two", 60)
    assert {long, short} == {"a", "b"}
    play.wait(5.0)
    play.submit("image", 10)
    assert play.submit("video", 10, want=VIDEO, hand_over=play.now + 20.0) == ""
    play.wait(18.9)
    assert "video" not in play.homes
    play.wait(1.2)
    assert play.homes["video"] == short
    assert "image" not in play.homes
    assert play.bounds["video"].start == 60.0
    assert play.station(short).taken == 2
    play.wait(40.0)
    play.finish("two")
    assert "image" not in play.homes, "the video has the slot"


def test_nothing_is_handed_over_that_may_not_be_open() -> None:
    """
    The most requests that may be open are not exceeded by it; it follows within a second of room,
    whoever left the line meanwhile.
    """
    play = stage("a", max_running=1)
    play.submit("first")
    for id in ("gone", "video", "other"):
        play.submit(id, want=VIDEO, hand_over=20.0)
    play.wait(25.0)
    play.abandon("gone")
    play.wait(100.0)
    assert play.order == ["first"]
    play.finish("first")
    play.wait(1.0)
    assert play.order == ["first", "video"]
    play.finish("video")
    play.wait(1.0)
    assert play.order == ["first", "video", "other"]


# Slow start.


def here(play: Stage, name: str) -> list[str]:
    """
    The jobs that a worker has.
    """
    running = play.scheduler.floor.running.values()
    return [each.job.id for each in running if each.station is play.station(name)]


def under_way(*names: str, **rules: Any) -> Stage:
    """
    A fleet that has done a job.
    """
    play = stage(*names, **rules)
    play.submit("before")
    play.finish("before")
    return play


def filled(play: Stage, name: str) -> int:
    """
    How many jobs the worker has after forty more have come.
    """
    for number in range(40):
        play.submit(f"{len(play.events)} {number}")
    return len(here(play, name))


def test_a_worker_that_joins_late_starts_slowly() -> None:
    """
    A worker that joins a fleet under way gets one job, then two, four and eight at once, with each
    one that it does well twice as many, and then as many as the others.
    """
    play = under_way("a")
    play.pool.add(url_of("new"))
    found = []
    for _ in range(5):
        found.append(filled(play, "new"))
        play.finish(here(play, "new")[0])
    assert found[:4] == [1, 2, 4, 8]
    assert filled(play, "new") > 40


def test_what_fails_is_no_reason_to_give_more() -> None:
    """
    A new worker whose first job fails gets one again.
    """
    play = under_way("a")
    play.pool.add(url_of("new"))
    assert filled(play, "new") == 1
    play.finish(here(play, "new")[0], well=False)
    assert filled(play, "new") == 1


def test_a_worker_that_recovers_starts_slowly() -> None:
    """
    Back from quarantine, a worker is as one that is new.
    """
    play = under_way("a", "b")
    play.change("b", dead=True)
    play.change("b", dead=False)
    assert filled(play, "b") == 1


def test_a_slow_start_within_a_limit() -> None:
    """
    With a limit of three a new worker gets one job, then two, then three; others wait.
    """
    play = under_way("a", concurrency=3)
    play.pool.add(url_of("new"))
    assert filled(play, "new") == 1
    found = []
    for _ in range(3):
        play.finish(here(play, "new")[0])
        found.append(len(here(play, "new")))
    assert found == [2, 3, 3]


def test_the_first_workers_start_at_once() -> None:
    """
    A fleet that has yet to do its first job is not held back, whenever its workers come.
    """
    play = stage("a")
    play.pool.add(url_of("b"))
    assert filled(play, "b") == 20


def test_nobody_waits_for_a_slow_start() -> None:
    """
    If all workers are new, they get more than they should have for a start.
    """
    play = under_way("a")
    play.pool.add(url_of("new"))
    play.pool.remove(url_of("a"))
    assert filled(play, "new") == 40


# Deadlines.


def refusal(play: Stage, id: str, work: float, **facts: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        play.submit(id, work, **facts)
    return caught.value


def test_a_deadline_that_cannot_be_kept() -> None:
    """
    A job that would end behind its deadline is refused at once with 429, and told by how much.
    """
    play = stage("a", learned={"a": 1.0})
    play.submit("first", 10)
    refused = refusal(play, "late", 5, deadline=12.5)
    assert isinstance(refused, TooLate)
    assert (refused.status, refused.headers) == (429, {"Retry-After": "3"})
    assert refused.fields == {"reason": "deadline", "queue_position": 1, "retry_after": 3}
    assert "late" not in play.scheduler.floor.running
    assert play.submit("in time", 5, deadline=15.5) == "a"


def test_retry_after_is_at_least_a_second() -> None:
    """
    A client that is late by little is asked to come back in a second.
    """
    play = stage("a", learned={"a": 1.0})
    assert refusal(play, "late", 5, deadline=4.99).headers == {"Retry-After": "1"}


def test_a_deadline_behind_the_line() -> None:
    """
    Those who wait before a job count, and those of lower priority do not.
    """
    play = stage("a", "b", learned={"a": 1.0, "b": 1.0}, concurrency=1)
    for number in range(6):
        play.submit(f"j{number}", 10)
    # Two run and four wait, so that two rounds come first.
    refused = refusal(play, "late", 10, deadline=35.0)
    assert refused.fields["queue_position"] == 5
    assert play.submit("in time", 10, deadline=41.0) == ""
    assert play.submit("before others", 10, deadline=21.0, priority=1) == ""


@pytest.mark.parametrize(("samples", "refused"), [(4, False), (5, True)])
def test_deadlines_are_believed_after_five_measurements(samples: int, refused: bool) -> None:
    """
    On a guess nobody is refused.
    """
    play = stage("a", learned={"a": 1.0}, samples=samples, concurrency=1)
    for id in ("running", "waiting"):
        if refused:
            assert isinstance(refusal(play, id, 10, deadline=5.0), TooLate)
        else:
            play.submit(id, 10, deadline=5.0)


def test_a_deadline_that_comes() -> None:
    """
    A job whose deadline comes while it waits leaves the line with 504; one that runs by then is
    left alone.
    """
    play = stage("a", concurrency=1)
    play.submit("running", 10, deadline=5.0)
    play.submit("waiting", 10, deadline=6.0)
    play.submit("other", 10)
    play.wait(5.9)
    assert not play.dropped
    play.wait(0.2)
    error = play.dropped.pop("waiting")
    assert isinstance(error, DeadlinePassed)
    assert (error.status, error.fields["reason"], error.fields["queue_position"]) == (
        504,
        "deadline",
        1,
    )
    play.wait(100.0)
    assert not play.dropped
    play.finish("running")
    assert play.homes["other"] == "a"


# Limits of the line.


def test_a_job_that_waits_for_too_long() -> None:
    """
    After the longest time that any request may wait it is let go with 503, and told when to come
    back.
    """
    play = stage("a", concurrency=1)
    play.submit("running", 100)
    play.submit("first", 10)
    play.submit("second", 10, expires=30.0)
    play.wait(30.0)
    error = play.dropped["second"]
    assert error.status == 503
    # 70 s are left of the one that runs, and 10 s wait.
    assert error.fields == {"reason": "queue_timeout", "queue_position": 2, "retry_after": 80}
    assert error.headers == {"Retry-After": "80"}
    assert "first" in play.scheduler.line


def test_a_full_line() -> None:
    """
    Beyond the size of the line a job is refused with 503, its place and the time until all before
    it are done; one that need not wait is taken all the same.
    """
    play = stage("a", "b", concurrency=1, queue_size=2)
    for number in range(4):
        play.submit(f"j{number}", 10)
    refused = refusal(play, "j4", 10)
    assert refused.status == 503
    # Twice 10 s at the workers and twice 10 s in line, for two.
    assert refused.fields == {"reason": "queue_full", "queue_position": 3, "retry_after": 20}
    assert refused.headers == {"Retry-After": "20"}
    assert play.submit("list", want=READING) in ("a", "b")
    play.abandon("j3")
    assert play.submit("j5", 10) == ""


def test_a_line_of_no_size() -> None:
    """
    With ``queue_size`` 0 nobody waits, and nobody is refused whom a worker takes at once.
    """
    play = stage("a", concurrency=1, queue_size=0)
    assert play.submit("first") == "a"
    assert refusal(play, "second", 1).fields["queue_position"] == 1
    play.finish("first")
    assert play.submit("third") == "a"


# Order.


def test_priority_and_age() -> None:
    """
    Higher priority goes first, but not before those that have waited a minute longer per level.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    play.submit("old")
    play.wait(50.0)
    play.submit("usual")
    play.submit("urgent", priority=1)
    play.wait(20.0)
    play.submit("late", priority=1)
    for id in ("running", "urgent", "old", "late", "usual"):
        assert play.order[-1] == id
        play.finish(id)


def test_fair_turns() -> None:
    """
    With ``fair`` a client with many jobs does not hold up one with few.
    """
    found = []
    for fair in (False, True):
        play = stage("a", concurrency=1, fair=fair)
        play.submit("running")
        for number in range(3):
            play.submit(f"many{number}", client="many")
        play.submit("few", client="few")
        while play.scheduler.floor.running:
            play.finish(play.order[-1])
        found.append(play.order.index("few"))
    assert found == [4, 2]


def test_a_batch_goes_longest_first() -> None:
    """
    Jobs of a batch take their places by length, and keep those of others.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    play.submit("short", 1, batch="b")
    play.submit("alone", 2)
    play.submit("long", 9, batch="b")
    play.submit("longer", 10, batch="b")
    while play.scheduler.floor.running:
        play.finish(play.order[-1])
    assert play.order == ["running", "longer", "alone", "long", "short"]


def test_others_pass_who_cannot_go() -> None:
    """
    A job whose workers are busy does not hold up those behind it that want others.
    """
    play = stage("image", "video", concurrency=1)
    able(play.pool, "image", "T2I")
    able(play.pool, "video", "T2V")
    play.submit("i1", want=IMAGE)
    play.submit("v1", want=VIDEO)
    play.submit("i2", want=IMAGE)
    play.submit("v2", want=VIDEO)
    play.finish("v1")
    assert play.order == ["i1", "v1", "v2"]


# Groups.


def test_a_group_stays_together() -> None:
    """
    Jobs of a group go to the worker of the first while that is at most two jobs ahead of the least
    loaded.
    """
    play = stage("a", "b", "c", group_margin=2)
    home = play.submit("g0", group="g")
    assert [play.submit(f"g{number}", group="g") for number in (1, 2)] == [home, home]
    assert play.submit("g3", group="g") != home
    play.finish("g0")
    assert play.submit("g4", group="g") == home


def test_the_margin_of_groups_counts_from_the_least_loaded() -> None:
    """
    Where all have much to do, so may the worker of a group.
    """
    play = stage("a", "b", group_margin=0)
    home = play.submit("g0", group="g")
    assert play.submit("g1", group="g") != home
    for number in range(4):
        play.submit(f"j{number}")
    assert len(here(play, "a")) == len(here(play, "b")) == 3
    assert play.submit("g2", group="g") == home


def test_a_group_whose_worker_is_full() -> None:
    """
    A group does not wait for its worker, and goes back to it later.
    """
    play = stage("a", "b", concurrency=1)
    home = play.submit("g0", group="g")
    assert play.submit("g1", group="g") not in ("", home)
    play.finish("g0")
    play.finish("g1")
    assert play.submit("g2", group="g") == home


def test_a_group_whose_worker_leaves() -> None:
    """
    It finds another home.
    """
    play = stage("a", "b", "c", group_margin=9)
    home = play.submit("g0", group="g")
    play.pool.remove(url_of(home))
    second = play.submit("g1", group="g")
    assert second != home
    assert play.submit("g2", group="g") == second


# Abandoned work.


def test_abandoned_work_counts_until_its_predicted_end() -> None:
    """
    A worker works on for a client that left: its slot is taken for as long as was predicted.
    """
    play = stage("a", concurrency=1)
    play.submit("gone", 30)
    play.submit("next", 5)
    play.wait(10.0)
    play.abandon("gone")
    assert play.worker("a").in_flight == 0
    play.wait(19.9)
    assert "next" not in play.homes
    play.wait(0.2)
    assert play.homes["next"] == "a"
    assert play.scheduler.floor.running.keys() == {"next"}


def test_abandoned_work_is_load() -> None:
    """
    Without limits too the next job goes to whoever has not been left with work.
    """
    for algorithm in ("least-request", "least-work"):
        play = stage("a", "b", algorithm=algorithm)
        home = play.submit("gone", 30)
        play.abandon("gone")
        assert play.submit("next", 30) != home


def test_abandoned_work_of_an_idle_time() -> None:
    """
    Jobs that were left in a row have ended one after the other by the time that was predicted for
    all, also when nothing has happened since.
    """
    play = stage("a", concurrency=0)
    for number in range(3):
        play.submit(f"j{number}", 10)
        play.abandon(f"j{number}")
    play.now = 25.0
    play.wait(0.0)
    assert play.submit("new", 10) == "a"
    assert set(play.scheduler.floor.running) == {"j2", "new"}
    assert play.bounds["new"].start == 30.0


def test_abandoned_work_that_was_overtaken() -> None:
    """
    When a job ends that came after it, abandoned work must have ended.
    """
    play = stage("a")
    play.submit("gone", 100)
    play.abandon("gone")
    play.submit("behind", 1)
    play.wait(3.0)
    play.finish("behind")
    assert not play.scheduler.floor.running
    assert play.station("a").free == 0


def test_abandoned_work_is_forgotten_in_a_restart() -> None:
    """
    A new process at the same URL knows nothing of it.
    """
    play = stage("a", concurrency=1)
    play.pool.record_probe(play.worker("a"), GOOD, threshold=3)
    play.submit("gone", 100)
    play.submit("next", 1)
    play.abandon("gone")
    play.pool.record_lapse(play.worker("a"))
    play.pool.record_probe(play.worker("a"), GOOD, threshold=3)
    play.wait(0.0)
    assert play.homes["next"] == "a"
    assert play.bounds["next"].start == 0.0


def test_a_client_that_leaves_while_its_answer_arrives() -> None:
    """
    The GPU has nothing to do with that: nothing is left behind.
    """
    play = stage("a")
    play.submit("gone", 100)
    play.follow(play.scheduler.answered("gone", 1.0))
    play.abandon("gone")
    assert not play.scheduler.floor.running
    assert play.worker("a").in_flight == 0


def test_a_client_that_leaves_after_its_video_began() -> None:
    """
    The video goes on until its worker says that it is made, and that is the one end of the job.
    """
    play = stage("a")
    play.submit("video", 10, want=VIDEO)
    play.scheduler.made("video", ("video", "video"))
    play.abandon("video")
    play.now = 50.0
    play.wait(0.0)
    assert set(play.scheduler.floor.running) == {"video"}
    play.thing_ended("video")
    assert not play.scheduler.floor.running
    assert [event.name for event in play.events] == ["submitted", "bound", "ended"]


def test_clients_that_leave_the_line() -> None:
    """
    A job that waits is gone with its client.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    play.submit("gone")
    play.submit("next")
    play.abandon("gone")
    play.abandon("gone")
    play.finish("running")
    assert play.order == ["running", "next"]
    assert [event.name for event in play.events].count("abandoned") == 1


# Predictions that do not come true.


def test_overdue_jobs_are_expected_to_take_longer() -> None:
    """
    The longer a job outlives its prediction, the longer it is expected to take, and the later those
    behind it.
    """
    play = stage("a", "b", algorithm="least-work", concurrency=1)
    home = play.submit("overdue", 10)
    play.submit("other", 200)
    play.submit("next", 10)
    ends = []
    for _ in range(3):
        play.wait(30.0)
        ends.append(play.station(home).free)
    assert all(end > 30.0 * (number + 1) for number, end in enumerate(ends))
    assert all(end < 30.0 * (number + 1) * 1.6 for number, end in enumerate(ends))
    assert "next" not in play.homes


def test_jobs_wait_for_a_faster_worker() -> None:
    """
    With least-work a job waits for a busy worker where it ends sooner than on a free one, and no
    more jobs than that is true of, one behind the other.
    """
    play = stage("fast", "slow", algorithm="least-work", concurrency=1)
    play.change("slow", speed=0.2)
    homes = [play.submit(f"j{number}", 10) for number in range(8)]
    assert homes[0] == "fast"
    # The fifth would end there after 50 s, and so it does on the slow one.
    assert homes.index("slow") in (3, 4)
    assert Counter(homes) == {"fast": 1, "slow": 1, "": 6}
    play.wait(10.0)
    play.finish("j0")
    assert play.homes["j1"] == "fast"


def test_a_faster_worker_is_not_waited_for_twice() -> None:
    """
    While a job waits for a faster worker, one of another kind does not count on the same time.
    """
    play = stage("fast", "slow", algorithm="least-work", concurrency=1)
    play.change("slow", speed=0.4)
    assert play.submit("first", 10) == "fast"
    assert play.submit("image", 10) == ""
    assert play.submit("edit", 10, want=EDIT) == "slow"


def test_jobs_that_waited_for_a_faster_worker_take_what_is_free() -> None:
    """
    When the faster worker is late, it is worth waiting for no longer.
    """
    play = stage("fast", "slow", algorithm="least-work", concurrency=1)
    play.change("slow", speed=0.5)
    play.submit("first", 10)
    assert play.submit("second", 10) == "slow"
    play.finish("second", well=False)
    play.finish("first", well=False)
    play.submit("third", 4)
    assert play.submit("fourth", 10) == ""
    play.wait(60.0)
    assert play.homes["fourth"] == "slow"


def test_other_algorithms_wait_for_nobody() -> None:
    """
    Where work is not looked at, whoever is free takes the next job.
    """
    for algorithm in ("least-request", "round-robin", "random"):
        play = stage("fast", "slow", algorithm=algorithm, concurrency=1)
        play.change("slow", speed=0.01)
        assert {play.submit("j0", 10), play.submit("j1", 10)} == {"fast", "slow"}


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
    assert (error.status, error.fields["reason"]) == (409, "cancelled")
    assert play.events[-1].name == "cancelled"
    with pytest.raises(NotFound):
        play.cancel("waiting")
    with pytest.raises(NotWaiting) as caught:
        play.cancel("running")
    assert caught.value.fields["reason"] == "running"
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
