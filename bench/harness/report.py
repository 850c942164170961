"""
What was measured, as tables for people and as JSON for programs. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import asdict

from bench.harness.measure import Measured
from bench.harness.options import Settings
from bench.harness.summary import Record, Result, Summary, summarise

WHOLE = ("algorithm", "makespan s", "over bound", "idle %")
RATIOS = ("p50 ratio", "p99 ratio", "makespan ratio")
COLUMNS = (
    "algorithm",
    "ok",
    "failed",
    "req/s",
    "mean s",
    "p50 s",
    "p95 s",
    "p99 s",
    "max s",
    "queue s",
)


def report(settings: Settings, measured: Measured) -> str:
    """
    The result for the terminal: what ran, the figures of the requests and of the load as a whole,
    the workers' shares, the errors.
    """
    summaries = {result.algorithm: summarise(result) for result in measured.results}
    parts = [
        header(settings, measured),
        table(COLUMNS, [_row(name, each) for name, each in summaries.items()]),
        _whole_table(summaries),
        _shares_table(measured.results),
        *([_errors_table(summaries)] if any(each.failed for each in summaries.values()) else []),
    ]
    return "\n\n".join(parts)


def header(settings: Settings, measured: Measured) -> str:
    """
    One line that says what was measured.
    """
    workers = f"{len(measured.results[0].served)} {measured.fleet} workers"
    if measured.fleet == "simulated":
        workers += f" at speed {_speeds(settings)}"
    requests = f"{settings.num_prompts} {settings.task} requests of mix '{settings.mix}'"
    seeds = f"seed {settings.seed}"
    if settings.repeat > 1:
        seeds = f"seeds {settings.seed} to {settings.seed + settings.repeat - 1}"
    return f"{settings.model}: {workers}, {requests}, {_load(settings)}, {_taught(settings)}{seeds}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    An aligned Markdown table: the first column to the left, the others to the right.
    """
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    rule = [f"{'-' * (width - 1)}{'-' if at == 0 else ':'}" for at, width in enumerate(widths)]
    return "\n".join(_line(row, widths) for row in (columns, rule, *rows))


def document(
    script: str,
    command: Sequence[str],
    settings: Settings,
    measured: Measured,
    surroundings: Mapping[str, object],
) -> dict[str, object]:
    """
    Everything that was measured, for JSON.

    Args:
        surroundings: Further entries, such as versions and the machine.
    """
    return {
        "bench": script,
        "command": list(command),
        **surroundings,
        "fleet": measured.fleet,
        "settings": asdict(settings),
        "results": [_result(result) for result in measured.results],
    }


def _load(settings: Settings) -> str:
    if settings.batch is not None:
        return f"all at once as batch '{settings.batch}'"
    load = f"at most {settings.max_concurrency} at once"
    if settings.load is not None:
        load += f", load {settings.load:g}"
    return load + (f", {settings.request_rate:.4g} arrivals/s" if settings.request_rate else "")


def _taught(settings: Settings) -> str:
    if not any(arm.algorithm == "least-work" or arm.concurrency for arm in settings.arms):
        return ""
    count = settings.router_warmup
    return f"routers taught by {count} requests, " if count else "routers start knowing nothing, "


def _speeds(settings: Settings) -> str:
    factors = ", ".join(f"{factor:g}" for factor in settings.worker_speeds)
    return f"{settings.speed:g}" + (f" times {factors}" if factors else "")


def _result(result: Result) -> dict[str, object]:
    return {
        "algorithm": result.algorithm,
        "summary": asdict(summarise(result)),
        "served": dict(result.served),
        "requests": [_record(record) for record in result.records],
    }


def _record(record: Record) -> dict[str, object]:
    return {
        "index": record.prompt.index,
        "request": record.prompt.fields(),
        "arrived": record.arrived,
        "sent": record.sent,
        "finished": record.finished,
        "latency": record.latency,
        "queue_time": record.queue_time,
        **asdict(record.outcome),
    }


def _row(name: str, summary: Summary) -> list[str]:
    seconds = (
        summary.mean,
        summary.p50,
        summary.p95,
        summary.p99,
        summary.maximum,
        summary.queue_time,
    )
    return [
        name,
        str(summary.completed),
        str(summary.failed),
        number(summary.throughput, 2),
        *(number(each, 3) for each in seconds),
    ]


def _whole_table(summaries: Mapping[str, Summary]) -> str:
    """
    What became of the load as a whole; with several arms also their figures over the first one's.
    """
    several = len(summaries) > 1
    first = next(iter(summaries.values()))
    rows = []
    for name, each in summaries.items():
        idle = None if each.busy is None else 1 - each.busy
        row = [name, number(each.makespan, 2), number(each.over_bound, 3), percent(idle)]
        rows.append([*row, *(_ratios(each, first) if several else ())])
    return table([*WHOLE, *(RATIOS if several else ())], rows)


def _ratios(summary: Summary, first: Summary) -> list[str]:
    return [
        _ratio(summary.p50, first.p50),
        _ratio(summary.p99, first.p99),
        _ratio(summary.makespan, first.makespan),
    ]


def _ratio(value: float | None, other: float | None) -> str:
    return number(value / other if value is not None and other else None, 3)


def _shares_table(results: Sequence[Result]) -> str:
    shares = [summarise(result).shares for result in results]
    rows = [
        [worker, *(_share(result.served[worker], each[worker]) for result, each in pairs)]
        for worker in results[0].served
        for pairs in [list(zip(results, shares, strict=True))]
    ]
    return table(["share per worker", *(result.algorithm for result in results)], rows)


def _errors_table(summaries: Mapping[str, Summary]) -> str:
    counts = Counter(
        {
            (name, error): count
            for name, each in summaries.items()
            for error, count in each.errors.items()
        }
    )
    rows = [[error, name, str(count)] for (name, error), count in counts.most_common()]
    return table(["error", "algorithm", "requests"], rows)


def _share(count: int | None, share: float | None) -> str:
    return "-" if count is None else f"{count} ({percent(share)} %)"


def percent(share: float | None) -> str:
    """
    *share* in percent with one digit; a dash for None.
    """
    return number(None if share is None else 100 * share, 1)


def number(value: float | None, digits: int) -> str:
    """
    *value* with so many digits after the point; a dash for None.
    """
    return "-" if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(aligned)} |"
