"""
What was measured, as tables for people and as JSON for programs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import asdict

from bench.harness.overhead.figures import Figures, Hold, Outcome, Result, figures
from bench.harness.overhead.scenarios import KB, MB, PEERS
from bench.harness.overhead.targets import Verdict, verdicts
from bench.harness.report import table

_FEW = 100
COLUMNS = (
    "scenario",
    "proxy",
    "CPU us",
    *(f"x {peer}" for peer in PEERS),
    "p50 ms",
    "p99 ms",
    "req/s",
    "MB/s",
    "RSS MB",
    "peak MB",
)


def report(outcome: Outcome, routers: Sequence[str]) -> str:
    """
    All tables that have rows, the targets for each of *routers*, and what could not be measured.
    """
    fleet = [each for each in outcome.results if each.scenario.group == "fleet"]
    held = [each for each in outcome.results if each.scenario.waiting]
    parts = [
        _costs(outcome),
        _fleet(fleet),
        _waiting(held),
        _holds(outcome.holds),
        *(_targets(verdicts(outcome, router), router) for router in routers),
        "\n".join(f"INVALID {line}" for line in outcome.problems()),
    ]
    return "\n\n".join(part for part in parts if part)


def document(
    outcome: Outcome, routers: Sequence[str], surroundings: Mapping[str, object]
) -> dict[str, object]:
    """
    Everything that was measured, for JSON.

    Args:
        surroundings: Further entries, such as versions and the machine.
    """
    return {
        **surroundings,
        "results": [_result(each, outcome) for each in outcome.results],
        "holds": [asdict(each) for each in outcome.holds],
        "targets": {
            router: [asdict(each) for each in verdicts(outcome, router)] for router in routers
        },
        "problems": outcome.problems(),
    }


def ratio(outcome: Outcome, scenario: str, proxy: str, peer: str) -> float | None:
    """
    CPU per request of *proxy*, as a multiple of that of *peer*.
    """
    one, other = outcome.of(scenario, proxy), outcome.of(scenario, peer)
    if one is None or other is None or not other.cpu:
        return None
    return one.cpu / other.cpu


def _result(result: Result, outcome: Outcome) -> dict[str, object]:
    made = figures(result)
    name = result.scenario.name
    return {
        **asdict(result),
        "figures": None if made is None else asdict(made),
        "ratios": {peer: ratio(outcome, name, result.proxy, peer) for peer in PEERS},
    }


def _costs(outcome: Outcome) -> str:
    rows = [_row(each, outcome) for each in outcome.results]
    return table(COLUMNS, rows) if rows else ""


def _row(result: Result, outcome: Outcome) -> list[str]:
    name, made = result.scenario.name, figures(result)
    if made is None:
        return [name, result.proxy, *["-"] * (len(COLUMNS) - 2)]
    return [
        name,
        result.proxy,
        _number(made.cpu),
        *(_number(ratio(outcome, name, result.proxy, peer), 2) for peer in PEERS),
        _number(made.p50, 2),
        _number(made.p99, 2),
        _number(made.rate),
        _number(made.megabytes),
        _number(made.resident / MB),
        _number(made.peak / MB),
    ]


def _fleet(results: Sequence[Result]) -> str:
    """
    What a request costs beside the health checks of so many workers.
    """
    columns = ("fleet", "proxy", "CPU us", "idle: % of a core", "CPU us without idle", "x smallest")
    smallest = _smallest(results)
    rows = [
        [
            str(each.scenario.workers),
            each.proxy,
            _number(made.cpu),
            _number(100 * made.idle, 2),
            _number(made.net_cpu),
            _number(made.net_cpu / smallest[each.proxy].net_cpu, 2),
        ]
        for each in results
        if (made := figures(each)) is not None and smallest[each.proxy].net_cpu
    ]
    return table(columns, rows) if rows else ""


def _waiting(results: Sequence[Result]) -> str:
    columns = ("waiting", "proxy", "CPU us", "x fewest", "RSS MB", "KB per waiting request")
    smallest = _smallest(results)
    rows = [
        [
            str(each.scenario.waiting),
            each.proxy,
            _number(made.cpu),
            _number(made.cpu / smallest[each.proxy].cpu, 2),
            _number(made.resident / MB),
            _number(_per_waiting(each, made), 1),
        ]
        for each in results
        if (made := figures(each)) is not None and smallest[each.proxy].cpu
    ]
    return table(columns, rows) if rows else ""


def _per_waiting(result: Result, made: Figures) -> float | None:
    # Of a few requests it is lost in what any program's memory does.
    if made.per_waiting is None or result.scenario.waiting < _FEW:
        return None
    return made.per_waiting / KB


def _smallest(results: Sequence[Result]) -> dict[str, Figures]:
    """
    The figures of each proxy in the first of its scenarios that has some.
    """
    found: dict[str, Figures] = {}
    for each in results:
        made = figures(each)
        if made is not None:
            found.setdefault(each.proxy, made)
    return found


def _holds(holds: Sequence[Hold]) -> str:
    columns = ("held open", "proxy", "seconds", "answered", "probe failures", "RSS MB", "KB each")
    rows = [
        [
            str(each.asked),
            each.proxy,
            _number(each.seconds),
            str(each.answered),
            str(each.failures),
            _number(each.resident / MB),
            _number(each.per_request / KB, 1),
        ]
        for each in holds
        if not each.problem
    ]
    return table(columns, rows) if rows else ""


def _targets(judged: Sequence[Verdict], router: str) -> str:
    words = {True: "met", False: "MISSED", None: "-"}
    rows = [[each.target, each.measured, words[each.met]] for each in judged]
    return table((f"target ({router})", "measured", "verdict"), rows)


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
