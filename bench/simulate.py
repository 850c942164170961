"""
Simulates the scheduler in virtual time before a model of workers, and judges its targets:
``python bench/simulate.py``.

All options are in ``--help``, what the figures mean is in ``docs/scheduling.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    # Python puts the script's folder first; the package `bench` is in the one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench.harness.needed import check_installed

    check_installed()
    from bench.harness.virtual.command import run

    run("simulate.py")


if __name__ == "__main__":
    main()
