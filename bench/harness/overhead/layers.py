"""
Where the router's time goes, by layer.
"""

from __future__ import annotations

import os
import pstats
import re
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from bench.harness.overhead.programs import Program, ProgramFailed
from bench.harness.overhead.proxies import ROUTER, Ground, Proxy, router_command, started
from bench.harness.overhead.scenarios import Scenario
from bench.harness.overhead.wrk import run_wrk
from bench.harness.report import table

PROFILED = Path(__file__).with_name("profiled.py")
_WITHIN = 60.0
_POLL = "kernel: waiting for events"
_OTHER = "other"

# The first that matches names the layer of a function; a C function has a name and no file.
_BUILT_IN = (
    (re.compile(r"'(poll|control)' of 'select\."), _POLL),
    (re.compile(r"'select\.|'_socket\.socket'|fcntl\.ioctl"), "kernel: sockets"),
    (re.compile(r"httptools"), "httptools"),
)
_FILES = tuple(
    (re.compile(pattern), layer)
    for pattern, layer in (
        (r"\bsgl_droute[./](api|workers|fleet|state)\b", r"sgl_droute.\1"),
        (r"\bsgl_droute[./]", "sgl_droute, other"),
        (r"\btwisted[./]internet\b", "Twisted: reactor, transports, Deferreds"),
        (r"\btwisted[./]web\b", "Twisted: web"),
        (r"\btwisted[./]logger\b", "Twisted: logger"),
        (r"\btwisted[./]", "Twisted: other"),
        (r"\bhttptools\b", "httptools"),
        (r"\b(klein|werkzeug)[./]", "Klein, werkzeug"),
        (r"\b(treq|hyperlink|idna|multipart|requests)[./]", "treq, hyperlink, idna"),
    )
)

Function = tuple[str, int, str]
# Of each function: primitive calls, calls, its own seconds, those with what it called, and the
# first four by caller.
Stats = dict[Function, tuple[int, int, float, float, dict[Function, Any]]]


@frozen(kw_only=True)
class Profile:
    """
    Attributes:
        requests: Answered meanwhile (count).
        seconds: Of each layer, functions it called in other layers left out.
        calls: Of Python and C functions (count).
    """

    requests: int
    seconds: dict[str, float]
    calls: int


def profile(ground: Ground, scenario: Scenario, seconds: int) -> Profile:
    """
    The router under a profiler in *scenario*.

    Raises:
        ProgramFailed: It does not work.
    """
    file = ground.folder / "profile"
    command = [sys.executable, str(PROFILED), str(file), *ROUTER[3:]]
    proxy = Proxy("router", router_command(command))
    with started(proxy, ground, scenario) as program:
        run_wrk(scenario, program.port, 1, ground.folder)
        _signal(program)
        counted = run_wrk(scenario, program.port, seconds, ground.folder)
        _signal(program)
        _wait_for(file, program)
        if counted.problem:
            raise ProgramFailed(counted.problem)
    recorded: Stats = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    return layers(recorded, counted.requests)


def layers(stats: Stats, requests: int) -> Profile:
    """
    *stats*, as `pstats.Stats` keeps them, added up by layer.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    calls = 0
    for function, (_, count, own, _, callers) in stats.items():
        calls += count
        for layer, share in _shares(function, own, callers).items():
            seconds[layer] += share
    return Profile(requests=requests, seconds=_dearest_first(seconds), calls=calls)


def layer_of(function: Function) -> str | None:
    """
    The layer of a function; None for a C function that belongs to whoever calls it.
    """
    file, _, name = function
    if file == "~":
        return next((layer for known, layer in _BUILT_IN if known.search(name)), None)
    for known, layer in _FILES:
        match = known.search(file)
        if match is not None:
            return match.expand(layer)
    return _OTHER


def profile_table(profile: Profile) -> str:
    """
    The layers, dearest first.
    """
    total = sum(profile.seconds.values()) or 1.0
    rows = [[layer, f"{100 * each / total:.1f}"] for layer, each in profile.seconds.items()]
    calls = profile.calls / profile.requests
    heading = f"{profile.requests} requests, {calls:.0f} function calls each"
    return f"{heading}\n\n{table(('layer', '% of the time'), rows)}"


def _shares(function: Function, own: float, callers: dict[Function, Any]) -> dict[str, float]:
    layer = layer_of(function)
    if layer is not None:
        return {layer: own}
    shares: defaultdict[str, float] = defaultdict(float)
    for caller, (_, _, spent, _) in callers.items():
        shares[layer_of(caller) or _OTHER] += spent
    return shares


def _dearest_first(seconds: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _signal(program: Program) -> None:
    for process in program.processes():
        os.kill(process, signal.SIGUSR2)


def _wait_for(file: Path, program: Program) -> None:
    deadline = time.monotonic() + _WITHIN
    while not file.exists():
        program.check_running()
        if time.monotonic() > deadline:
            raise ProgramFailed(f"{program.name}: no profile after {_WITHIN:g} s")
        time.sleep(0.1)
