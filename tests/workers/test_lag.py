"""
How late the reactor is, told twice a second.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from sgl_droute.workers.lag import ReactorLag


@pytest.fixture
def late() -> list[float]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lag(clock: Clock, late: list[float]) -> ReactorLag:
    return ReactorLag(clock, late.append)


def test_a_reactor_on_time(clock: Clock, lag: ReactorLag, late: list[float]) -> None:
    """
    Twice a second it is told that nothing was late.
    """
    lag.startService()
    clock.pump([0.25] * 8)
    assert late == [0.0] * 4


def test_a_busy_reactor(clock: Clock, lag: ReactorLag, late: list[float]) -> None:
    """
    A call that came late is told with by how much, and the next one counts from its own time.
    """
    lag.startService()
    clock.advance(0.5)
    clock.advance(2.25)  # as if something had taken so long
    clock.advance(0.25)
    clock.advance(0.625)
    assert late == [0.0, 1.75, 0.0, 0.125]


def test_stopping(clock: Clock, lag: ReactorLag, late: list[float]) -> None:
    """
    A service that was stopped leaves nothing to do, and may be started again.
    """
    lag.startService()
    lag.stopService()
    assert clock.getDelayedCalls() == []
    clock.advance(5.0)
    lag.startService()
    clock.advance(0.5)
    assert late == [0.0]
    lag.stopService()
