"""
Measures what the router costs beside nginx and HAProxy, all in front of one backend:
``python bench/bench_overhead.py``.

Needs wrk; nginx and HAProxy are left out where they are not installed. All options are in
``--help``.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    # Python puts the script's folder first; the package `bench` is in the one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench.harness.needed import check_installed

    check_installed()
    from bench.harness.overhead.command import run

    run("bench_overhead.py")


if __name__ == "__main__":
    main()
