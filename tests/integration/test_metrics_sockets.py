"""
Metrics of a router that serves traffic over real sockets, and of its workers.
"""

from __future__ import annotations

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.api.scraping import Scrape
from tests.integration.fleet import IMAGE, VIDEO, Fleet, finished, made, pause, running_fleet
from tests.integration.sockets import eventually

IMAGES = "/v1/images/generations"


async def scraped(fleet: Fleet, path: str = "/metrics") -> Scrape:
    answer = await fleet.ask("GET", path)
    assert answer.status == 200, answer.body
    return Scrape.parsed(answer.body)


@pytest_twisted.ensureDeferred
async def test_a_router_that_serves() -> None:
    """
    What clients had is what is counted: requests, bytes, videos, connections, and the lag of a real
    reactor.
    """
    async with running_fleet("qwen-image", "fastwan") as fleet:
        images, films = (station.url for station in fleet.stations)
        asking = [Deferred.fromCoroutine(made(fleet, IMAGES, IMAGE)) for _ in range(5)]
        await gatherResults(asking)
        id = await made(fleet, "/v1/videos", VIDEO)
        await finished(fleet, f"/v1/videos/{id}")
        content = await fleet.ask("GET", f"/v1/videos/{id}/content")
        await eventually(lambda: not len(fleet.router.service.holdings.jobs))
        scrape = await scraped(fleet)
        for _ in range(500):
            if scrape.total("sgl_droute_reactor_lag_seconds_count"):
                break
            await pause()
            scrape = await scraped(fleet)
        assert scrape.total("sgl_droute_reactor_lag_seconds_count")
        labels = {"method": "POST", "code": "done", "status": "2xx"}
        requests = "sgl_droute_requests_total"
        assert scrape.total(requests, route=IMAGES, **labels) == 5
        assert scrape.value(requests, route="/v1/videos", worker=films, **labels) == 1
        received = scrape.value("sgl_droute_request_bytes_total", route=IMAGES) or 0
        assert 5 * 20 < received < 5 * 200
        sent = scrape.value("sgl_droute_response_bytes_total", route="/v1/videos/<id>/content")
        assert sent == len(content.body) > 0
        videos = {"kind": "video", "worker": films}
        assert scrape.value("sgl_droute_jobs_ended_total", how="completed", **videos) == 1
        assert scrape.value("sgl_droute_job_seconds_count", **videos) == 1
        for worker in (images, films):
            assert scrape.total("sgl_droute_probes_total", worker=worker, result="healthy") >= 1
            assert scrape.value("sgl_droute_worker_in_flight", worker=worker) == 0
        assert (scrape.value("sgl_droute_client_connections") or 0) >= 1
        assert scrape.value("sgl_droute_workers", state="ready") == 2


@pytest_twisted.ensureDeferred
async def test_workers_that_serve() -> None:
    """
    Each worker's own count is that of what it made; one that stopped is told so.
    """
    async with running_fleet("qwen-image", "fastwan") as fleet:
        images, films = (station.url for station in fleet.stations)
        for _ in range(3):
            await made(fleet, IMAGES, IMAGE)
        await fleet.stations[1].stop()
        scrape = await scraped(fleet, "/engine_metrics")
        done = "sglang:diffusion_requests_total"
        of = {"status": "success", "is_warmup": "false"}
        assert scrape.value(done, worker=images, **of) == 3
        assert scrape.labels(done, "worker") == {images}
        assert scrape.value("sgl_droute_engine_up", worker=images) == 1
        assert scrape.value("sgl_droute_engine_up", worker=films) == 0
