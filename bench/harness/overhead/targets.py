"""
What the router may cost, and whether it did. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from bench.harness.overhead.figures import Figures, Outcome, figures
from bench.harness.overhead.scenarios import KB, MB

MOST_MEMORY = 80 * MB
MOST_PER_REQUEST = 64 * KB
_MINUTE = 60.0


@frozen(kw_only=True)
class Verdict:
    """
    Attributes:
        target: What is asked, with its bound.
        measured: The figure, with its unit; or why there is none.
        met: None when it was not measured, or not for long enough.
    """

    target: str
    measured: str
    met: bool | None


def verdicts(outcome: Outcome, router: str) -> list[Verdict]:
    """
    All targets, judged for the proxy called *router*.
    """
    return [
        _times("1k-32", "nginx", 16.0, outcome, router),
        _times("1k-1", "nginx", 9.0, outcome, router),
        _times("2m-4", "haproxy", 2.0, outcome, router),
        _throughput(outcome, router),
        _memory(outcome, router),
        _fleet(outcome, router),
        _hold(outcome, router),
    ]


def _times(scenario: str, peer: str, bound: float, outcome: Outcome, router: str) -> Verdict:
    ratio = _ratio(
        outcome.of(scenario, router), outcome.of(scenario, peer), lambda figures: figures.cpu
    )
    target = f"{scenario}: CPU per request at most {bound:g} x {peer}"
    return _judged(target, ratio, " x", lambda value: value <= bound)


def _throughput(outcome: Outcome, router: str) -> Verdict:
    ratio = _ratio(
        outcome.of("64m-4", router),
        outcome.of("64m-4", "haproxy"),
        lambda figures: figures.megabytes,
    )
    percent = None if ratio is None else 100 * ratio
    return _judged(
        "64m-4: MB/s at least 60 % of haproxy", percent, " %", lambda value: value >= 60.0
    )


def _fleet(outcome: Outcome, router: str) -> Verdict:
    ratio = _ratio(
        outcome.of("fleet-1000", router),
        outcome.of("fleet-1", router),
        lambda figures: figures.net_cpu,
    )
    target = "fleet-1000: CPU per request, idle CPU taken off, at most 1.3 x fleet-1"
    return _judged(target, ratio, " x", lambda value: value <= 1.3)


def _memory(outcome: Outcome, router: str) -> Verdict:
    """
    The scenario that comes nearest to the bound, or passes it furthest.
    """
    peaks = [
        (made.peak, each.scenario.in_flight, each.scenario.name)
        for each in outcome.results
        if each.proxy == router and (made := figures(each)) is not None
    ]
    peaks += [
        (each.peak, each.asked, "hold")
        for each in outcome.holds
        if each.proxy == router and not each.problem
    ]
    target = "peak memory at most 80 MB and 64 KB for each request in flight"
    if not peaks:
        return _judged(target, None, "", bool)
    peak, in_flight, name = max(peaks, key=lambda each: each[0] / most_memory(each[1]))
    bound = most_memory(in_flight)
    return Verdict(
        target=target,
        measured=f"{peak / MB:.0f} of {bound / MB:.0f} MB ({name})",
        met=peak <= bound,
    )


def most_memory(in_flight: int) -> int:
    """
    What a router may take with so many requests in flight (bytes).
    """
    return MOST_MEMORY + in_flight * MOST_PER_REQUEST


def _hold(outcome: Outcome, router: str) -> Verdict:
    hold = next((each for each in outcome.holds if each.proxy == router), None)
    asked = "9000" if hold is None else str(hold.asked)
    target = f"hold: {asked} open for a minute, all answered, no health check failed"
    if hold is None:
        return _judged(target, None, "", bool)
    measured = (
        f"{hold.answered} answered after {hold.seconds:.0f} s, {hold.looks} looks:"
        f" {hold.unanswered} unanswered, {hold.failures} failures"
    )
    # What went well for a shorter time may still fail.
    met = None if hold.well and hold.seconds < _MINUTE else hold.well
    return Verdict(target=target, measured=hold.problem or measured, met=met)


def _ratio(
    one: Figures | None, other: Figures | None, of: Callable[[Figures], float]
) -> float | None:
    if one is None or other is None or not of(other):
        return None
    return of(one) / of(other)


def _judged(target: str, value: float | None, unit: str, met: Callable[[float], bool]) -> Verdict:
    if value is None:
        return Verdict(target=target, measured="not measured", met=None)
    return Verdict(target=target, measured=f"{value:.2f}{unit}", met=met(value))
