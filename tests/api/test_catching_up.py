"""
Workers that lack updates: no generation before they have everything.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from sgl_droute.fleet.loras import SET
from sgl_droute.fleet.weights import DISK
from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.updates import (
    CHECKSUM,
    RELEASE,
    RESUME,
    VIDEOS,
    Traffic,
    answered,
    call,
    change,
    epoch_of,
    epochs,
    fault,
    fleet,
    image,
    orders,
    restart,
    sources,
    states,
    tensors,
    update,
    updating,
    url,
    weights,
)
from tests.memory import MemoryRouter

FOX = {"lora_nickname": "fox", "lora_path": "loras/fox"}


def _joins(router: MemoryRouter) -> None:
    router.start_worker("b")
    router.ask("POST", "/add_worker?url=http://b:1")


def _restarts(router: MemoryRouter) -> None:
    _joins(router)
    router.wait(30)
    restart(router, "b")


def _refuses(router: MemoryRouter) -> None:
    """
    It was gone between two health checks, and only a request was refused.
    """
    _joins(router)
    router.wait(30)
    router.kill_worker("b")
    pictures = [image(router) for _ in range(4)]
    router.start_worker("b")
    for each in pictures:
        answered(router, each)


def _registers(router: MemoryRouter) -> None:
    _joins(router)
    router.wait(30)
    router.kill_worker("b")
    router.start_worker("b")
    router.ask("POST", "/add_worker?url=http://b:1")


def _comes_back(router: MemoryRouter) -> None:
    _joins(router)
    router.wait(30)
    router.kill_worker("b")
    router.wait(30)
    assert states(router)["b"] == "dead"
    router.start_worker("b")
    router.wait(30)


WAYS: list[Callable[[MemoryRouter], None]] = [
    _joins,
    _restarts,
    _refuses,
    _registers,
    _comes_back,
]


@pytest.mark.parametrize("way", WAYS)
def test_before_any_work(way: Callable[[MemoryRouter], None]) -> None:
    """
    Whichever way a fresh process comes, it makes nothing before it has what the fleet has; updates
    are sent unchanged and in order, then the adapters, then checksums are compared.
    """
    router = fleet("a", readmit_after=2)
    update(router, "one")
    update(router, "two", flush_cache=False)
    update(router, "three", target_modules=["vae"])
    update(router, "four", target_modules=["vae"])
    update(router, "five", target_modules=["transformer"])
    call(router, SET, FOX)
    way(router)
    traffic = Traffic(router, least=6)
    traffic.wait(30, 0.5)
    traffic.end()
    assert states(router)["b"] == "ready"
    assert epochs(router)["b"] == 6
    assert set(traffic.check()) == {200}
    made = [each for each in router.workers["b"].journal.calls if each.error is None]
    asked = [(each.path, each.asked) for each in made if each.path in (DISK, SET, CHECKSUM)]
    assert asked == [
        (DISK, {"model_path": "two", "flush_cache": False}),
        (DISK, {"model_path": "four", "target_modules": ["vae"]}),
        (DISK, {"model_path": "five", "target_modules": ["transformer"]}),
        (SET, FOX),
        (CHECKSUM, {}),
    ]
    first = min(each.started for each in router.workers["b"].journal.generations)
    assert all(each.ended is not None and each.ended <= first for each in made)


def test_wakes() -> None:
    """
    A worker that slept through an update gets it when it wakes, before any work.
    """
    router = fleet("b")
    call(router, RELEASE)
    router.start_worker("a")
    router.ask("POST", "/add_worker?url=http://a:1")
    assert update(router, "one").json["stale"] == [url("b")]
    call(router, RESUME)
    traffic = Traffic(router, least=1)
    traffic.wait(20, 0.5)
    traffic.end()
    assert set(traffic.check()) == {200}
    assert states(router)["b"] == "ready"


def test_a_lost_job() -> None:
    """
    A worker that does not know a job that it issued was restarted, and catches up.
    """
    simulator = SimulatorSettings(model="fastwan", pictures=1, video_side=64)
    router = fleet("a", simulator=simulator, health_check_interval=1000.0, job_poll_interval=1.0)
    update(router, "one")
    video = {"prompt": "x", "size": "64x64", "num_frames": 5}
    made = call(router, VIDEOS, video).json
    router.kill_worker("a")
    router.start_worker("a")
    router.wait(2)
    assert router.ask("GET", f"{VIDEOS}/{made['id']}").status in (404, 503)
    router.wait(20)
    assert states(router)["a"] == "ready"
    assert orders(router, "a")[:2] == [DISK, CHECKSUM] or DISK in orders(router, "a")
    after = call(router, VIDEOS, video)
    assert epoch_of(after) == "1"


def test_tensors_missed() -> None:
    """
    A worker that missed an update from tensors stays stale and says so, until the next update of
    the same modules or all reaches it.
    """
    router = fleet("a")
    tensors(router, "x")
    _joins(router)
    router.wait(60)
    assert states(router)["b"] == "stale"
    shown = router.ask("GET", "/workers").json["workers"][1]
    assert "tensors" in shown["last_error"]
    assert orders(router, "b") == []
    reply = tensors(router, "y")
    assert reply.json["stale"] == []
    assert states(router)["b"] == "ready"


def test_all_modules_after_tensors() -> None:
    """
    What came before an update of all modules is not needed any more.
    """
    router = fleet("a")
    tensors(router, "x")
    update(router, "all")
    _joins(router)
    router.wait(30)
    assert states(router)["b"] == "ready"
    assert orders(router, "b").count(DISK) == 1


def test_differs_after_replay() -> None:
    """
    A worker whose checksums differ from a peer's after the replay gets no work, and says so.
    """
    router = fleet("a")
    update(router, "one")
    router.start_worker("b")
    router.workers["b"].weights.sources["vae"] = "another"
    fault(router, "b", status=200, body={"success": True}, times=99)
    router.ask("POST", "/add_worker?url=http://b:1")
    traffic = Traffic(router)
    traffic.wait(30, 0.5)
    traffic.end()
    assert states(router)["b"] == "stale"
    assert "checksums differ" in weights(router)["workers"][1]["reason"]
    assert router.workers["b"].journal.generations_started == 0
    assert set(traffic.check()) == {200}


@pytest.mark.parametrize("rule", [{"status": 500}, {"drop": True}, {"status": 400}])
def test_tried_again(rule: dict[str, Any]) -> None:
    """
    A replay that failed is tried again, each time after a longer pause.
    """
    router = fleet("a")
    update(router, "one")
    router.start_worker("b")
    fault(router, "b", times=3, **rule)
    router.ask("POST", "/add_worker?url=http://b:1")
    router.wait(5)
    assert states(router)["b"] == "stale"
    assert "failed" in weights(router)["workers"][1]["reason"]
    router.wait(150)
    assert states(router)["b"] == "ready"
    received = router.workers["b"].journal.received
    times = [each.started for each in received if each.target == DISK]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    assert pauses[-1] > pauses[0]


def test_an_update_during_a_replay() -> None:
    """
    An update waits for the worker that is being brought up to date, and all have both in the end.
    """
    router = fleet("a")
    update(router, "one")
    _joins(router)
    router.wait(1)
    client = updating(router, "two")
    traffic = Traffic(router)
    traffic.until(client)
    traffic.wait(20)
    traffic.end()
    assert states(router) == {"a": "ready", "b": "ready"}
    assert epochs(router) == {"a": 2, "b": 2}
    assert set(traffic.check()) == {200}


@pytest.mark.parametrize("wish", [{"disabled": True}, {"draining": True}])
def test_taken_out_by_an_operator(wish: dict[str, object]) -> None:
    """
    A worker that missed an update while it was out has it before its first work.
    """
    router = fleet(*"ab")
    change(router, "b", **wish)
    update(router, "one")
    change(router, "b", **dict.fromkeys(wish, False))
    traffic = Traffic(router, least=1)
    traffic.wait(20, 0.5)
    traffic.end()
    assert set(traffic.check()) == {200}
    assert states(router)["b"] == "ready"


def test_no_peer() -> None:
    """
    A worker that is alone is brought up to date without comparison.
    """
    router = fleet("a")
    update(router, "one")
    restart(router, "a")
    router.wait(20)
    assert states(router) == {"a": "ready"}
    assert epoch_of(answered(router, image(router))) == "1"
    assert orders(router, "a").count(CHECKSUM) <= 1


ROADS: dict[str, tuple[str, str]] = {
    "an unknown id": ("GET", "/v1/videos/nobody-has-it"),
    "a list": ("GET", "/v1/videos"),
    "models": ("GET", "/v1/models"),
    "adapters": ("GET", "/v1/list_loras"),
    "checksums": ("POST", "/weights/verify"),
    "a call to all": ("POST", CHECKSUM),
}


@pytest.mark.parametrize("road", ROADS)
def test_refused_on_any_road(road: str) -> None:
    """
    A worker that refused a connection between two health checks was restarted, whatever the router
    wanted of it: it gets the updates before any work.
    """
    router = fleet(*"ab", health_check_interval=1000.0, health_check_timeout=2.0)
    update(router, "new")
    router.kill_worker("b")
    router.begin(*ROADS[road], json={})
    router.wait(1)
    router.start_worker("b")
    router.wait(1100)
    assert states(router) == {"a": "ready", "b": "ready"}
    assert sources(router, "b") == {"new"}
