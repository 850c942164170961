"""
What was measured, and the figures made from it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from attrs import field, frozen

from bench.harness.overhead.scenarios import MB, Scenario


@frozen(kw_only=True)
class Sample:
    """
    One measurement of one proxy.

    Attributes:
        seconds: It took.
        answers: Requests answered, the last ones in part (count).
        rate: Requests answered to their end per second.
        p50: Latency (seconds); p99 likewise.
        cpu: Seconds of the proxy's processes.
        resident: Their memory under load (bytes).
        peak: The most they had since they began (bytes).
    """

    seconds: float
    answers: float
    rate: float
    p50: float
    p99: float
    cpu: float
    resident: int
    peak: int


@frozen(kw_only=True)
class Result:
    """
    One proxy in one scenario.

    Attributes:
        idle: CPU seconds that it takes per second without a request; 0 where it was not measured.
        at_rest: Memory before the first measurement (bytes).
        problem: Why the figures are no good; empty when they are.
    """

    scenario: Scenario
    proxy: str
    samples: tuple[Sample, ...] = ()
    idle: float = 0.0
    at_rest: int = 0
    problem: str = ""


@frozen(kw_only=True)
class Hold:
    """
    Requests held open for a while through one router.

    Attributes:
        asked: Requests opened (count).
        answered: Of these, with a whole answer in the end (count).
        seconds: Held with all of them open.
        looks: Times that the router was asked for its workers' health meanwhile (count).
        unanswered: Looks without an answer (count).
        failures: Most health checks failed in a row that a look found (count).
        at_rest: Memory before (bytes); resident and peak with all of them open.
        problem: Why it could not be measured; empty when it could.
    """

    proxy: str
    asked: int
    answered: int = 0
    seconds: float = 0.0
    looks: int = 0
    unanswered: int = 0
    failures: int = 0
    at_rest: int = 0
    resident: int = 0
    peak: int = 0
    problem: str = ""

    @property
    def per_request(self) -> float:
        """Memory that one open request takes (bytes)."""
        return max(0, self.resident - self.at_rest) / self.asked

    @property
    def well(self) -> bool:
        """All answered, every look answered, no health check failed."""
        probes_well = self.looks > 0 and not self.unanswered and not self.failures
        return not self.problem and self.answered == self.asked and probes_well


@frozen(kw_only=True)
class Outcome:
    """
    All that was measured.
    """

    results: tuple[Result, ...] = ()
    holds: tuple[Hold, ...] = field(default=())

    def of(self, scenario: str, proxy: str) -> Figures | None:
        """
        The figures of *proxy* in *scenario*; None when there are no good ones.
        """
        return next(
            (
                figures(each)
                for each in self.results
                if (each.scenario.name, each.proxy) == (scenario, proxy)
            ),
            None,
        )

    def problems(self) -> list[str]:
        """
        What could not be measured, one line each.
        """
        return [
            *(f"{r.scenario.name} {r.proxy}: {r.problem}" for r in self.results if r.problem),
            *(f"hold {h.proxy}: {h.problem}" for h in self.holds if h.problem),
        ]


@frozen(kw_only=True)
class Figures:
    """
    Medians over the measurements of one proxy in one scenario.

    Attributes:
        cpu: Of one request (microseconds).
        net_cpu: The same without what the proxy takes when idle.
        p50: Latency (milliseconds); p99 likewise.
        rate: Requests per second.
        megabytes: Of answers or uploads per second (units of 2**20 bytes).
        resident: Most memory under load (bytes).
        peak: Most memory of all (bytes).
        per_waiting: Memory that one waiting request takes (bytes); None without such.
        idle: CPU when idle, as a share of one core.
    """

    cpu: float
    net_cpu: float
    p50: float
    p99: float
    rate: float
    megabytes: float
    resident: int
    peak: int
    per_waiting: float | None
    idle: float


def figures(result: Result) -> Figures | None:
    """
    The figures of *result*; None when it has none or a problem.
    """
    if result.problem or not result.samples:
        return None
    samples, scenario = result.samples, result.scenario
    resident = max(each.resident for each in samples)
    held = scenario.waiting
    return Figures(
        cpu=median(each.cpu / each.answers for each in samples) * 1e6,
        net_cpu=median(
            max(0.0, each.cpu - result.idle * each.seconds) / each.answers for each in samples
        )
        * 1e6,
        p50=median(each.p50 for each in samples) * 1e3,
        p99=median(each.p99 for each in samples) * 1e3,
        rate=median(each.rate for each in samples),
        megabytes=median(each.answers * scenario.size / MB / each.seconds for each in samples),
        resident=resident,
        peak=max(each.peak for each in samples),
        per_waiting=max(0, resident - result.at_rest) / held if held else None,
        idle=result.idle,
    )


def proxies_of(results: Iterable[Result]) -> list[str]:
    """
    Names of the proxies, in order of appearance.
    """
    return list(dict.fromkeys(each.proxy for each in results))
