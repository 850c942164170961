"""
Quantiles of many values in little memory: DDSketch (Masson, Rim and Lee, 2019).

Values are counted in buckets whose borders grow by one factor, so that what a bucket stands for is
off by no more than `ERROR` of any value in it, however they are distributed.
"""

from __future__ import annotations

import math
from collections import Counter, deque

from attrs import define, field
from attrs.validators import ge

ERROR = 0.01
"""By how much of its value a quantile may be off."""

# Values are taken for one between these: 1 ms and 11 days.
_LEAST, _MOST = 1e-3, 1e6
_GROWTH = (1 + ERROR) / (1 - ERROR)
_SCALE = 1 / math.log(_GROWTH)


def _bucket(value: float) -> int:
    """
    The number of the bucket that *value* falls into; there are about 1040.
    """
    return math.ceil(math.log(min(max(value, _LEAST), _MOST)) * _SCALE)


def _value(bucket: int) -> float:
    """
    What lies within `ERROR` of all values of *bucket*.
    """
    return 2 * math.exp(bucket / _SCALE) / (1 + _GROWTH)


@define(eq=False)
class Window:
    """
    The values of the last few steps, and of the one that goes on.

    Args:
        steps: Whole steps that count (count).
    """

    steps: int = field(validator=ge(1))
    _now: Counter[int] = field(factory=Counter, init=False)
    _before: deque[Counter[int]] = field(factory=deque, init=False)
    _all: Counter[int] = field(factory=Counter, init=False)
    _count: int = field(default=0, init=False)

    def add(self, value: float) -> None:
        """
        Count *value*; what is no number is ignored.
        """
        if value != value:
            return
        bucket = _bucket(value)
        self._now[bucket] += 1
        self._all[bucket] += 1
        self._count += 1

    def step(self) -> None:
        """
        End a step; the values of the oldest one may cease to count.
        """
        self._before.append(self._now)
        self._now = Counter()
        if len(self._before) > self.steps:
            oldest = self._before.popleft()
            self._count -= oldest.total()
            self._all -= oldest  # what nobody is left of is dropped

    def quantiles(self, *shares: float) -> list[float | None]:
        """
        For each of *shares*, in rising order and within 0 and 1, a value that so many do not
        exceed, within `ERROR`; None if there is no value.
        """
        if not self._count:
            return [None for _ in shares]
        found: list[float | None] = []
        ordered = iter(sorted(self._all.items()))
        bucket, seen = next(ordered)
        for share in shares:
            rank = math.floor(share * (self._count - 1))
            while seen <= rank:
                bucket, count = next(ordered)
                seen += count
            found.append(_value(bucket))
        return found

    def __len__(self) -> int:
        return self._count
