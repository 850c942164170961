"""
LoRA, weights, memory, rollout and discovery of a simulated worker.
"""

from __future__ import annotations

import base64
import json
import struct
from io import BytesIO

import msgpack  # type: ignore[import-untyped]
import pytest
from PIL import Image

from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.tensors import safetensors
from sgl_droute.simulator.testing import Answer, MemoryWorker
from sgl_droute.simulator.weights import ASLEEP

SMALL = {"prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 1}
PLAIN_FAILURE = (500, b"Internal Server Error")


@pytest.fixture
def worker() -> MemoryWorker:
    return MemoryWorker(SimulatorSettings(model="flux.1-dev", speed=100))


def post(worker: MemoryWorker, path: str, document: object = None) -> Answer:
    return worker.finish(worker.post(path, document))


def checksum(worker: MemoryWorker, *names: str) -> dict[str, str]:
    sums: dict[str, str] = post(
        worker, "/get_weights_checksum", {"module_names": list(names) or None}
    ).json
    return sums


def test_lora_life(worker: MemoryWorker) -> None:
    """
    An adapter is loaded, active, taken out, and set again by its nickname alone.
    """
    loaded = post(worker, "/v1/set_lora", {"lora_nickname": "x", "lora_path": "p"})
    message = "Successfully set LoRA adapter(s): x (target: all, strength: 1.0)"
    assert loaded.json == {"status": "ok", "message": message}
    adapter = {
        "nickname": "x",
        "nicknames": ["x"],
        "path": "p",
        "merged": True,
        "mode": "merged",
        "strength": 1.0,
        "strengths": [1.0],
    }
    assert worker.get("/v1/list_loras").json == {
        "loaded_adapters": [{"nickname": "x", "path": "p"}],
        "active": {"transformer": [adapter]},
    }
    post(worker, "/v1/unmerge_lora_weights", {"target": "all"})
    assert worker.get("/v1/list_loras").json["active"] == {}
    assert post(worker, "/v1/set_lora", {"lora_nickname": "x"}).status == 200
    assert post(worker, "/v1/merge_lora_weights", {"strength": 0.5}).status == 200
    active = worker.get("/v1/list_loras").json["active"]
    assert active["transformer"][0]["strengths"] == [0.5]


def test_lora_refusals(worker: MemoryWorker) -> None:
    """
    An unknown nickname without a path is a 500 in words, no nickname a 422.
    """
    unknown = post(worker, "/v1/set_lora", {"lora_nickname": "x"})
    assert unknown.status == 500
    assert unknown.detail == (
        "Failed to set LoRA adapter: Adapter x not found in the pipeline. "
        "Please provide lora_path to load it."
    )
    assert post(worker, "/v1/set_lora", {"lora_path": "p"}).status == 422
    wrong = {"lora_nickname": "x", "lora_path": "p", "target": "vae"}
    assert post(worker, "/v1/set_lora", wrong).status == 400


def test_checksums_follow_the_weights(worker: MemoryWorker) -> None:
    """
    Equal histories give equal sums; an update changes its modules and no others.
    """
    before = checksum(worker)
    assert before == checksum(MemoryWorker(worker.settings))
    update = {"model_path": "step-2", "target_modules": ["transformer"]}
    answer = post(worker, "/update_weights_from_disk", update)
    assert answer.json == {"success": True, "message": "Updated 1 modules (transformer)."}
    after = checksum(worker)
    assert {name for name in after if after[name] != before[name]} == {"transformer"}
    assert checksum(worker, "nothing") == {"nothing": "not_found"}
    assert worker.get("/model_info").json["model_path"] == "black-forest-labs/FLUX.1-dev"


def test_checksums_remember_lora_calls(worker: MemoryWorker) -> None:
    """
    A LoRA call, even a failed one, changes the transformer's sum for good.
    """
    before = checksum(worker)
    post(worker, "/v1/set_lora", {"lora_nickname": "unknown"})
    touched = checksum(worker)
    assert touched["transformer"] != before["transformer"]
    assert touched["vae"] == before["vae"]
    post(worker, "/v1/set_lora", {"lora_nickname": "x", "lora_path": "p"})
    assert checksum(worker)["transformer"] not in (before["transformer"], touched["transformer"])
    post(worker, "/v1/unmerge_lora_weights", {})
    assert checksum(worker) == touched


def test_adapter_outlives_an_update(worker: MemoryWorker) -> None:
    """
    A merged adapter is merged again into new weights.
    """
    post(worker, "/v1/set_lora", {"lora_nickname": "x", "lora_path": "p"})
    post(worker, "/update_weights_from_disk", {"model_path": "step-2"})
    assert "transformer" in worker.get("/v1/list_loras").json["active"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model_path": "p", "target_modules": ["nothing"]},
        {"model_path": "a-missing-folder"},
    ],
)
def test_refused_updates(worker: MemoryWorker, body: dict[str, object]) -> None:
    """
    An update that cannot be done is a 400 and changes nothing.
    """
    before = checksum(worker)
    answer = post(worker, "/update_weights_from_disk", body)
    assert (answer.status, answer.json["success"]) == (400, False)
    assert checksum(worker) == before


