"""
`simulate.py` from its command line to its exit status.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timezone

from bench.harness.command import INTERRUPTED, ended, say, write_json
from bench.harness.machine import machine_facts, versions
from bench.harness.virtual.arms import arms
from bench.harness.virtual.options import Settings, read_settings
from bench.harness.virtual.report import document, report, scale_table
from bench.harness.virtual.scale import ARMS, Burst, Scale, burst, scale
from bench.harness.virtual.study import Result, study

_SCALE = (100_000, 1000)  # requests, workers
_LINES = ((10_000, 1000, 0, 5000), (10_000, 1000, 250, 5000))  # waiting, workers, slow, ends


def run(script: str) -> None:
    """
    Simulate what the command line asks for and print it, whether targets are met or not.

    Raises:
        SystemExit: It was interrupted, or an option is wrong.
    """
    settings = read_settings(script, sys.argv[1:])
    began = datetime.now(timezone.utc).isoformat()
    facts = machine_facts()
    try:
        results, scales, bursts = _measured(settings)
    except KeyboardInterrupt:
        raise ended(script, "interrupted", INTERRUPTED) from None
    if settings.json is not None:
        surroundings = {
            "bench": script,
            "command": sys.argv,
            "began": began,
            "machine": facts,
            "versions": versions(),
            "seeds": settings.seeds,
            "requests": settings.requests,
        }
        whole = document(results, scales, bursts, surroundings)
        write_json(whole, settings.json)
    if settings.plot is not None and results:
        from bench.harness.virtual.plot import draw

        draw(results, settings.plot)
        say(f"Wrote {settings.plot}")


def _measured(
    settings: Settings,
) -> tuple[Sequence[Result], Sequence[Scale], Sequence[Burst]]:
    if settings.scale:
        scales = [scale(arm, *_SCALE) for arm in ARMS]
        lines = [(arm, line) for arm in ARMS if arm.slots for line in _LINES]
        bursts = [each for arm, line in lines for each in burst(arm, *line)]
        say(scale_table(scales, bursts))
        return [], scales, bursts
    say(
        f"Means of {settings.seeds} seeds with {settings.requests} requests each (batches as they"
        " are). All requests count, also the first and the last."
    )
    results = study(
        settings.workloads,
        arms(settings.algorithms, settings.slots),
        seeds=settings.seeds,
        requests=settings.requests,
        processes=settings.processes,
        say=say,
    )
    say(f"\n{report(results)}\n")
    return results, [], []
