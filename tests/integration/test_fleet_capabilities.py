"""
A fleet of different workers: work goes to those that can do it.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve

from tests.errors import incapable
from tests.integration.fleet import IMAGE, MESH, VIDEO, Fleet, routed, running_fleet, standing

MIX = ("flux.1-dev", "z-image-turbo", "wan2.1-t2v-1.3b", "hunyuan3d")
NAMES = (
    "black-forest-labs/FLUX.1-dev",
    "Tongyi-MAI/Z-Image-Turbo",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "tencent/Hunyuan3D-2",
)


def counts(fleet: Fleet, *paths: str) -> list[int]:
    """
    How many POSTs to *paths* each worker got.
    """
    lines = [f"POST {path}" for path in paths]
    return [sum(map(station.asked.count, lines)) for station in fleet.stations]


@pytest_twisted.ensureDeferred
async def test_a_mix() -> None:
    """
    With two image workers, one for video and one for meshes, each request reaches a worker of its
    kind and no other.
    """
    async with running_fleet(*MIX) as fleet:
        for path, wish, expected in (
            ("/v1/images/generations", IMAGE, [3, 3, 0, 0]),
            ("/generate", IMAGE, [6, 6, 0, 0]),
            ("/v1/videos", VIDEO, [0, 0, 6, 0]),
            ("/generate_video", VIDEO, [0, 0, 12, 0]),
            ("/v1/meshes", MESH, [0, 0, 0, 6]),
        ):
            for _ in range(6):
                assert (await fleet.ask("POST", path, json=wish)).status == 200
            if "video" in path:
                assert counts(fleet, "/v1/videos") == expected
            elif "meshes" in path:
                assert counts(fleet, "/v1/meshes") == expected
            else:
                assert counts(fleet, "/v1/images/generations") == expected


@pytest_twisted.ensureDeferred
async def test_nobody_is_able() -> None:
    """
    Where nobody can do it the router says so with 400 and asks no worker; an image goes to a worker
    all the same, whose own answer comes back.
    """
    async with running_fleet("z-image-turbo", "flux.1-dev") as fleet:
        for path, wish, kind in (
            ("/v1/videos", VIDEO, "video"),
            ("/generate_video", VIDEO, "video"),
            ("/v1/meshes", MESH, "mesh"),
            ("/v1/actions/generations", {}, "action"),
        ):
            answer = await fleet.ask("POST", path, json=wish)
            assert (answer.status, answer.error) == (400, incapable(kind))
        assert [station.asked for station in fleet.stations] == [[], []]
    async with running_fleet("wan2.1-t2v-1.3b") as fleet:
        answer = await fleet.ask("POST", "/v1/images/generations", json=IMAGE)
        assert answer.status == 400
        assert answer.json["detail"].startswith("This pipeline does not support IMAGE output")


@pytest_twisted.ensureDeferred
async def test_an_empty_pool() -> None:
    """
    An empty pool has nobody for videos, meshes and actions (400), and nobody at all (503).
    """
    async with running_fleet() as fleet:
        for path, kind in (
            ("/v1/videos", "video"),
            ("/v1/meshes", "mesh"),
            ("/v1/actions/generations", "action"),
        ):
            answer = await fleet.ask("POST", path, json={"prompt": "x"})
            assert (answer.status, answer.error) == (400, incapable(kind))
        for path in ("/v1/images/generations", "/rollout/generate", "/vertex_generate"):
            answer = await fleet.ask("POST", path, json=IMAGE)
            assert answer.status == 503
            assert answer.json["error"]


@pytest_twisted.ensureDeferred
async def test_the_able_ones_are_not_eligible() -> None:
    """
    When the only able worker drains, sleeps or is dead, the answer is 503 and others get nothing.
    """
    async with running_fleet(*MIX) as fleet:
        *others, _ = fleet.stations
        video = fleet.stations[2]
        for change, word in (
            ({"draining": True}, "draining"),
            ({"draining": False, "disabled": True}, "disabled"),
            ({"disabled": False, "is_dead": True}, "dead"),
        ):
            await fleet.ask("PUT", f"/workers/{video.id}", json=change)
            answer = await fleet.ask("POST", "/v1/videos", json=VIDEO)
            assert answer.status == 503
            assert word in answer.json["error"]
        assert [station.asked for station in others] == [[], [], []]
        recovered = await fleet.ask("PUT", f"/workers/{video.id}", json={"is_dead": False})
        assert recovered.json["worker"]["state"] == "ready"
        assert (await fleet.ask("POST", "/v1/videos", json=VIDEO)).status == 200


@pytest_twisted.ensureDeferred
async def test_an_action_worker() -> None:
    """
    A worker that reports actions gets them, whatever the path below ``/v1/actions``.
    """
    async with standing("flux.1-dev", "flux.1-dev") as stations:
        able = stations[1]
        info = {"model_path": "me/vla", "supported_task_types": ["VLA_ACTION"]}
        actions = {"path": "/v1/actions", "status": 200, "body": {"action": [1]}}
        able.order(
            rules=[
                {"path": "/model_info", "status": 200, "body": info},
                {"path": "/v1/models", "status": 500},
                actions,
            ]
        )
        async with routed(stations) as fleet:
            posted = await fleet.ask("POST", "/v1/actions/generations", json={})
            got = await fleet.ask("GET", "/v1/actions/metadata")
            assert posted.json == got.json == {"action": [1]}
            shown = await fleet.shown(able)
            assert (shown["capabilities"], shown["model"]) == (["action"], "me/vla")
            # Nobody is able to make images now but the other one.
            for _ in range(4):
                assert (await fleet.ask("POST", "/generate", json=IMAGE)).status == 200
            assert counts(fleet, "/v1/images/generations") == [4, 0]


def _multipart(model: str) -> dict[str, Any]:
    fields = {**{name: str(value) for name, value in VIDEO.items()}, "model": model}
    return {"data": fields, "files": {"ignored": ("a.txt", BytesIO(b"x" * 100_000))}}


def _json(model: str) -> dict[str, Any]:
    return {"json": {**VIDEO, "model": model}}


@pytest.mark.parametrize("form", [_json, _multipart], ids=["json", "multipart"])
@pytest_twisted.ensureDeferred
async def test_a_model_by_its_name(form: Any) -> None:
    """
    Among several models the request's own chooses the worker, by path or served name; a name that
    nobody serves goes to any able worker.
    """
    models = ("wan2.1-t2v-1.3b", "fasthunyuan", "z-image-turbo")
    async with standing(*models) as stations:
        await stations[1].stop()
        stations[1].settings = evolve(stations[1].settings, served_model_name="my-videos")
        stations[1].start()
        async with routed(stations) as fleet:
            for name, expected in (
                ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", [4, 0, 0]),
                ("my-videos", [4, 4, 0]),
                ("FastVideo/FastHunyuan-diffusers", [4, 8, 0]),
            ):
                for _ in range(4):
                    answer = await fleet.ask("POST", "/v1/videos", **form(name))
                    assert answer.status == 200, answer.body
                assert counts(fleet, "/v1/videos") == expected
            for _ in range(4):
                assert (await fleet.ask("POST", "/v1/videos", **form("sora-2"))).status == 200
            wan, hunyuan, image = counts(fleet, "/v1/videos")
            assert (wan + hunyuan, image) == (16, 0)
            # Its model is known, but it makes images.
            answer = await fleet.ask("POST", "/v1/videos", **form(NAMES[1]))
            assert answer.status == 400
            assert answer.json["error"].startswith(incapable("video")["error"])
            assert NAMES[1] in answer.json["error"]


@pytest.mark.parametrize("form", [_json, _multipart], ids=["json", "multipart"])
@pytest_twisted.ensureDeferred
async def test_strict_model(form: Any) -> None:
    """
    With ``--strict-model`` a name that nobody serves is 404, with one model in the fleet too; names
    that are served and requests that name none are served as ever.
    """
    async with running_fleet("wan2.1-t2v-1.3b", strict_model=True) as fleet:
        answer = await fleet.ask("POST", "/v1/videos", **form("sora-2"))
        assert answer.status == 404
        assert "sora-2" in answer.json["error"]
        assert counts(fleet, "/v1/videos") == [0]
        assert (await fleet.ask("POST", "/v1/videos", **form(NAMES[2]))).status == 200
        assert (await fleet.ask("POST", "/v1/videos", json=VIDEO)).status == 200


@pytest_twisted.ensureDeferred
async def test_a_large_body_names_its_model_at_either_end() -> None:
    """
    Of a JSON body above 1 MiB the first and last 4 KiB are read; a model between them is not seen.
    """
    async with running_fleet("z-image-turbo", "flux.1-dev", strict_model=True) as fleet:
        large, named = {"negative_prompt": "x" * (1 << 20)}, {"model": "dall-e"}
        hidden = {"style": "x" * 5000}
        for body, status in (
            ({**IMAGE, **named, **large}, 404),
            ({**IMAGE, **large, **named}, 404),
            ({**IMAGE, **large, **named, **hidden}, 200),
        ):
            headers = {"Content-Type": "application/json"}
            answer = await fleet.ask(
                "POST", "/v1/images/generations", data=json.dumps(body).encode(), headers=headers
            )
            assert answer.status == status
