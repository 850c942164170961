"""
What was simulated, as tables for people and as JSON for programs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from attrs import asdict

from bench.harness.report import table
from bench.harness.virtual.figures import Figures
from bench.harness.virtual.scale import Burst, Scale
from bench.harness.virtual.study import Result
from bench.harness.virtual.targets import Verdict, verdicts

COLUMNS = (
    "algorithm",
    "slots",
    "costs",
    "p50 s",
    "p99 s",
    "p99 / least-request",
    "makespan / bound",
    "left %",
)
_MET = {True: "met", False: "missed", None: "-"}


def report(results: Sequence[Result]) -> str:
    """
    The result for the terminal: a table for each workload, then the targets.
    """
    tables = [
        f"{result.workload.name}: {result.workload.title}\n\n{_table(result)}" for result in results
    ]
    return "\n\n".join([*tables, targets_table(verdicts(results))])


def targets_table(judged: Sequence[Verdict]) -> str:
    """
    The targets, each with its figure.
    """
    rows = [[each.target, each.measured, _MET[each.met]] for each in judged]
    return table(["target", "measured", ""], rows)


def scale_table(scales: Sequence[Scale], bursts: Sequence[Burst]) -> str:
    """
    What large fleets and long lines cost in real time.
    """
    columns = ["load", "events", "wall s", "us / event", "of that the scheduler"]
    rows = [
        [
            f"{each.requests} requests, {each.workers} workers, {each.arm.name}",
            str(each.events),
            f"{each.wall:.1f}",
            f"{1e6 * each.wall / each.events:.1f}",
            f"{1e6 * each.inside / each.events:.1f}",
        ]
        for each in scales
    ]
    names = ["line", "call", "count", "median CPU us", "p99", "worst"]
    calls = [
        [
            f"{each.waiting} waiting, {each.workers} workers ({each.slow} slow), {each.arm.name}",
            each.call,
            str(each.count),
            *(f"{1e6 * value:.0f}" for value in (each.median, each.p99, each.worst)),
        ]
        for each in bursts
    ]
    return f"{table(columns, rows)}\n\n{table(names, calls)}"


def document(
    results: Sequence[Result],
    scales: Sequence[Scale],
    bursts: Sequence[Burst],
    surroundings: Mapping[str, object],
) -> dict[str, object]:
    """
    Everything that was simulated, for JSON.
    """
    return {
        **surroundings,
        "workloads": [_workload(result) for result in results],
        "targets": [asdict(verdict) for verdict in verdicts(results)] if results else [],
        "scale": [asdict(each) for each in scales],
        "bursts": [asdict(each) for each in bursts],
    }


def _workload(result: Result) -> dict[str, object]:
    return {
        "name": result.workload.name,
        "title": result.workload.title,
        "speeds": result.workload.speeds,
        "arms": [
            {**asdict(arm), **asdict(figures), "seeds": [asdict(run) for run in result.runs[arm]]}
            for arm, figures in result.arms.items()
        ],
        "references": {name: asdict(each) for name, each in result.references.items()},
    }


def _table(result: Result) -> str:
    plain = result.of("least-request", 0)
    tail = plain.p99 if plain is not None else None
    arms = [
        ([arm.algorithm, str(arm.slots or "-"), arm.costs], _cells(figures, tail))
        for arm, figures in result.arms.items()
    ]
    others = [[name, "", "", *_cells(each, tail)] for name, each in result.references.items()]
    refused = {arm.name: each.refused for arm, each in result.arms.items() if each.refused}
    notes = [f"{name}: {count:g} requests of a run were refused" for name, count in refused.items()]
    return "\n".join([table(COLUMNS, [*_folded(arms), *others]), *notes])


def _folded(rows: Sequence[tuple[list[str], list[str]]]) -> list[list[str]]:
    """
    The rows, one for what has the same figures whatever is known of the work.
    """
    folded: list[list[str]] = []
    for _, same in groupby(rows, key=lambda row: row[0][:2]):
        several = list(same)
        if all(cells == several[0][1] for _, cells in several):
            several = [([*several[0][0][:2], "any"], several[0][1])]
        folded += [[*names, *cells] for names, cells in several]
    return folded


def _cells(figures: Figures, tail: float | None) -> list[str]:
    return [
        f"{figures.p50:.2f}",
        f"{figures.p99:.2f}",
        "-" if not tail else f"{figures.p99 / tail:.3f}",
        f"{figures.over_bound:.3f}",
        f"{100 * figures.left:.1f}",
    ]
