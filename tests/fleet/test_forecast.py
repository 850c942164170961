"""
What is foretold of waiting jobs comes true when nothing else comes.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.capabilities import IMAGE, READING, VIDEO
from sgl_droute.fleet.forecast import Prospect, batch_end, prospects, running
from tests.fleet.scheduling import Stage, able, stage

ALL = 10_000


def foretold(played: Stage, most: int = ALL) -> dict[str, Prospect]:
    """
    The prospects of those who wait, by id, in their order.
    """
    found = prospects(played.scheduler, played.now, most)
    return {prospect.job.id: prospect for prospect in found}


def played_out(played: Stage) -> dict[str, float]:
    """
    When each job was done, each ending as predicted.
    """
    ended: dict[str, float] = {}
    while len(ended) < len(played.homes):
        end, id = min((played.ends[id], id) for id in played.homes if id not in ended)
        played.now = end
        ended[id] = end
        played.finish(id, well=False)
    return ended


@given(
    works=st.lists(st.floats(0.5, 50.0), min_size=1, max_size=20),
    priorities=st.lists(st.integers(-2, 2), min_size=20, max_size=20),
    workers=st.integers(1, 4),
)
def test_forecasts_come_true(works: list[float], priorities: list[int], workers: int) -> None:
    """
    With workers of the same speed each job begins and ends when that was foretold, in the order
    that was foretold.
    """
    played = stage(*"abcd"[:workers], concurrency=1)
    for number, work in enumerate(works):
        played.submit(f"{number}", work, priority=priorities[number])
    told = foretold(played)
    assert [each.position for each in told.values()] == list(range(1, len(told) + 1))
    ended = played_out(played)
    assert played.order[len(works) - len(told) :] == list(told)
    for id, each in told.items():
        assert each.end == pytest.approx(ended[id])
        assert each.start == pytest.approx(ended[id] - works[int(id)])


@given(works=st.lists(st.floats(0.5, 50.0), min_size=1, max_size=12), workers=st.integers(1, 3))
def test_the_end_of_a_batch_comes_true(works: list[float], workers: int) -> None:
    """
    A batch has ended when that was foretold, whatever waits before, behind and beside it.
    """
    played = stage(*"abc"[:workers], concurrency=1)
    played.submit("before", 3.0)
    for number, work in enumerate(works):
        played.submit(f"{number}", work, batch="b")
        played.submit(f"beside {number}", work)
    end = batch_end(played.scheduler, "b", 0.0)
    ended = played_out(played)
    assert end == pytest.approx(max(ended[f"{number}"] for number in range(len(works))))
    assert batch_end(played.scheduler, "b", played.now) is None


def test_replicas_work_side_by_side() -> None:
    """
    A worker with two replicas serves its line twice as fast.
    """
    played = stage("a", concurrency="auto")
    able(played.pool, "a", "T2I", replicas=2)
    for number in range(6):
        played.submit(f"{number}", 4.0)
    starts = [each.start for each in foretold(played).values()]
    assert starts == [4.0, 4.0, 8.0, 8.0]


def test_faster_workers_take_more() -> None:
    """
    Each job is foretold to the worker that is free first, for as long as it takes there.
    """
    played = stage("fast", "slow", concurrency=1, learned={"fast": 1.0, "slow": 3.0})
    for number in range(5):
        played.submit(f"{number}", 2.0)
    ends = [each.end for each in foretold(played).values()]
    assert ends == pytest.approx([4.0, 6.0, 8.0])


def test_workers_that_are_out_of_the_question() -> None:
    """
    A job is foretold nothing at workers that cannot serve it, or could not be reached for it.
    """
    played = stage("film", "both", concurrency=1)
    able(played.pool, "film", "T2V", model="v")
    able(played.pool, "both", "T2I", "T2V")
    played.submit("long", 10.0, want=VIDEO)
    played.submit("short", 3.0, want=VIDEO)
    homes = played.homes
    played.submit("image", 1.0)
    [told] = foretold(played).values()
    assert told.start == (10.0 if homes["long"] == "both" else 3.0)


def test_what_was_not_reached() -> None:
    """
    A job that could not be brought to a worker waits for the others only.
    """
    played = stage("a", "b", concurrency=1)
    played.submit("x", 5.0)
    played.submit("y", 1.0)
    played.unreached("y")
    [told] = foretold(played).values()
    assert told.start == 5.0
    assert told.why == "all of 1 workers that can take it are busy"


def test_work_under_way_counts() -> None:
    """
    What has passed of a running job is not waited for, and what is late is waited for still.
    """
    played = stage("a", concurrency=1)
    played.submit("x", 10.0)
    played.submit("y", 1.0)
    played.wait(4.0)
    assert foretold(played)["y"].start == 10.0
    played.wait(8.0)
    start = foretold(played)["y"].start
    assert start is not None
    assert start > played.now


def test_only_so_many() -> None:
    """
    The first of the line are told as if all were.
    """
    played = stage("a", concurrency=1)
    for number in range(10):
        played.submit(f"{number}", 1.0 + number)
    told = foretold(played)
    assert list(foretold(played, 3).items())[:3] == list(told.items())[:3]
    assert len(foretold(played, 3)) == 3
    assert foretold(played, 0) == {}


def test_reasons() -> None:
    """
    A job waits because workers are busy, because too many requests are open, or for a busy worker
    that will end it sooner.
    """
    played = stage("a", concurrency=1)
    played.submit("x")
    played.submit("y")
    assert foretold(played)["y"].why == "all of 1 workers that can take it are busy"

    played = stage("a", max_running=1)
    played.submit("x", want=READING)
    played.submit("y")
    assert foretold(played)["y"].why == "1 requests are open to workers"

    played = stage(
        "fast", "slow", algorithm="least-work", concurrency=1, learned={"fast": 1.0, "slow": 50.0}
    )
    played.submit("x", 2.0)
    assert played.homes["x"] == "fast"
    assert played.submit("y", 2.0) == ""
    assert foretold(played)["y"].why == "a busy worker will end it sooner than one that is free"


def test_what_runs() -> None:
    """
    Jobs at workers are told with their start and end, those that take no GPU time without.
    """
    played = stage("a", concurrency=2)
    played.submit("x", 4.0)
    played.wait(1.0)
    played.submit("y", 2.0)
    played.submit("z", want=READING)
    told = {each.job.id: (start, end) for each, start, end in running(played.scheduler, ALL)}
    assert told == {"x": (0.0, 4.0), "y": (4.0, 6.0), "z": (None, None)}
    assert len(list(running(played.scheduler, 2))) == 2


def test_batches_that_run() -> None:
    """
    The end of a batch is that of its last job, at a worker or in line; reading has none.
    """
    played = stage("a", "b", concurrency=1)
    played.submit("x", 9.0, batch="b")
    played.submit("y", 2.0, batch="b")
    assert batch_end(played.scheduler, "b", 0.0) == 9.0
    played.submit("z", 3.0, batch="b", want=IMAGE)
    assert batch_end(played.scheduler, "b", 0.0) == 9.0
    played.submit("z2", 30.0, batch="b", want=IMAGE)
    assert batch_end(played.scheduler, "b", 0.0) == 32.0
    assert batch_end(played.scheduler, "other", 0.0) is None
