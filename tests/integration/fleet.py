"""
A small fleet over real sockets: simulated workers that can be stopped and started again, a router
in front of them, and a client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import quote

import treq
from attrs import define, evolve, field
from hyperlink import EncodedURL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import Agent

from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.jobs import Job, Jobs
from sgl_droute.simulator.service import WorkerService
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.worker import SimulatedWorker
from tests.integration.commands import free_port, running
from tests.integration.sockets import Router, eventually, reactor, running_router
from tests.memory import Reply

# Requests that are quick to draw.
IMAGE = {"prompt": "a fox", "size": "64x64"}
VIDEO = {"prompt": "a fox", "size": "64x64", "num_frames": 5}
MESH = {"prompt": "a fox", "input_image": "data:image/png;base64,iVBORw0KGgo=", "size": "64x64"}

# What the router asks a worker on its own account.
_OWN = ("/health", "/model_info", "/v1/models", "/server_info")


@define(eq=False)
class Station:
    """
    The place of a simulated worker. Its port stays the same when the worker is started again, which
    then knows nothing of before.
    """

    settings: SimulatorSettings
    port: int = field(factory=free_port)
    _service: WorkerService | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def id(self) -> str:
        """The worker's id in paths of the router."""
        return quote(self.url, safe="")

    @property
    def worker(self) -> SimulatedWorker:
        assert self._service is not None
        assert self._service.worker is not None
        return self._service.worker

    @property
    def videos(self) -> Jobs:
        return self.worker.routes.videos.jobs

    @property
    def asked(self) -> list[str]:
        """Method and target of what came, except what every router asks."""
        received = self.worker.journal.received
        return [f"{each.method} {each.target}" for each in received if each.target not in _OWN]

    @property
    def probes(self) -> int:
        """How many health checks came (count)."""
        return sum(each.target == "/health" for each in self.worker.journal.received)

    def start(self) -> None:
        self._service = WorkerService(reactor, evolve(self.settings, port=self.port))
        self._service.startService()

    async def stop(self) -> None:
        """
        Close the port and cut every connection; what the worker was doing is lost.
        """
        if self._service is None:
            return
        service, self._service = self._service, None
        assert service.worker is not None
        service.worker.gpu.kill("stopped")
        await service.stopService()

    def finish(self) -> None:
        """
        Let no more time pass before the end of what the GPU is doing.
        """
        for replica in self.worker.gpu.replicas:
            assert replica._timer is not None
            replica._timer.reset(0)

    def order(self, **document: Any) -> None:
        """
        Bring a fault document into force.
        """
        self.worker.backstage.obey(parse_orders(document))

    def has_video(self, number: int, created: float) -> str:
        """
        The id of a finished video made at *created*.
        """
        id = f"{self.port}-{number}"
        paths = (Path("video.mp4"),)
        job = Job(id=id, model="m", created=created, paths=paths, status="completed")
        self.videos.put(job)
        return id


@define(eq=False)
class Fleet:
    """
    Stations, and the router that they are registered with.
    """

    stations: list[Station]
    router: Router

    async def ask(self, method: str, path: str, **kwargs: Any) -> Reply:
        """
        The router's answer to one request on a connection of its own.
        """
        return await ask(self.router.url, method, path, **kwargs)

    async def shown(self, station: Station) -> Any:
        """
        The worker as the router shows it.
        """
        return (await self.ask("GET", f"/workers/{station.id}")).json["worker"]

    def jobs(self) -> list[int]:
        """
        How many open jobs the router counts on each worker.
        """
        return [worker.jobs for worker in self.router.service.pool]

    async def ready(self) -> None:
        """
        Return once every worker is in service and has told what it serves.
        """
        pool = self.router.service.pool
        await eventually(lambda: all(each.proven and each.capabilities.names for each in pool))


@asynccontextmanager
async def standing(*models: str, **simulator: Any) -> AsyncIterator[list[Station]]:
    """
    A running worker for each of *models*.

    Args:
        simulator: Fields of `SimulatorSettings`.
    """
    options = {"speed": 5000.0, "pictures": 2, **simulator}
    stations = [Station(SimulatorSettings(model=model, **options)) for model in models]
    for station in stations:
        station.start()
    try:
        yield stations
    finally:
        for station in stations:
            await station.stop()


@asynccontextmanager
async def routed(stations: list[Station], **options: Any) -> AsyncIterator[Fleet]:
    """
    A router that knows what each of *stations* serves.

    Args:
        options: Fields of `RouterSettings`.
    """
    async with running_router(*(station.url for station in stations), **options) as router:
        fleet = Fleet(stations, router)
        await fleet.ready()
        yield fleet


@asynccontextmanager
async def running_fleet(
    *models: str, simulator: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[Fleet]:
    """
    As `standing` and `routed`.
    """
    async with (
        standing(*models, **(simulator or {})) as stations,
        routed(stations, **options) as fleet,
    ):
        yield fleet


@asynccontextmanager
async def router_process(folder: Path, *words: str) -> AsyncIterator[Popen[str]]:
    """
    A router as a process of its own, and up.

    Args:
        words: Its options; ``--port`` and the port come first.
    """
    command = ("sglang-d-router", "--host", "127.0.0.1", *words)
    with running(*command, cwd=folder) as process:
        for _ in range(500):
            try:
                await ask(f"http://127.0.0.1:{words[1]}", "GET", "/liveness")
                break
            except ConnectError:
                assert process.poll() is None, (folder / "log").read_text()
                await pause()
        yield process


async def ask(url: str, method: str, path: str, **kwargs: Any) -> Reply:
    """
    The answer of the server at *url*.
    """
    target = EncodedURL.from_text(url + path)
    options = {"allow_redirects": False, "agent": Agent(reactor), **kwargs}
    asking: Deferred[Any] = treq.request(method, target, **options)
    response = await asking.addTimeout(30, reactor)
    reading: Deferred[bytes] = treq.content(response)
    return Reply(response.code, response.headers, await reading.addTimeout(30, reactor))


async def made(fleet: Fleet, path: str, wish: Mapping[str, Any], **fields: Any) -> str:
    """
    The id of what the router had made.
    """
    answer = await fleet.ask("POST", path, json={**wish, **fields})
    assert answer.status == 200, answer.body
    id: str = answer.json["id"]
    return id


async def finished(fleet: Fleet, path: str) -> Any:
    """
    The record at *path* once the job has ended.
    """
    for _ in range(500):
        answer = await fleet.ask("GET", path)
        assert answer.status == 200, answer.body
        if answer.json["status"] in ("completed", "failed"):
            return answer.json
        await pause()
    raise AssertionError("it never ended")


def pause(seconds: float = 0.02) -> Deferred[None]:
    """
    Time between two looks.
    """
    return deferLater(reactor, seconds)
