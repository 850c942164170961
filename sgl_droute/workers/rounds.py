"""
Rounds that go on and on, whose pace can change.
"""

from __future__ import annotations

from twisted.internet.task import LoopingCall


def retime(rounds: LoopingCall, interval: float) -> None:
    """
    Let *interval* seconds be between *rounds* from now on, if they are under way: the next one is
    so long from now.
    """
    if rounds.running and rounds.interval != interval:
        rounds.interval = interval
        rounds.reset()
