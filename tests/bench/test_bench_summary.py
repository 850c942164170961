"""
The figures: percentiles, throughput, shares.
"""

from __future__ import annotations

import numpy
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.summary import Outcome, Record, Result, merged, percentile, shares, summarise
from bench.harness.workload import Prompt, Shape

seconds = st.floats(0, 1e6)


def record(latency: float, *, error: str = "", inference: float | None = None) -> Record:
    return Record(
        prompt=Prompt(index=0, text="a fox", seed=0, shape=Shape()),
        arrived=0.0,
        sent=0.0,
        finished=latency,
        outcome=Outcome(status=200, error=error, inference_time=inference),
    )


def result(*records: Record, duration: float = 10.0, **served: int | None) -> Result:
    return Result(algorithm="random", duration=duration, records=records, served=served)


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (25, 1.75), (50, 2.5), (95, 3.85), (99, 3.97), (100, 4.0)]
)
def test_percentile_interpolates(percent: float, value: float) -> None:
    """
    Between the two values nearest to the rank, in proportion.
    """
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == pytest.approx(value)


@given(st.lists(seconds, min_size=1), st.floats(0, 100))
def test_percentile_is_numpys(values: list[float], percent: float) -> None:
    """
    The same rule as ``numpy.percentile``, which the benchmarks of SGLang use.
    """
    expected = float(numpy.percentile(values, percent))
    assert percentile(sorted(values), percent) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentile_refuses(values: list[float], percent: float) -> None:
    """
    Nothing has no percentile, and there is none outside 0 to 100.
    """
    with pytest.raises(ValueError, match=r"no values|not from 0 to 100"):
        percentile(values, percent)


def test_failures_count_apart() -> None:
    """
    A failed request is counted with its error, and in neither throughput nor latency.
    """
    summary = summarise(
        result(record(1.0), record(3.0), record(99.0, error="HTTP 503"), duration=4.0)
    )
    assert (summary.completed, summary.failed) == (2, 1)
    assert summary.throughput == pytest.approx(0.5)
    assert (summary.mean, summary.maximum) == (2.0, 3.0)
    assert summary.errors == {"HTTP 503": 1}


def test_nothing_answered_has_no_figures() -> None:
    """
    When every request failed there is no latency to show, and no division by zero.
    """
    summary = summarise(result(record(1.0, error="gone"), duration=0.0))
    assert summary.mean is summary.p99 is summary.throughput is summary.busy is None


def test_queue_time_and_busy() -> None:
    """
    Queue time is what the GPU did not take; busy is GPU time over the time of all workers.
    """
    measured = result(
        record(5.0, inference=3.0), record(4.0, inference=3.0), duration=6.0, a=1, b=1
    )
    summary = summarise(measured)
    assert summary.queue_time == pytest.approx(1.5)
    assert summary.busy == pytest.approx(0.5)


def test_queue_time_unknown_is_not_zero() -> None:
    """
    A worker that reports no time on the GPU leaves the two figures open.
    """
    summary = summarise(result(record(5.0), a=1))
    assert summary.queue_time is None
    assert summary.busy is None


def test_shares_need_every_count() -> None:
    """
    One worker that does not tell its count makes all shares unknown.
    """
    assert shares({"a": 3, "b": 1}) == {"a": 0.75, "b": 0.25}
    assert shares({"a": 3, "b": None}) == {"a": None, "b": None}
    assert shares({"a": 0}) == {"a": None}


def test_makespan_is_that_of_one_measurement() -> None:
    """
    Repeated, it is the mean; over the bound, it is over the bounds of the same measurements.
    """
    rounds = [evolve(result(duration=taken), bound=least) for taken, least in ((6, 5), (10, 7.8))]
    summary = summarise(merged(rounds))
    assert summary.makespan == 8.0
    assert summary.over_bound == pytest.approx(16 / 12.8)
    assert summarise(merged([*rounds, result()])).over_bound is None


def test_merged_adds_up() -> None:
    """
    Repeated measurements become one: records, counts and durations of all.
    """
    one = result(record(1.0), duration=2.0, a=1, b=None)
    both = merged([one, result(record(3.0), duration=3.0, a=4, b=2)])
    assert both.duration == 5.0
    assert [each.latency for each in both.records] == [1.0, 3.0]
    assert both.served == {"a": 5, "b": None}
