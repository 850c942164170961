"""
How seconds follow from work: a robust line through a few measurements.

Errors of measurement grow with what is measured, so everything here is relative. A measurement that
lies far off the others does not count at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Work and seconds of one measurement, both above 0.
Sample = tuple[float, float]

# Fixed parts to start from, in work of an average measurement.
_STARTS = (0.0, 0.03, 0.1, 0.3, 1.0, 5.0)
# However far a measurement lies off a start, it speaks against it no more than this (a logarithm).
_FAR = 0.5
# Measurements agree no better than this, whatever a few of them look like: less and less from round
# to round, as a start may lie off those of the rarer works.
_LEAST_DEVIATIONS = (0.1, 0.05, 0.02, 0.02, 0.02)
_SAME = 1e-3
# Tukey's biweight: beyond this many standard deviations a measurement is left out.
_CUT = 4.7
_DEVIATIONS_OF_MEDIAN = 1.4826
# Squared variation of work below which pace and fixed part cannot be told apart.
_ALIKE = 0.02
# Share of the work in a request of which all seems to be fixed.
_LEAST_SHARE = 1e-3


def middle(values: Sequence[float]) -> float:
    """
    Median of *values*, of which there is at least one.
    """
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2


def level(samples: Sequence[Sample], extra: float) -> Sample:
    """
    Pace (seconds per unit) and fixed part (seconds) when the fixed part is *extra* units of work.
    """
    pace = middle([seconds / (work + extra) for work, seconds in samples])
    return pace, pace * extra


def line(samples: Sequence[Sample], extra: float) -> Sample:
    """
    Pace (seconds per unit) and fixed part (seconds) of the line that most *samples* lie on.

    Up to about a third of them may be anything.

    Args:
        extra: The fixed part in units of work, for samples that are too alike to tell.
    """
    pace, fixed = _start(samples, extra)
    for least in _LEAST_DEVIATIONS:
        fitted = _weighted(samples, pace, fixed, least)
        if fitted is None:
            return level(samples, extra)
        settled = abs(fitted[0] - pace) < _SAME * pace and abs(fitted[1] - fixed) <= _SAME * fixed
        pace, fixed = fitted
        if settled:
            break
    return pace, fixed


def _start(samples: Sequence[Sample], extra: float) -> Sample:
    """
    The line of those with one of a few fixed parts from which the samples differ least.
    """
    average = _average(samples)
    found = []
    for units in (extra, *(start * average for start in _STARTS)):
        logs = [math.log(seconds / (work + units)) for work, seconds in samples]
        centre = middle(logs)
        spread = sum([min(abs(each - centre), _FAR) for each in logs])
        found.append((spread, units, math.exp(centre)))
    _, units, pace = min(found)
    return pace, pace * units


def _weighted(samples: Sequence[Sample], pace: float, fixed: float, least: float) -> Sample | None:
    """
    A least-squares line through the samples near a line; None if their works are alike.

    Args:
        least: The deviation of most samples from that line, if it is not larger.
    """
    off = [math.log(seconds / (pace * work + fixed)) for work, seconds in samples]
    deviation = _DEVIATIONS_OF_MEDIAN * middle([abs(each) for each in off])
    cut = _CUT * max(deviation, least)
    xx = xy = yy = x1 = y1 = 0.0
    for (work, seconds), each in zip(samples, off, strict=True):
        if abs(each) < cut:
            weight = (1 - (each / cut) ** 2) ** 2
            # pace * x + fixed * y is to be 1.
            x, y = work / seconds, 1 / seconds
            xx += weight * x * x
            xy += weight * x * y
            yy += weight * y * y
            x1 += weight * x
            y1 += weight * y
    spread = xx * yy - xy * xy
    if spread <= _ALIKE * xx * yy:
        return None
    pace = (x1 * yy - y1 * xy) / spread
    fixed = (y1 * xx - x1 * xy) / spread
    if fixed < 0:
        return x1 / xx, 0.0
    if pace <= 0:
        whole = y1 / yy
        return _LEAST_SHARE * whole / _average(samples), (1 - _LEAST_SHARE) * whole
    return pace, fixed


def _average(samples: Sequence[Sample]) -> float:
    return sum([work for work, _ in samples]) / len(samples)
