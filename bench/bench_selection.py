"""
Measures what one request costs in the scheduler, for 1 to 10000 workers:
``python bench/bench_selection.py``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path


def main() -> None:
    # Python puts the script's folder first; the package `bench` is in the one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench.harness.needed import check_installed

    check_installed()
    from bench.harness.choices import choice_costs, costs_table
    from sgl_droute.fleet.selection import ALGORITHMS

    parser = ArgumentParser(description="Cost of one request: its choice of a worker, and its end.")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    given = parser.parse_args()
    print(costs_table(choice_costs(given.algorithms)))


if __name__ == "__main__":
    main()
