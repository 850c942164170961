"""
``/v1/videos`` and ``/v1/meshes`` of a simulated worker.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import pytest

from sgl_droute.simulator.films import film_file, film_size
from sgl_droute.simulator.jobs import Job, Jobs
from sgl_droute.simulator.pictures import Scene
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.testing import Answer, MemoryWorker
from sgl_droute.simulator.weights import ASLEEP

VIDEOS = "/v1/videos"
SHORT = {"prompt": "a fox runs", "num_frames": 24}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
JSON = {"content-type": "application/json"}


@pytest.fixture
def worker() -> MemoryWorker:
    return MemoryWorker(SimulatorSettings(model="wan2.1-t2v-1.3b"))


def create(worker: MemoryWorker, **fields: object) -> str:
    answer = worker.post(VIDEOS, {**SHORT, **fields})
    assert answer.status == 200
    job_id: str = answer.json["id"]
    return job_id


def job(worker: MemoryWorker, job_id: str) -> dict[str, object]:
    shown: dict[str, object] = worker.get(f"{VIDEOS}/{job_id}").json
    return shown


def test_job_from_start_to_end(worker: MemoryWorker) -> None:
    """
    A job is answered at once, waits, rises to 99, and ends with its file.
    """
    create(worker)
    job_id = create(worker, seconds=9)
    waiting = job(worker, job_id)
    assert (waiting["status"], waiting["progress"], waiting["seconds"]) == ("queued", 0, "1")
    assert waiting["urls"] is None
    worker.advance(8.1)
    worker.advance(4.05)
    running = job(worker, job_id)
    assert (running["status"], running["progress"]) == ("in_progress", 50)
    worker.advance(4.0)
    assert job(worker, job_id)["progress"] == 99
    worker.advance(0.1)
    done = job(worker, job_id)
    assert (done["status"], done["progress"], done["completed_at"]) == ("completed", 100, 16)
    assert (done["urls"], done["num_outputs"]) == ([None], 1)
    assert done["file_paths"] == [done["file_path"]]
    assert done["inference_time_s"] == pytest.approx(8.1)


def test_default_length(worker: MemoryWorker) -> None:
    """
    Without a length a video takes 4 s at 24 fps; few frames round down to "0" seconds.
    """
    answer = worker.post(VIDEOS, {"prompt": "x"}).json
    assert (answer["seconds"], answer["size"]) == ("4", "832x480")
    assert job(worker, create(worker, num_frames=5))["seconds"] == "0"


def test_content_is_a_playable_film(worker: MemoryWorker) -> None:
    """
    The file is H.264 in MP4 with the frames and the rate that were asked for.
    """
    job_id = create(worker, num_frames=30, fps=10)
    early = worker.get(f"{VIDEOS}/{job_id}/content")
    assert (early.status, early.detail) == (404, "Generation is still in-progress")
    worker.advance(100.0)
    content = worker.get(f"{VIDEOS}/{job_id}/content")
    assert content.body is not None
    assert content.headers["content-type"] == "video/mp4"
    assert content.headers["content-disposition"] == f'attachment; filename="{job_id}.mp4"'
    assert content.headers["accept-ranges"] == "bytes"
    with av.open(BytesIO(content.body), "r") as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", Fraction(10))
        assert len(list(film.decode(stream))) == 30
        assert film.duration is not None
        assert film.duration / av.time_base == pytest.approx(3.0, abs=0.15)
    part = worker.get(f"{VIDEOS}/{job_id}/content", headers={"range": "bytes=4-7"})
    assert (part.status, part.body) == (206, b"ftyp")


def test_film_size() -> None:
    """
    Encoded sides are even, keep the ratio, and stay below the limit.
    """
    assert film_size(1280, 720, 320) == (320, 180)
    assert film_size(1281, 721, 0) == (1280, 720)
    assert film_size(10, 4000, 320) == (16, 320)


def test_same_film_twice() -> None:
    """
    Equal scenes give equal bytes.
    """
    scene = Scene("a fox", "1", 64, 64)
    assert film_file(scene, 3, 24) == film_file(scene, 3, 24)


def test_variants(worker: MemoryWorker) -> None:
    """
    With n above 1 files are numbered, and content takes a variant.
    """
    job_id = create(worker, n=2)
    assert str(job(worker, job_id)["file_path"]).endswith(f"{job_id}.mp4")
    worker.advance(100.0)
    done = job(worker, job_id)
    assert str(done["file_path"]).endswith(f"{job_id}_0.mp4")
    assert done["urls"] == [None, None]
    bodies = [
        worker.get(f"{VIDEOS}/{job_id}/content{end}").body
        for end in ("", "?variant=0", "?variant=1")
    ]
    assert bodies[0] == bodies[1] != bodies[2]
    missing = worker.get(f"{VIDEOS}/{job_id}/content?variant=2")
    assert missing.detail == "Video variant 2 not found"
    assert worker.get(f"{VIDEOS}/{job_id}/content?variant=x").status == 422


def test_delete_only_forgets(worker: MemoryWorker) -> None:
    """
    DELETE answers once, and neither stops the work nor frees the GPU.
    """
    job_id = create(worker)
    deleted = worker.ask("DELETE", f"{VIDEOS}/{job_id}")
    assert (deleted.status, deleted.json["status"]) == (200, "deleted")
    assert worker.ask("DELETE", f"{VIDEOS}/{job_id}").detail == "Video not found"
    behind = create(worker)
    worker.advance(8.0)
    assert job(worker, behind)["status"] == "queued"
    worker.advance(0.2)
    assert job(worker, behind)["status"] == "in_progress"
    assert worker.worker.journal.generations_finished == 1


def test_list_pages(worker: MemoryWorker) -> None:
    """
    Lists are newest first by default, go on behind ``after``, and tell whether more follow.
    """
    ids = []
    for _ in range(3):
        ids.append(create(worker))
        worker.advance(2.0)
    first = worker.get(f"{VIDEOS}?limit=2").json
    assert [one["id"] for one in first["data"]] == [ids[2], ids[1]]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[2], ids[1], True)
    second = worker.get(f"{VIDEOS}?limit=2&after={ids[1]}").json
    assert ([one["id"] for one in second["data"]], second["has_more"]) == ([ids[0]], False)
    oldest = worker.get(f"{VIDEOS}?order=asc&limit=1").json
    assert oldest["first_id"] == ids[0]
    lost = worker.get(f"{VIDEOS}?after=nobody").json
    assert (lost["data"], lost["first_id"], lost["has_more"]) == ([], None, False)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up"])
def test_bad_pages(worker: MemoryWorker, query: str) -> None:
    """
    A limit outside 1 to 100 and an unknown order are 422.
    """
    assert worker.get(f"{VIDEOS}?{query}").status == 422


def test_ties_keep_their_order() -> None:
    """
    Jobs of one second stay in order of arrival, forwards and backwards.
    """
    jobs = Jobs()
    for name, created in (("a", 1.0), ("b", 2.1), ("c", 2.9)):
        jobs.put(Job(id=name, model="m", created=created, paths=(Path(name),)))
    assert [one.id for one in jobs.page(None, 9, newest_first=True)[0]] == ["b", "c", "a"]
    assert [one.id for one in jobs.page(None, 9, newest_first=False)[0]] == ["a", "b", "c"]


def test_bad_bodies(worker: MemoryWorker) -> None:
    """
    JSON errors are a 400 in words, even for a body that does not parse.
    """
    for body in (b"{", b"[]", b'{"fps": "fast", "prompt": "x"}'):
        answer = worker.ask("POST", VIDEOS, data=body, headers=JSON)
        assert answer.status == 400
        assert answer.detail.startswith("Invalid request body: ")


def multipart(worker: MemoryWorker, text: str) -> Answer:
    body = text.replace("\n", "\r\n").encode()
    headers = {"content-type": "multipart/form-data; boundary=cut"}
    return worker.ask("POST", VIDEOS, data=body, headers=headers)


def test_multipart() -> None:
    """
    Multipart works as JSON does, with a 400 for no prompt and a 422 for a wrong type.
    """
    worker = MemoryWorker(SimulatorSettings(model="wan2.2-ti2v-5b"))
    part = '--cut\nContent-Disposition: form-data; name="{}"\n\n{}\n'
    file = (
        '--cut\nContent-Disposition: form-data; name="input_reference"; filename="x.png"\n\nPNG\n'
    )
    good = multipart(worker, part.format("prompt", "x") + file + "--cut--\n")
    assert (good.status, good.json["status"]) == (200, "queued")
    no_prompt = multipart(worker, part.format("n", "1") + "--cut--\n")
    assert (no_prompt.status, no_prompt.detail) == (400, "prompt is required")
    assert multipart(worker, part.format("n", "x") + "--cut--\n").status == 422


def test_extra_body_is_flattened(worker: MemoryWorker) -> None:
    """
    Fields in ``extra_body`` count, and lose against those at the top.
    """
    job_id = create(worker, extra_body={"num_frames": 240, "size": "640x480"})
    assert (job(worker, job_id)["seconds"], job(worker, job_id)["size"]) == ("1", "640x480")


def test_wrong_models(worker: MemoryWorker) -> None:
    """
    An image model refuses videos; a text model refuses input images; I2V needs one.
    """
    images = MemoryWorker(SimulatorSettings(model="z-image"))
    text = "This pipeline does not support VIDEO output; supported task types: ['T2I']"
    assert images.post(VIDEOS, SHORT).detail == text
    given = worker.post(VIDEOS, {**SHORT, "reference_url": PIXEL})
    assert given.detail == "input_reference is not supported for T2V models."
    needy = MemoryWorker(SimulatorSettings(model="wan2.1-i2v"))
    assert needy.post(VIDEOS, SHORT).status == 400
    assert needy.post(VIDEOS, {**SHORT, "reference_url": PIXEL}).status == 200


def test_one_model_for_images_and_videos() -> None:
    """
    A model with both outputs serves both.
    """
    worker = MemoryWorker(SimulatorSettings(model="cosmos3", speed=10))
    assert worker.get("/model_info").json["output_types"] == ["IMAGE", "VIDEO"]
    assert worker.post(VIDEOS, SHORT).status == 200
    answer = worker.post("/v1/images/generations", {"prompt": "x", "size": "64x64"})
    assert worker.finish(answer).json["data"][0]["b64_json"]


def test_asleep(worker: MemoryWorker) -> None:
    """
    While asleep videos are accepted, and then fail.
    """
    worker.finish(worker.post("/release_memory_occupation"))
    job_id = create(worker)
    worker.advance(0.0)
    failed = job(worker, job_id)
    assert (failed["status"], failed["file_path"]) == ("failed", None)
    error = {"message": f"Model generation failed. Error from scheduler: {ASLEEP}"}
    assert failed["error"] == error
    content = worker.get(f"{VIDEOS}/{job_id}/content")
    assert (content.status, content.detail) == (404, "Video variant None not found")


def test_served_name(worker: MemoryWorker) -> None:
    """
    Jobs and cards show the served name, everything else the path.
    """
    worker = MemoryWorker(
        SimulatorSettings(model="wan2.1-t2v-1.3b", served_model_name="wan", speed=10)
    )
    assert job(worker, create(worker))["model"] == "wan"
    assert worker.get("/v1/models/wan").json["root"] == "wan"
    assert worker.get("/model_info").json["model_path"] == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


def test_mesh() -> None:
    """
    A mesh job has no progress and ends in a valid GLB.
    """
    worker = MemoryWorker(SimulatorSettings(model="hunyuan3d"))
    answer = worker.post("/v1/meshes", {"input_image": PIXEL}).json
    url = f"/v1/meshes/{answer['id']}"
    assert (answer["object"], answer["status"], answer["format"]) == ("mesh", "queued", "glb")
    worker.advance(200.0)
    assert worker.get(url).json["progress"] == 0
    assert worker.get(f"{url}/content").status == 404
    worker.advance(40.0)
    done = worker.get(url).json
    content = worker.get(f"{url}/content")
    assert content.body is not None
    assert content.headers["content-type"] == "model/gltf-binary"
    magic, version, length = struct.unpack("<4sII", content.body[:12])
    assert (magic, version) == (b"glTF", 2)
    assert length == len(content.body) == done["file_size_bytes"]
    assert worker.get("/v1/meshes").json["data"] == [done]
    assert worker.ask("DELETE", url).json["status"] == "deleted"
    assert worker.get(url).status == 404


def test_mesh_refusals() -> None:
    """
    A mesh needs an image (422) and a mesh model (plain-text 500).
    """
    worker = MemoryWorker(SimulatorSettings(model="hunyuan3d"))
    assert worker.post("/v1/meshes", {"prompt": "x"}).status == 422
    other = MemoryWorker(SimulatorSettings(model="qwen-image"))
    answer = other.post("/v1/meshes", {"input_image": PIXEL})
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
