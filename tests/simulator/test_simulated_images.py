"""
``/v1/images`` of a simulated worker.
"""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image

from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.testing import Answer, MemoryWorker

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
SMALL = {"prompt": "a red fox", "size": "96x64", "num_inference_steps": 2}
JSON = {"content-type": "application/json"}


@pytest.fixture
def worker() -> MemoryWorker:
    return MemoryWorker(SimulatorSettings(model="flux.2-dev", speed=100))


def picture(worker: MemoryWorker, **fields: object) -> bytes:
    body = {**SMALL, "response_format": "b64_json", **fields}
    answer = worker.finish(worker.post(GENERATIONS, body))
    return base64.b64decode(answer.json["data"][0]["b64_json"])


def form(**fields: str | bytes) -> tuple[bytes, dict[str, str]]:
    """
    A multipart body with text fields (str) and files (bytes).
    """
    parts = []
    for name, value in fields.items():
        name_and_file = f'name="{name}"' + (
            '; filename="x.png"' if isinstance(value, bytes) else ""
        )
        content = value if isinstance(value, bytes) else value.encode()
        head = f"--cut\r\nContent-Disposition: form-data; {name_and_file}\r\n\r\n"
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + b"--cut--\r\n", {"content-type": "multipart/form-data; boundary=cut"}


def edit(worker: MemoryWorker, **fields: str | bytes) -> Answer:
    body, headers = form(**fields)
    return worker.ask("POST", EDITS, data=body, headers=headers)


def test_answer_names_every_field(worker: MemoryWorker) -> None:
    """
    The answer has all keys of a real one, with a relative url and an absolute path.
    """
    answer = worker.finish(worker.post(GENERATIONS, SMALL)).json
    assert list(answer) == ["id", "created", "data", "peak_memory_mb", "inference_time_s", "usage"]
    (datum,) = answer["data"]
    assert list(datum) == ["b64_json", "url", "revised_prompt", "file_path", "resize"]
    assert datum["url"] == f"/v1/images/{answer['id']}/content"
    assert datum["file_path"].startswith("/")
    assert datum["file_path"].endswith(f"{answer['id']}.jpg")


@pytest.mark.parametrize(
    ("wanted", "kind", "media_type"),
    [
        (None, "JPEG", "image/jpeg"),
        ("jpeg", "JPEG", "image/jpeg"),
        ("png", "PNG", "image/png"),
        ("webp", "WEBP", "image/webp"),
    ],
)
def test_formats(worker: MemoryWorker, wanted: str | None, kind: str, media_type: str) -> None:
    """
    Files are what they say, of the size asked for; JPEG by default.
    """
    answer = worker.finish(worker.post(GENERATIONS, {**SMALL, "output_format": wanted}))
    content = worker.get(answer.json["data"][0]["url"])
    assert content.headers["content-type"] == media_type
    assert content.body is not None
    with Image.open(BytesIO(content.body)) as image:
        image.load()
        assert (image.format, image.size) == (kind, (96, 64))


def test_png_is_not_compressed(worker: MemoryWorker) -> None:
    """
    A 1024x1024 PNG weighs 3.15 MB, as real ones do, unless compression is asked for.
    """
    assert len(picture(worker, size="1024x1024", output_format="png")) == pytest.approx(
        3_150_000, rel=0.01
    )
    squeezed = picture(worker, size="1024x1024", output_format="png", output_compression=50)
    assert len(squeezed) < 1_000_000


def test_same_request_same_picture(worker: MemoryWorker) -> None:
    """
    Equal requests give equal bytes, on any worker; prompt, seed and steps change them.
    """
    plain = picture(worker)
    other = MemoryWorker(SimulatorSettings(model="flux.2-dev", speed=7))
    assert plain == picture(worker, seed=42) == picture(other)
    different: list[dict[str, object]] = [
        {"prompt": "a cat"},
        {"seed": 43},
        {"num_inference_steps": 3},
    ]
    assert len({plain, *(picture(worker, **fields) for fields in different)}) == 4


