"""
Every route of the router as a user calls it, over real sockets.
"""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
import pytest_twisted
from PIL import Image
from werkzeug.exceptions import HTTPException

from sgl_droute.api.routes import RouterAPI
from tests.errors import unknown
from tests.integration.fleet import (
    IMAGE,
    MESH,
    VIDEO,
    Fleet,
    finished,
    made,
    running_fleet,
)
from tests.integration.sockets import connect
from tests.memory import Reply

MODELS = ("qwen-image", "flux.2-klein", "wan2.1-t2v-1.3b", "hunyuan3d")


def png(width: int = 64, height: int = 64) -> bytes:
    """
    A picture as a client uploads it.
    """
    file = BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "PNG")
    return file.getvalue()


class Session:
    """
    A client's session with a fleet of one worker per kind; it keeps which routes it used.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.used: set[str] = set()
        self.text, self.edit, self.video, self.mesh = fleet.stations
        self._table = RouterAPI.routes.url_map.bind("router")

    async def ask(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Reply:
        answer = await self.fleet.ask(method, path, **kwargs)
        assert answer.status == status, answer.body
        self._note(method, path)
        return answer

    async def json(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        return (await self.ask(method, path, status, **kwargs)).json

    async def error(self, method: str, path: str, status: int, **kwargs: Any) -> dict[str, Any]:
        return (await self.ask(method, path, status, **kwargs)).error

    async def endless(self, path: str, until: bytes) -> bytes:
        """
        An answer that goes on, as far as *until*.
        """
        client = await connect(self.fleet.router.port)
        client.write(b"GET %s HTTP/1.1\r\nHost: router\r\n\r\n" % path.encode())
        received = await client.until_received(until)
        client.transport.loseConnection()
        self._note("GET", path)
        return received

    def _note(self, method: str, path: str) -> None:
        endpoint, _ = self._table.match(path.partition("?")[0], method)
        self.used.add(endpoint)


async def _work(session: Session) -> None:
    ask = session.json
    for path in ("/generate", "/v1/images/generations"):
        answer = await ask("POST", path, json={**IMAGE, "response_format": "b64_json"})
        image = Image.open(BytesIO(b64decode(answer["data"][0]["b64_json"])))
        assert image.size == (64, 64)
    for path in ("/generate_video", "/v1/videos"):
        assert (await ask("POST", path, json=VIDEO))["object"] == "video"
    edited = await ask(
        "POST",
        "/v1/images/edits",
        data={"prompt": "a fox", "size": "64x64"},
        files={"image": ("a.png", BytesIO(png()))},
    )
    assert edited["data"][0]["b64_json"]
    assert (await ask("POST", "/v1/meshes", json=MESH))["object"] == "mesh"
    rollout = await session.ask("POST", "/rollout/generate", json={**IMAGE, "seed": 7})
    assert rollout.headers.getRawHeaders("content-type") == ["application/msgpack"]
    [sample] = msgpack.unpackb(rollout.body)
    assert sample["seed"] == 7
    predicted = await ask("POST", "/vertex_generate", json={"instances": [IMAGE]})
    assert predicted["predictions"][0]["output"]
    for station in session.fleet.stations:
        rule = {"path": "/v1/diffusion", "status": 200, "body": {"output_b64": "x"}}
        station.order(rules=[rule])
    answer = await ask("POST", "/v1/diffusion/generate", json=IMAGE)
    assert answer == {"output_b64": "x"}
    refused = await session.error("POST", "/v1/actions/generations", 400, json={})
    assert refused == {
        "error": "No action-capable workers available in current worker pool.",
        "reason": "no_capable_worker",
    }
    # Without a handshake it is a path like any other.
    await session.ask("GET", "/v1/realtime_video/generate", 404)


async def _held(session: Session) -> None:
    ask = session.json
    fleet = session.fleet
    image = await ask("POST", "/v1/images/generations", json={**IMAGE, "n": 2})
    for part in image["data"]:
        content = await session.ask("GET", part["url"])
        assert Image.open(BytesIO(content.body)).size == (64, 64)
    for path, wish, kind, box in (
        ("/v1/videos", VIDEO, "video", b"ftyp"),
        ("/v1/meshes", MESH, "mesh", b"glTF"),
    ):
        id = await made(fleet, path, wish)
        assert (await finished(fleet, f"{path}/{id}"))["status"] == "completed"
        record = await ask("GET", f"{path}/{id}")
        for name in (f"{kind}_id", "id", "job_id"):
            assert await ask("GET", f"{path}?{name}={id}") == record
        assert box in (await session.ask("GET", f"{path}/{id}/content")).body[:12]
        assert (await ask("DELETE", f"{path}/{id}"))["status"] == "deleted"
        assert await session.error("GET", f"{path}/{id}", 404) == unknown(kind)


async def _lists(session: Session) -> None:
    ask = session.json
    for path, wish in (("/v1/videos", VIDEO), ("/v1/meshes", MESH)):
        ids = [await made(session.fleet, path, wish) for _ in range(2)]
        page = await ask("GET", f"{path}?order=asc&limit=100")
        assert [row["id"] for row in page["data"]][-2:] == ids
        assert (page["last_id"], page["has_more"]) == (ids[1], False)
    names = [station.worker.settings.public_name for station in session.fleet.stations]
    assert [card["id"] for card in (await ask("GET", "/v1/models"))["data"]] == names
    for name in names:
        assert (await ask("GET", f"/v1/models/{name}"))["id"] == name
    assert await session.error("GET", "/v1/models/no/such", 404) == {
        "error": "The model 'no/such' does not exist",
        "reason": "not_found",
    }


async def _orders(session: Session) -> None:
    lora = {"lora_nickname": "ink", "lora_path": "me/ink"}
    tensors = {"serialized_named_tensors": ["x"]}
    for path, body in (
        ("/v1/set_lora", lora),
        ("/v1/unmerge_lora_weights", {}),
        ("/v1/merge_lora_weights", {}),
        ("/update_weights_from_disk", {"model_path": "me/weights"}),
        ("/update_weights_from_tensor", tensors),
        ("/update_weights_from_tensor_checker", tensors),
        ("/get_weights_checksum", {}),
        ("/release_memory_occupation", None),
        ("/resume_memory_occupation", None),
    ):
        results = (await session.json("POST", path, json=body))["results"]
        asked = [(each["worker_url"], each["status_code"]) for each in results]
        assert asked == [(station.url, 200) for station in session.fleet.stations]
    loaded = (await session.json("GET", "/v1/list_loras"))["loaded_adapters"]
    assert loaded == [{"nickname": "ink", "path": "me/ink"}]


async def _weights(session: Session) -> None:
    urls = [station.url for station in session.fleet.stations]
    shown = await session.json("GET", "/weights")
    assert (shown["epoch"], shown["durable"], shown["interrupted"]) == (5, False, None)
    assert [(each["url"], each["state"]) for each in shown["workers"]] == [
        (url, "current") for url in urls
    ]
    verified = await session.json("POST", "/weights/verify")
    assert (verified["consistent"], verified["stale"]) == (True, [])
    assert len(verified["models"]) == len(urls)
    refused = await session.error("POST", "/weights/resolve", 409, json={"action": "retry"})
    assert refused == {"error": "No update was interrupted", "reason": "conflict"}


async def _workers(session: Session) -> None:
    ask = session.json
    *_, mesh = session.fleet.stations
    urls = [station.url for station in session.fleet.stations]
    listed = (await ask("GET", "/workers"))["workers"]
    assert [worker["url"] for worker in listed] == urls
    assert [worker["video_support"] for worker in listed] == [False, False, True, False]
    changed = await ask("PUT", f"/workers/{mesh.id}", json={"draining": True})
    assert changed["worker"]["state"] == "draining"
    assert (await ask("GET", f"/workers/{mesh.id}"))["worker"] == changed["worker"]
    gone = await ask("DELETE", f"/workers/{mesh.id}")
    assert gone == {"status": "success", "worker_id": mesh.id, "state": "removed"}
    assert await session.error("GET", f"/workers/{mesh.id}", 404) == {
        "error": f"Worker {mesh.url} is not registered",
        "reason": "not_found",
    }
    assert (await ask("POST", "/workers", json={"url": mesh.url}))["worker"]["url"] == mesh.url
    removed = await ask("POST", f"/remove_worker?url={mesh.url}")
    assert removed["worker_urls"] == urls[:-1]
    assert (await ask("POST", f"/add_worker?url={mesh.url}"))["worker_urls"] == urls


async def _router(session: Session) -> None:
    ask = session.json
    urls = [station.url for station in session.fleet.stations]
    assert await ask("GET", "/list_workers") == {"urls": urls}
    assert await ask("GET", "/liveness") == {"status": "ok"}
    for path in ("/health", "/health_generate"):
        assert await ask("GET", path) == {
            "status": "healthy",
            "healthy_workers": 4,
            "dead_workers": 0,
            "sleeping_workers": 0,
            "total_workers": 4,
            # Nothing brings an update from tensors to a worker that is registered after it.
            "weights_epoch": 5,
            "stale_workers": 1,
        }
    shown = (await ask("GET", "/health_workers"))["workers"]
    assert [worker["url"] for worker in shown] == urls
    assert (await ask("GET", "/server_info"))["version"]
    assert (await ask("GET", "/queue"))["waiting"] == []
    for method, path in (("DELETE", "/queue/x"), ("GET", "/rollouts/x"), ("DELETE", "/rollouts/x")):
        await session.ask(method, path, status=404)
    assert (await ask("GET", "/config"))["options"]["fair"]["changeable"] is True
    reloaded = await ask("POST", "/reload")
    assert (reloaded["status"], reloaded["changed"]) == ("success", [])
    for path, name in (("/metrics", b"sgl_droute_"), ("/engine_metrics", b'worker="')):
        assert name in (await session.ask("GET", path)).body
    for path, event in (("/events", b"event: hello\n"), ("/dashboard/stream", b"event: state\n")):
        told = await session.endless(path, until=event)
        assert b"\r\nContent-Type: text/event-stream" in told
    assert b"<!doctype html>" in (await session.ask("GET", "/dashboard")).body.lower()
    assert (await session.ask("GET", "/dashboard/app.js")).body
    await session.ask("GET", "/dashboard/", 308)
    assert (await ask("GET", "/openapi.json"))["openapi"].startswith("3.")


@pytest_twisted.ensureDeferred
async def test_every_route() -> None:
    """
    Every route of the table gives its answer, and work goes to a worker that can do it.
    """
    async with running_fleet(*MODELS) as fleet:
        session = Session(fleet)
        for part in (_work, _held, _lists, _orders, _weights, _workers, _router):
            await part(session)
        rules = RouterAPI.routes.url_map.iter_rules()
        # Names with a space are companions of the routes: "405 /path", "OPTIONS /path".
        assert {rule.endpoint for rule in rules if " " not in rule.endpoint} == session.used
        asked = [
            {line for line in station.asked if line.startswith("POST /v1/")}
            for station in fleet.stations
        ]
        work = {"POST /v1/images/edits", "POST /v1/videos", "POST /v1/meshes"}
        assert [each & work for each in asked] == [
            set(),
            {"POST /v1/images/edits"},
            {"POST /v1/videos"},
            {"POST /v1/meshes"},
        ]
        makers = ["POST /v1/images/generations" in each for each in asked]
        assert makers == [True, True, False, False]


@pytest_twisted.ensureDeferred
async def test_other_methods() -> None:
    """
    On every path of the table a method that it has not is answered 405 with those that it has, and
    reaches no worker.
    """
    async with running_fleet("cosmos3") as fleet:
        [station] = fleet.stations
        table = RouterAPI.routes.url_map.bind("router")
        for rule in RouterAPI.routes.url_map.iter_rules():
            path = re.sub("<.*?>", "x", rule.rule)
            try:
                endpoint, _ = table.match(path, "PATCH")
            except HTTPException:
                continue
            if endpoint.startswith("405"):
                answer = await fleet.ask("PATCH", path)
                assert answer.status == 405, path
                assert answer.headers.getRawHeaders("allow")
        assert station.asked == []


@pytest_twisted.ensureDeferred
async def test_ranges_of_a_video() -> None:
    """
    A video comes whole, in parts with 206, and 416 behind its end, as its worker sends it; an
    unchanged one need not be the first.
    """
    async with running_fleet("wan2.1-t2v-1.3b", "wan2.1-t2v-1.3b") as fleet:
        id = await made(fleet, "/v1/videos", VIDEO)
        await finished(fleet, f"/v1/videos/{id}")
        path = f"/v1/videos/{id}/content"
        whole = await fleet.ask("GET", path)
        size = len(whole.body)
        assert (whole.status, whole.headers.getRawHeaders("content-type")) == (200, ["video/mp4"])
        assert whole.headers.getRawHeaders("accept-ranges") == ["bytes"]
        [etag] = whole.headers.getRawHeaders("etag", [])
        parts = [(0, 99), (100, size - 1)]
        body = b""
        for first, last in parts:
            wanted = {"Range": f"bytes={first}-{last}", "If-Range": etag}
            part = await fleet.ask("GET", path, headers=wanted)
            assert part.status == 206
            assert part.headers.getRawHeaders("content-range") == [f"bytes {first}-{last}/{size}"]
            body += part.body
        assert body == whole.body
        stale = await fleet.ask("GET", path, headers={"Range": "bytes=0-9", "If-Range": '"x"'})
        assert (stale.status, stale.body) == (200, whole.body)
        behind = await fleet.ask("GET", path, headers={"Range": f"bytes={size}-"})
        assert (behind.status, behind.body) == (416, b"")
        assert behind.headers.getRawHeaders("content-range") == [f"bytes */{size}"]


@pytest.mark.parametrize(
    ("collection", "wish", "tail"),
    [
        ("/v1/videos", VIDEO, ""),
        ("/v1/videos", VIDEO, "/content"),
        ("/v1/meshes", MESH, ""),
        ("/v1/meshes", MESH, "/content"),
        ("/v1/images", IMAGE, "/content"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_head(collection: str, wish: dict[str, Any], tail: str) -> None:
    """
    HEAD of an id goes to its owner, whose answer comes back with its headers and without a body.
    """
    model = {"/v1/videos": "cosmos3", "/v1/meshes": "hunyuan3d", "/v1/images": "cosmos3"}
    async with running_fleet(*[model[collection]] * 3) as fleet:
        create = "/v1/images/generations" if collection == "/v1/images" else collection
        id = await made(fleet, create, {**wish, "response_format": "url"})
        [owner] = [each for each in fleet.stations if each.asked]
        if collection != "/v1/images":
            await finished(fleet, f"{collection}/{id}")
        path = f"{collection}/{id}{tail}"
        answer = await fleet.ask("HEAD", path)
        assert [f"HEAD {path}" in each.asked for each in fleet.stations] == [
            each is owner for each in fleet.stations
        ]
        # Workers of this release have no HEAD.
        assert (answer.status, answer.body) == (405, b"")
        assert answer.headers.getRawHeaders("allow") == ["GET"]
