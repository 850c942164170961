"""
Whatever a client sends, a simulated worker answers as a worker would, and logs no failure.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.testing import MemoryWorker

SMALL = {"width": 16, "height": 16, "num_frames": 2, "num_inference_steps": 1, "prompt": "x"}
NAMES = [
    *SMALL,
    *("n", "size", "seed", "fps", "seconds", "response_format", "output_format", "task_type"),
    *("guidance_scale", "negative_prompt", "output_compression", "num_outputs_per_prompt"),
    *("lora_nickname", "lora_path", "strength", "target", "merge_mode", "model_path"),
    *("target_modules", "module_names", "serialized_named_tensors", "instances", "parameters"),
]
scalars = st.none() | st.booleans() | st.integers(-3, 20) | st.floats() | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
bodies = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)
PATHS = [
    "/v1/images/generations",
    "/v1/videos",
    "/v1/meshes",
    "/rollout/generate",
    "/vertex_generate",
    "/v1/set_lora",
    "/v1/merge_lora_weights",
    "/v1/unmerge_lora_weights",
    "/update_weights_from_disk",
    "/update_weights_from_tensor",
    "/update_weights_from_tensor_checker",
    "/get_weights_checksum",
    "/simulator/faults",
]


@pytest.fixture(scope="module")
def worker() -> MemoryWorker:
    return MemoryWorker(SimulatorSettings(model="cosmos3", speed=1e6))


@settings(max_examples=200)
@given(path=st.sampled_from(PATHS), body=bodies)
def test_any_fields(worker: MemoryWorker, path: str, body: dict[str, object]) -> None:
    """
    Every route answers every object.
    """
    document = {**SMALL, **body}
    answer = worker.finish(worker.post(path, document), limit=1e6)
    assert answer.status in (200, 400, 422, 500)


@settings(max_examples=100)
@given(
    path=st.sampled_from(PATHS),
    body=st.binary(max_size=20) | values.map(lambda value: repr(value).encode()),
)
def test_any_bytes(worker: MemoryWorker, path: str, body: bytes) -> None:
    """
    Every route answers every body.
    """
    headers = {"content-type": "application/json"}
    answer = worker.finish(worker.ask("POST", path, data=body, headers=headers), limit=1e6)
    assert answer.status in (200, 400, 422, 500)
