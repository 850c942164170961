"""
Time limits behind one delayed call, on a clock.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from sgl_droute.workers.deadlines import Deadline, Deadlines

# Lengths that meet each other, and are kept exactly by floats.
LENGTHS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 4.0, 30.0])
STEPS = st.one_of(
    st.tuples(st.just("set"), LENGTHS),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.25, 0.75, 1.0, 5.0])),
)


@given(st.lists(STEPS, max_size=60))
def test_each_passes_once_in_time(steps: list[tuple[str, float]]) -> None:
    """
    A deadline passes exactly once, not before its time and at most a second after; one that is
    cancelled before does not; and nothing waits once they are all over.
    """
    clock = Clock()
    deadlines = Deadlines(clock)
    made: list[Deadline] = []
    cancelled: set[int] = set()
    passed: dict[int, float] = {}

    def set_one(seconds: float) -> None:
        number = len(made)

        def pass_now() -> None:
            assert number not in passed
            passed[number] = clock.seconds()

        made.append(deadlines.set(seconds, pass_now))

    for what, amount in steps:
        if what == "set":
            set_one(amount)
        elif what == "wait":
            clock.pump([0.25] * int(amount / 0.25) or [0.0])
        elif int(amount) < len(made):
            made[int(amount)].cancel()
            if int(amount) not in passed:
                cancelled.add(int(amount))
        assert len(clock.getDelayedCalls()) <= 1
    clock.pump([0.25] * 4 * 32)
    assert clock.getDelayedCalls() == []
    assert passed.keys() == set(range(len(made))) - cancelled
    for number, when in passed.items():
        assert made[number].when <= when <= made[number].when + 1.0


def test_a_short_one_beside_long_ones() -> None:
    """
    A deadline of less than a second is met when it is over, whatever others wait.
    """
    clock = Clock()
    deadlines = Deadlines(clock)
    passed: list[str] = []
    deadlines.set(30.0, lambda: passed.append("long"))
    deadlines.set(0.125, lambda: passed.append("short"))
    clock.advance(0.125)
    assert passed == ["short"]


def test_setting_one_as_another_passes() -> None:
    """
    What is done at a deadline may set the next one of the same length, and cancel others.
    """
    clock = Clock()
    deadlines = Deadlines(clock)
    times: list[float] = []

    def again() -> None:
        times.append(clock.seconds())
        other.cancel()
        if len(times) < 3:
            deadlines.set(2.0, again)

    deadlines.set(2.0, again)
    other = deadlines.set(2.0, lambda: times.append(-1.0))
    clock.pump([0.5] * 20)
    assert times == [2.0, 4.0, 6.0]


@pytest.mark.logs_failures
def test_a_deadline_that_cannot_be_met(logged: list[LogEvent]) -> None:
    """
    A failure at one deadline is logged, and the next one is met.
    """
    clock = Clock()
    deadlines = Deadlines(clock)
    passed: list[str] = []
    deadlines.set(1.0, lambda: 1 / 0)
    deadlines.set(1.0, lambda: passed.append("next"))
    clock.advance(1.0)
    assert passed == ["next"]
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [
        ZeroDivisionError
    ]


def test_stopping() -> None:
    """
    Once they are stopped none passes, those included that are due at the same moment.
    """
    clock = Clock()
    deadlines = Deadlines(clock)
    passed: list[str] = []
    deadlines.set(0.875, lambda: passed.append("before"))
    deadlines.set(1.0, deadlines.stop)
    others = [deadlines.set(1.0, lambda: passed.append("same")) for _ in range(2)]
    others.append(deadlines.set(1.125, lambda: passed.append("another length")))
    clock.advance(0.875)
    clock.advance(1.0)
    assert passed == ["before"]
    assert clock.getDelayedCalls() == []
    for each in others:
        each.cancel()
