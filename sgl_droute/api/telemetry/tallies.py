"""
Counts and distributions by labels, as `prometheus_client` exposes them.

Its own counters lock and keep a series for ever; these are for one thread, cost a fraction of a
microsecond, and forget what is gone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from attrs import define, field
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


@define(eq=False)
class Tally:
    """
    A counter.

    Args:
        name: Of the metric, without ``_total``.
        says: What it means, in one sentence.
        labels: Names of its labels.
    """

    name: str
    says: str
    labels: Labels
    _counts: defaultdict[Labels, float] = field(factory=lambda: defaultdict(float), init=False)

    def add(self, values: Labels, by: float = 1) -> None:
        """
        Count *by* more under these *values* of its labels.
        """
        self._counts[values] += by

    def forget(self, label: str, value: str) -> None:
        """
        Drop what was counted where *label* has that *value*, if it has such a label.
        """
        _forget(self.labels, self._counts, label, value)

    def family(self) -> Metric:
        """
        All of it, to be exposed.
        """
        family = CounterMetricFamily(self.name, self.says, labels=self.labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        return family

    def __len__(self) -> int:
        return len(self._counts)


@define(eq=False)
class Spread:
    """
    A histogram.

    Args:
        bounds: Upper bounds of its buckets, rising; what is above the last one counts too.

    Other arguments are as of `Tally`.
    """

    name: str
    says: str
    labels: Labels
    bounds: tuple[float, ...]
    _seen: dict[Labels, _Seen] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.labels:
            self._seen[()] = _Seen([0] * (len(self.bounds) + 1))

    def add(self, values: Labels, value: float) -> None:
        """
        Count *value* under these *values* of its labels.
        """
        seen = self._seen.get(values)
        if seen is None:
            seen = self._seen[values] = _Seen([0] * (len(self.bounds) + 1))
        seen.counts[bisect_left(self.bounds, value)] += 1
        seen.sum += value

    def forget(self, label: str, value: str) -> None:
        """
        As `Tally.forget`.
        """
        _forget(self.labels, self._seen, label, value)

    def family(self) -> Metric:
        """
        All of it, to be exposed.
        """
        family = HistogramMetricFamily(self.name, self.says, labels=self.labels)
        bounds = [*map(floatToGoString, self.bounds), "+Inf"]
        for values, seen in self._seen.items():
            buckets = list(zip(bounds, accumulate(seen.counts), strict=True))
            family.add_metric(values, buckets, seen.sum)
        return family

    def __len__(self) -> int:
        return len(self._seen)


@define(eq=False)
class _Seen:
    """
    The values of one series: how many in each bucket, and their sum.
    """

    counts: list[int]
    sum: float = 0.0


@define(eq=False)
class Tallies:
    """
    Counters and histograms that are exposed together; a collector for a registry.
    """

    all: tuple[Tally | Spread, ...]

    def forget(self, label: str, value: str) -> None:
        """
        As `Tally.forget`, of each.
        """
        for tally in self.all:
            tally.forget(label, value)

    def collect(self) -> Iterator[Metric]:
        """
        What all of them have counted.
        """
        for tally in self.all:
            yield tally.family()


def _forget(names: Labels, series: dict[Labels, Any], label: str, value: str) -> None:
    if label in names:
        place = names.index(label)
        for values in [values for values in series if values[place] == value]:
            del series[values]
