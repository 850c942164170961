"""
How long jobs take, learned from those that ended.
"""

from __future__ import annotations

from collections import deque

from attrs import define, field

# Seconds that a job takes as long as nothing is known.
USUAL_DURATION = 120.0
_MEASURED = 8


@define(eq=False)
class Durations:
    """
    What jobs took lately (seconds), per worker and kind and per kind.
    """

    _measured: dict[tuple[str | None, str], deque[float]] = field(factory=dict, init=False)

    def learn(self, worker: str, kind: str, seconds: float) -> None:
        for key in ((worker, kind), (None, kind)):
            self._measured.setdefault(key, deque(maxlen=_MEASURED)).append(seconds)

    def glimpse(self, kind: str, seconds: float) -> None:
        """
        Note what a job took that was not followed, if nothing is known yet.
        """
        self._measured.setdefault((None, kind), deque([seconds], _MEASURED))

    def forget(self, worker: str) -> None:
        for key in [key for key in self._measured if key[0] == worker]:
            del self._measured[key]

    def expected(self, worker: str, kind: str) -> float:
        """
        Mean of the last 8 on that worker, else of the last 8 anywhere, else 120 s.
        """
        for key in ((worker, kind), (None, kind)):
            if lately := self._measured.get(key):
                return sum(lately) / len(lately)
        return USUAL_DURATION
