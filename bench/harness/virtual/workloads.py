"""
The fixed workloads of the simulation: which requests come when, to what workers. Pure and seeded.

Seconds follow the cost rule for FLUX.1-dev, scaled to 6.7 s for an image of 1024x1024 and 50 steps,
with a fixed part and noise that the rule does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from attrs import field, frozen

from sgl_droute.fleet.cost import cost, family_of, image_shape

FLEETS = (4, 8, 64)
LOADS = (0.7, 0.85)
BATCHES = (32, 128)
HEADER, JOBS = "-batch", "-batch-jobs"
ACCEPT = 20.0

_FLUX = family_of("FLUX.1-dev")
_FIXED = 0.1
_NOISE = 0.03
_VIDEO_SECONDS = (7.8, 20.2, 34.5)
_VIDEO_PACE = 4e-5  # videos are another kind: their units are worth other seconds
_VIDEO_SHARE = 0.1
_IMPATIENT = 0.2
_PATIENCE = 3.0


def _image_work(side: int, steps: int) -> float:
    fields = {"size": f"{side}x{side}", "num_inference_steps": steps}
    return cost(_FLUX, image_shape(_FLUX, fields))


PACE = (6.7 - _FIXED) / _image_work(1024, 50)


@frozen
class Shape:
    """
    One kind of request in a mix.

    Attributes:
        weight: Its share of the requests.
        work: By the cost rule.
        seconds: On a worker of speed 1, without noise.
    """

    kind: str
    weight: float
    work: float
    seconds: float


def _image(weight: float, side: int, steps: int) -> Shape:
    work = _image_work(side, steps)
    return Shape("image", weight, work, _FIXED + PACE * work)


IMAGES = (
    _image(0.15, 512, 20),
    _image(0.25, 768, 20),
    _image(0.45, 1024, 25),
    _image(0.15, 1536, 35),
)
VIDEOS = tuple(Shape("video", 1 / 3, each / _VIDEO_PACE, each) for each in _VIDEO_SECONDS)
BOTH = tuple(
    Shape(shape.kind, shape.weight * share, shape.work, shape.seconds)
    for share, shapes in ((1 - _VIDEO_SHARE, IMAGES), (_VIDEO_SHARE, VIDEOS))
    for shape in shapes
)


@frozen
class Request:
    """
    One request of a workload; times are seconds.

    Attributes:
        at: When it arrives.
        work: By the cost rule.
        seconds: It really takes on a worker of speed 1.
        patience: After which its client leaves; None for one that stays.
        batch: The rollout batch that its header names.
        accept: For a video job, which is answered before it is made: seconds after which its worker
            must have it.
    """

    at: float
    kind: str
    work: float
    seconds: float
    patience: float | None = None
    batch: str | None = None
    accept: float | None = None


@frozen(kw_only=True)
class Workload:
    """
    A workload that can be made for any seed.

    Attributes:
        name: Begins with the letter of its group.
        title: What it is, for people.
        speeds: Of each worker, where 1 is usual.
        requests: Makes them from chances and a count, in order of arrival; a batch has its own
            count.
    """

    name: str
    title: str
    speeds: tuple[float, ...]
    requests: Callable[[Random, int], list[Request]] = field(repr=False)

    @property
    def group(self) -> str:
        return self.name[0]

    def made(self, seed: int, count: int) -> list[Request]:
        """The same requests for the same seed and count, with a batch header or without."""
        chances = Random(f"{self.name.removesuffix(JOBS).removesuffix(HEADER)} {seed}")
        return self.requests(chances, count)


def workloads(fleets: Sequence[int] = FLEETS) -> list[Workload]:
    """
    All of them; (a) and (b) once for each number of workers in *fleets*.
    """
    return [
        *(_steady("a", size, load) for size in fleets for load in LOADS),
        *(_uneven(size) for size in fleets),
        *(_batch(size, ending) for size in BATCHES for ending in ("", HEADER, JOBS)),
        _both(),
        _leaving(),
    ]


def mean_seconds(shapes: Sequence[Shape]) -> float:
    """
    Of a request of this mix on a worker of speed 1.
    """
    return sum(shape.weight * shape.seconds for shape in shapes)


def arrivals(
    shapes: Sequence[Shape], rate: float, impatient: float, random: Random, count: int
) -> list[Request]:
    """
    Requests that arrive at random, *rate* per second.

    Args:
        impatient: Share of the clients that leave, each after a time of its own that does not
            depend on what it asked for.
    """
    now, requests = 0.0, []
    for shape in random.choices(shapes, [each.weight for each in shapes], k=count):
        now += random.expovariate(rate)
        patience = None
        if random.random() < impatient:
            patience = random.expovariate(1 / (_PATIENCE * mean_seconds(shapes)))
        seconds = _noisy(shape.seconds, random)
        requests.append(Request(now, shape.kind, shape.work, seconds, patience))
    return requests


def poisson(
    shapes: Sequence[Shape], speeds: Sequence[float], load: float, *, impatient: float = 0.0
) -> Callable[[Random, int], list[Request]]:
    """
    Makes arrivals that keep workers of these *speeds* busy for *load* of their time.
    """
    rate = load * sum(speeds) / mean_seconds(shapes)
    return partial(arrivals, shapes, rate, impatient)


def _steady(group: str, size: int, load: float) -> Workload:
    speeds = (1.0,) * size
    return Workload(
        name=f"{group}-{size}-{load:g}",
        title=f"image mix, {size} workers, load {load:g}",
        speeds=speeds,
        requests=poisson(IMAGES, speeds, load),
    )


def _uneven(size: int) -> Workload:
    slow = max(1, size // 4)
    speeds = (1.0,) * (size - slow) + (0.5,) * slow
    return Workload(
        name=f"b-{size}",
        title=f"image mix, {size} workers, {slow} of them at half speed, load 0.85",
        speeds=speeds,
        requests=poisson(IMAGES, speeds, 0.85),
    )


def _batch(size: int, ending: str) -> Workload:
    batch = "batch" if ending else None
    accept = ACCEPT if ending == JOBS else None
    jobs = f", as jobs that a worker must have after {ACCEPT:g} s" if accept else ""
    return Workload(
        name=f"c-{size}{ending}",
        title=f"batch of {size} videos, 8 workers, {'with' if batch else 'without'} batch header"
        f"{jobs}",
        speeds=(1.0,) * 8,
        requests=partial(_at_once, size, batch, accept),
    )


def _at_once(
    size: int, batch: str | None, accept: float | None, random: Random, count: int
) -> list[Request]:
    return [
        Request(
            0.0,
            shape.kind,
            shape.work,
            _noisy(shape.seconds, random),
            batch=batch,
            accept=accept,
        )
        for shape in random.choices(VIDEOS, k=size)
    ]


def _both() -> Workload:
    speeds = (1.0,) * 8
    return Workload(
        name="d",
        title=f"images and {_VIDEO_SHARE:.0%} videos, 8 workers that do both, load 0.85",
        speeds=speeds,
        requests=poisson(BOTH, speeds, 0.85),
    )


def _leaving() -> Workload:
    speeds = (1.0,) * 8
    return Workload(
        name="e",
        title=f"image mix, 8 workers, load 0.85, {_IMPATIENT:.0%} of the clients give up after"
        f" {_PATIENCE:g} mean durations on average; figures are of those who stay",
        speeds=speeds,
        requests=poisson(IMAGES, speeds, 0.85, impatient=_IMPATIENT),
    )


def _noisy(seconds: float, random: Random) -> float:
    return seconds * max(0.5, random.gauss(1.0, _NOISE))
