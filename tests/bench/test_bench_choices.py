"""
The cost of a choice, measured in process.
"""

from __future__ import annotations

from itertools import count
from random import Random
from time import process_time

import pytest

from bench.harness.choices import BusyFleet, choice_costs, costs_table
from sgl_droute.fleet.selection import ALGORITHMS


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_load_stays_the_same(algorithm: str) -> None:
    """
    However long it runs, as many requests are in flight as there are workers.
    """
    fleet = BusyFleet(algorithm, 20, Random(1))
    for _ in range(500):
        fleet.step()
    assert sum(worker.in_flight for worker in fleet.pool) == 20


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_choice_hardly_grows_with_the_fleet(algorithm: str) -> None:
    """
    A hundred times the workers make a choice less than five times as dear: a walk over the fleet
    would make it about a hundred times as dear.
    """
    # What else the machine does is not counted.
    small, large = choice_costs(
        [algorithm], (10, 1000), steps=1000, batches=5, seconds=process_time
    )
    assert large.seconds < 5 * small.seconds


def test_table_has_ratios() -> None:
    """
    Each cost is set against the smallest fleet of its algorithm.
    """
    ticks = count()
    costs = choice_costs(["random"], (1, 2), steps=4, batches=1, seconds=lambda: next(ticks) * 4e-6)
    lines = costs_table(costs).splitlines()
    assert [line.split("|")[2:5] for line in lines[2:]] == [
        [f"{size:>8} ", f"{1.0:14.2f} ", f"{1.0:6.2f} "] for size in (1, 2)
    ]
