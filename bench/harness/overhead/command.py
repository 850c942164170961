"""
`bench_overhead.py` from its command line to its exit status.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from attrs import asdict

from bench.harness.command import INTERRUPTED
from bench.harness.machine import machine_facts, versions
from bench.harness.overhead.figures import Outcome
from bench.harness.overhead.layers import profile, profile_table
from bench.harness.overhead.measure import Measure
from bench.harness.overhead.options import Settings, read_settings
from bench.harness.overhead.programs import ProgramFailed
from bench.harness.overhead.proxies import Ground, backend, found, proxies
from bench.harness.overhead.report import document, report
from bench.harness.overhead.scenarios import most_waiting, scenarios
from sgl_droute.commandline import raise_open_files_limit

_IN_MEMORY = Path("/dev/shm")
_VERSION = {"nginx": "-v", "haproxy": "-v", "wrk": "-v"}


def run(script: str) -> NoReturn:
    """
    Measure what the command line asks for, print it, and exit: with 0 when all of it could be
    measured, whether targets are met or not; 1 when something could not; 2 for a wrong option.
    """
    open_files = raise_open_files_limit()
    settings = read_settings(script, sys.argv[1:], scenarios(open_files))
    if found("wrk") is None:
        raise SystemExit(f"{script}: needs wrk, which is not installed (Debian package wrk)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        problems = _main(settings, open_files)
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED) from None
    except ProgramFailed as problem:
        raise SystemExit(f"{script}: {problem}") from None
    raise SystemExit(1 if problems else 0)


def _main(settings: Settings, open_files: int) -> bool:
    """
    Whether something could not be measured.
    """
    with _folder() as folder:
        wanted = (settings.profile,) if settings.profile else settings.scenarios
        workers = max(scenario.workers for scenario in wanted)
        with backend(folder, workers, open_files) as ground:
            if settings.profile is not None:
                profiled = profile(ground, settings.profile, settings.seconds)
                print(profile_table(profiled))
                return False
            return bool(_measured(settings, ground).problems())


def _measured(settings: Settings, ground: Ground) -> Outcome:
    measured, absent = proxies(settings.routers)
    for name in absent:
        _say(f"{name} is not installed and left out.")
    if "nginx" in absent:
        _say("Without nginx a small Python program is the backend: large answers are slower.")
    _say(f"At most {ground.open_files} open files: {most_waiting(ground.open_files)} may wait.")
    surroundings = _surroundings(settings)
    measure = Measure(ground, measured, settings.seconds, settings.rounds, settings.hold, _say)
    outcome = measure.run(settings.scenarios)
    routers = [proxy.name for proxy in measured if proxy.is_router]
    print(f"\n{report(outcome, routers)}\n", flush=True)
    _write(settings, outcome, routers, surroundings)
    return outcome


def _surroundings(settings: Settings) -> dict[str, object]:
    return {
        "bench": "bench_overhead.py",
        "command": sys.argv,
        "began": datetime.now(timezone.utc).isoformat(),
        "machine": machine_facts(),
        "versions": {**versions(), **_program_versions()},
        "settings": asdict(settings, filter=lambda field, value: field.name != "scenarios"),
    }


def _program_versions() -> dict[str, str]:
    return {
        program: _first_line(path, option)
        for program, option in _VERSION.items()
        if (path := found(program))
    }


def _first_line(*command: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return (asked.stdout + asked.stderr).strip().partition("\n")[0]
    return "unknown"


def _write(
    settings: Settings, outcome: Outcome, routers: list[str], surroundings: dict[str, object]
) -> None:
    if settings.json is not None:
        whole = document(outcome, routers, surroundings)
        settings.json.write_text(json.dumps(whole, indent=2, default=str) + "\n")
        _say(f"Wrote {settings.json}")
    if settings.plot is not None:
        from bench.harness.overhead.plot import draw

        draw(outcome, settings.plot)
        _say(f"Wrote {settings.plot}")


@contextmanager
def _folder() -> Iterator[Path]:
    """
    A folder for everything: where TMPDIR says, else in memory, as disks are not what is measured.
    """
    in_memory = "TMPDIR" not in os.environ and os.access(_IN_MEMORY, os.W_OK)
    place = _IN_MEMORY if in_memory else None
    with TemporaryDirectory(
        prefix="sgl-droute-bench-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _say(line: str) -> None:
    print(line, flush=True)
