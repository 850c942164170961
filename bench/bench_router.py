"""
Measures a router and its workers under load:
``python bench/bench_router.py --model Qwen/Qwen-Image --num-workers 2``.

All options are in ``--help``, what the figures mean is in ``docs/benchmarks.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    # Python puts the script's folder first; the package `bench` is in the one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench.harness.needed import check_installed

    check_installed()
    from bench.harness.command import run

    run("bench_router.py", compare=False)


if __name__ == "__main__":
    main()
