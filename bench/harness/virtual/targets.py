"""
What the scheduler is to reach on the fixed workloads, and whether it did. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from bench.harness.virtual.figures import LEARNING, Figures
from bench.harness.virtual.study import Result

_WORST_WRONG = 1.03


@frozen(kw_only=True)
class Verdict:
    """
    Attributes:
        target: What is asked, with its bound.
        measured: The figure; or that there is none.
        met: None when it was not measured.
    """

    target: str
    measured: str
    met: bool | None


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """
    All targets, judged.
    """
    by_name = {result.workload.name: result for result in results}
    return [
        _tail("a-8-0.85", 0.80, by_name),
        _tail("b-8", 0.68, by_name),
        _batch(by_name.get("c-32-batch")),
        _learned(by_name.get("a-8-0.85")),
        _wrong("p99", lambda figures: figures.p99, results),
        _wrong("makespan", lambda figures: figures.makespan, results),
    ]


def _tail(name: str, bound: float, results: dict[str, Result]) -> Verdict:
    target = f"{name}, no slots, exact: p99 of least-work at most {bound:.2f} x least-request"
    result = results.get(name)
    if result is None:
        return _unknown(target)
    ratio = _ratio(
        result.of("least-work", 0), result.of("least-request", 0), lambda figures: figures.p99
    )
    return _judged(target, ratio, bound)


def _batch(result: Result | None) -> Verdict:
    bound = 1.06
    target = f"c-32-batch, 1 slot, exact: makespan of least-work at most {bound} x lower bound"
    figures = result.of("least-work", 1) if result is not None else None
    return _judged(target, None if figures is None else figures.over_bound, bound)


def _learned(result: Result | None) -> Verdict:
    bound = 1.10
    target = (
        f"a-8-0.85, no slots: p99 of least-work after {LEARNING} requests, learned from nothing, at"
        f" most {bound:.2f} x exact"
    )
    if result is None:
        return _unknown(target)
    learned, exact = result.of("least-work", 0, "learned"), result.of("least-work", 0)
    return _judged(target, _ratio(learned, exact, lambda figures: figures.p99_late), bound)


def _wrong(name: str, value: Callable[[Figures], float], results: Iterable[Result]) -> Verdict:
    """
    Judged by the workload where it is worst, with slots and without.
    """
    target = (
        f"all workloads, 30 % wrong: {name} of least-work at most"
        f" {_WORST_WRONG} x least-request, worst of all"
    )
    ratios = [
        (ratio, f"{result.workload.name}, {'1 slot' if slots else 'no slots'}")
        for result in results
        for slots in (0, 1)
        if (ratio := _against(result, slots, value)) is not None
    ]
    if not ratios:
        return _unknown(target)
    worst, where = max(ratios)
    return Verdict(target=target, measured=f"{worst:.3f} ({where})", met=worst <= _WORST_WRONG)


def _against(result: Result, slots: int, value: Callable[[Figures], float]) -> float | None:
    wrong = "30 % wrong"
    return _ratio(
        result.of("least-work", slots, wrong), result.of("least-request", slots, wrong), value
    )


def _ratio(
    one: Figures | None, other: Figures | None, of: Callable[[Figures], float | None]
) -> float | None:
    if one is None or other is None:
        return None
    above, below = of(one), of(other)
    return None if above is None or not below else above / below


def _judged(target: str, value: float | None, bound: float) -> Verdict:
    if value is None:
        return _unknown(target)
    return Verdict(target=target, measured=f"{value:.3f}", met=value <= bound)


def _unknown(target: str) -> Verdict:
    return Verdict(target=target, measured="not measured", met=None)
