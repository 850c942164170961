"""
The command line of `bench_overhead.py`, read into one frozen record.
"""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from bench.harness.overhead.proxies import ROUTER
from bench.harness.overhead.scenarios import Scenario, chosen

SECONDS, ROUNDS, HOLD = 5, 3, 60
_QUICK = {"seconds": 2, "rounds": 1, "hold": 10}
_PROFILED = "1k-32"


@frozen(kw_only=True)
class Settings:
    """
    Attributes:
        scenarios: What to measure.
        seconds: Of one measurement.
        rounds: Measurements of each proxy in each scenario (count).
        hold: Seconds that the most requests are held open.
        routers: Each starts a router when its options follow.
        profile: Scenario that only the router runs, under a profiler; None measures.
        json: File for everything that was measured; None writes none.
        plot: PNG file; None draws none.
    """

    scenarios: tuple[Scenario, ...]
    seconds: int
    rounds: int
    hold: int
    routers: tuple[tuple[str, ...], ...]
    profile: Scenario | None
    json: Path | None
    plot: Path | None


def read_settings(script: str, words: Sequence[str], known: Sequence[Scenario]) -> Settings:
    """
    The settings that *words* ask for.

    Args:
        known: All scenarios there are.

    Raises:
        SystemExit: Help was asked for, or an option is wrong; the reason is on standard error.
    """
    parser = _parser(script, known)
    given = parser.parse_args(words)
    defaults = _QUICK if given.quick else {"seconds": SECONDS, "rounds": ROUNDS, "hold": HOLD}
    try:
        profiled = chosen(known, [given.profile]) if given.profile else ()
        if profiled and (len(profiled) > 1 or not profiled[0].connections):
            raise ValueError(f"--profile {given.profile}: name one scenario that sends requests")
        return Settings(
            scenarios=chosen(known, given.only or ()),
            **{name: getattr(given, name) or default for name, default in defaults.items()},
            routers=tuple(given.router_command or (ROUTER,)),
            profile=profiled[0] if profiled else None,
            json=given.json,
            plot=given.plot,
        )
    except ValueError as problem:
        parser.error(str(problem))


def _parser(script: str, known: Sequence[Scenario]) -> ArgumentParser:
    names = " ".join(dict.fromkeys([each.group for each in known] + [each.name for each in known]))
    parser = ArgumentParser(
        prog=script,
        description="The router beside nginx and HAProxy: CPU, latency, throughput, memory.",
        allow_abbrev=False,
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"measure only: {names}")
    parser.add_argument(
        "--seconds", type=_count, help=f"of one measurement (default: {SECONDS}, quick 2)"
    )
    parser.add_argument(
        "--rounds", type=_count, help=f"measurements of each (default: {ROUNDS}, quick 1)"
    )
    parser.add_argument(
        "--hold", type=_count, help=f"seconds to hold requests open (default: {HOLD}, quick 10)"
    )
    parser.add_argument("--quick", action="store_true", help="short and rough")
    parser.add_argument(
        "--router-command",
        action="append",
        type=_words,
        metavar="WORDS",
        help="starts the router when its options follow, instead of this checkout's; repeatable:"
        " several are measured side by side",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const=_PROFILED,
        metavar="NAME",
        help=f"show where this checkout's router spends its time in a scenario ({_PROFILED})",
    )
    parser.add_argument("--json", type=_file, help="write everything that was measured")
    parser.add_argument("--plot", type=_file, metavar="PNG", help="draw it")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _words(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as problem:
        raise ArgumentTypeError(f"{text!r}: {problem}") from None
    if not words:
        raise ArgumentTypeError("no command")
    return words


def _file(text: str) -> Path:
    # Before anything is measured: a measurement with nowhere to go is lost time.
    if not Path(text).absolute().parent.is_dir():
        raise ArgumentTypeError(f"there is no folder for {text}")
    return Path(text)
