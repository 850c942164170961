"""
Replays what the router recorded with other routing algorithms:
``python bench/replay.py file.jsonl --algorithm least-request --algorithm least-work``.

All options are in ``--help``.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    # Python puts the script's folder first; the package `bench` is in the one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench.harness.needed import check_installed

    check_installed()
    from bench.harness.replay.command import run

    run("replay.py")


if __name__ == "__main__":
    main()
