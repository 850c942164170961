"""
What a worker's answers say of it, and which requests it may then serve.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.capabilities import (
    ACTION,
    ANYTHING,
    EDIT,
    IMAGE,
    MESH,
    SAMPLE,
    UNNAMED,
    VIDEO,
    Capabilities,
    Want,
    reported,
)
from sgl_droute.simulator.models import MODELS


def info(*tasks: str, **more: Any) -> dict[str, Any]:
    return {"model_path": "org/model", "supported_task_types": list(tasks), **more}


@pytest.mark.parametrize(
    ("tasks", "abilities"),
    [
        (["T2I"], {"image"}),
        (["I2I"], {"edit"}),
        (["TI2I", "T2I"], {"image", "edit"}),
        (["T2V"], {"video"}),
        (["V2V"], {"video"}),
        (["F2V"], {"video"}),
        (["I2M"], {"mesh"}),
        (["VLA_ACTION"], {"action"}),
        (["T2V", "T2I", "TI2V"], {"image", "video"}),
        (["T2A", "T2V"], {"video"}),
    ],
)
def test_all_task_types_count(tasks: list[str], abilities: set[str]) -> None:
    """
    Every supported task type counts, not only the first.
    """
    assert set(reported(info(*tasks), None).abilities or ()) == abilities


def test_one_task_type_alone() -> None:
    """
    A worker that names only its default task type is believed.
    """
    assert reported({"task_type": "I2V"}, None).abilities == frozenset({"video"})
    card = {"id": "m", "task_type": "I2M"}
    assert reported(None, {"data": [card]}).abilities == frozenset({"mesh"})


def test_output_types_stand_in() -> None:
    """
    Where the task types are new to the router, the output types say what is made.
    """
    known = reported(info("X2V", output_types=["VIDEO", "IMAGE"]), None)
    assert known.abilities == frozenset({"video", "image", "edit"})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["data", "id", "model_path", "supported_task_types", "task_type", "dp_size"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    ),
)
def test_whatever_a_worker_says(answer: Any) -> None:
    """
    No answer breaks the router; what it does not understand stays unknown.
    """
    for found in (
        reported(answer, None),
        reported(None, answer),
        reported(None, None, answer),
    ):
        assert found.abilities is None
        assert 1 <= found.replicas <= 1024
        assert all(isinstance(name, str) and name for name in found.names)


def test_names() -> None:
    """
    A worker's models are its path and the ids of its cards.
    """
    known = reported(info("T2I"), {"data": [{"id": "served"}, {"id": ""}, 5]})
    assert known.names == {"org/model", "served"}
    assert known.model == "org/model"
    assert reported(None, {"data": [{"id": "served"}]}).model == "served"
    assert reported(None, None) == Capabilities()


@pytest.mark.parametrize(
    ("said", "replicas"),
    [(1, 1), (8, 8), (1024, 1024), (100_000, 1024)],
)
def test_replicas(said: int, replicas: int) -> None:
    """
    A worker has as many replicas as it says, of which 1024 are believed.
    """
    assert reported(None, None, {"dp_size": said}).replicas == replicas


@pytest.mark.parametrize("nonsense", [0, -3, True, 2.0, "2", None, [2]])
def test_no_number_of_replicas(nonsense: object) -> None:
    """
    Where a worker names no number of replicas it has one.
    """
    found = reported(None, None, {"dp_size": nonsense}).replicas
    assert (found, type(found)) == (1, int)
    assert reported(None, None, {}).replicas == reported(None, None).replicas == 1


def test_unknown_counts_as_able() -> None:
    """
    A worker that has not said what it serves may get anything.
    """
    for want in (IMAGE, EDIT, VIDEO, MESH, ACTION, SAMPLE, ANYTHING):
        assert want.allows(Capabilities())
        assert not want.unable(Capabilities())


def test_only_images_may_go_to_the_unable() -> None:
    """
    A video, mesh or action request never goes to a worker known to be unable; an image request may.
    """
    text_to_image = reported(info("T2I"), None)
    for want in (VIDEO, MESH, ACTION):
        assert not want.allows(text_to_image)
    assert EDIT.allows(text_to_image)
    assert EDIT.unable(text_to_image)
    assert not IMAGE.unable(text_to_image)


def test_model() -> None:
    """
    A named model is served by those who have it; `UNNAMED` by those who have not said.
    """
    known = reported(info("T2I"), None)
    assert Want(model="org/model").allows(known)
    assert not Want(model="other").allows(known)
    assert not Want(model="other").allows(Capabilities())
    assert Want(model=UNNAMED).allows(Capabilities())
    assert not Want(model=UNNAMED).allows(known)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_simulator(name: str) -> None:
    """
    The router understands what each simulated model says of itself.
    """
    model = MODELS[name]
    found = reported({"supported_task_types": list(model.tasks)}, None)
    assert found.abilities is not None
    assert ("video" in found.abilities) == model.makes_videos
    assert ("mesh" in found.abilities) == model.makes_meshes
    assert bool(found.abilities & {"image", "edit"}) == model.makes_images
