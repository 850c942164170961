"""
The command line of `replay.py`, read into one frozen record.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from bench.harness import values
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.worker import Concurrency


@frozen(kw_only=True)
class Settings:
    """
    Attributes:
        files: Of one recording.
        algorithms: Each replays it.
        concurrency: Slots of workers without a number of their own; None for what was recorded.
        seed: Of the random algorithm.
        json: File for everything that came out; None writes none.
        plot: PNG file; None draws none.
    """

    files: tuple[Path, ...]
    algorithms: tuple[str, ...]
    concurrency: Concurrency | None
    seed: int
    json: Path | None
    plot: Path | None


def read_settings(script: str, words: Sequence[str]) -> Settings:
    """
    The settings that *words* ask for.

    Raises:
        SystemExit: Help was asked for, or an option is wrong; the reason is on standard error.
    """
    given = _parser(script).parse_args(words)
    return Settings(
        files=tuple(given.files),
        algorithms=tuple(dict.fromkeys(given.algorithm or ALGORITHMS)),
        concurrency=given.concurrency,
        seed=given.seed,
        json=given.json,
        plot=given.plot,
    )


def _parser(script: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=script,
        description="Replays recorded traffic with other routing algorithms, in virtual time.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="what the router's option --record wrote: one file, or several of one recording",
    )
    parser.add_argument(
        "--algorithm",
        action="append",
        choices=tuple(ALGORITHMS),
        help="repeatable (default: all)",
    )
    parser.add_argument(
        "--concurrency",
        type=values.concurrency,
        metavar="N|auto|0",
        help="slots of each worker, 0 for no limit (default: as recorded)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random algorithm (default: 1)")
    parser.add_argument(
        "--json", type=values.output, metavar="FILE", help="write all that came out"
    )
    parser.add_argument("--plot", type=values.output, metavar="PNG", help="draw it")
    return parser
