"""
What was measured of workers, and the rates that follow from it.

`sgl_droute.fleet.speeds` knows which worker and which model it is of.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from attrs import define, field, frozen

from sgl_droute.fleet.fit import Sample, level, line, middle
from sgl_droute.fleet.job import KINDS

YEAR = 365 * 86400.0
_LEAST_SECONDS = 1e-6
_LEAST_WORK, _MOST_WORK = 1e-3, 1e18

# Measurements kept of one worker and kind; a change of speed shows when half of them are new.
OWN = 15
# Measurements kept of all workers of a model and kind.
SHARED = 64
# Once there are more than of one worker, they are fitted anew when one in so many is new.
_QUARTER = 4
# Measurements that tell the pace from the fixed part.
_ENOUGH = 8
_ERRORS = 16
# Measurements of a kind that are saved, fewer where they are too long.
_SAVED = (OWN, _ENOUGH, 4, 1)
_LONGEST_SAVED = 2000


@frozen(cache_hash=True)
class Rate:
    """
    How long work takes on one worker.

    Attributes:
        pace: Seconds per unit of work, above 0.
        fixed: Seconds besides.
        samples: Measurements of this worker behind it (count); 0: nothing was learned of it.
    """

    pace: float
    fixed: float = 0.0
    samples: int = 0

    def seconds(self, work: float) -> float:
        """
        Seconds that *work* takes: a microsecond at least, a year at most.
        """
        total = self.pace * work + self.fixed
        if _LEAST_SECONDS < total < YEAR:
            return total
        return YEAR if total > 1 else _LEAST_SECONDS


def times(rate: Rate, factor: float, samples: int = 0) -> Rate:
    """
    The rate of a worker that takes *factor* times as long, as *samples* of it say.
    """
    return _rate(rate.pace * factor, rate.fixed * factor, samples)


def _rate(pace: float, fixed: float, samples: int = 0) -> Rate:
    return Rate(min(max(pace, 1e-30), 1e30), min(fixed, YEAR), samples)


@define(eq=False)
class Own:
    """
    What was measured of one worker and kind.
    """

    samples: deque[Sample] = field(factory=lambda: deque(maxlen=OWN))
    errors: deque[float] = field(factory=lambda: deque(maxlen=_ERRORS))
    _fitted: Rate | None = None
    _usual: Rate | None = None
    _blend: Rate | None = None

    def fit(self, usual: Rate) -> None:
        """
        Have what was added to the samples count; *usual* is the rate of the model.
        """
        self._usual = None
        if len(self.samples) >= _ENOUGH:
            pace, fixed = line(self.samples, usual.fixed / usual.pace)
            self._fitted = _rate(pace, fixed, len(self.samples))

    def rate(self, usual: Rate) -> Rate:
        """
        The worker's rate where *usual* is that of its model.
        """
        if self._fitted is not None:
            return self._fitted
        if self._blend is None or self._usual is not usual:
            self._usual, self._blend = usual, self._near(usual)
        return self._blend

    def _near(self, usual: Rate) -> Rate:
        # One measurement more, of the usual speed, so that the first ones do not count in full.
        off = [math.log(seconds / usual.seconds(work)) for work, seconds in self.samples]
        return times(usual, math.exp(middle([0.0, *off])), len(self.samples))


@define(eq=False)
class Known:
    """
    What is known of one worker while it serves one model.
    """

    model: str | None
    speed: float | None = None
    kinds: dict[str, Own] = field(factory=dict)


@define(eq=False)
class Shared:
    """
    What was measured of all workers of one model, for one kind.
    """

    model: str | None
    rate: Rate
    average: float
    exact: bool = False
    samples: deque[Sample] = field(factory=lambda: deque(maxlen=SHARED))
    _new: int = 0

    def add(self, samples: Sequence[Sample], speed: float) -> None:
        """
        Take note of *samples* of a worker of that speed, where 1 is usual.
        """
        self.samples.extend((work, seconds * speed) for work, seconds in samples)
        self._new += len(samples)
        if len(self.samples) <= OWN or self._new * _QUARTER >= len(self.samples):
            self._new = 0
            self._fit()

    def _fit(self) -> None:
        self.average = sum(work for work, _ in self.samples) / len(self.samples)
        through = line if len(self.samples) >= _ENOUGH else level
        self.rate = _rate(*through(self.samples, self.rate.fixed / self.rate.pace))


def measurement(work: float, seconds: float) -> Sample:
    """
    A measurement within the bounds that can be reckoned with.
    """
    return (
        min(max(work, _LEAST_WORK), _MOST_WORK),
        min(max(seconds, _LEAST_SECONDS), YEAR),
    )


def short(number: float) -> float:
    """
    *number* in four digits.
    """
    return float(f"{number:.4g}")


def saved(known: Known) -> str | None:
    """
    *known* as JSON of at most 2000 characters; None where that cannot be.
    """
    texts = (_packed(known, most) for most in _SAVED)
    return next((text for text in texts if len(text) <= _LONGEST_SAVED), None)


def _packed(known: Known, most: int) -> str:
    kinds = {
        kind: [[short(work), short(seconds)] for work, seconds in list(own.samples)[-most:]]
        for kind, own in known.kinds.items()
    }
    value = {"model": known.model, "speed": known.speed, "kinds": kinds}
    return json.dumps(value, separators=(",", ":"))


def restored(text: str) -> Known | None:
    """
    What `saved` made *text* of; None if it did not.
    """
    if len(text) > _LONGEST_SAVED:
        return None
    try:
        return _unpacked(json.loads(text))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
        return None


def _unpacked(value: Any) -> Known | None:
    model, speed = value["model"], value["speed"]
    if not (model is None or isinstance(model, str)):
        return None
    if not (speed is None or 0 < speed < math.inf):
        return None
    known = Known(model, speed)
    for kind in KINDS:
        samples = [(float(work), float(seconds)) for work, seconds in value["kinds"].get(kind, ())]
        if not all(0 < each < math.inf for sample in samples for each in sample):
            return None
        if samples:
            own = Own()
            own.samples.extend(measurement(*sample) for sample in samples)
            known.kinds[kind] = own
    return known if known.kinds else None
