"""
The workload generator: pure, seeded, and true to its mix.
"""

from __future__ import annotations

from collections import Counter

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.workload import MIXES, Plan, Shape, apportion, workload

shapes = st.builds(
    Shape,
    weight=st.floats(0.01, 100),
    size=st.none() | st.tuples(st.integers(16, 4096), st.integers(16, 4096)),
    steps=st.none() | st.integers(1, 100),
)
plans = st.builds(
    Plan,
    count=st.integers(1, 200),
    mix=st.lists(shapes, min_size=1, max_size=5).map(tuple),
    seed=st.integers(),
    request_rate=st.none() | st.floats(0.01, 1000),
)


@given(plans)
def test_same_plan_same_workload(plan: Plan) -> None:
    """
    A plan makes the same requests in the same order each time.
    """
    assert workload(plan) == workload(plan)


@given(plans)
def test_every_request_is_another(plan: Plan) -> None:
    """
    There are as many requests as asked for, numbered in order, and no prompt comes twice.
    """
    prompts = workload(plan)
    assert [prompt.index for prompt in prompts] == list(range(plan.count))
    assert len({prompt.text for prompt in prompts}) == plan.count


@given(plans)
def test_arrivals_ascend(plan: Plan) -> None:
    """
    Requests arrive in order from 0 on; in a closed loop all are there at once.
    """
    arrivals = [prompt.arrival for prompt in workload(plan)]
    assert arrivals[0] == 0
    assert arrivals == sorted(arrivals)
    assert plan.request_rate is not None or set(arrivals) == {0.0}


@given(plans, st.floats(0.01, 1000))
def test_rate_changes_no_prompt(plan: Plan, rate: float) -> None:
    """
    Another request rate moves the arrivals and leaves the requests as they are.
    """
    other = workload(evolve(plan, request_rate=rate))
    assert [evolve(prompt, arrival=0.0) for prompt in other] == [
        evolve(prompt, arrival=0.0) for prompt in workload(plan)
    ]


@given(plans, st.integers())
def test_seeds_keep_the_mix(plan: Plan, seed: int) -> None:
    """
    Every seed makes the same number of requests of each kind: only their order differs.
    """

    def kinds(plan: Plan) -> Counter[Shape]:
        return Counter(prompt.shape for prompt in workload(plan))

    assert kinds(plan) == kinds(evolve(plan, seed=seed))


@given(st.integers(0, 10_000), st.lists(st.floats(0.001, 1000), min_size=1, max_size=20))
def test_apportion_is_exact(count: int, weights: list[float]) -> None:
    """
    The parts add up, and none is a whole request away from its exact share.
    """
    parts = apportion(count, weights)
    assert sum(parts) == count
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - count * weight / sum(weights)) < 1 + 1e-6


def test_mean_gap_is_the_rate() -> None:
    """
    Poisson arrivals at 5 per second are a fifth of a second apart on average.
    """
    plan = Plan(count=20_000, mix=(Shape(),), request_rate=5.0)
    assert workload(plan)[-1].arrival / 19_999 == pytest.approx(0.2, rel=0.05)


def test_open_fields_are_left_to_the_worker() -> None:
    """
    What a shape does not say is not sent.
    """
    (prompt,) = workload(Plan(count=1, mix=(Shape(size=(832, 480)),)))
    assert set(prompt.fields()) == {"prompt", "seed", "size"}
    assert prompt.fields()["size"] == "832x480"


@pytest.mark.parametrize("task", MIXES)
def test_mixes_differ_in_cost(task: str) -> None:
    """
    Each named mix has requests of more than one kind.
    """
    assert all(len(set(mix)) > 1 for mix in MIXES[task].values())
