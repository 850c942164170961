"""
What a run comes to, and the mean of runs with different seeds. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from attrs import fields, frozen

from bench.harness.summary import percentile
from bench.harness.virtual.workloads import Request

# Requests after which a scheduler that starts knowing nothing should have learned.
LEARNING = 200


@frozen(kw_only=True)
class Figures:
    """
    Of one run, or means of several; times are seconds. Requests whose clients may leave are left
    out: those who stay are the same in every run, whatever the scheduler does.

    Attributes:
        p50: Median of the latency, from arrival to end.
        p99: Its 99th percentile.
        p99_late: Likewise without the first `LEARNING` requests; None if too few are left.
        makespan: From the first arrival to the last end.
        over_bound: Makespan over the shortest that any scheduler could reach.
        left: Clients that gave up, as a share of all.
        refused: Requests that were not served (count).
    """

    p50: float
    p99: float
    p99_late: float | None
    makespan: float
    over_bound: float
    left: float = 0.0
    refused: float = 0.0


def figures(
    requests: Sequence[Request],
    ends: Sequence[float | None],
    speeds: Sequence[float],
    *,
    left: int = 0,
    refused: int = 0,
) -> Figures:
    """
    The figures of one run.

    Args:
        requests: In order of arrival.
        ends: Of each request; None if it was not served.
    """
    served = [
        (number, request, end)
        for number, (request, end) in enumerate(zip(requests, ends, strict=True))
        if end is not None and request.patience is None
    ]
    latencies = sorted(end - request.at for _, request, end in served)
    late = sorted(end - request.at for number, request, end in served if number >= LEARNING)
    makespan = max(end for _, _, end in served) - requests[0].at
    bound = lower_bound([request for _, request, _ in served], speeds) - requests[0].at
    return Figures(
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
        p99_late=percentile(late, 99) if len(late) >= LEARNING else None,
        makespan=makespan,
        over_bound=makespan / bound,
        left=left / len(requests),
        refused=refused,
    )


def lower_bound(requests: Sequence[Request], speeds: Sequence[float]) -> float:
    """
    The earliest time at which all *requests*, in order of arrival, can have ended: no request takes
    less than it does on the fastest worker, and all that come from some time on take at least as
    long as the whole fleet needs for them.
    """
    longest = max(request.at + request.seconds / max(speeds) for request in requests)
    work = accumulate(request.seconds for request in reversed(requests))
    total = max(
        request.at + seconds / sum(speeds)
        for request, seconds in zip(reversed(requests), work, strict=True)
    )
    return max(longest, total)


def mean(several: Sequence[Figures]) -> Figures:
    """
    The mean of each figure.
    """
    means: dict[str, float | None] = {}
    for name in (field.name for field in fields(Figures)):
        values = [getattr(each, name) for each in several]
        means[name] = None if None in values else sum(values) / len(values)
    return Figures(**means)  # type: ignore[arg-type]
