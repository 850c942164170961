"""
The command line of `simulate.py`, read into one frozen record.
"""

from __future__ import annotations

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from attrs import field, frozen

from bench.harness import values
from bench.harness.virtual.arms import SLOTS
from bench.harness.virtual.workloads import FLEETS, Workload, workloads
from sgl_droute.fleet.selection import ALGORITHMS

SEEDS, REQUESTS = 20, 4000
_QUICK_SEEDS, _QUICK_REQUESTS = 4, 1000


@frozen(kw_only=True)
class Settings:
    """
    Attributes:
        workloads: To simulate; none with *scale*.
        algorithms: To compare.
        slots: Of each worker: 0 for any number.
        seeds: Runs of each workload (count).
        requests: Of each run, batches aside (count).
        processes: Runs at the same time (count).
        scale: Whether cost in real time is measured instead.
        json: File for everything that was simulated; None writes none.
        plot: PNG file; None draws none.
    """

    workloads: tuple[Workload, ...] = field(repr=False)
    algorithms: tuple[str, ...]
    slots: tuple[int, ...]
    seeds: int
    requests: int
    processes: int
    scale: bool
    json: Path | None
    plot: Path | None


def read_settings(script: str, words: Sequence[str]) -> Settings:
    """
    The settings that *words* ask for.

    Raises:
        SystemExit: Help was asked for, or an option is wrong; the reason is on standard error.
    """
    parser = _parser(script)
    given = parser.parse_args(words)
    try:
        wanted = _chosen(workloads(given.workers), given.workload)
    except ValueError as problem:
        parser.error(str(problem))
    return Settings(
        workloads=() if given.scale else wanted,
        algorithms=tuple(given.algorithms),
        slots=tuple(given.slots),
        seeds=given.seeds or (_QUICK_SEEDS if given.quick else SEEDS),
        requests=given.requests or (_QUICK_REQUESTS if given.quick else REQUESTS),
        processes=given.processes,
        scale=given.scale,
        json=given.json,
        plot=given.plot,
    )


def _parser(script: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=script,
        description="The scheduler in virtual time, before a model of workers.",
        formatter_class=ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    names = " ".join(workload.name for workload in workloads())
    parser.add_argument("--workload", nargs="+", metavar="NAME", help=f"a to e, or {names}")
    parser.add_argument(
        "--workers", nargs="+", type=_fleet, default=FLEETS, help="fleets of workloads a and b"
    )
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument(
        "--slots",
        nargs="+",
        type=values.whole,
        default=SLOTS,
        help="of each worker; 0 for no limit",
    )
    parser.add_argument("--seeds", type=values.count, help=f"runs, {SEEDS} unless --quick")
    parser.add_argument(
        "--requests", type=values.count, help=f"of a run, {REQUESTS} unless --quick"
    )
    parser.add_argument("--quick", action="store_true", help="few seeds and requests")
    parser.add_argument(
        "--processes", type=values.count, default=os.cpu_count() or 1, help="runs at the same time"
    )
    parser.add_argument(
        "--scale", action="store_true", help="measure large fleets and long lines in real time"
    )
    parser.add_argument("--json", type=values.output, help="write everything that was simulated")
    parser.add_argument("--plot", type=values.output, metavar="PNG", help="draw it")
    return parser


def _chosen(known: Sequence[Workload], names: Sequence[str] | None) -> tuple[Workload, ...]:
    for name in names or ():
        if not any(name in (workload.name, workload.group) for workload in known):
            raise ValueError(f"there is no workload {name!r}")
    return tuple(
        workload
        for workload in known
        if names is None or workload.name in names or workload.group in names
    )


def _fleet(text: str) -> int:
    # One slow worker beside fast ones needs two.
    if values.count(text) < 2:
        raise ArgumentTypeError("a fleet has at least 2 workers")
    return int(text)
