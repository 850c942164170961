"""
`replay.py` from its command line to its exit status.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from random import Random
from typing import Any, NoReturn

from attrs import evolve

from bench.harness.command import INTERRUPTED, ended, say, write_json
from bench.harness.replay.options import Settings, read_settings
from bench.harness.replay.outcome import Outcome
from bench.harness.replay.reader import read
from bench.harness.replay.recording import NoRecording, Recording
from bench.harness.replay.report import document, report
from bench.harness.replay.run import Replay
from bench.harness.replay.truth import Truth
from sgl_droute.fleet.rules import Rules

_RULES: Mapping[str, type | tuple[type, ...]] = {
    "strict_model": bool,
    "bind_ahead": (int, float),
    "max_running": int,
    "queue_size": int,
    "fair": bool,
    "group_margin": int,
}


def run(script: str) -> NoReturn:
    """
    Replay what the command line names, print it, and exit: with 0, or with 2 for a wrong option or
    a file that is no recording.
    """
    settings = read_settings(script, sys.argv[1:])
    try:
        _main(settings)
    except KeyboardInterrupt:
        raise ended(script, "interrupted", INTERRUPTED) from None
    except (NoRecording, OSError) as problem:
        raise ended(script, str(problem), 2) from None
    raise SystemExit(0)


def rules_of(recorded: Mapping[str, Any]) -> Rules:
    """
    The rules that the router was told; the usual ones for what is missing or makes no sense.
    """
    known = {
        name: recorded[name]
        for name, sort in _RULES.items()
        if isinstance(recorded.get(name), sort)
    }
    concurrency = recorded.get("concurrency")
    if concurrency == "auto" or isinstance(concurrency, int):
        known["concurrency"] = concurrency
    return Rules(**known)


def _main(settings: Settings) -> None:
    recording = read(settings.files)
    truth = Truth(recording)
    rules = rules_of(recording.rules)
    if settings.concurrency is not None:
        rules = evolve(rules, concurrency=settings.concurrency)
    outcomes = [
        Replay(
            recording, truth, evolve(rules, algorithm=algorithm, random=Random(settings.seed))
        ).run()
        for algorithm in settings.algorithms
    ]
    text = report(recording, truth, rules, outcomes)
    say(text)
    _write(settings, recording, truth, rules, outcomes, text.partition("\n")[0])


def _write(
    settings: Settings,
    recording: Recording,
    truth: Truth,
    rules: Rules,
    outcomes: list[Outcome],
    title: str,
) -> None:
    if settings.json is not None:
        whole = document(sys.argv, recording, truth, rules, outcomes)
        write_json(whole, settings.json)
    if settings.plot is not None:
        from bench.harness.replay.plot import draw

        draw(outcomes, title, settings.plot)
        say(f"Wrote {settings.plot}")
