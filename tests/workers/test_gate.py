"""
The gate: first come, first served, and never more at once than it was made for.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from sgl_droute.workers.gate import Gate

GOING = st.tuples(st.sampled_from(["end", "leave"]), st.integers(0, 9))
RESIZING = st.tuples(st.just("resize"), st.integers(1, 5))
STEPS = st.lists(st.one_of(st.just(("come", 0)), GOING, RESIZING), max_size=80)


@given(size=st.integers(1, 4), steps=STEPS)
def test_any_order_of_coming_ending_and_leaving(size: int, steps: list[tuple[str, int]]) -> None:
    """
    Turns come in the order of asking, without those who left, and as many as are free; of those
    that are out none is taken back when there are to be fewer.
    """
    gate = Gate(size)
    waiting: list[int] = []
    having: list[int] = []
    turns: dict[int, Deferred[None]] = {}
    got: list[int] = []
    left: list[int] = []

    def gone(number: int, why: Failure) -> None:
        why.trap(CancelledError)
        left.append(number)

    def came(number: int) -> None:
        turns[number] = gate.acquire()
        turns[number].addCallback(lambda _: got.append(number))
        turns[number].addErrback(lambda why: gone(number, why))

    expected: list[int] = []
    for number, (verb, which) in enumerate(steps):
        if verb == "come":
            waiting.append(number)
            came(number)
        elif verb == "end" and having:
            having.pop(which % len(having))
            gate.release()
        elif verb == "leave" and waiting:
            leaving = waiting.pop(which % len(waiting))
            turns[leaving].cancel()
            assert left[-1] == leaving
        elif verb == "resize":
            size = which
            gate.resize(size)
        while waiting and len(having) < size:
            having.append(waiting.pop(0))
            expected.append(having[-1])
        assert got == expected
        assert gate.free == size - len(having)


def test_a_long_line_of_short_turns() -> None:
    """
    Thousands of turns that end as soon as they begin take no stack, and all come.
    """
    gate = Gate(1)
    gate.acquire()
    ended: list[int] = []

    async def turn(number: int) -> None:
        await gate.acquire()
        ended.append(number)
        gate.release()

    for number in range(20_000):
        Deferred.fromCoroutine(turn(number))
    gate.release()
    assert ended == list(range(20_000))
    assert gate.free == 1