def test_weights_change_pictures(worker: MemoryWorker) -> None:
    """
    A weight update or an adapter changes pictures, and taking the adapter out restores them.
    """
    plain = picture(worker)
    worker.finish(worker.post("/v1/set_lora", {"lora_nickname": "x", "lora_path": "p"}))
    adapted = picture(worker)
    worker.finish(worker.post("/v1/unmerge_lora_weights", {}))
    assert picture(worker) == plain
    worker.finish(worker.post("/update_weights_from_disk", {"model_path": "step-2"}))
    assert len({plain, adapted, picture(worker)}) == 3


def test_variants(worker: MemoryWorker) -> None:
    """
    With n above 1 every output has its own url; n is clamped to 10 without an error.
    """
    answer = worker.finish(worker.post(GENERATIONS, {**SMALL, "n": 99})).json
    urls = [datum["url"] for datum in answer["data"]]
    assert urls == [f"/v1/images/{answer['id']}/content?variant={k}" for k in range(10)]
    assert len({worker.get(url).body for url in urls}) == 10
    missing = worker.get(f"/v1/images/{answer['id']}/content?variant=10")
    assert (missing.status, missing.detail) == (404, "Image variant 10 not found")


def test_ranges(worker: MemoryWorker) -> None:
    """
    Content is served in ranges; If-Range with another etag gives it whole; none is a 416.
    """
    url = worker.finish(worker.post(GENERATIONS, SMALL)).json["data"][0]["url"]
    whole = worker.get(url)
    assert whole.body is not None
    size = len(whole.body)
    part = worker.get(url, headers={"range": "bytes=10-19"})
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    tail = worker.get(url, headers={"range": "bytes=-5", "if-range": whole.headers["etag"]})
    assert tail.body == whole.body[-5:]
    stale = worker.get(url, headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert (stale.status, stale.body) == (200, whole.body)
    beyond = worker.get(url, headers={"range": f"bytes={size}-"})
    assert (beyond.status, beyond.body) == (416, b"")
    assert beyond.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"size": "auto"}, "size must be formatted as positive WIDTHxHEIGHT"),
        ({"size": "0x10"}, "size must be formatted as positive WIDTHxHEIGHT"),
        ({"response_format": "file"}, "response_format must be"),
        ({"quality": "hd"}, "quality must be one of"),
        ({"num_inference_steps": 0}, "num_inference_steps must be"),
        ({"task_type": "T2V"}, "task_type 'T2V' is not supported"),
        ({"enhance_prompt": True}, "enhance_prompt requires"),
    ],
)
def test_refused_values(worker: MemoryWorker, fields: dict[str, object], text: str) -> None:
    """
    A value that the worker does not take is a 400 before any GPU work.
    """
    answer = worker.post(GENERATIONS, {**SMALL, **fields})
    assert answer.status == 400
    assert text in answer.detail
    assert worker.worker.journal.generations_started == 0


def test_schema_violations(worker: MemoryWorker) -> None:
    """
    Missing and ill-typed fields are a 422 that lists them all.
    """
    answer = worker.post(GENERATIONS, {"n": "many"})
    assert answer.status == 422
    missing, wrong = answer.detail
    assert missing == {
        "type": "missing",
        "loc": ["body", "prompt"],
        "msg": "Field required",
        "input": {"n": "many"},
    }
    assert (wrong["type"], wrong["loc"]) == ("int_parsing", ["body", "n"])


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{", "json_invalid"), (b"[]", "model_attributes_type"), (b"", "missing")],
)
def test_bodies_that_are_no_object(worker: MemoryWorker, body: bytes, kind: str) -> None:
    """
    A body that does not parse, or to something else, is a 422 of its own kind.
    """
    answer = worker.ask("POST", GENERATIONS, data=body, headers=JSON)
    assert (answer.status, answer.detail[0]["type"]) == (422, kind)


