"""
The requests of a benchmark: which prompts, sizes and seeds, in which order, at what times.

Pure and seeded: the same arguments always make the same workload. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random

from attrs import field, frozen
from attrs.validators import ge, gt

SUBJECTS = ("a red fox", "an old lighthouse", "a glass teapot", "two dancers", "a tin robot")
PLACES = ("in deep snow", "on a night market", "under water", "above the clouds", "in a library")
MANNERS = ("watercolour", "studio photograph", "ink drawing", "low sun", "film still")


@frozen(kw_only=True)
class Shape:
    """
    One kind of request in a mix.

    Attributes:
        weight: Its part of the requests, relative to the weights of the other kinds.
        size: Width and height (pixels); the worker's default when None.
        steps: Denoising steps; the model's default when None.
        num_frames: Frames of a video; the worker's default when None.
        fps: Frames per second of a video; the worker's default when None.
    """

    weight: float = field(default=1.0, validator=gt(0))
    size: tuple[int, int] | None = None
    steps: int | None = None
    num_frames: int | None = None
    fps: int | None = None

    def fields(self) -> dict[str, object]:
        """
        The JSON fields that ask for it; what it leaves open is left out.
        """
        asked = {
            "size": None if self.size is None else f"{self.size[0]}x{self.size[1]}",
            "num_inference_steps": self.steps,
            "num_frames": self.num_frames,
            "fps": self.fps,
        }
        return {name: value for name, value in asked.items() if value is not None}


# By task, then by name; the first of a task is its default. Most image mixes leave the steps to the
# model, so that they suit a model of 4 steps as well as one of 50.
MIXES: Mapping[str, Mapping[str, tuple[Shape, ...]]] = {
    "image": {
        "sizes": (
            Shape(weight=5, size=(512, 512)),
            Shape(weight=3, size=(1024, 1024)),
            Shape(weight=2, size=(1536, 1536)),
        ),
        "steps": (
            Shape(weight=2, size=(1024, 1024), steps=10),
            Shape(weight=1, size=(1024, 1024), steps=50),
        ),
        "few-large": (
            Shape(weight=9, size=(512, 512)),
            Shape(weight=1, size=(2048, 2048)),
        ),
        "scheduling": (
            Shape(weight=15, size=(512, 512), steps=20),
            Shape(weight=25, size=(768, 768), steps=20),
            Shape(weight=45, size=(1024, 1024), steps=25),
            Shape(weight=15, size=(1536, 1536), steps=35),
        ),
    },
    "video": {
        "lengths": (
            Shape(weight=2, size=(832, 480), num_frames=25, fps=16),
            Shape(weight=1, size=(832, 480), num_frames=81, fps=16),
        ),
        # On Wan2.1 1.3B they cost 7.8 : 20.3 : 34.2.
        "scheduling": (
            Shape(size=(832, 480), num_frames=21, fps=16),
            Shape(size=(832, 480), num_frames=41, fps=16),
            Shape(size=(832, 480), num_frames=57, fps=16),
        ),
    },
}


@frozen(kw_only=True)
class Prompt:
    """
    One request.

    Attributes:
        index: Its place in the order of arrival, from 0.
        text: What to draw; no two of a workload are equal.
        seed: For the generation.
        arrival: Seconds after the start of the measurement; 0 in a closed loop.
    """

    index: int
    text: str
    seed: int
    shape: Shape
    arrival: float = 0.0

    def fields(self) -> dict[str, object]:
        """
        The JSON fields that ask a worker for it; what the shape leaves open is left out.
        """
        return {"prompt": self.text, "seed": self.seed, **self.shape.fields()}


@frozen(kw_only=True)
class Plan:
    """
    What a workload is made from.

    Attributes:
        count: Requests.
        mix: Kinds of request.
        request_rate: Mean arrivals per second (Poisson); None for a closed loop.
    """

    count: int = field(validator=ge(1))
    mix: tuple[Shape, ...] = field(validator=lambda _, __, mix: _not_empty(mix))
    seed: int = 0
    request_rate: float | None = None


def workload(plan: Plan) -> tuple[Prompt, ...]:
    """
    The requests of *plan* in order of arrival.

    Each kind of the mix gets its exact part of the requests, rounded; chance, from the seed, only
    puts them in order. Order, texts and arrivals come from streams of their own: changing the
    request rate changes no prompt.
    """
    shapes = _shuffled(plan)
    texts = Random(f"{plan.seed}/texts")
    return tuple(
        Prompt(
            index=index,
            text=_text(texts, index),
            seed=texts.randrange(1 << 31),
            shape=shape,
            arrival=arrival,
        )
        for index, (shape, arrival) in enumerate(zip(shapes, _arrivals(plan), strict=True))
    )


def apportion(count: int, weights: Sequence[float]) -> list[int]:
    """
    *count* split in proportion to *weights*, by largest remainder; ties go to the first.
    """
    exact = [count * weight / sum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda at: parts[at] - exact[at])
    for at in by_remainder[: count - sum(parts)]:
        parts[at] += 1
    return parts


def _shuffled(plan: Plan) -> list[Shape]:
    counts = apportion(plan.count, [shape.weight for shape in plan.mix])
    pairs = zip(plan.mix, counts, strict=True)
    shapes = [shape for shape, count in pairs for _ in range(count)]
    Random(f"{plan.seed}/order").shuffle(shapes)
    return shapes


def _arrivals(plan: Plan) -> list[float]:
    if plan.request_rate is None:
        return [0.0] * plan.count
    gaps = Random(f"{plan.seed}/arrivals")
    later = (gaps.expovariate(plan.request_rate) for _ in range(plan.count - 1))
    return list(accumulate(later, initial=0.0))


def _text(chance: Random, index: int) -> str:
    words = (chance.choice(choices) for choices in (SUBJECTS, PLACES, MANNERS))
    return f"{', '.join(words)}, number {index}"


def _not_empty(mix: tuple[Shape, ...]) -> None:
    if not mix:
        raise ValueError("a mix needs at least one shape")