@pytest.mark.parametrize("path", ["/update_weights_from_disk", "/get_weights_checksum"])
def test_no_json_no_words(worker: MemoryWorker, path: str) -> None:
    """
    These routes break on a body that is no JSON.
    """
    answer = worker.ask("POST", path, data=b"")
    assert (answer.status, answer.body) == PLAIN_FAILURE


def test_tensor_updates(worker: MemoryWorker) -> None:
    """
    Tensors are taken as they come and change the sum; the checker changes nothing.
    """
    before = checksum(worker)
    body = {"serialized_named_tensors": ["abc"], "target_modules": ["transformer"]}
    assert post(worker, "/update_weights_from_tensor_checker", body).status == 200
    assert checksum(worker) == before
    assert post(worker, "/update_weights_from_tensor", body).json["success"] is True
    assert checksum(worker)["transformer"] != before["transformer"]
    assert post(worker, "/update_weights_from_tensor", {}).status == 400


def test_sleep(worker: MemoryWorker) -> None:
    """
    Asleep, a worker is healthy and fails generations; sums and lists still answer.
    """
    slept = post(worker, "/release_memory_occupation").json
    message = "released GPU memory (moved active modules to CPU)"
    assert slept == {"success": True, "sleeping": True, "message": message}
    assert post(worker, "/release_memory_occupation").json["message"] == "already sleeping"
    assert worker.get("/health").status == 200
    image = post(worker, "/v1/images/generations", SMALL)
    assert (image.status, image.body) == PLAIN_FAILURE
    rollout = post(worker, "/rollout/generate", SMALL)
    assert (rollout.status, rollout.detail) == (500, ASLEEP)
    update = post(worker, "/update_weights_from_disk", {"model_path": "p"})
    assert update.status == 500
    assert update.json["message"].startswith("Cannot update weights while the server is sleeping.")
    assert set(checksum(worker)) == set(worker.worker.engine.model.modules)
    assert worker.get("/v1/list_loras").status == 200
    assert post(worker, "/resume_memory_occupation").json["sleeping"] is False
    assert post(worker, "/resume_memory_occupation").json["message"] == "already awake"
    assert post(worker, "/v1/images/generations", SMALL).status == 200


def test_rollout(worker: MemoryWorker) -> None:
    """
    A rollout answers msgpack with one map per output and real safetensors inside.
    """
    answer = post(worker, "/rollout/generate", {**SMALL, "num_outputs_per_prompt": 2})
    assert answer.headers["content-type"] == "application/msgpack"
    first, second = msgpack.unpackb(answer.body)
    assert (first["seed"], second["seed"], first["prompt"]) == (1, 2, "a fox")
    output = first["generated_output"]
    assert (output["shape"], output["dtype"]) == ([3, 64, 64], "torch.float32")
    (length,) = struct.unpack("<Q", output["data"][:8])
    entry = json.loads(output["data"][8 : 8 + length])["tensor"]
    assert entry["data_offsets"] == [0, 3 * 64 * 64 * 4]
    assert len(output["data"]) == 8 + length + 3 * 64 * 64 * 4
    assert output["data"] != second["generated_output"]["data"]
    assert set(first["rollout_debug_tensors"]) >= {"variance_noises"}
    assert first["inference_time_s"] > 0