def test_any_model_name_is_accepted(worker: MemoryWorker) -> None:
    """
    ``model`` and fields that nobody knows are ignored.
    """
    body = {**SMALL, "model": "dall-e-3", "user": "x", "surprise": [1]}
    assert worker.finish(worker.post(GENERATIONS, body)).status == 200


def test_models_without_batches() -> None:
    """
    Z-Image fails with n above 1: a plain-text 500, as every failure of the GPU process.
    """
    worker = MemoryWorker(SimulatorSettings(model="z-image-turbo", speed=100))
    answer = worker.finish(worker.post(GENERATIONS, {**SMALL, "n": 2}))
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_seed_list_must_fit(worker: MemoryWorker) -> None:
    """
    A list of seeds needs one per output, or the generation fails.
    """
    assert worker.finish(worker.post(GENERATIONS, {**SMALL, "n": 2, "seed": [1]})).status == 500
    assert worker.finish(worker.post(GENERATIONS, {**SMALL, "n": 2, "seed": [1, 2]})).status == 200


def test_video_models_refuse_images() -> None:
    """
    A worker that makes no images says which tasks it has.
    """
    worker = MemoryWorker(SimulatorSettings(model="wan2.1-t2v-1.3b"))
    answer = worker.post(GENERATIONS, SMALL)
    text = "This pipeline does not support IMAGE output; supported task types: ['T2V']"
    assert (answer.status, answer.detail) == (400, text)


def test_edit(worker: MemoryWorker) -> None:
    """
    An edit answers base64 by default, in the aspect ratio of its input.
    """
    source = picture(worker, size="128x64")
    answer = worker.finish(edit(worker, prompt="make it blue", image=source))
    assert answer.json["data"][0]["url"] is None
    with Image.open(BytesIO(base64.b64decode(answer.json["data"][0]["b64_json"]))) as image:
        assert image.size == (1440, 736)


def test_edit_from_data_url(worker: MemoryWorker) -> None:
    """
    Inputs may be data urls; a broken one is a 400.
    """
    url = "data:image/png;base64," + base64.b64encode(picture(worker)).decode()
    assert worker.finish(edit(worker, prompt="x", url=url, size="64x64")).status == 200
    assert edit(worker, prompt="x", url="ftp://x").status == 400


def test_edit_refusals(worker: MemoryWorker) -> None:
    """
    No image is a 422 in words, no prompt a 422 in detail, a text part over 1 MiB a 400.
    """
    no_image = edit(worker, prompt="x")
    assert (no_image.status, no_image.detail) == (422, "Field 'image' or 'url' is required")
    no_prompt = edit(worker, image=b"x")
    assert no_prompt.detail[0]["loc"] == ["body", "prompt"]
    assert no_prompt.detail[0]["input"] is None
    long = edit(worker, prompt="x" * (1024 * 1024 + 1))
    assert (long.status, long.detail) == (400, "Part exceeded maximum size of 1024KB.")
    other = MemoryWorker(SimulatorSettings(model="flux.1-dev"))
    refused = edit(other, prompt="x", image=b"x")
    assert refused.detail == "input_reference is not supported for T2I models."


def test_no_files_kept() -> None:
    """
    Without an output path there are no urls, but base64 works and leaves nothing.
    """
    worker = MemoryWorker(SimulatorSettings(model="flux.2-dev", speed=100, output_path=""))
    refused = worker.post(GENERATIONS, SMALL)
    text = "response_format='url' requires cloud storage to be configured."
    assert (refused.status, refused.detail) == (400, text)
    answer = worker.finish(worker.post(GENERATIONS, {**SMALL, "response_format": "b64_json"}))
    assert answer.json["data"][0]["file_path"] is None
    assert worker.get(f"/v1/images/{answer.json['id']}/content").detail == "Image not found"


def test_pictures_are_reused() -> None:
    """
    ``pictures`` bounds how many different files there are.
    """
    worker = MemoryWorker(SimulatorSettings(model="flux.2-klein", speed=100, pictures=2))
    assert len({picture(worker, seed=seed) for seed in range(12)}) == 2
