"""
What the last quarter of an hour was like: how busy each worker was, and what the fleet got done.

Time comes in as an argument. Who measures, and what a request or a worker is, is not known here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping

from attrs import define, field, frozen

from sgl_droute.fleet.quantiles import Window

STEP = 5.0
"""Seconds from one point of the charts to the next."""

POINTS = 180
"""Points that the charts have at most: those of 15 minutes."""

SPARK_STEPS = 2
"""Steps that one point of a worker takes."""

SPARKS = 90
"""Points that a worker has at most: those of 15 minutes."""

# Steps whose generations the median and the 95th percentile are of: those of 5 minutes.
_LATENCY_STEPS = 60
_MINUTE = 60


@frozen
class Point:
    """
    One step of the fleet.

    Attributes:
        end: When it ended (seconds).
        done: Requests that ended well in it (count).
        failed: Requests that ended otherwise (count).
        p50: Median of the generations that ended in the 5 minutes up to its end (seconds); None
            without any.
        p95: As *p50*, what 19 of 20 did not exceed.
        waiting: Requests in line at its end (count).
        busy: Workers that had work for their GPU, on average over it.
    """

    end: float
    done: int
    failed: int
    p50: float | None
    p95: float | None
    waiting: int
    busy: float


@define(eq=False)
class Minute:
    """
    What ended in the last 60 seconds, to the second.
    """

    _seconds: deque[list[int]] = field(factory=deque, init=False)

    def add(self, now: float, good: bool) -> None:
        """
        Count what ended *now*, which is never before what was counted last.
        """
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._forget(second)
            self._seconds.append([second, 0, 0])
        self._seconds[-1][1 if good else 2] += 1

    def counts(self, now: float) -> tuple[int, int]:
        """
        How many ended well, and how many otherwise.
        """
        self._forget(int(now))
        return sum(each[1] for each in self._seconds), sum(each[2] for each in self._seconds)

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - _MINUTE:
            self._seconds.popleft()


@define(eq=False)
class _Busy:
    """
    How busy one worker was; *worked* is seconds since it came.
    """

    at_step: float = 0.0
    at_spark: float = 0.0
    sparks: deque[int] = field(factory=lambda: deque(maxlen=SPARKS))


@define(eq=False)
class Trends:
    """
    The points of the last 15 minutes; older ones are forgotten, and so are workers that left.

    Args:
        began: The time (seconds).

    Attributes:
        points: Those of the fleet, oldest first.
        number: Points that there were since the beginning (count).
        spark_number: The same, of those of workers.
        spark_end: When the latest of these ended (seconds).
    """

    began: float
    points: deque[Point] = field(factory=lambda: deque(maxlen=POINTS), init=False)
    number: int = field(default=0, init=False)
    spark_number: int = field(default=0, init=False)
    spark_end: float = field(init=False)
    _step_end: float = field(init=False)
    _done: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _minute: Minute = field(factory=Minute, init=False)
    _latencies: Window = field(factory=lambda: Window(_LATENCY_STEPS), init=False)
    _workers: dict[Hashable, _Busy] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._step_end = self.spark_end = self.began

    def ended(self, now: float, *, good: bool) -> None:
        """
        Note that a request ended.
        """
        self._minute.add(now, good)
        if good:
            self._done += 1
        else:
            self._failed += 1

    def lasted(self, seconds: float) -> None:
        """
        Note that a generation was done, and how long its client waited for it.
        """
        self._latencies.add(seconds)

    def step(self, now: float, worked: Mapping[Hashable, float], waiting: int) -> None:
        """
        Add a point: of the fleet each time, of each worker every `SPARK_STEPS` times.

        Args:
            worked: How long each worker that is there has had work for its GPU since it came
                (seconds), by a name that no other ever has.
            waiting: Requests in line (count).
        """
        length = now - self._step_end
        if length <= 0:
            return
        self._workers = {name: self._workers.get(name) or _Busy() for name in worked}
        busy = 0.0
        for name, seconds in worked.items():
            worker = self._workers[name]
            busy += seconds - worker.at_step
            worker.at_step = seconds
        p50, p95 = self.latencies
        self.points.append(
            Point(now, self._done, self._failed, p50, p95, waiting, round(busy / length, 1))
        )
        self.number += 1
        self._done = self._failed = 0
        self._latencies.step()
        self._step_end = now
        if self.number % SPARK_STEPS == 0:
            self._spark(now, worked)

    @property
    def latencies(self) -> tuple[float | None, float | None]:
        """
        Median and 95th percentile of the generations of the last 5 minutes, within 1 % (seconds);
        None without any.
        """
        p50, p95 = self._latencies.quantiles(0.5, 0.95)
        return _short(p50), _short(p95)

    def minute(self, now: float) -> tuple[int, int]:
        """
        How many requests ended well, and how many otherwise, in the last 60 seconds.
        """
        return self._minute.counts(now)

    def sparks(self, name: Hashable, most: int = SPARKS) -> list[int]:
        """
        The latest *most* points of a worker, oldest first: the share of the time in which it had
        work for its GPU (percent).
        """
        worker = self._workers.get(name)
        if worker is None or most <= 0:
            return []
        return list(worker.sparks)[-most:]

    def _spark(self, now: float, worked: Mapping[Hashable, float]) -> None:
        length = now - self.spark_end
        for name, seconds in worked.items():
            worker = self._workers[name]
            share = (seconds - worker.at_spark) / length
            worker.sparks.append(min(100, max(0, round(100 * share))))
            worker.at_spark = seconds
        self.spark_number += 1
        self.spark_end = now


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")