def test_rollout_refusals(worker: MemoryWorker) -> None:
    """
    Bad parameters are a 400; a missing seed breaks the answer after the work.
    """
    bad = post(worker, "/rollout/generate", {**SMALL, "width": 0})
    text = "Invalid sampling params: width must be a positive integer"
    assert (bad.status, bad.detail) == (400, text)
    unseeded = post(worker, "/rollout/generate", {**SMALL, "seed": None})
    assert (unseeded.status, unseeded.body) == PLAIN_FAILURE
    assert worker.worker.journal.generations_finished == 1


def test_rollout_size(worker: MemoryWorker) -> None:
    """
    A fault sets the size of the sample.
    """
    post(worker, "/simulator/faults", {"rollout_bytes": 1_000_000})
    body = {**SMALL, "rollout_debug_mode": False}
    answer = post(worker, "/rollout/generate", body)
    assert answer.body is not None
    assert len(answer.body) == pytest.approx(1_000_000, rel=0.01)


def test_vertex(worker: MemoryWorker) -> None:
    """
    Every instance gets a prediction or an error, always with 200.
    """
    body = {
        "instances": [{"prompt": "a fox"}, {"nothing": 1}],
        "parameters": {"width": 64, "height": 64},
    }
    good, bad = post(worker, "/vertex_generate", body).json["predictions"]
    with Image.open(BytesIO(base64.b64decode(good["output"]))) as image:
        assert image.size == (64, 64)
    assert "error" in bad


@pytest.mark.parametrize("instance", [None, "fox", 5, []])
def test_vertex_instances_that_are_no_objects(worker: MemoryWorker, instance: object) -> None:
    """
    An instance that is not an object is a 422.
    """
    answer = post(worker, "/vertex_generate", {"instances": [{"prompt": "x"}, instance]})
    assert answer.status == 422
    assert answer.json["detail"][0]["type"] == "dict_type"


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        ({}, "missing", "instances"),
        ({"instances": None}, "list_type", "instances"),
        ({"instances": {"prompt": "x"}}, "list_type", "instances"),
        ({"instances": [], "parameters": [1]}, "dict_type", "parameters"),
    ],
)
def test_vertex_bodies_of_another_shape(
    worker: MemoryWorker, body: object, kind: str, field: str
) -> None:
    """
    A body that the schema does not have is a 422, and no failure of the worker.
    """
    answer = post(worker, "/vertex_generate", body)
    assert answer.status == 422
    (problem,) = answer.json["detail"]
    assert (problem["type"], problem["loc"]) == (kind, ["body", field])


def test_safetensors_checks_its_size() -> None:
    """
    Data that does not fit the shape is refused.
    """
    with pytest.raises(ValueError, match="no F32 tensor"):
        safetensors(b"123", [1])


def test_discovery(worker: MemoryWorker) -> None:
    """
    The three ways to ask for the model agree, and say no more than a real worker does.
    """
    card = worker.get("/v1/models").json["data"][0]
    assert worker.get("/v1/models/black-forest-labs/FLUX.1-dev").json == card
    assert worker.get("/v1/model_info").json == {"model_path": card["id"]}
    info = worker.get("/model_info").json
    assert (info["task_type"], info["output_types"]) == ("T2I", ["IMAGE"])
    assert info["supported_task_types"] == card["supported_task_types"]
    unknown = worker.get("/v1/models/x")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    assert worker.get("/server_info").json["dp_size"] == 1


def test_metrics(worker: MemoryWorker) -> None:
    """
    Metrics count finished generations and open requests.
    """
    post(worker, "/v1/images/generations", SMALL)
    body = worker.get("/metrics").body
    assert body is not None
    lines = body.decode().splitlines()
    assert 'sglang:diffusion_requests_total{status="success",is_warmup="false"} 1.0' in lines
    assert "sglang:http_requests_active 1.0" in lines
