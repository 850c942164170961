"""
The choice among workers, law by law.
"""

from __future__ import annotations

import math
from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.selection import (
    ALGORITHMS,
    Asked,
    LeastRequest,
    LeastWork,
    Load,
    RandomChoice,
    RoundRobin,
    Selection,
)

IDLE, BUSY = Load(0), Load(1, free=1.0)
KEYS = st.sampled_from("abcdefgh")
# Workers of one model differ in speed, and not in what part of the time is fixed.
LOADS = st.builds(
    lambda jobs, free, slow, model: Load(
        jobs, free if jobs else 0.0, slow, slow / 4, 5 * slow, model
    ),
    st.integers(0, 5),
    st.floats(0, 20),
    st.sampled_from([0.5, 0.99, 1.0, 1.01, 2.0]),
    st.sampled_from([None, "m"]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, LOADS),
        st.tuples(st.just("discard"), KEYS, st.just(IDLE)),
        st.tuples(st.just("choose"), st.sets(KEYS), st.just(IDLE)),
    ),
    max_size=60,
)


def asked(now: float, work: float) -> Asked:
    return Asked(now, lambda model: work)


def ended(load: Load, now: float, work: float) -> float:
    return max(load.free, now) + work * load.pace + load.fixed


# Not parametrized: pytest-twisted wraps a Hypothesis test once more for each parameter.
@given(
    algorithm=st.sampled_from(sorted(ALGORITHMS)),
    steps=STEPS,
    now=st.floats(0, 20),
    work=st.sampled_from([0.5, 4.0, 50.0]),
)
def test_only_what_may_be_chosen(
    algorithm: str, steps: list[tuple[str, object, Load]], now: float, work: float
) -> None:
    """
    A choice is always a key that is in and not left out, and none only if there is no such key. It
    is one with the fewest jobs for least-request, and for least-work one where the job ends first,
    but for 5 % of what it takes.
    """
    selection = ALGORITHMS[algorithm](Random(1))
    loads: dict[str, Load] = {}
    for verb, what, load in steps:
        if verb == "put":
            assert isinstance(what, str)
            selection.put(what, load)
            loads[what] = load
        elif verb == "discard":
            assert isinstance(what, str)
            selection.discard(what)
            loads.pop(what, None)
        else:
            assert isinstance(what, set)
            able = {key: load for key, load in loads.items() if key not in what}
            chosen = selection.choose(what, asked(now, work))
            assert (chosen is None) == (not able)
            if chosen is None:
                continue
            assert chosen in able
            if isinstance(selection, LeastRequest):
                assert able[chosen].jobs == min(load.jobs for load in able.values())
            if isinstance(selection, LeastWork):
                first = min(ended(load, now, work) for load in able.values())
                took = ended(able[chosen], now, work) - max(able[chosen].free, now)
                assert ended(able[chosen], now, work) <= first + 0.05 * took + 1e-9
        assert len(selection) == len(loads)
        assert all(key in selection for key in loads)


def _filled(selection: Selection, keys: str) -> Selection:
    for key in keys:
        selection.put(key, IDLE)
    return selection


def test_idle_ones_take_turns() -> None:
    """
    Twelve requests, one after the other, on three idle workers go 4, 4, 4.
    """
    for make in (LeastRequest, LeastWork):
        selection = _filled(make(), "abc")
        served: Counter[str | None] = Counter()
        for _ in range(12):
            chosen = selection.choose()
            assert chosen is not None
            served[chosen] += 1
            selection.put(chosen, BUSY)
            selection.put(chosen, IDLE)
        assert served == {"a": 4, "b": 4, "c": 4}


def test_least_work_looks_at_the_end() -> None:
    """
    A fast key with a backlog is better than a slow one without where the job ends sooner there.
    """
    selection = LeastWork()
    selection.put("fast", Load(1, free=3.0, pace=1.0, usual=1.0))
    selection.put("slow", Load(0, pace=4.0, usual=4.0))
    assert selection.choose((), asked(0.0, 0.9)) == "slow"
    assert selection.choose((), asked(0.0, 1.1)) == "fast"
    assert selection.choose({"fast"}, asked(0.0, 1.1)) == "slow"
    assert selection.earliest(asked(0.0, 1.1)) == (4.1, "fast")


def test_least_work_knows_that_work_depends_on_the_model() -> None:
    """
    The work of a job is asked for each model, as is how long that takes.
    """
    selection = LeastWork()
    selection.put("a", Load(0, pace=1.0, model="heavy"))
    selection.put("b", Load(0, pace=3.0, model="light"))
    works = {"heavy": 10.0, "light": 1.0}
    question = Asked(0.0, lambda model: works[str(model)])
    assert selection.choose((), question) == "b"


def test_a_backlog_of_the_past_is_none() -> None:
    """
    Keys that should have finished are as good as idle ones: fewer jobs decide.
    """
    selection = LeastWork()
    selection.put("late", Load(2, free=5.0))
    selection.put("later", Load(1, free=6.0))
    assert selection.choose((), asked(5.5, 1.0)) == "late"
    selection.put("idle", Load(0))
    assert selection.choose((), asked(7.0, 1.0)) == "idle"


def test_round_robin_takes_turns() -> None:
    """
    Keys come in turn; a new one waits for the others, a left-out one keeps its place.
    """
    selection = _filled(RoundRobin(), "abc")
    assert [selection.choose() for _ in range(4)] == ["a", "b", "c", "a"]
    selection.put("d", IDLE)
    assert selection.choose({"b"}) == "c"
    assert [selection.choose() for _ in range(4)] == ["b", "a", "d", "c"]


def test_random_is_even() -> None:
    """
    Over many choices every key gets about its share.
    """
    selection = _filled(RandomChoice(Random(7)), "abcd")
    served = Counter(selection.choose() for _ in range(4000))
    assert set(served) == set("abcd")
    assert all(900 < count < 1100 for count in served.values())


def test_heaps_stay_small() -> None:
    """
    A long run of requests leaves no trail of old loads behind.
    """
    least, work = LeastRequest(), LeastWork()
    for selection in (least, work):
        _filled(selection, "ab")
        for number in range(2000):
            selection.put("a", Load(1, free=number / 7, usual=math.exp(number % 50)))
            selection.choose()
            selection.put("a", IDLE)
            selection.choose()
    assert len(least._heap) <= 2
    assert sum(len(heap) for heap in work._heaps.values()) <= 2 + 2 * 2 + 64
    assert len(work._heaps) <= 2 + 2 * 2 + 64
