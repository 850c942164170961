"""
The choice among workers, law by law.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.selection import ALGORITHMS, LeastRequest, RandomChoice, RoundRobin, Selection

KEYS = st.sampled_from("abcdefgh")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 5)),
        st.tuples(st.just("discard"), KEYS, st.just(0)),
        st.tuples(st.just("choose"), st.sets(KEYS), st.just(0)),
    ),
    max_size=60,
)


# Not parametrized: pytest-twisted wraps a Hypothesis test once more for each parameter.
@given(algorithm=st.sampled_from(sorted(ALGORITHMS)), steps=STEPS)
def test_only_what_may_be_chosen(algorithm: str, steps: list[tuple[str, object, int]]) -> None:
    """
    A choice is always a key that is in and not left out, and none only if there is no such key.
    """
    selection = ALGORITHMS[algorithm](Random(1))
    loads: dict[str, int] = {}
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
            chosen = selection.choose(what)
            assert (chosen is None) == (not able)
            assert chosen is None or chosen in able
            if isinstance(selection, LeastRequest) and chosen is not None:
                assert able[chosen] == min(able.values())
        assert len(selection) == len(loads)


def _filled(selection: Selection, keys: str) -> Selection:
    for key in keys:
        selection.put(key, 0)
    return selection


def test_least_request_is_fair_among_equals() -> None:
    """
    Twelve requests, one after the other, on three idle workers go 4, 4, 4.
    """
    selection = _filled(LeastRequest(), "abc")
    served: Counter[str | None] = Counter()
    for _ in range(12):
        chosen = selection.choose()
        assert chosen is not None
        served[chosen] += 1
        selection.put(chosen, 1)
        selection.put(chosen, 0)
    assert served == {"a": 4, "b": 4, "c": 4}


def test_round_robin_takes_turns() -> None:
    """
    Keys come in turn; a new one waits for the others, a left-out one keeps its place.
    """
    selection = _filled(RoundRobin(), "abc")
    assert [selection.choose() for _ in range(4)] == ["a", "b", "c", "a"]
    selection.put("d", 0)
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


def test_least_request_keeps_its_heap_small() -> None:
    """
    A long run of requests leaves no trail of old loads behind.
    """
    selection = LeastRequest()
    _filled(selection, "ab")
    for _ in range(1000):
        selection.put("a", 1)
        selection.choose()
        selection.put("a", 0)
        selection.choose()
    assert len(selection._heap) <= 2
