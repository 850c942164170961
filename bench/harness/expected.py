"""
What a load asks of simulated workers, from the durations that the simulator gives it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.harness.virtual import figures
from bench.harness.virtual.workloads import Request
from bench.harness.workload import Prompt, Shape
from sgl_droute.fleet.cost import image_shape, video_shape
from sgl_droute.simulator.models import Model


def seconds(model: Model, task: str, shape: Shape) -> float:
    """
    How long a request of *shape* takes on a worker of speed 1.
    """
    made = video_shape if task == "video" else image_shape
    return model.duration(made(model.family, shape.fields()))


def arrival_rate(
    model: Model, task: str, shapes: Sequence[Shape], load: float, speeds: Sequence[float]
) -> float:
    """
    Arrivals per second that keep workers of these *speeds* busy for *load* of their time.
    """
    weights = sum(shape.weight for shape in shapes)
    mean = sum(shape.weight * seconds(model, task, shape) for shape in shapes) / weights
    return load * sum(speeds) / mean


def lower_bound(
    model: Model, task: str, prompts: Sequence[Prompt], speeds: Sequence[float]
) -> float:
    """
    Seconds from the first arrival within which no router could have all *prompts* done by workers
    of these *speeds*.
    """
    requests = []
    for prompt in prompts:
        took = seconds(model, task, prompt.shape)
        requests.append(Request(prompt.arrival, task, took, took))
    return figures.lower_bound(requests, speeds)
