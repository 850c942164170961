"""
Rules that change while jobs wait and run.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.errors import NotFound, Refused
from sgl_droute.fleet.capabilities import IMAGE
from sgl_droute.fleet.line import Line
from sgl_droute.fleet.selection import ALGORITHMS
from tests.fleet.scheduling import Stage, able, here, stage
from tests.fleet.test_line import job, numbers


def adopt(play: Stage, **rules: Any) -> None:
    """
    Change some of the rules.
    """
    play.follow(play.scheduler.adopt(evolve(play.scheduler.rules, **rules), play.now))


def waiting(play: Stage) -> list[str]:
    return [each.id for each in play.scheduler.line.in_order()]


def test_a_higher_limit_gives_out_who_waits() -> None:
    """
    Where workers may have more at once, those who wait go out at once, in order.
    """
    play = stage("a", concurrency=1)
    for id in ("one", "two", "three", "four"):
        play.submit(id)
    adopt(play, concurrency=3)
    assert play.order == ["one", "two", "three"]
    assert waiting(play) == ["four"]


def test_a_lower_limit_takes_nothing_away() -> None:
    """
    What workers have been given beyond a new limit stays theirs; they get no more until they have
    less than that.
    """
    play = stage("a", concurrency=3)
    for id in ("one", "two", "three"):
        play.submit(id)
    adopt(play, concurrency=1)
    play.submit("four")
    play.finish("one")
    play.finish("two")
    assert (here(play, "a"), waiting(play)) == (["three"], ["four"])
    play.finish("three")
    assert here(play, "a") == ["four"]


def test_a_shorter_line_lets_nobody_go() -> None:
    """
    Those who wait beyond a new length of the line keep their places; who comes is refused.
    """
    play = stage("a", concurrency=1)
    for id in ("one", "two", "three"):
        play.submit(id)
    adopt(play, queue_size=0)
    assert waiting(play) == ["two", "three"]
    with pytest.raises(Refused, match="wait"):
        play.submit("four")
    assert waiting(play) == ["two", "three"]


def test_fewer_and_more_open_requests() -> None:
    """
    The number of open requests is kept to as soon as it can be, and used when it grows.
    """
    play = stage("a", "b", max_running=2)
    for id in ("one", "two", "three", "four"):
        play.submit(id)
    adopt(play, max_running=1)
    play.finish("one")
    assert waiting(play) == ["three", "four"]
    adopt(play, max_running=1000)
    assert waiting(play) == []


def test_clients_begin_to_take_turns() -> None:
    """
    Who came behind many jobs of another has the second turn from then on, and the old place again
    when turns have ended.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    for id in ("one", "two", "three"):
        play.submit(id, client="many")
    play.submit("single", client="few")
    adopt(play, fair=True)
    assert waiting(play) == ["one", "single", "two", "three"]
    adopt(play, fair=False)
    assert waiting(play) == ["one", "two", "three", "single"]


@pytest.mark.parametrize("first", sorted(ALGORITHMS))
@pytest.mark.parametrize("then", sorted(ALGORITHMS))
def test_any_algorithm_after_any_other(first: str, then: str) -> None:
    """
    With a new algorithm all workers are chosen from, those who wait go first, and no job is lost.
    """
    play = stage("a", "b", "c", concurrency=1, algorithm=first)
    ids = [f"job-{number}" for number in range(9)]
    for id in ids:
        play.submit(id)
    adopt(play, algorithm=then)
    for id in ids:
        play.finish(id)
    assert play.order == ids
    assert {play.homes[id] for id in ids[3:6]} == {"a", "b", "c"}


def test_a_new_algorithm_chooses_its_own_way() -> None:
    """
    What the workers have before them counts as soon as the algorithm looks at it.
    """
    play = stage("a", "b", algorithm="round-robin")
    play.submit("one", 50.0)
    play.submit("two", 1.0)
    adopt(play, algorithm="least-work")
    assert play.submit("three") == play.homes["two"]
    assert play.submit("four") == play.homes["two"]


def test_the_next_job_sooner() -> None:
    """
    The time before the end of a job at which its worker gets the next one holds for jobs that run.
    """
    play = stage("a", learned={"a": 1.0}, concurrency="auto", bind_ahead=0.0)
    play.submit("one", 10.0)
    play.submit("two", 10.0)
    adopt(play, bind_ahead=4.0)
    play.wait(5.0)
    assert waiting(play) == ["two"]
    play.wait(1.5)
    assert waiting(play) == []


def test_a_model_that_nobody_serves() -> None:
    """
    Whether it matters is decided as the rules are when a request comes, and what the workers have
    said they serve is still known.
    """
    play = stage("a", concurrency=1)
    able(play.pool, "a", "T2I", model="org/a")
    play.submit("one", want=evolve(IMAGE, model="org/b"))
    adopt(play, strict_model=True)
    with pytest.raises(NotFound):
        play.submit("two", want=evolve(IMAGE, model="org/b"))
    play.submit("three", want=evolve(IMAGE, model="org/a"))
    adopt(play, strict_model=False)
    play.submit("four", want=evolve(IMAGE, model="org/b"))
    for id in ("one", "three", "four"):
        play.finish(id)
    assert play.order == ["one", "three", "four"]


def test_groups_keep_their_workers() -> None:
    """
    What is known of rollout groups outlives a change of the rules, and the margin is the new one.
    """
    play = stage("a", "b", group_margin=0)
    home = play.submit("one", group="g")
    adopt(play, group_margin=5, algorithm="least-work")
    assert [play.submit(id, group="g") for id in ("two", "three")] == [home, home]
    adopt(play, group_margin=0)
    assert play.submit("four", group="g") != home


@pytest.mark.parametrize("fair", [False, True])
def test_a_job_that_comes_back_after_the_change(fair: bool) -> None:
    """
    A job that left the line before turns began, or ended, and comes back behind that stands before
    those of its client that came after it.
    """
    jobs = [job(number, client="x") for number in range(3)]
    line = Line(fair=not fair)
    for each in jobs:
        line.put(each)
    line.take(jobs[0])
    line.take_turns(fair)
    line.put(jobs[0])
    assert numbers(line.in_order()) == [0, 1, 2]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("xyz"), st.sampled_from([None, "b"]), st.sampled_from([1.0, 5.0])
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_turns_that_begin_and_end_again(
    clients: list[tuple[str, str | None, float]], fair: bool
) -> None:
    """
    A line in which turns begin and end, or end and begin, serves those who wait as one in which
    they came under the last rule; nobody is lost.
    """
    arrivals = [
        job(number, client=client, batch=batch and batch + client, length=length)
        for number, (client, batch, length) in enumerate(clients)
    ]
    line, other = Line(fair=not fair), Line(fair=fair)
    for each in arrivals:
        line.put(each)
        other.put(each)
    line.take_turns(fair)
    assert numbers(line.in_order()) == numbers(other.in_order())
    assert [line.position(each) for each in arrivals] == [other.position(each) for each in arrivals]
    assert line.seconds() == pytest.approx(other.seconds())
