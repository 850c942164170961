"""
What was measured: one record per request, and the figures made from them. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from bench.harness.workload import Prompt

N = TypeVar("N", int, float)


@frozen(kw_only=True)
class Outcome:
    """
    How one request ended.

    Attributes:
        status: Of the answer; None when none came.
        error: Why the request failed; empty when it did not.
        size: Length of the answer (bytes).
        inference_time: Seconds on the GPU, as the worker reported; None when it did not.
        worker: Base URL of the worker that had it, where the bench knows.
    """

    status: int | None = None
    error: str = ""
    size: int = 0
    inference_time: float | None = None
    worker: str | None = None


@frozen(kw_only=True)
class Record:
    """
    One request and its end. Times are seconds since the measurement began.

    Attributes:
        arrived: When it was due: in a closed loop when a slot was free, with a request rate at its
            time of arrival, even if it could only be sent later.
        sent: When it was sent.
        finished: When the last byte of its answer was here.
    """

    prompt: Prompt
    arrived: float
    sent: float
    finished: float
    outcome: Outcome

    @property
    def ok(self) -> bool:
        return not self.outcome.error

    @property
    def latency(self) -> float:
        return self.finished - self.arrived

    @property
    def queue_time(self) -> float | None:
        """Latency without the time on the GPU; None when the worker did not report that."""
        inference = self.outcome.inference_time
        return None if inference is None else self.latency - inference


@frozen(kw_only=True)
class Result:
    """
    One measurement, or several of one arm put together.

    Attributes:
        algorithm: Name of the arm.
        duration: Seconds from the first arrival to the last answer.
        bound: Seconds that no router could do it in; None when nobody knows.
        rounds: Measurements in it (count).
        served: Generations that each worker, by base URL, finished; None when it does not tell.
    """

    algorithm: str
    duration: float
    records: tuple[Record, ...]
    served: Mapping[str, int | None]
    bound: float | None = None
    rounds: int = 1

    @property
    def failed(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if not record.ok)

    @property
    def latencies(self) -> list[float]:
        """Of the requests that did not fail, ascending (seconds)."""
        return sorted(record.latency for record in self.records if record.ok)


@frozen(kw_only=True)
class Summary:
    """
    The figures of a result; None where there is nothing to make one from.

    Attributes:
        throughput: Requests per second that did not fail.
        mean: Mean latency of those (seconds); p50 to maximum likewise.
        queue_time: Mean of latency without time on the GPU (seconds).
        busy: Time on the GPU of all requests, as a share of the workers' time.
        makespan: Mean time from the first arrival to the last answer (seconds).
        over_bound: That time over the shortest possible.
        errors: How often each error came up, most frequent first.
        shares: Each worker's share of the generations.
    """

    completed: int
    failed: int
    duration: float
    throughput: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    maximum: float | None
    queue_time: float | None
    busy: float | None
    makespan: float
    over_bound: float | None
    errors: Mapping[str, int]
    shares: Mapping[str, float | None]


def percentile(ascending: Sequence[float], percent: float) -> float:
    """
    The value that *percent* of *ascending* are at or below, by linear interpolation between the two
    values nearest to rank ``percent / 100 * (n - 1)``: the rule of ``numpy.percentile``.

    Raises:
        ValueError: There are no values, or *percent* is not from 0 to 100.
    """
    if not ascending:
        raise ValueError("no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not from 0 to 100")
    rank = percent / 100 * (len(ascending) - 1)
    below = int(rank)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (rank - below)


def summarise(result: Result) -> Summary:
    """
    The figures of *result*.
    """
    latencies = result.latencies
    queue_times = [record.queue_time for record in result.records if record.ok]
    return Summary(
        completed=len(latencies),
        failed=len(result.failed),
        duration=result.duration,
        throughput=len(latencies) / result.duration if result.duration > 0 else None,
        mean=_mean(latencies),
        p50=percentile(latencies, 50) if latencies else None,
        p95=percentile(latencies, 95) if latencies else None,
        p99=percentile(latencies, 99) if latencies else None,
        maximum=max(latencies, default=None),
        queue_time=_mean([time for time in queue_times if time is not None]),
        busy=_busy(result),
        makespan=result.duration / result.rounds,
        over_bound=result.duration / result.bound if result.bound else None,
        errors=dict(Counter(record.outcome.error for record in result.failed).most_common()),
        shares=shares(result.served),
    )


def shares(served: Mapping[str, int | None]) -> dict[str, float | None]:
    """
    Each worker's part of all generations; None for all unless every worker told its count.
    """
    total = sum(count or 0 for count in served.values())
    if not total or None in served.values():
        return dict.fromkeys(served)
    return {worker: (count or 0) / total for worker, count in served.items()}


def merged(results: Iterable[Result]) -> Result:
    """
    Measurements of one arm on the same workers as one: records and counts of all, and the sum of
    the durations.
    """
    first, *others = results
    for other in others:
        first = Result(
            algorithm=first.algorithm,
            duration=first.duration + other.duration,
            records=first.records + other.records,
            served={url: _sum(count, other.served[url]) for url, count in first.served.items()},
            bound=_sum(first.bound, other.bound),
            rounds=first.rounds + other.rounds,
        )
    return first


def _sum(one: N | None, other: N | None) -> N | None:
    return None if one is None or other is None else one + other


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _busy(result: Result) -> float | None:
    times = [record.outcome.inference_time for record in result.records if record.ok]
    available = result.duration * len(result.served)
    if not times or None in times or not available:
        return None
    return sum(time or 0.0 for time in times) / available
