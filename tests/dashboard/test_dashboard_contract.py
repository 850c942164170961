"""
The server that stands for the router in tests of the page says what the router says.
"""

from __future__ import annotations

from typing import Any

from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.page_stream import Viewing, messages
from tests.dashboard.mock_fleet import MockFleet
from tests.dashboard.shapes import Shape, shape_of

BEGIN = 1_700_000_000.0
VIDEO = {"prompt": "waves", "size": "832x480", "num_frames": 49}
IMAGE = {"prompt": "a fox", "size": "512x512"}
BATCH = {"X-Rollout-Batch": "step-1"}


def _played() -> list[Any]:
    fleet = MockFleet(30, BEGIN)
    told = [fleet.whole(), *[fleet.step(BEGIN + second) for second in range(1, 301)]]
    fleet.remove(next(iter(fleet.workers)))
    return [MockFleet(0, BEGIN).whole(), *told, fleet.step(BEGIN + 301)]


def _told() -> list[Any]:
    """
    What a router tells of a fleet of which some work, wait, are dead, drain or have left.
    """
    videos = SimulatorSettings(model="cosmos3", speed=1.0)
    viewing = Viewing("a", "b", "c", "d", simulator=videos, job_poll_interval=2.0)
    router = viewing.router
    early = viewing.view()
    viewing.wait(1)
    for number in range(12):
        router.begin("POST", "/v1/images/generations", json=IMAGE, headers=BATCH)
        router.begin("POST", "/v1/videos", json=VIDEO)
        viewing.wait(2)
        if number == 4:
            router.ask("PUT", "/workers/http%3A%2F%2Fb%3A1", json={"draining": True})
            router.ask("PUT", "/workers/http%3A%2F%2Fc%3A1", json={"is_dead": True})
            router.ask("DELETE", "/workers/http%3A%2F%2Fd%3A1")
    router.begin("GET", "/v1/models/none")
    router.begin("POST", "/v1/meshes", json={"prompt": "a chair"})
    viewing.wait(20)
    return [*messages(early), *messages(viewing.view())]


def test_the_mock_says_what_the_router_says() -> None:
    """
    Both have the same keys, and where the router has a kind of value the mock has that kind too:
    what the page can show of one it can show of the other.
    """
    mock, router = shape_of(_played()), shape_of(_told())
    assert set(mock) == set(router)
    assert _beyond(router, mock) == {}


def _beyond(router: Shape, mock: Shape) -> Shape:
    return {path: kinds - mock[path] for path, kinds in router.items() if kinds - mock[path]}


def test_the_greetings_are_alike() -> None:
    """
    The greetings have the same keys and kinds of values too.
    """
    hello = Viewing("a").view().events[0]
    assert hello.event == "hello"
    assert shape_of([hello.json]) == shape_of([MockFleet(0, BEGIN).hello(BEGIN)])
