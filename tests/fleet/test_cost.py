"""
The cost rule: its laws, and the published ratios that it was checked against.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.cost import (
    FAMILIES,
    GENERIC,
    Family,
    Shape,
    cost,
    family_of,
    image_shape,
    pass_cost,
    tokens,
    video_shape,
)

families = st.sampled_from([*FAMILIES.values(), GENERIC])
shapes = st.builds(
    Shape,
    width=st.integers(16, 2048),
    height=st.integers(16, 2048),
    frames=st.integers(1, 300),
    steps=st.integers(1, 100),
    cfg=st.booleans(),
    outputs=st.integers(1, 10),
    references=st.integers(0, 4),
)
wild = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())
)
names = [
    "width",
    "height",
    "size",
    "num_frames",
    "fps",
    "seconds",
    "n",
    "num_outputs_per_prompt",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompt",
]


@given(families, shapes, st.sampled_from(["width", "height", "frames", "steps", "outputs"]))
def test_more_costs_more(family: Family, shape: Shape, name: str) -> None:
    """
    More steps, pixels, frames or outputs never cost less; steps and outputs always cost more.
    """
    larger = evolve(shape, **{name: getattr(shape, name) + 1})
    if name in ("steps", "outputs"):
        assert cost(family, larger) > cost(family, shape)
    else:
        assert cost(family, larger) >= cost(family, shape)


@given(families, shapes)
def test_references_cost(family: Family, shape: Shape) -> None:
    """
    An input image makes a request dearer.
    """
    assert cost(family, evolve(shape, references=shape.references + 1)) > cost(family, shape)


@given(families, shapes)
def test_cfg_doubles_the_steps(family: Family, shape: Shape) -> None:
    """
    CFG costs as much as running every step twice.
    """
    doubled = evolve(shape, cfg=False, steps=2 * shape.steps)
    assert math.isclose(cost(family, evolve(shape, cfg=True)), cost(family, doubled))


@given(families, shapes)
def test_outputs_cost_alike(family: Family, shape: Shape) -> None:
    """
    Every further output costs what the first does.
    """
    one = cost(family, evolve(shape, outputs=1))
    assert math.isclose(cost(family, shape), shape.outputs * one)


@given(families, st.dictionaries(st.sampled_from(names), wild))
def test_any_fields_have_a_cost(family: Family, fields: dict[str, object]) -> None:
    """
    Whatever a client sends, its request has a positive, finite cost.
    """
    for shape in (image_shape(family, fields), video_shape(family, fields)):
        assert 0 < cost(family, shape) < math.inf


def _ratio(family: Family, larger: Shape, smaller: Shape) -> float:
    return pass_cost(family, tokens(family, larger)) / pass_cost(family, tokens(family, smaller))


def test_published_step_ratios() -> None:
    """
    Per-step ratios measured on an H100 are met within 10 %.
    """
    square = Shape(width=1024, height=1024, steps=1)
    edit = FAMILIES["qwen-image-edit"]
    assert _ratio(edit, evolve(square, references=1), square) == pytest.approx(2.55, rel=0.1)
    assert _ratio(edit, evolve(square, references=2), square) == pytest.approx(3.78, rel=0.1)
    flux = FAMILIES["flux.2"]
    assert _ratio(flux, evolve(square, references=1), square) == pytest.approx(2.0, rel=0.11)
    small = Shape(width=832, height=480, frames=25, steps=1)
    large = Shape(width=1280, height=720, frames=25, steps=1)
    assert _ratio(FAMILIES["wan-i2v"], large, small) == pytest.approx(2.94, rel=0.1)


def test_http_defaults() -> None:
    """
    An image is 1024x1024; a video has 96 frames, 4 s at 24 fps, whatever the model's own default.
    """
    image = image_shape(FAMILIES["qwen-image"], {"prompt": "x"})
    assert (image.width, image.height, image.frames, image.steps, image.cfg) == (
        1024,
        1024,
        1,
        50,
        True,
    )
    video = video_shape(FAMILIES["wan-1.3b"], {"prompt": "x"})
    assert (video.width, video.height, video.frames, video.fps) == (832, 480, 96, 24)


def test_sides_win_over_size() -> None:
    """
    ``width`` and ``height`` win over ``size``.
    """
    shape = image_shape(GENERIC, {"size": "512x256", "width": 640})
    assert (shape.width, shape.height) == (640, 256)


def test_frames() -> None:
    """
    ``num_frames`` wins over ``seconds``, which may be text; Wan I2V rounds up to 4k+1.
    """
    fields = {"seconds": "2", "fps": 16}
    assert video_shape(GENERIC, fields).frames == 32
    assert video_shape(GENERIC, {**fields, "num_frames": 5}).frames == 5
    assert video_shape(FAMILIES["wan-i2v"], {}).frames == 97


@pytest.mark.parametrize(
    ("name", "fields", "cfg"),
    [
        ("flux.1", {}, False),
        ("flux.1", {"negative_prompt": "blurry"}, True),
        ("flux.1", {"negative_prompt": ""}, True),
        ("flux.1", {"negative_prompt": None}, False),
        ("flux.1", {"negative_prompt": "blurry", "true_cfg_scale": 0}, False),
        ("hunyuanvideo", {}, False),
        ("hunyuanvideo", {"guidance_scale": "6"}, True),
        ("qwen-image", {"true_cfg_scale": 1.0, "guidance_scale": 9}, False),
        ("z-image-turbo", {}, False),
        ("z-image", {"guidance_scale": 0.5}, True),
    ],
)
def test_cfg_rule(name: str, fields: dict[str, object], cfg: bool) -> None:
    """
    CFG needs a scale above the family's threshold and a negative prompt, its own or the client's.
    """
    assert image_shape(FAMILIES[name], fields).cfg is cfg


def test_outputs() -> None:
    """
    ``n`` is kept between 1 and 10, as a worker does it; of a video ``num_outputs_per_prompt`` wins
    over it, of an image it counts nothing.
    """
    both = {"n": 3, "num_outputs_per_prompt": 2}
    assert image_shape(GENERIC, both).outputs == 3
    assert video_shape(GENERIC, both).outputs == 2
    assert video_shape(GENERIC, {"n": 3}).outputs == 3
    assert [image_shape(GENERIC, {"n": n}).outputs for n in (-1, 0, "4", 11, 1e300)] == [
        *(1, 1, 4, 10, 10)
    ]


def test_what_does_not_count() -> None:
    """
    Upscaling, frame interpolation and file options cost nothing that the rule knows of.
    """
    options = {
        "enable_upscaling": True,
        "upscaling_scale": 4,
        "enable_frame_interpolation": True,
        "output_quality": "maximum",
        "seed": 7,
        "num_images": 4,
    }
    for shape in (image_shape, video_shape):
        assert shape(GENERIC, options) == shape(GENERIC, {})


def test_ltx_latents() -> None:
    """
    LTX puts eight frames into a latent one, others four, and 32 pixels along a side into a token.
    """
    shape = Shape(width=768, height=512, frames=121, steps=1)
    assert tokens(FAMILIES["ltx-2"], shape) == 24 * 16 * 16
    assert tokens(FAMILIES["wan-14b"], shape) == 48 * 32 * 31


def test_the_table() -> None:
    """
    Every family of the table has names, in lower case and long enough to name something.
    """
    for name, family in FAMILIES.items():
        assert family.patterns, name
        for pattern in family.patterns:
            assert pattern == pattern.lower(), name
            assert len(pattern) > 2, name
    assert GENERIC.patterns == ()


@pytest.mark.parametrize(
    "record", [{"hidden": 0}, {"hidden": "3072"}, {"steps": 2.5}, {"width": None}, {"what": 1}]
)
def test_a_wrong_table(record: dict[str, Any]) -> None:
    """
    A parameter that is unknown, of the wrong type or out of range is refused.
    """
    with pytest.raises((TypeError, ValueError)):
        Family(**record)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("black-forest-labs/FLUX.1-dev", "flux.1"),
        ("black-forest-labs/FLUX.2-dev", "flux.2"),
        ("black-forest-labs/FLUX.2-klein-base-4B", "flux.2-klein-base"),
        ("Qwen/Qwen-Image-Edit-2509", "qwen-image-edit"),
        ("Tongyi-MAI/Z-Image-Turbo", "z-image-turbo"),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan-1.3b"),
        ("Wan-AI/Wan2.1-T2V-14B-Diffusers", "wan-14b"),
        ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "wan2.2-a14b"),
        ("Wan-AI/Wan2.2-I2V-A14B-Diffusers", "wan2.2-i2v-a14b"),
        ("Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", "wan-i2v"),
        ("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "wan-i2v-480p"),
        ("hunyuanvideo-community/HunyuanVideo-I2V", "hunyuanvideo"),
        ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "wan-ti2v-5b"),
        ("FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers", "fastwan"),
        ("FastVideo/FastHunyuan-diffusers", "fasthunyuan"),
        ("/models/ltx-2.3", "ltx-2.3"),
    ],
)
def test_family_by_path(path: str, name: str) -> None:
    """
    A model path names its family.
    """
    assert family_of(path) is FAMILIES[name]


def test_unknown_family() -> None:
    """
    A path that names no known family gets the generic one.
    """
    assert family_of("somebody/anything") is GENERIC
