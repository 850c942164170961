"""
The fixed workloads: what they hold, and that every arm gets the same.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from attrs import evolve

from bench.harness.virtual.workloads import (
    BOTH,
    IMAGES,
    VIDEOS,
    mean_seconds,
    poisson,
    workloads,
)

BY_NAME = {workload.name: workload for workload in workloads()}


@pytest.mark.parametrize("name", BY_NAME)
def test_same_seed_same_requests(name: str) -> None:
    """
    A workload depends on seed and count alone, and its requests are in order of arrival.
    """
    workload = BY_NAME[name]
    requests = workload.made(3, 200)
    assert requests == workload.made(3, 200)
    assert requests != workload.made(4, 200)
    assert [each.at for each in requests] == sorted(each.at for each in requests)


def test_seconds_follow_the_cost_rule() -> None:
    """
    Half the steps of an image that takes 6.7 s take half as long, fixed parts aside.
    """
    half = next(each for each in IMAGES if each.weight == 0.45)
    assert half.seconds == pytest.approx(6.7 / 2, rel=0.05)
    assert sum(each.weight for each in IMAGES) == pytest.approx(1.0)
    assert sum(each.weight for each in BOTH) == pytest.approx(1.0)


@pytest.mark.parametrize("load", [0.7, 0.85])
def test_load_is_of_the_total_speed(load: float) -> None:
    """
    The work that arrives per second is *load* of what the workers do, slow ones counted as such.
    """
    speeds = (1.0, 1.0, 0.5)
    requests = poisson(IMAGES, speeds, load)(Random(1), 40_000)
    work = sum(each.seconds for each in requests) / requests[-1].at
    assert work / sum(speeds) == pytest.approx(load, rel=0.03)
    assert mean_seconds(IMAGES) == pytest.approx(work * requests[-1].at / 40_000, rel=0.03)


def test_batches_come_at_once() -> None:
    """
    The same videos at time 0; header and patience are the only differences.
    """
    for size in (32, 128):
        plain = BY_NAME[f"c-{size}"].made(0, 4000)
        named = BY_NAME[f"c-{size}-batch"].made(0, 4000)
        assert len(plain) == len(named) == size
        assert {each.at for each in plain} == {0.0}
        assert {each.batch for each in plain} == {None}
        assert {each.batch for each in named} == {"batch"}
        assert [each.seconds for each in plain] == [each.seconds for each in named]
        jobs = BY_NAME[f"c-{size}-batch-jobs"].made(0, 4000)
        assert jobs == [evolve(each, accept=20.0) for each in named]
    lengths = Counter(round(each.work) for each in plain)
    assert set(lengths) <= {round(each.work) for each in VIDEOS}


def test_slow_workers_and_impatient_clients() -> None:
    """
    A quarter of the workers of (b) is slow, a fifth of the clients of (e) leave, nobody else does.
    """
    assert BY_NAME["b-8"].speeds == (1.0,) * 6 + (0.5,) * 2
    leaving = [each.patience for each in BY_NAME["e"].made(0, 4000)]
    assert 0.17 < sum(each is not None for each in leaving) / 4000 < 0.23
    assert {each.patience for each in BY_NAME["d"].made(0, 4000)} == {None}
    kinds = Counter(each.kind for each in BY_NAME["d"].made(0, 4000))
    assert 0.08 < kinds["video"] / 4000 < 0.12
