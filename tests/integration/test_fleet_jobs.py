"""
Video jobs as load of their workers.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.fleet import IMAGE, MESH, VIDEO, finished, made, running_fleet
from tests.integration.sockets import eventually

WAN = "wan2.1-t2v-1.3b"
# Nothing ends by itself within a test.
SLOW = {"speed": 1e-5}
# The router asks nobody.
NEVER = 3600.0


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
@pytest_twisted.ensureDeferred
async def test_twelve_videos(together: bool) -> None:
    """
    Twelve videos on three idle workers go 4, 4, 4, whether they are created one after the other or
    at once; without a client that asks they count until they have ended.
    """
    async with running_fleet(WAN, WAN, WAN, simulator=SLOW, job_poll_interval=0.05) as fleet:
        creations = [made(fleet, "/v1/videos", VIDEO) for _ in range(12)]
        if together:
            await gatherResults([Deferred.fromCoroutine(each) for each in creations])
        else:
            for each in creations:
                await each
        assert [len(list(station.videos)) for station in fleet.stations] == [4, 4, 4]
        assert [(await fleet.shown(station))["jobs"] for station in fleet.stations] == [4, 4, 4]
        first, second, third = fleet.stations
        first.finish()
        await eventually(lambda: fleet.jobs() == [3, 4, 4])
        second.order(dead=True)  # everything it had fails
        await eventually(lambda: fleet.jobs() == [3, 0, 4])
        await third.stop()
        await eventually(lambda: fleet.jobs() == [3, 0, 0])


@pytest_twisted.ensureDeferred
async def test_quick_videos_that_nobody_asks_about() -> None:
    """
    The count of a fleet goes back to nothing by itself.
    """
    async with running_fleet(WAN, WAN, WAN, job_poll_interval=0.05) as fleet:
        counted: set[int] = set()
        fleet.router.service.pool.watch(lambda before, now: counted.add(now.jobs if now else 0))
        for _ in range(12):
            await made(fleet, "/v1/videos", VIDEO)
        await eventually(lambda: fleet.jobs() == [0, 0, 0])
        assert max(counted) > 0
        videos = [job for station in fleet.stations for job in station.videos]
        assert [job.status for job in videos] == ["completed"] * 12


@pytest_twisted.ensureDeferred
async def test_a_client_that_polls() -> None:
    """
    A client's own poll or list teaches that a job has ended.
    """
    async with running_fleet(WAN, WAN, job_poll_interval=NEVER) as fleet:
        first = await made(fleet, "/v1/videos", VIDEO)
        await made(fleet, "/v1/videos", VIDEO)
        assert fleet.jobs() == [1, 1]
        await finished(fleet, f"/v1/videos/{first}")
        assert fleet.jobs() == [0, 1]
        await eventually(lambda: all(job.completed for job in fleet.stations[1].videos))
        await fleet.ask("GET", "/v1/videos")
        assert fleet.jobs() == [0, 0]


@pytest_twisted.ensureDeferred
async def test_images_avoid_workers_with_videos() -> None:
    """
    Where a video runs no image goes while another worker is free.
    """
    async with running_fleet("cosmos3", "cosmos3", simulator=SLOW) as fleet:
        busy, free = fleet.stations
        await made(fleet, "/v1/videos", VIDEO)
        waiting = Deferred.fromCoroutine(fleet.ask("POST", "/generate", json=IMAGE))
        await eventually(lambda: free.worker.gpu.running == 1)
        assert "POST /v1/images/generations" not in busy.asked
        free.finish()
        assert (await waiting).status == 200


@pytest_twisted.ensureDeferred
async def test_meshes_are_load_too() -> None:
    """
    Six meshes on three idle workers go 2, 2, 2.
    """
    async with running_fleet(*["hunyuan3d"] * 3, simulator=SLOW, job_poll_interval=0.05) as fleet:
        for _ in range(6):
            await made(fleet, "/v1/meshes", MESH)
        assert fleet.jobs() == [2, 2, 2]
        for station in fleet.stations:
            station.order(dead=True)
        await eventually(lambda: fleet.jobs() == [0, 0, 0])


@pytest_twisted.ensureDeferred
async def test_a_deleted_job() -> None:
    """
    A deleted job counts on, as its worker works on; what runs after it shows that it has ended.
    """
    async with running_fleet(WAN, simulator=SLOW, job_poll_interval=0.05) as fleet:
        [station] = fleet.stations
        first = await made(fleet, "/v1/videos", VIDEO)
        second = await made(fleet, "/v1/videos", VIDEO)
        assert (await fleet.ask("DELETE", f"/v1/videos/{first}")).json["status"] == "deleted"
        assert fleet.jobs() == [2]
        assert (await fleet.ask("GET", f"/v1/videos/{second}")).json["status"] == "queued"
        assert fleet.jobs() == [2]
        station.finish()
        await eventually(lambda: fleet.jobs() == [1])
        station.finish()
        await eventually(lambda: fleet.jobs() == [0])


@pytest_twisted.ensureDeferred
async def test_a_worker_that_was_restarted() -> None:
    """
    A worker that was restarted has no jobs, whatever it had before, and its old ids are unknown.
    """
    async with running_fleet(WAN, WAN, simulator=SLOW, job_poll_interval=0.05) as fleet:
        station, _ = fleet.stations
        ids = [await made(fleet, "/v1/videos", VIDEO) for _ in range(4)]
        assert fleet.jobs() == [2, 2]
        lost = [job.id for job in station.videos]
        await station.stop()
        station.start()
        await eventually(lambda: fleet.jobs() == [0, 2])
        for id in ids:
            status = 404 if id in lost else 200
            assert (await fleet.ask("GET", f"/v1/videos/{id}")).status == status
