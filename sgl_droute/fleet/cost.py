"""
How much work a generation request is, relative to other requests of the same model.

The rule counts transformer passes over latent tokens: an image of W*H pixels is W*H/256 tokens
(8x VAE, 2x2 patches), attention makes a token dearer as their number grows, and classifier-free
guidance (CFG) runs every step twice. A unit has no meaning across models; learn seconds per unit
from ``inference_time_s``. Knows nothing of workers and of time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, instance_of

REFERENCE_IMAGE_TOKENS = 4096
HTTP_IMAGE_SIZE = (1024, 1024)
HTTP_VIDEO_SECONDS = 4
HTTP_VIDEO_FPS = 24
MOST_OUTPUTS = 10
MOST_PIXELS_PER_SIDE = 1 << 16
MOST_COUNT = 1 << 20

Validator = Callable[[Any, Any, Any], object]

_is_count: list[Validator] = [instance_of(int), ge(1)]
_is_scale: list[Validator] = [instance_of((int, float)), ge(0)]


@frozen(kw_only=True)
class Family:
    """
    What the cost rule must know of a model family; ``families.json`` holds the table.

    Attributes:
        patterns: Lower-case pieces of a model path that name the family.
        hidden: Width of the transformer; attention costs as much as the rest at 6*hidden tokens.
        steps: Default number of denoising steps.
        guidance: Default guidance scale.
        negative_prompt: Whether the model has a negative prompt of its own.
        cfg_above: CFG is on when the scale is above this.
        width: Default width of a video (pixels).
        height: Default height of a video (pixels).
        frames: Frames of a rollout that names none; a video route has its own default.
        spatial: Pixels along one side of a token.
        temporal: Frames in one latent frame.
        whole_latents: Whether the frame count is rounded up to whole latent frames and one.
    """

    patterns: tuple[str, ...] = field(default=(), validator=deep_iterable(instance_of(str)))
    hidden: int = field(default=3072, validator=_is_count)
    steps: int = field(default=50, validator=_is_count)
    guidance: float = field(default=1.0, validator=_is_scale)
    negative_prompt: bool = field(default=True, validator=instance_of(bool))
    cfg_above: float = field(default=1.0, validator=_is_scale)
    width: int = field(default=1280, validator=_is_count)
    height: int = field(default=720, validator=_is_count)
    frames: int = field(default=1, validator=_is_count)
    spatial: int = field(default=16, validator=_is_count)
    temporal: int = field(default=4, validator=_is_count)
    whole_latents: bool = field(default=False, validator=instance_of(bool))


@frozen(kw_only=True)
class Shape:
    """
    A request reduced to what its cost depends on.

    Attributes:
        references: Input images that join the token sequence (count).
        fps: Frames per second of a video; None for an image.
    """

    width: int = field(validator=ge(1))
    height: int = field(validator=ge(1))
    frames: int = field(default=1, validator=ge(1))
    fps: int | None = None
    steps: int = field(validator=ge(1))
    cfg: bool = False
    outputs: int = field(default=1, validator=ge(1))
    references: int = field(default=0, validator=ge(0))


def _read(text: str) -> tuple[dict[str, Family], Family]:
    """
    The families by name and the generic one, of the JSON in *text*.

    Raises:
        TypeError: A parameter is unknown or of the wrong type.
        ValueError: A parameter is out of range.
    """
    table = json.loads(text)
    families = {
        name: Family(patterns=tuple(record.pop("patterns")), **record)
        for name, record in table["families"].items()
    }
    return families, Family(**table["generic"])


# The first family with a pattern in the path wins: special names stand before general ones.
FAMILIES, GENERIC = _read(files(__package__).joinpath("families.json").read_text("utf-8"))


@lru_cache(maxsize=1024)
def family_of(model_path: str) -> Family:
    """
    The family that *model_path* names, or the generic one.
    """
    path = model_path.lower()
    named = (known for known in FAMILIES.values() if any(p in path for p in known.patterns))
    return next(named, GENERIC)


def image_shape(family: Family, fields: Mapping[str, object], *, references: int = 0) -> Shape:
    """
    The shape of an image request, with the worker's HTTP defaults for what *fields* lacks.

    Never fails: a value that a worker would refuse counts as absent.
    """
    width, height = _size(fields, HTTP_IMAGE_SIZE)
    return Shape(
        width=width,
        height=height,
        steps=_steps(family, fields),
        cfg=_cfg(family, fields),
        outputs=_outputs(fields.get("n")),
        references=references,
    )


def video_shape(family: Family, fields: Mapping[str, object], *, references: int = 0) -> Shape:
    """
    The shape of a video request; as :func:`image_shape`, with frames.
    """
    width, height = _size(fields, (family.width, family.height))
    fps = as_count(fields.get("fps")) or HTTP_VIDEO_FPS
    seconds = as_count(fields.get("seconds")) or HTTP_VIDEO_SECONDS
    frames = as_count(fields.get("num_frames")) or min(fps * seconds, MOST_COUNT)
    if family.whole_latents:
        frames = math.ceil((frames - 1) / family.temporal) * family.temporal + 1
    outputs = fields.get("num_outputs_per_prompt")
    return Shape(
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        steps=_steps(family, fields),
        cfg=_cfg(family, fields),
        outputs=_outputs(fields.get("n") if outputs is None else outputs),
        references=references,
    )


def tokens(family: Family, shape: Shape) -> float:
    """
    Length of the sequence that one pass of the transformer reads for one output.
    """
    frame = shape.width * shape.height / family.spatial**2
    latents = (shape.frames - 1) // family.temporal + 1
    return frame * latents + shape.references * REFERENCE_IMAGE_TOKENS


def pass_cost(family: Family, sequence: float) -> float:
    """
    Cost of one pass over *sequence* tokens.
    """
    return sequence * (1 + sequence / (6 * family.hidden))


def cost(family: Family, shape: Shape) -> float:
    """
    Relative cost of a request; at least a positive fixed part (encoders, VAE, saving).
    """
    one_pass = pass_cost(family, tokens(family, shape))
    denoising = shape.steps * (2 if shape.cfg else 1) * one_pass
    fixed = tokens(family, shape)
    return shape.outputs * (denoising + fixed)


def _size(fields: Mapping[str, object], default: tuple[int, int]) -> tuple[int, int]:
    width, height = parsed_size(fields.get("size")) or default
    return (
        _side(fields.get("width")) or width,
        _side(fields.get("height")) or height,
    )


def parsed_size(value: object) -> tuple[int, int] | None:
    """
    Width and height of ``"WxH"``, or None for anything else.
    """
    if not isinstance(value, str):
        return None
    width, _, height = value.lower().partition("x")
    sides = _side(width), _side(height)
    return (sides[0], sides[1]) if sides[0] and sides[1] else None


def _side(value: object) -> int | None:
    side = as_count(value)
    return side if side is not None and side <= MOST_PIXELS_PER_SIDE else None


def as_count(value: object) -> int | None:
    """
    *value* as a positive count, or None when it is none.
    """
    number = as_number(value)
    if number is None or number != int(number) or not 1 <= number <= MOST_COUNT:
        return None
    return int(number)


def as_number(value: object) -> float | None:
    """
    *value*, which may be short text, as a finite number, or None when it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and len(value) > 40:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _steps(family: Family, fields: Mapping[str, object]) -> int:
    return as_count(fields.get("num_inference_steps")) or family.steps


def _outputs(value: object) -> int:
    number = as_number(value)
    return 1 if number is None else int(min(max(number, 1), MOST_OUTPUTS))


def _cfg(family: Family, fields: Mapping[str, object]) -> bool:
    given = (as_number(fields.get(name)) for name in ("true_cfg_scale", "guidance_scale"))
    scale = next((number for number in given if number is not None), family.guidance)
    # To a worker an empty negative prompt is one too.
    return scale > family.cfg_above and (
        family.negative_prompt or isinstance(fields.get("negative_prompt"), str)
    )
