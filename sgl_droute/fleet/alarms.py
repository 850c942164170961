"""
What is to be done when a time has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from attrs import define, field


@define(eq=False)
class Alarms:
    """
    Calls to make at given times, earliest first, and of equal times in the order of `at`.

    Attributes:
        now: The latest time it was told (seconds).
    """

    now: float = field(default=0.0, init=False)
    _alarms: list[tuple[float, int, Callable[[float], object]]] = field(factory=list, init=False)
    _set: int = field(default=0, init=False)

    def at(self, when: float, act: Callable[[float], object]) -> None:
        """
        Have *act* called with the time when it is *when* (seconds) or later.
        """
        self._set += 1
        heapq.heappush(self._alarms, (when, self._set, act))

    def ring(self, now: float) -> None:
        """
        Make the calls whose time has come, those that they ask for included.
        """
        self.now = now
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            heapq.heappop(alarms)[2](now)

    @property
    def next(self) -> float | None:
        """
        When the next call is to be made; None if there is none.
        """
        return self._alarms[0][0] if self._alarms else None

    def __len__(self) -> int:
        return len(self._alarms)
