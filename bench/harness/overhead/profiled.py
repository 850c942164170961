"""
Runs ``python -m twisted`` with a profiler that one SIGUSR2 switches on, and the next off.

Run as ``python profiled.py FILE WORDS...``; the figures are in FILE once it is there. Needs only
the standard library and Twisted.
"""

from __future__ import annotations

import cProfile
import os
import runpy
import signal
import sys
from pathlib import Path


class Switch:
    """
    Profiles from one call to the next.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._profile: cProfile.Profile | None = None

    def __call__(self, *signalled: object) -> None:
        if self._profile is None:
            self._profile = cProfile.Profile()
            self._profile.enable()
            return
        self._profile.disable()
        unfinished = self._file.with_suffix(".part")
        self._profile.dump_stats(unfinished)
        os.replace(unfinished, self._file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, Switch(Path(sys.argv[1])))
    sys.argv[1:] = sys.argv[2:]
    # As for `python -m`: this file's folder holds names that are modules elsewhere.
    sys.path[0] = os.getcwd()
    runpy.run_module("twisted", run_name="__main__")
