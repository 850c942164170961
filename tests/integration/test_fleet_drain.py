"""
Workers that leave the fleet, at once or when they have finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred

from tests.integration.fleet import (
    IMAGE,
    VIDEO,
    Fleet,
    Station,
    made,
    pause,
    routed,
    running_fleet,
    standing,
)
from tests.integration.sockets import eventually

WAN = "wan2.1-t2v-1.3b"
# Nothing ends by itself within a test.
SLOW = {"speed": 1e-5}


def creations(station: Station) -> int:
    return station.asked.count("POST /v1/videos")


async def gone(fleet: Fleet, station: Station) -> None:
    """
    Return once the router does not have the worker any more.
    """
    await eventually(lambda: station.url not in fleet.router.service.pool)
    answer = await fleet.ask("GET", f"/workers/{station.id}")
    assert answer.status == 404


@pytest_twisted.ensureDeferred
async def test_drain_with_a_running_video() -> None:
    """
    A worker told to drain stays while its video runs, readable and without new work, leaves when it
    is done though no client asks, and its video can be had afterwards.
    """
    async with running_fleet(WAN, WAN, simulator=SLOW, job_poll_interval=0.05) as fleet:
        leaving, other = fleet.stations
        id = await made(fleet, "/v1/videos", VIDEO)
        assert creations(leaving) == 1
        told = await fleet.ask("DELETE", f"/workers/{leaving.id}?drain=true")
        assert (told.status, told.json) == (
            200,
            {"status": "success", "worker_id": leaving.id, "state": "draining"},
        )
        for _ in range(3):
            await made(fleet, "/v1/videos", VIDEO)
        assert (creations(leaving), creations(other)) == (1, 3)
        shown = await fleet.shown(leaving)
        assert (shown["state"], shown["draining"], shown["jobs"]) == ("draining", True, 1)
        assert (await fleet.ask("GET", f"/v1/videos/{id}")).json["status"] == "in_progress"
        leaving.finish()
        await gone(fleet, leaving)
        assert (await fleet.ask("GET", f"/v1/videos/{id}")).json["status"] == "completed"
        content = await fleet.ask("GET", f"/v1/videos/{id}/content")
        assert (content.status, content.body[4:8]) == (200, b"ftyp")
        assert (await fleet.ask("GET", "/list_workers")).json == {"urls": [other.url]}


@pytest_twisted.ensureDeferred
async def test_drain_of_an_idle_worker() -> None:
    """
    An idle worker that is told to drain is gone at once; what it made can be had.
    """
    async with running_fleet(WAN) as fleet:
        [station] = fleet.stations
        id = await made(fleet, "/v1/videos", VIDEO)
        await eventually(lambda: all(job.completed for job in station.videos))
        await fleet.ask("GET", f"/v1/videos/{id}")
        told = await fleet.ask("DELETE", f"/workers/{station.id}?drain=true")
        assert told.json["state"] == "removed"
        await gone(fleet, station)
        assert (await fleet.ask("GET", f"/v1/videos/{id}/content")).status == 200


@pytest_twisted.ensureDeferred
async def test_drain_with_a_running_answer() -> None:
    """
    A draining worker leaves when the image that a client waits for is answered, and not before.
    """
    async with running_fleet("qwen-image", simulator=SLOW) as fleet:
        [station] = fleet.stations
        waiting = Deferred.fromCoroutine(fleet.ask("POST", "/generate", json=IMAGE))
        await eventually(lambda: station.worker.gpu.running == 1)
        told = await fleet.ask("DELETE", f"/workers/{station.id}?drain=true")
        assert told.json["state"] == "draining"
        assert (await fleet.shown(station))["active_requests"] == 1
        station.finish()
        answer = await waiting
        assert answer.status == 200
        await gone(fleet, station)
        image = await fleet.ask("GET", answer.json["data"][0]["url"])
        assert image.headers.getRawHeaders("content-type") == ["image/jpeg"]


@pytest_twisted.ensureDeferred
async def test_a_change_of_mind() -> None:
    """
    ``draining`` false keeps a worker that was to leave, and gives it work again.
    """
    async with running_fleet(WAN, simulator=SLOW, job_poll_interval=0.05) as fleet:
        [station] = fleet.stations
        await made(fleet, "/v1/videos", VIDEO)
        await fleet.ask("DELETE", f"/workers/{station.id}?drain=true")
        kept = await fleet.ask("PUT", f"/workers/{station.id}", json={"draining": False})
        assert (kept.status, kept.json["worker"]["state"]) == (200, "ready")
        station.finish()
        await eventually(lambda: fleet.jobs() == [0])
        await made(fleet, "/v1/videos", VIDEO)
        assert creations(station) == 2


@pytest_twisted.ensureDeferred
async def test_put_draining() -> None:
    """
    With ``draining`` true a worker gets nothing new and stays when it is idle; with false it gets
    work again.
    """
    async with running_fleet(WAN, WAN, simulator=SLOW, job_poll_interval=0.05) as fleet:
        drained, other = fleet.stations
        await made(fleet, "/v1/videos", VIDEO)
        told = await fleet.ask("PUT", f"/workers/{drained.id}", json={"draining": True})
        assert (told.status, told.json["worker"]["state"]) == (200, "draining")
        drained.finish()
        await eventually(lambda: fleet.jobs() == [0, 0])
        for _ in range(3):
            await made(fleet, "/v1/videos", VIDEO)
        assert (creations(drained), creations(other)) == (1, 3)
        await fleet.ask("PUT", f"/workers/{drained.id}", json={"draining": False})
        for _ in range(3):
            await made(fleet, "/v1/videos", VIDEO)
        assert (creations(drained), creations(other)) == (4, 3)


@pytest_twisted.ensureDeferred
async def test_removal_during_an_answer() -> None:
    """
    A worker removed without draining is gone at once; its running answer ends in peace, and what
    comes back under its URL starts with nothing in flight.
    """
    async with running_fleet("qwen-image", "qwen-image", simulator=SLOW) as fleet:
        removed, other = fleet.stations
        waiting = Deferred.fromCoroutine(fleet.ask("POST", "/generate", json=IMAGE))
        await eventually(lambda: removed.worker.gpu.running == 1)
        told = await fleet.ask("DELETE", f"/workers/{removed.id}")
        assert told.json["state"] == "removed"
        await gone(fleet, removed)
        added = await fleet.ask("POST", f"/workers?url={removed.url}")
        assert added.json["worker"]["active_requests"] == 0
        removed.finish()
        answer: Any = await waiting
        assert (answer.status, len(answer.json["data"])) == (200, 1)
        assert [worker.in_flight for worker in fleet.router.service.pool] == [0, 0]
        assert other.asked == []


@pytest_twisted.ensureDeferred
async def test_drain_across_a_restart(tmp_path: Path) -> None:
    """
    A worker that was to leave when its video is done does so after a restart of the router too.
    """
    options: dict[str, Any] = {
        "state": f"sqlite:///{tmp_path}/router.sqlite",
        "job_poll_interval": 0.05,
    }
    async with standing(WAN, WAN, **SLOW) as stations:
        leaving, _ = stations
        async with routed(stations, **options) as fleet:
            id = await made(fleet, "/v1/videos", VIDEO)
            await fleet.ask("DELETE", f"/workers/{leaving.id}?drain=true")
        # Not named again: what is named is registered.
        async with routed(stations[1:], **options) as fleet:
            await made(fleet, "/v1/videos", VIDEO)
            assert creations(leaving) == 1
            shown = await fleet.shown(leaving)
            assert (shown["state"], shown["jobs"]) == ("draining", 1)
            leaving.finish()
            await gone(fleet, leaving)
            assert (await fleet.ask("GET", f"/v1/videos/{id}/content")).body[4:8] == b"ftyp"


@pytest_twisted.ensureDeferred
async def test_quarantine_during_a_health_check() -> None:
    """
    An operator's quarantine holds though a health check that began before it ends well after it.
    """
    async with running_fleet("qwen-image", health_check_interval=0.05) as fleet:
        [station] = fleet.stations
        station.order(rules=[{"path": "/health", "delay": 0.3}])
        begun = station.probes
        await eventually(lambda: station.probes > begun)
        told = await fleet.ask("PUT", f"/workers/{station.id}", json={"is_dead": True})
        assert told.json["worker"]["state"] == "dead"
        await eventually(lambda: all(each.ended for each in station.worker.journal.received))
        await pause(0.1)  # for what follows from the check's answer
        assert (await fleet.shown(station))["state"] == "dead"
