"""
The line, by example: deadlines, limits, who comes first, and groups.
"""

from __future__ import annotations

from typing import Any

import pytest

from sgl_droute.errors import DeadlinePassed, Refused, TooLate
from sgl_droute.fleet.capabilities import IMAGE, READING, VIDEO
from tests.fleet.scheduling import Stage, able, here, stage, url_of

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
    assert (refused.reason, refused.fields) == ("deadline", {"queue_position": 1, "retry_after": 3})
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
    assert (error.status, error.reason, error.fields["queue_position"]) == (
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
    assert (error.reason, error.fields) == (
        "queue_timeout",
        {"queue_position": 2, "retry_after": 80},
    )
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
    assert (refused.reason, refused.fields) == (
        "queue_full",
        {"queue_position": 3, "retry_after": 20},
    )
    assert refused.headers == {"Retry-After": "20"}
    assert play.submit("list", want=READING) in ("a", "b")
    play.abandon("j3")
    assert play.submit("j5", 10) == ""


def test_a_full_line_of_what_few_can_serve() -> None:
    """
    Workers that cannot serve those who wait do not make the line any shorter.
    """
    play = stage("film", *"abcdefghi", concurrency=1, queue_size=2)
    able(play.pool, "film", "T2V", "T2I", model="v")
    for name in "abcdefghi":
        able(play.pool, name, "T2I")
    for number in range(3):
        play.submit(f"v{number}", 10, want=VIDEO)
    refused = refusal(play, "v3", 10, want=VIDEO)
    assert refused.fields["retry_after"] == 30, "three videos, one after the other"
    play.now += 10.0
    play.finish("v0")
    play.submit("v4", 10, want=VIDEO)
    assert refusal(play, "v5", 10, want=VIDEO).fields["retry_after"] == 30
    assert play.submit("image", 10) != ""


def test_a_full_line_before_replicas() -> None:
    """
    All that a worker's replicas have is to be done first, and they do it side by side.
    """
    play = stage("a", concurrency="auto", queue_size=2)
    able(play.pool, "a", "T2I", replicas=2)
    for number in range(4):
        play.submit(f"j{number}", 10)
    assert refusal(play, "j4", 10).fields["retry_after"] == 20


def test_many_who_find_the_line_full() -> None:
    """
    What they are told follows what happens within a tenth of a second.
    """
    play = stage("a", concurrency=1, queue_size=1)
    play.submit("running", 100)
    play.submit("waiting", 50)
    assert refusal(play, "x0", 1).fields["retry_after"] == 150
    play.abandon("waiting")
    play.submit("shorter", 5)
    play.now += 0.1
    assert refusal(play, "x1", 1).fields["retry_after"] == 105


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
