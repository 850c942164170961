"""
How late the reactor is: what keeps it busy keeps everybody waiting.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

_INTERVAL = 0.5


@define(eq=False)
class ReactorLag(Service):
    """
    Asks to be called twice a second, and tells how late each call was.

    Args:
        clock: Provides the time.
        tell: Called with the seconds that a call was late.
    """

    clock: IReactorTime
    tell: Callable[[float], object]
    _loop: LoopingCall = field(init=False)
    _due: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._measure)
        self._loop.clock = self.clock

    def startService(self) -> None:
        """
        Begin to measure.
        """
        super().startService()
        self._due = self.clock.seconds() + _INTERVAL
        self._loop.start(_INTERVAL, now=False)

    def stopService(self) -> None:
        """
        Measure no more.
        """
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _measure(self) -> None:
        now = self.clock.seconds()
        self.tell(max(0.0, now - self._due))
        assert self._loop.starttime is not None
        # Calls that were missed are not made up for: the next one is at the next whole interval.
        self._due = now + _INTERVAL - (now - self._loop.starttime) % _INTERVAL
