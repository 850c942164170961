"""
Which weights a generation ran with, when control calls ran, and how weight calls can go wrong.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.testing import Answer, MemoryWorker
from tests.integration.weights_fleet import WorkerProcess

IMAGES = "/v1/images/generations"
UPDATE = "/update_weights_from_disk"
CHECKSUM = "/get_weights_checksum"
WEIGHT_CALLS: dict[str, dict[str, object]] = {
    UPDATE: {"model_path": "step-1"},
    "/update_weights_from_tensor": {"serialized_named_tensors": ["abc"]},
    "/v1/set_lora": {"lora_nickname": "x", "lora_path": "p"},
}
SMALL = {"prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 1}


@pytest.fixture
def worker() -> MemoryWorker:
    return MemoryWorker(SimulatorSettings(model="cosmos3", speed=10, pictures=1, video_side=64))


def post(worker: MemoryWorker, path: str, document: object = None) -> Answer:
    return worker.finish(worker.post(path, document))


def order(worker: MemoryWorker, path: str, **rule: object) -> None:
    """
    Let something go wrong with the next request for *path*.
    """
    document = {"rules": [{"path": path, "times": 1, **rule}]}
    assert worker.post("/simulator/faults", document).status == 200


def journal(worker: MemoryWorker, kind: str) -> list[Any]:
    entries: list[Any] = worker.get("/simulator/log").json[kind]
    return entries


def test_ids_lead_to_weights(worker: MemoryWorker) -> None:
    """
    The id in an answer finds the generation, and that says which weights it ran with, and when.
    """
    image = post(worker, IMAGES, SMALL).json["id"]
    post(worker, UPDATE, {"model_path": "step-1", "target_modules": ["transformer"]})
    video = worker.post("/v1/videos", {"prompt": "x", "size": "64x64", "num_frames": 5}).json["id"]
    rollout = post(worker, "/rollout/generate", {**SMALL, "num_outputs_per_prompt": 2})
    samples = [each["request_id"] for each in msgpack.unpackb(rollout.body)]
    first, second, third = journal(worker, "generations")
    assert [first["ids"], second["ids"], third["ids"]] == [[image], [video], samples]
    launch = dict.fromkeys(worker.worker.engine.model.modules, "nvidia/Cosmos3-Nano")
    assert first["sources"] == launch
    assert second["sources"] == third["sources"] == {**launch, "transformer": "step-1"}
    assert first["weights"] != second["weights"] == third["weights"]
    assert first["started"] < first["ended"] < second["started"]


def test_calls_in_the_journal(worker: MemoryWorker) -> None:
    """
    A control call is told with its body and when it came, ran and was over; what it changed shows
    in the sums before and after it.
    """
    running = worker.post(IMAGES, SMALL)
    update = worker.post(UPDATE, {"model_path": "step-1"})
    worker.finish(running)
    worker.finish(update)
    post(worker, UPDATE, {"model_path": "missing"})
    slept = post(worker, "/release_memory_occupation")
    assert slept.status == 200
    [image] = journal(worker, "generations")
    taken, refused, sleep = journal(worker, "calls")
    assert (taken["path"], taken["asked"]) == (UPDATE, {"model_path": "step-1"})
    assert taken["arrived"] < image["ended"] <= taken["started"] < taken["ended"]
    assert taken["before"] == image["weights"] != taken["after"]
    assert taken["error"] is None
    assert "No safetensors files" in refused["error"]
    assert refused["before"] == refused["after"] == taken["after"] == sleep["before"]
    assert sleep["path"] == "/release_memory_occupation"


def test_the_journal_leaves_tensors_out(worker: MemoryWorker) -> None:
    """
    A tensor update is told without its tensors; its sum is in the sources afterwards.
    """
    body = {"serialized_named_tensors": ["abc"], "target_modules": ["transformer"]}
    post(worker, "/update_weights_from_tensor", body)
    post(worker, IMAGES, SMALL)
    [call] = journal(worker, "calls")
    assert call["asked"] == {"target_modules": ["transformer"]}
    [image] = journal(worker, "generations")
    assert image["sources"]["transformer"].startswith("tensors:")


def test_a_call_that_never_ran(worker: MemoryWorker) -> None:
    """
    A call that waits when the GPU process dies never started, and changed nothing.
    """
    worker.post(IMAGES, SMALL)
    worker.post(UPDATE, {"model_path": "step-1"})
    worker.post("/simulator/faults", {"dead": True})
    [call] = journal(worker, "calls")
    assert (call["started"], call["before"], call["after"]) == (None, "", "")
    assert call["error"] == "Scheduler worker exited; restart the server."


def test_the_journal_is_bounded(worker: MemoryWorker) -> None:
    """
    Of control calls, too, only the last 2000 are kept.
    """
    for _ in range(2005):
        post(worker, "/v1/unmerge_lora_weights", {})
    assert len(journal(worker, "calls")) == 2000
    assert worker.ask("DELETE", "/simulator/log").json["calls"] == []


def test_a_journal_that_outlives_its_worker(tmp_path: Path) -> None:
    """
    A journal file has what each life of a worker did, as soon as it began and when it was over; a
    new life begins with the launch weights.
    """
    path = tmp_path / "journal"
    settings = SimulatorSettings(model="flux.1-dev", speed=10, pictures=1, journal=str(path))
    first = MemoryWorker(settings)
    launch = first.worker.weights.fingerprint()
    post(first, UPDATE, {"model_path": "step-1"})
    first.post(IMAGES, SMALL)
    second = MemoryWorker(settings)
    image = post(second, IMAGES, SMALL).json["id"]
    for each in (first, second):
        each.worker.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["what"] for line in lines] == [
        *("launch", "call", "call", "generation"),
        *("launch", "generation", "generation"),
    ]
    assert [line["weights"] for line in lines if line["what"] == "launch"] == [launch, launch]
    assert lines[2]["after"] == lines[3]["weights"] != launch
    assert lines[3]["ended"] is None
    assert lines[-1]["ids"] == [image]
    assert lines[-1]["weights"] == launch


def test_a_new_process_has_its_launch_state(worker: MemoryWorker) -> None:
    """
    Nothing of updates, adapters or sleep survives a restart: sums are those of the launch again.
    """
    before = post(worker, CHECKSUM, {}).json
    for path, body in WEIGHT_CALLS.items():
        assert post(worker, path, body).status == 200
    post(worker, "/release_memory_occupation")
    assert post(worker, CHECKSUM, {}).json != before
    again = MemoryWorker(worker.settings)
    assert post(again, CHECKSUM, {}).json == before
    assert again.get("/v1/list_loras").json == {"loaded_adapters": [], "active": {}}
    assert post(again, IMAGES, SMALL).status == 200


def test_a_failed_checksum_is_null(worker: MemoryWorker) -> None:
    """
    When the GPU process goes while a checksum waits, its answer is 200 with a body of null.
    """
    answer = worker.post(CHECKSUM, {})
    worker.post("/simulator/faults", {"dead": True})
    worker.advance(0.0)
    assert (answer.status, answer.json) == (200, None)


@pytest.mark.parametrize("asleep", [UPDATE, "/update_weights_from_tensor"])
def test_updates_while_asleep(worker: MemoryWorker, asleep: str) -> None:
    """
    Asleep, updates are a 500 that says so and change nothing; sums answer as before.
    """
    before = post(worker, CHECKSUM, {}).json
    post(worker, "/release_memory_occupation")
    answer = post(worker, asleep, WEIGHT_CALLS[asleep])
    assert (answer.status, answer.json["success"]) == (500, False)
    assert "while the server is sleeping" in answer.json["message"]
    assert post(worker, CHECKSUM, {}).json == before


def test_a_merged_adapter_on_new_weights(worker: MemoryWorker) -> None:
    """
    An adapter outlives an update; without it the new weights are plain, but for their LoRA history.
    """
    post(worker, "/v1/set_lora", {"lora_nickname": "x", "lora_path": "p"})
    post(worker, UPDATE, {"model_path": "step-1"})
    merged = worker.worker.weights.fingerprint()
    post(worker, "/v1/unmerge_lora_weights", {})
    plain = MemoryWorker(worker.settings)
    post(plain, UPDATE, {"model_path": "step-1"})
    assert worker.worker.weights.fingerprint() == plain.worker.weights.fingerprint() != merged
    history, none = (post(each, CHECKSUM, {}).json for each in (worker, plain))
    assert {name for name in none if history[name] != none[name]} == {"transformer"}


@pytest.mark.parametrize("path", [*WEIGHT_CALLS, CHECKSUM])
def test_busy(worker: MemoryWorker, path: str) -> None:
    """
    ``busy`` keeps the GPU from this request for so long, and whatever comes later behind it.
    """
    order(worker, path, busy=50.0)
    answer = worker.post(path, WEIGHT_CALLS.get(path, {}))
    image = worker.post(IMAGES, SMALL)
    worker.advance(49.0)
    assert (answer.status, image.status) == (None, None)
    worker.advance(1.0)
    worker.finish(image)
    assert answer.status == 200
    [call] = journal(worker, "calls")
    assert call["started"] - call["arrived"] == pytest.approx(50.0)


TAKEN = "the weights are new"
KEPT = "the weights are old"


@given(
    path=st.sampled_from([*WEIGHT_CALLS]),
    fault=st.sampled_from([{"drop": True}, {"exit": True}, {"hang": True}, {"status": 418}]),
    work=st.booleans(),
)
def test_answers_that_tell_nothing(path: str, fault: dict[str, object], work: bool) -> None:
    """
    A dropped, forced or missing answer, and the end of the worker, come in place of the work, or
    with ``work`` right behind it: a client cannot tell which.
    """
    worker = MemoryWorker(SimulatorSettings(model="flux.1-dev", speed=100))
    before = worker.worker.weights.fingerprint()
    order(worker, path, **fault, work=work)
    answer = worker.post(path, WEIGHT_CALLS[path])
    worker.advance(60.0)
    changed = worker.worker.weights.fingerprint() != before
    assert (TAKEN if changed else KEPT) == (TAKEN if work else KEPT)
    if "status" in fault:
        assert answer.status == 418
    else:
        assert answer.status is None
        assert (answer.failure is None) == ("hang" in fault)


def test_a_cut_answer(worker: MemoryWorker) -> None:
    """
    An answer may also break after its head: then the work is done.
    """
    before = worker.worker.weights.fingerprint()
    order(worker, UPDATE, cut_after=3)
    answer = worker.post(UPDATE, {"model_path": "step-1"})
    worker.advance(10.0)
    worker.advance(10.0)
    assert (answer.status, answer.body) == (200, None)
    assert answer.failure is not None
    assert worker.worker.weights.fingerprint() != before


@pytest.mark.parametrize("work", [False, True])
def test_a_gpu_process_that_dies_of_an_update(worker: MemoryWorker, work: bool) -> None:
    """
    With ``dead`` the GPU process is gone before the work, which is a 503 then, or behind it.
    """
    order(worker, UPDATE, dead=True, work=work)
    answer = post(worker, UPDATE, {"model_path": "step-1"})
    assert answer.status == (200 if work else 503)
    assert worker.get("/health").status == 503
    sources = set(worker.worker.weights.sources.values())
    assert (sources == {"step-1"}) == work


def test_exit(worker: MemoryWorker) -> None:
    """
    A worker that ends cuts off every open request, takes no more, and tells whoever hooked in.
    """
    ended: list[bool] = []
    worker.worker.on_exit = lambda: ended.append(True)
    open_one = worker.post(IMAGES, SMALL)
    order(worker, UPDATE, exit=True)
    worker.post(UPDATE, {"model_path": "step-1"})
    later = worker.get("/health")
    for answer in (open_one, later):
        assert answer.status is None
        assert answer.failure is not None
    assert ended == [True]
    worker.advance(100.0)
    assert open_one.status is None


@pytest.mark.parametrize("work", [False, True])
def test_the_end_of_a_process(tmp_path: Path, work: bool) -> None:
    """
    A real process ends as by SIGKILL; its journal tells whether the update was done before, and its
    next life begins with the launch weights.
    """
    worker = WorkerProcess(tmp_path, speed=100.0)
    process = worker.start()
    try:
        worker.up()
        launch = worker.tell(CHECKSUM, {})
        worker.spoil(UPDATE, exit=True, work=work)
        with pytest.raises(OSError, match=r"closed|reset"):
            worker.tell(UPDATE, {"model_path": "step-1"})
        assert process.wait(30) == -signal.SIGKILL
        assert [call.asked["model_path"] for call in worker.called(UPDATE)] == ["step-1"] * work
        worker.restart()
        worker.up()
        assert worker.tell(CHECKSUM, {}) == launch
        assert worker.lives == 2
    finally:
        worker.kill()
