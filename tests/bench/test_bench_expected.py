"""
What a load asks of simulated workers.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.expected import arrival_rate, lower_bound, seconds
from bench.harness.workload import MIXES, Plan, Shape, workload
from sgl_droute.simulator.models import MODELS

FLUX, WAN = MODELS["flux.1-dev"], MODELS["wan2.1-t2v-1.3b"]
IMAGES, VIDEOS = MIXES["image"]["scheduling"], MIXES["video"]["scheduling"]


def test_durations_are_the_simulators() -> None:
    """
    A request without options takes the model's reference time.
    """
    assert seconds(FLUX, "image", Shape()) == pytest.approx(6.7)
    assert seconds(WAN, "video", Shape(num_frames=24)) == pytest.approx(8.1)


def test_videos_take_what_the_mix_says() -> None:
    """
    The three lengths stand to each other as 7.8, 20.2 and 34.5.
    """
    short, *longer = (seconds(WAN, "video", shape) for shape in VIDEOS)
    assert [each / short for each in longer] == pytest.approx([20.2 / 7.8, 34.5 / 7.8], rel=0.02)


@given(st.floats(0.01, 2), st.lists(st.floats(0.1, 10), min_size=1, max_size=8))
def test_load_is_the_share_of_time_that_arrivals_take(load: float, speeds: list[float]) -> None:
    """
    In the long run workers are busy for that share of their time.
    """
    plan = Plan(count=1000, mix=IMAGES)
    work = sum(seconds(FLUX, "image", prompt.shape) for prompt in workload(plan))
    rate = arrival_rate(FLUX, "image", IMAGES, load, speeds)
    assert work / (plan.count / rate) / sum(speeds) == pytest.approx(load)


def test_nothing_ends_below_the_bound() -> None:
    """
    A batch takes at least its longest request, and its share of all the work.
    """
    plan = Plan(count=3, mix=VIDEOS)
    total = sum(seconds(WAN, "video", shape) for shape in VIDEOS)
    longest = seconds(WAN, "video", VIDEOS[-1])
    assert lower_bound(WAN, "video", workload(plan), [1.0]) == pytest.approx(total)
    assert lower_bound(WAN, "video", workload(plan), [2.0, 1.0, 1.0]) == pytest.approx(longest / 2)
