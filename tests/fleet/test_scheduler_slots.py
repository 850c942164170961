"""
How much work a worker has at once, by example: its slots, what is bound ahead and handed over, and
a slow start.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sgl_droute.fleet.capabilities import VIDEO
from sgl_droute.fleet.selection import ALGORITHMS
from tests.fleet.scheduling import Stage, able, here, stage, url_of

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
