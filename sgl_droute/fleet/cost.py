"""
How much work a generation request is, relative to other requests of the same model.

The rule counts transformer passes over latent tokens: an image of W*H pixels is W*H/256 tokens
(8x VAE, 2x2 patches), attention makes a token dearer as their number grows, and classifier-free
guidance (CFG) runs every step twice. A unit has no meaning across models; learn seconds per unit
from ``inference_time_s``. Knows nothing of workers and of time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import field, frozen
from attrs.validators import ge

REFERENCE_IMAGE_TOKENS = 4096
HTTP_IMAGE_SIZE = (1024, 1024)
HTTP_VIDEO_SECONDS = 4
HTTP_VIDEO_FPS = 24
MOST_OUTPUTS = 10
MOST_PIXELS_PER_SIDE = 1 << 16
MOST_COUNT = 1 << 20


@frozen(kw_only=True)
class Family:
    """
    What the cost rule must know of a model family.

    Attributes:
        patterns: Lower-case pieces of a model path that name the family.
        hidden: Width of the transformer; attention costs as much as the rest at 6*hidden tokens.
        steps: Default number of denoising steps.
        guidance: Default guidance scale.
        negative_prompt: Whether the model has a negative prompt of its own.
        cfg_above: CFG is on when the scale is above this.
        width: Default width of a video (pixels).
        height: Default height of a video (pixels).
        spatial: Pixels along one side of a token.
        temporal: Frames in one latent frame.
        whole_latents: Whether the frame count is rounded up to whole latent frames and one.
    """

    patterns: tuple[str, ...]
    hidden: int = 3072
    steps: int = 50
    guidance: float = 1.0
    negative_prompt: bool = True
    cfg_above: float = 1.0
    width: int = 1280
    height: int = 720
    spatial: int = 16
    temporal: int = 4
    whole_latents: bool = False


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


GENERIC = Family(patterns=(), steps=30, guidance=7.5)

# The first family with a pattern in the path wins: special names stand before general ones.
FAMILIES: dict[str, Family] = {
    "flux.1": Family(patterns=("flux.1", "flux1"), guidance=3.5, negative_prompt=False),
    "flux.2-klein-base": Family(patterns=("klein-base",), guidance=4.0),
    "flux.2-klein": Family(patterns=("klein",), steps=4, negative_prompt=False),
    "flux.2": Family(
        patterns=("flux.2", "flux2"), hidden=6144, guidance=4.0, negative_prompt=False
    ),
    "qwen-image-2": Family(patterns=("qwen-image-2.",), steps=40),
    "qwen-image-edit": Family(patterns=("qwen-image-edit",), steps=40, guidance=4.0),
    "qwen-image": Family(patterns=("qwen-image",), guidance=4.0),
    "z-image-turbo": Family(
        patterns=("z-image-turbo",), hidden=3840, steps=9, guidance=0.0, cfg_above=0.0
    ),
    "z-image": Family(patterns=("z-image",), hidden=3840, guidance=5.0, cfg_above=0.0),
    "sd3": Family(patterns=("stable-diffusion-3", "sd3"), hidden=1536, guidance=7.0),
    "sana": Family(patterns=("sana",), hidden=2240, steps=20, guidance=4.5, spatial=32),
    "krea-2": Family(patterns=("krea-2",), steps=8),
    "fastwan": Family(
        patterns=("fastwan", "turbowan", "wan2.1-turbo", "wan2.2-turbo"),
        steps=3,
        negative_prompt=False,
        width=832,
        height=480,
    ),
    "wan-ti2v-5b": Family(patterns=("ti2v-5b",), guidance=5.0, height=704, spatial=32),
    "wan2.2-a14b": Family(patterns=("a14b",), hidden=5120, steps=40, guidance=4.0),
    "wan-i2v": Family(patterns=("i2v",), hidden=5120, guidance=5.0, whole_latents=True),
    "wan-1.3b": Family(patterns=("t2v-1.3b",), hidden=1536, guidance=3.0, width=832, height=480),
    "wan-14b": Family(patterns=("wan2.1", "wan2.2"), hidden=5120, guidance=5.0),
    "fasthunyuan": Family(patterns=("fasthunyuan",), steps=6),
    "hunyuan3d": Family(patterns=("hunyuan3d",), hidden=2048),
    "hunyuanvideo": Family(patterns=("hunyuanvideo",)),
    "ltx-2.5": Family(
        patterns=("ltx-2.5",), hidden=4096, steps=8, width=960, height=544, spatial=32, temporal=8
    ),
    "ltx-2.3": Family(
        patterns=("ltx-2.3",),
        hidden=4096,
        steps=30,
        guidance=3.0,
        width=768,
        height=512,
        spatial=32,
        temporal=8,
    ),
    "ltx-2": Family(
        patterns=("ltx-2",), hidden=4096, steps=40, guidance=4.0, width=768, height=512,
        spatial=32, temporal=8,
    ),
}  # fmt: skip


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
    fps = _count(fields.get("fps")) or HTTP_VIDEO_FPS
    seconds = _count(fields.get("seconds")) or HTTP_VIDEO_SECONDS
    frames = _count(fields.get("num_frames")) or min(fps * seconds, MOST_COUNT)
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
    side = _count(value)
    return side if side is not None and side <= MOST_PIXELS_PER_SIDE else None


def _count(value: object) -> int | None:
    """
    *value* as a positive count, or None when it is none.
    """
    number = _number(value)
    if number is None or number != int(number) or not 1 <= number <= MOST_COUNT:
        return None
    return int(number)


def _number(value: object) -> float | None:
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
    return _count(fields.get("num_inference_steps")) or family.steps


def _outputs(value: object) -> int:
    number = _number(value)
    return 1 if number is None else int(min(max(number, 1), MOST_OUTPUTS))


def _cfg(family: Family, fields: Mapping[str, object]) -> bool:
    given = (_number(fields.get(name)) for name in ("true_cfg_scale", "guidance_scale"))
    scale = next((number for number in given if number is not None), family.guidance)
    return scale > family.cfg_above and (
        family.negative_prompt or bool(fields.get("negative_prompt"))
    )
