"""
A router in memory with a waiting line: requests of known length, and who was served when.
"""

from __future__ import annotations

from typing import Any

from sgl_droute.fleet.cost import image_shape
from sgl_droute.simulator.models import MODELS
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.workers.parking import Parking
from tests.memory import Client, MemoryRouter, Reply

IMAGES = "/v1/images/generations"
VIDEOS = "/v1/videos"
# An image is 50 steps, for which a worker needs 10 s.
IMAGE = {"prompt": "a red fox", "size": "64x64"}
SECONDS = 10.0
VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
# The video above takes 77 s, an image on a worker that makes both 25.7 s.
FILMS = SimulatorSettings(model="fastwan", speed=0.0001, video_side=64)
BOTH = SimulatorSettings(model="cosmos3", speed=0.001, pictures=1, video_side=64)

_MODEL = MODELS["qwen-image"]
_SPEED = _MODEL.duration(image_shape(_MODEL.family, IMAGE)) / SECONDS


def slow(speed: float = 1.0, **options: Any) -> SimulatorSettings:
    """
    Workers that need 10 s for `IMAGE`, divided by *speed*.
    """
    return SimulatorSettings(speed=_SPEED * speed, pictures=1, **options)


def lined(*workers: str, learned: int = 0, **options: Any) -> MemoryRouter:
    """
    A router whose workers take one request at a time, if *options* say nothing else.

    Args:
        learned: Images that each worker has made before (count).
    """
    options = {"worker_concurrency": 1, "simulator": slow(), **options}
    router = MemoryRouter(*workers, **options)
    router.service.startService()
    router.settle()
    for _ in range(learned):
        clients = [post(router) for _ in workers]
        router.until(lambda: all(client.reply for client in clients))  # noqa: B023
    for worker in router.workers.values():
        worker.journal.clear()
    return router


def film(*workers: str, **options: Any) -> MemoryRouter:
    return lined(*workers, **{"simulator": FILMS, **options})


def post(
    router: MemoryRouter,
    name: object = "",
    path: str = IMAGES,
    /,
    *,
    json: dict[str, Any] | None = None,
    **headers: object,
) -> Client:
    """
    A request under way, an `IMAGE` if nothing else is said.

    Args:
        name: What `served` calls it.
        headers: By names with ``_`` for ``-``.
    """
    given = {key.replace("_", "-"): str(value) for key, value in headers.items()}
    body = {**(IMAGE if json is None else json), "prompt": f"{name}"}
    return router.begin("POST", path, json=body, headers=given)


def batch(router: MemoryRouter, id: str, *steps: int, **headers: object) -> list[Client]:
    """
    Images of so many steps each, named by that, as one rollout batch.
    """
    headers = {"X_Rollout_Batch": id, **headers}
    return [
        post(router, each, json={**IMAGE, "num_inference_steps": each}, **headers) for each in steps
    ]


def served(router: MemoryRouter) -> list[str]:
    """
    The names of the requests that a GPU has begun with, in that order.
    """
    made = [each for worker in router.workers.values() for each in worker.journal.generations]
    return [each.prompt for each in sorted(made, key=lambda each: each.started)]


def arrived(router: MemoryRouter, worker: str) -> int:
    """
    Requests for work that *worker* got (count).
    """
    received = router.workers[worker].journal.received
    return sum(each.method == "POST" for each in received)


def answer(client: Client) -> Reply:
    """
    What *client* was answered by now.
    """
    assert client.reply is not None, client.failure
    return client.reply


def header(reply: Reply, name: str) -> str:
    """
    The only value of a header.
    """
    values = reply.headers.getRawHeaders(name)
    assert values is not None, name
    [value] = values
    return str(value)


def queue(router: MemoryRouter) -> Any:
    """
    What ``GET /queue`` tells.
    """
    reply = router.ask("GET", "/queue")
    assert reply.status == 200, reply.body
    return reply.json


def parking_of(router: MemoryRouter) -> Parking:
    """
    Where the router keeps the bodies of requests that wait.
    """
    api: Any = router.service.resource()._klein._instance
    parking: Parking = api.inference._parking
    return parking
