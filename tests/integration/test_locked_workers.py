"""
What stands between clients and workers, over real sockets: files on workers, and where workers are.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.integration.fleet import VIDEO, ask, running_fleet
from tests.integration.sockets import running_router
from tests.integration.websocket_peer import PATIENCE, websocket_worker, with_websocket
from tests.keys import bearing, key_file

ROUTE = "/v1/realtime_video/generate"


@pytest_twisted.ensureDeferred
async def test_files_on_workers(tmp_path: Path) -> None:
    """
    A key for generations may not name files, in JSON or beside an upload that is spooled to disk;
    what it may ask for is made.
    """
    keys: dict[str, Any] = {"api_keys": key_file(tmp_path / "api", "web", "trusted files=yes")}
    async with running_fleet("cosmos3", **keys) as fleet:
        [station] = fleet.stations
        upload = {"input_reference": ("a.png", "image/png", BytesIO(b"x" * 2_000_000))}
        for options in (
            {"json": {**VIDEO, "output_path": "/tmp"}},
            {"json": {**VIDEO, "extra_body": {"extra_params": {"output_path": "/tmp"}}}},
            {"data": {"prompt": "x", "output_path": "/tmp"}, "files": upload},
            {"data": {"prompt": "x", "output_path": "/tmp"}},
        ):
            refused = await fleet.ask("POST", "/v1/videos", headers=bearing("web"), **options)
            assert (refused.status, refused.json.get("field")) == (403, "output_path")
        assert [each for each in station.asked if each.startswith("POST /v1/videos")] == []
        made = await fleet.ask("POST", "/v1/videos", headers=bearing("web"), json=VIDEO)
        assert made.status == 200
        trusted = {**VIDEO, "output_path": str(tmp_path)}
        made = await fleet.ask("POST", "/v1/videos", headers=bearing("trusted"), json=trusted)
        assert made.status == 200
        assert len([each for each in station.asked if each == "POST /v1/videos"]) == 2


def echoed(websocket: ClientConnection) -> object:
    websocket.send("hello")
    return websocket.recv(PATIENCE)


@pytest_twisted.ensureDeferred
async def test_websockets(tmp_path: Path) -> None:
    """
    A WebSocket may name files on a worker: a key that may not gets 403, and its worker no
    handshake; one with ``files=yes`` gets its WebSocket.
    """
    keys: dict[str, Any] = {"api_keys": key_file(tmp_path / "api", "web", "trusted files=yes")}
    async with websocket_worker() as worker, running_router(worker.url, **keys) as router:
        with pytest.raises(InvalidStatus) as refused:
            await with_websocket(router.port, ROUTE, echoed, additional_headers=bearing("web"))
        assert refused.value.response.status_code == 403
        assert b"A WebSocket may name files on a worker" in refused.value.response.body
        with pytest.raises(InvalidStatus) as unknown:
            await with_websocket(router.port, ROUTE, echoed)
        assert unknown.value.response.status_code == 401
        assert worker.handshakes == []
        headers = bearing("trusted")
        assert await with_websocket(router.port, ROUTE, echoed, additional_headers=headers) == (
            "hello"
        )
        [handshake] = worker.handshakes
        assert "Authorization" not in handshake.headers
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_names_of_workers() -> None:
    """
    A name is permitted by what it resolves to: when it is registered, and for each connection on
    every road.
    """
    async with websocket_worker() as worker:
        url = worker.url.replace("127.0.0.1", "localhost")
        async with running_router(add_worker_allow=("10.0.0.0/8",)) as router:
            refused = await ask(router.url, "POST", "/add_worker", json={"url": url})
            assert refused.status == 403
            assert "localhost, which resolves to" in refused.json["error"]
            # As one that was registered before the option was what it is now.
            registered = router.service.pool.add(url)
            await router.service.control.monitor.check_anew(registered)
            [known] = router.service.pool
            assert "is in none of --add-worker-allow" in known.last_error
            answer = await ask(router.url, "GET", "/x")
            assert answer.status == 502
            assert "is in none of --add-worker-allow" in answer.json["error"]
            called = await ask(router.url, "POST", "/get_weights_checksum")
            assert "is in none of --add-worker-allow" in str(called.json)
            with pytest.raises(InvalidStatus) as talked:
                await with_websocket(router.port, "/echo", echoed)
            assert b"is in none of --add-worker-allow" in talked.value.response.body
        assert worker.handshakes == []
        async with running_router(add_worker_allow=("127.0.0.0/8",)) as router:
            added = await ask(router.url, "POST", "/add_worker", json={"url": url})
            assert added.status == 200
            assert (await ask(router.url, "GET", "/x")).status == 200
            assert await with_websocket(router.port, "/echo", echoed) == "hello"
            await router.at_rest()
