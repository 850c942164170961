"""
What a request asks for, by the route it came on.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.cost import FAMILIES, GENERIC, cost, family_of, image_shape, video_shape
from sgl_droute.fleet.demand import FIELDS, Asked
from sgl_droute.fleet.job import KINDS

FLUX = "black-forest-labs/FLUX.1-dev"
WAN = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
QWEN_EDIT = "Qwen/Qwen-Image-Edit-2509"
MODELS = (None, FLUX, WAN, QWEN_EDIT, "somebody/anything")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=50),
    st.sampled_from([10**400, -(10**400), "1e999", "nan", "9" * 5000, "[" * 3000, "0x0", 2**70]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(sorted(FIELDS)), inner, max_size=4),
    ),
    max_leaves=12,
)
bodies = st.one_of(st.none(), st.dictionaries(st.sampled_from(sorted(FIELDS)), anything))


def work(kind: str, fields: Mapping[str, object], model: str, references: int = 0) -> float:
    amount = Asked(kind, fields, references).work(model)
    assert amount is not None
    return amount


@given(st.sampled_from(KINDS), bodies, st.integers(), st.sampled_from(MODELS))
def test_whatever_a_body_holds(
    kind: str, fields: dict[str, object] | None, references: int, model: str | None
) -> None:
    """
    Of any fields the work is a positive, finite number or unknown, and the same when asked again.
    """
    asked = Asked(kind, fields, references)
    amount = asked.work(model)
    assert amount is None or 0 < amount < math.inf
    assert asked.work(model) == amount


@given(bodies, st.sampled_from(["image", "edit", "video", "rollout", "vertex"]))
def test_a_body_that_was_read_is_known(fields: dict[str, object] | None, kind: str) -> None:
    """
    A request has known work just when its body was read, even if that says nothing.
    """
    assert (Asked(kind, fields).work(FLUX) is None) == (fields is None)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), scalars), st.sampled_from(MODELS))
def test_image_by_the_rule(fields: dict[str, object], model: str | None) -> None:
    """
    An image costs what the rule says of all its fields: nothing that counts is lost on the way.
    """
    family = GENERIC if model is None else family_of(model)
    assert Asked("image", fields).work(model) == cost(family, image_shape(family, fields))


@pytest.mark.parametrize("kind", ["mesh", "action", "session", "other"])
def test_kinds_without_a_rule(kind: str) -> None:
    """
    Of meshes, actions, sessions and what is not known nothing can be told.
    """
    assert Asked(kind, {"num_inference_steps": 5}).work(FLUX) is None


def test_a_body_that_is_no_object() -> None:
    """
    A body that is no object says nothing.
    """
    assert Asked("image", [1, 2]).work(FLUX) is None  # type: ignore[arg-type]


def test_model_decides() -> None:
    """
    The same request is another amount of work for another model.
    """
    asked = Asked("image", {"size": "512x512"})
    amounts = {model: asked.work(model) for model in MODELS}
    assert len(set(amounts.values())) == len({"generic", "flux", "wan", "qwen"})


def test_edit() -> None:
    """
    An edit pays for its input images, is as large as its ``size`` and has no sides of its own.
    """
    edit = FAMILIES["qwen-image-edit"]
    assert work("edit", {}, QWEN_EDIT, 2) == cost(edit, image_shape(edit, {}, references=2))
    assert work("edit", {"width": 64}, QWEN_EDIT, 1) == work("edit", {}, QWEN_EDIT, 1)
    assert work("edit", {"size": "64x64"}, QWEN_EDIT, 1) < work("edit", {}, QWEN_EDIT, 1)


def test_video_extras() -> None:
    """
    The fields of ``extra_body`` and its like count in a video, as objects or as JSON text, and
    those beside them win; in an image they do not count.
    """
    long = work("video", {"num_frames": 81}, WAN)
    assert work("video", {"extra_body": {"num_frames": 81}}, WAN) == long
    assert work("video", {"extra_params": json.dumps({"num_frames": 81})}, WAN) == long
    extras = {"extra_body": {"num_frames": 5}, "extra_json": {"num_frames": 81}}
    assert work("video", extras, WAN) == long
    assert work("video", {"num_frames": 81, "extra_json": {"num_frames": 5}}, WAN) == long
    assert work("video", {"extra_json": "{"}, WAN) == work("video", {}, WAN)
    hidden = {"extra_body": {"size": "64x64"}}
    assert work("image", hidden, FLUX) == work("image", {}, FLUX)


def test_video_default() -> None:
    """
    A video that names no frames has 96, and two outputs are twice the work.
    """
    wan = FAMILIES["wan-14b"]
    assert work("video", {}, WAN) == cost(wan, video_shape(wan, {"num_frames": 96}))
    twice = work("video", {"n": 5, "num_outputs_per_prompt": 2}, WAN)
    assert twice == pytest.approx(2 * work("video", {}, WAN))


def test_rollout_outputs() -> None:
    """
    A rollout's outputs are not limited to the ten of other routes; ``n`` and ``size`` are not its.
    """
    one = work("rollout", {"width": 512, "height": 512}, FLUX)
    many = {"width": 512, "height": 512, "num_outputs_per_prompt": 16, "n": 3, "size": "64x64"}
    assert work("rollout", many, FLUX) == pytest.approx(16 * one)
    endless = {"width": 512, "height": 512, "num_outputs_per_prompt": 10**9}
    assert work("rollout", endless, FLUX) == pytest.approx(1024 * one)


def test_rollout_frames() -> None:
    """
    A rollout is what its model makes, a film of that model's own length where it names none; one
    frame is a picture, and an image model makes a film when asked for one.
    """
    wan = FAMILIES["wan-14b"]
    film = cost(wan, video_shape(wan, {"num_frames": 81}))
    assert work("rollout", {}, WAN) == film
    assert work("rollout", {"num_frames": 5}, WAN) < film
    assert work("rollout", {"num_frames": 1}, FLUX) == work("rollout", {}, FLUX)
    assert work("rollout", {"num_frames": "many"}, FLUX) == work("rollout", {}, FLUX)
    assert work("rollout", {"num_frames": 25}, FLUX) > work("rollout", {}, FLUX)


def test_rollout_extras() -> None:
    """
    ``extra_sampling_params`` of a rollout win over the fields beside them.
    """
    given = {"num_inference_steps": 50, "extra_sampling_params": {"num_inference_steps": 5}}
    assert work("rollout", given, FLUX) == work("rollout", {"num_inference_steps": 5}, FLUX)


def test_vertex() -> None:
    """
    A Vertex request is as many images as it has instances, of the size in its parameters.
    """
    parameters = {"width": 512, "height": 512}
    instances = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}]
    three = work("vertex", {"instances": instances, "parameters": parameters}, FLUX)
    assert three == pytest.approx(3 * work("image", {"size": "512x512"}, FLUX))
    assert work("vertex", {"instances": 3, "parameters": parameters}, FLUX) == three
    assert work("vertex", {"instances": [], "parameters": 5}, FLUX) == work("image", {}, FLUX)


def test_little_is_kept() -> None:
    """
    Of a large body only a few numbers stay in memory.
    """
    fields = {
        "prompt": "x" * 100_000,
        "negative_prompt": "y" * 100_000,
        "size": "512x512" + " " * 100_000,
        "n": 10**5000,
        "guidance_scale": 4.5,
        "instances": [{"prompt": "z" * 1000}] * 100,
    }
    for kind in KINDS:
        asked = Asked(kind, {**fields, "parameters": fields, "extra_body": fields})
        kept = asked.fields or {}
        assert sum(sys.getsizeof(each) for pair in kept.items() for each in pair) < 1000
        assert set(kept) <= {"negative_prompt", "guidance_scale"}
