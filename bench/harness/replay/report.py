"""
What a replay showed, as a table for people and as JSON for programs. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from attrs import asdict

from bench.harness.replay.outcome import FATES, Outcome
from bench.harness.replay.recording import Recording
from bench.harness.replay.truth import Truth
from bench.harness.report import number, percent, table
from bench.harness.summary import percentile
from sgl_droute.fleet.rules import Rules

_COLUMNS = ("algorithm", *FATES, "makespan s", "mean s", "p50 s", "p99 s", "idle %")


def report(recording: Recording, truth: Truth, rules: Rules, outcomes: Sequence[Outcome]) -> str:
    """
    What was replayed, what could not be, and the figures of each algorithm.
    """
    seconds = recording.jobs[-1].at
    workers = len(recording.models())
    slots = f"worker concurrency {rules.concurrency}"
    lines = [f"{len(recording.jobs)} jobs in {seconds:.1f} s, {workers} workers, {slots}"]
    sources = truth.sources
    unmeasured = ", ".join(
        f"{sources[source]} {source}" for source in ("predicted", "average") if sources[source]
    )
    if unmeasured:
        lines.append(f"Seconds that were not measured: {unmeasured}")
    if recording.passed_over:
        counts = ", ".join(f"{count} {sort}" for sort, count in recording.passed_over.items())
        lines.append(f"Not used: {counts}")
    speeds = truth.speeds().values()
    if speeds:
        lines.append(f"Speeds of the workers, measured: {min(speeds):.2f} to {max(speeds):.2f}")
    return "\n".join([*lines, "", table(_COLUMNS, [_row(each) for each in outcomes])])


def figures(outcome: Outcome) -> dict[str, float | None]:
    """
    Makespan, mean, p50 and p99 (seconds) and idle share; None where there is nothing to make one
    from.
    """
    latencies = outcome.latencies
    return {
        "makespan": outcome.makespan,
        "mean": fmean(latencies) if latencies else None,
        "p50": percentile(latencies, 50) if latencies else None,
        "p99": percentile(latencies, 99) if latencies else None,
        "idle": outcome.idle,
    }


def document(
    command: Sequence[str],
    recording: Recording,
    truth: Truth,
    rules: Rules,
    outcomes: Sequence[Outcome],
) -> dict[str, object]:
    """
    Everything that a replay showed, for JSON.
    """
    return {
        "bench": "replay.py",
        "command": list(command),
        "jobs": len(recording.jobs),
        "seconds_from": dict(truth.sources),
        "passed_over": dict(recording.passed_over),
        "speeds": truth.speeds(),
        "rules": asdict(rules, filter=lambda at, _: at.name not in ("random", "algorithm")),
        "results": [
            {
                "algorithm": each.algorithm,
                "summary": figures(each),
                "jobs": dict(each.fates),
                "latencies": list(each.latencies),
            }
            for each in outcomes
        ],
    }


def _row(outcome: Outcome) -> list[str]:
    made = figures(outcome)
    counts = [str(outcome.fates.get(fate, 0)) for fate in FATES]
    seconds = [number(made[name], 3) for name in ("makespan", "mean", "p50", "p99")]
    return [outcome.algorithm, *counts, *seconds, percent(made["idle"])]
