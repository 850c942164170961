"""
Every kind of update, with everything that may go wrong, while pictures are made: each answer tells
the truth about its weights.

With ``SGL_DROUTE_LONG_TESTS`` set more moments are tried, and with more pictures under way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sgl_droute.fleet.weights import DISK
from tests.api.updates import (
    LONG,
    RELEASE,
    STEPS,
    Traffic,
    call,
    calls,
    change,
    fault,
    fleet,
    sources,
    states,
    updating,
    url,
    weights,
)
from tests.memory import MemoryRouter

# Seconds between two pictures.
GAP = 0.25 if LONG else 1.0
MODES = ("", "?mode=fenced", "?mode=rolling", "?mode=rolling&max_unavailable=2", "?verify=true")


def _nothing(router: MemoryRouter) -> None:
    pass


def _goes(router: MemoryRouter) -> None:
    if "b" in router.workers:
        router.kill_worker("b")


def _restarts(router: MemoryRouter) -> None:
    _goes(router)
    router.wait(6)  # so long that a health check finds nobody: workers load for longer
    router.start_worker("b")


def _joins(router: MemoryRouter) -> None:
    router.start_worker("d")
    router.ask("POST", "/add_worker?url=http://d:1")


def _leaves(router: MemoryRouter) -> None:
    router.ask("POST", "/remove_worker?url=http://b:1")


def _again(router: MemoryRouter) -> None:
    _leaves(router)
    router.ask("POST", "/add_worker?url=http://b:1")


def _registers(router: MemoryRouter) -> None:
    router.ask("POST", "/add_worker?url=http://b:1")


def _drains(router: MemoryRouter) -> None:
    change(router, "b", draining=True)


def _disabled(router: MemoryRouter) -> None:
    change(router, "b", disabled=True)


# What the worker b does with its call.
FAULTS: dict[str, dict[str, Any]] = {
    "refuses": {"status": 400, "body": {"success": False, "message": "no"}},
    "fails": {"status": 500, "body": {"success": False, "message": "broke"}},
    "fails after it": {"status": 500, "work": True},
    "answers with a text": {"status": 200, "body": "done", "work": True},
    "hangs": {"hang": True},
    "hangs after it": {"hang": True, "work": True},
    "is late": {"busy": 30},
    "is cut before it": {"drop": True},
    "is cut after it": {"drop": True, "work": True},
    "is cut in its answer": {"cut_after": 5},
    "exits": {"exit": True},
    "exits after it": {"exit": True, "work": True},
    "GPU dies": {"dead": True},
    "GPU dies after it": {"dead": True, "work": True},
}

# What happens to it while the update is under way.
EVENTS: dict[str, Callable[[MemoryRouter], None]] = {
    "nothing": _nothing,
    "goes": _goes,
    "restarts": _restarts,
    "another joins": _joins,
    "leaves": _leaves,
    "leaves and comes": _again,
    "registers": _registers,
    "drains": _drains,
    "disabled": _disabled,
}


def healthy(router: MemoryRouter) -> None:
    """
    Bring everybody back.
    """
    for name in "abc":
        if name not in router.workers or router.workers[name].gpu.dead:
            if name in router.workers:
                router.stop_worker(name)
            router.start_worker(name)
        if states(router).get(name) in (None, "dead"):
            router.ask("POST", f"/add_worker?url={url(name)}")
        change(router, name, draining=False, disabled=False)


def in_the_end(router: MemoryRouter, traffic: Traffic) -> dict[int, int]:
    """
    Check that the fleet comes right after all, and all that was answered before.
    """
    healthy(router)
    traffic.wait(60, step=GAP * 8)
    assert set(states(router).values()) == {"ready"}, weights(router)
    client = updating(router, "last")
    reply = traffic.until(client)
    assert reply is not None
    assert reply.json["consistent"] is True, reply
    assert all(sources(router, name) == {"last"} for name in router.workers)
    traffic.wait(2)
    traffic.end()
    assert set(router.loads.values()) == {0}
    return traffic.check()


def fenced_alone(router: MemoryRouter, source: str) -> None:
    """
    Check that no worker made a picture between the first and the last call of the update from
    *source*, which has just ended.
    """
    now = router.clock.seconds()
    made = [each for each in calls(router, DISK) if each.asked["model_path"] == source]
    made = [each for each in made if each.arrived < now]
    first = min(each.arrived for each in made)
    last = max(each.ended or each.arrived for each in made)
    for process in router.processes:
        for each in process.journal.generations:
            apart = each.started >= last or (each.ended or each.started) <= first
            assert apart, f"{each.prompt} from {each.started} to {each.ended}: {first} to {last}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", FAULTS)
def test_a_worker_fails(mode: str, what: str) -> None:
    """
    Whatever a worker does with its call, each picture was made with the weights that its answer
    tells, and the fleet comes right in the end.
    """
    router = fleet(*"abc")
    traffic = Traffic(router, GAP)
    traffic.wait(1)
    assert traffic.until(updating(router, "first")) is not None
    fault(router, "b", **FAULTS[what])
    reply = traffic.until(updating(router, "second", mode))
    assert reply is not None
    assert reply.status == 200, reply
    assert reply.json["epoch"] == 2
    if mode == "?mode=fenced":
        fenced_alone(router, "second")
    traffic.wait(15, step=GAP * 3)
    counts = in_the_end(router, traffic)
    assert set(counts) <= {200, 502, 503}, counts
    assert counts[200] > 15


# Seconds after the beginning of an update; in short each event has one of them in each mode.
MOMENTS = (0.0, 0.5, 6.0)
CHANGES = [
    (mode, what, when)
    for row, mode in enumerate(MODES)
    for column, what in enumerate(EVENTS)
    for place, when in enumerate(MOMENTS)
    if LONG or (row + column) % len(MOMENTS) == place
]


@pytest.mark.parametrize(("mode", "what", "when"), CHANGES)
def test_a_worker_changes(mode: str, what: str, when: float) -> None:
    """
    The same when a worker goes, comes or is taken out while an update is under way.
    """
    router = fleet(*"abc")
    traffic = Traffic(router, GAP)
    traffic.wait(1)
    assert traffic.until(updating(router, "first")) is not None
    traffic.post(6)
    client = updating(router, "second", mode)
    traffic.wait(when)
    EVENTS[what](router)
    reply = traffic.until(client)
    assert reply is not None
    assert reply.status == 200, reply
    assert reply.json["epoch"] == 2
    if mode == "?mode=fenced":
        fenced_alone(router, "second")
    traffic.wait(15, step=GAP * 3)
    counts = in_the_end(router, traffic)
    assert set(counts) <= {200, 502, 503}, counts


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_sleeps(mode: str) -> None:
    """
    A worker that sleeps through an update is brought up to date when it wakes, before any work.
    """
    router = fleet("b")
    call(router, RELEASE)
    for name in "ac":
        router.start_worker(name)
        router.ask("POST", f"/add_worker?url={url(name)}")
    traffic = Traffic(router, GAP)
    traffic.wait(1)
    reply = traffic.until(updating(router, "first", mode))
    assert reply is not None
    assert reply.json["stale"] == [url("b")]
    assert reply.json["consistent"] is True
    client = router.begin("POST", "/resume_memory_occupation", json={})
    traffic.until(client)
    traffic.wait(10)
    assert states(router)["b"] == "ready"
    counts = in_the_end(router, traffic)
    assert set(counts) == {200}


# The router is killed.


def _killed(fatal: int, mode: str, what: str, meanwhile: str, seconds: float = 0.0) -> bool:
    """
    Whether a router was killed in the step of that number; then another took its place, and all was
    well in the end.

    Args:
        what: What a worker does with its call; see `FAULTS`.
        meanwhile: What happens to it before there is another router.
        seconds: Kill it so long after its step.
    """
    router = fleet(*"abc", durable=True)
    traffic = Traffic(router, GAP)
    traffic.wait(0.5)
    assert traffic.until(updating(router, "first")) is not None
    if what:
        fault(router, "b", **FAULTS[what])
    router.run.watched, router.run.fatal = STEPS, fatal
    client = updating(router, "second", mode)
    if traffic.until(client) is not None:
        return False
    EVENTS[meanwhile](router)
    router.wait(seconds)
    router.start_again()
    traffic.wait(40, step=GAP * 8)
    shown = weights(router)
    assert shown["durable"] is True
    if shown["interrupted"]:
        # Nobody can tell; of those that were called only who has the old weights still gets work.
        touched = shown["interrupted"]["results"]
        held = {url(name) for name, state in states(router).items() if state == "stale"}
        unfinished = {each for each, result in touched.items() if result in (None, "lost")}
        kept = shown["models"][0]["checksum"]
        proven = {each["url"] for each in shown["workers"] if each["checksum"] == kept is not None}
        assert unfinished <= held | proven | {url("b")}, shown
        reply = traffic.until(router.begin("POST", "/weights/resolve", json={"action": "retry"}))
        if reply is not None and reply.status == 503:  # it has gone, and comes again
            healthy(router)
            traffic.wait(20, step=GAP * 8)
        else:
            assert reply is not None
            assert reply.status == 200, reply
        assert weights(router)["interrupted"] is None
    in_the_end(router, traffic)
    return True


# What happens to a worker before there is another router; in short each step of an update has one.
MEANWHILE = ["nothing", "goes", "restarts"]


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("mode", ["", "?mode=fenced", "?mode=rolling"])
def test_the_router_is_killed(mode: str, meanwhile: str) -> None:
    """
    Wherever in an update the router is killed, the next one lets nobody have a picture whose answer
    does not tell its weights truly, and the fleet comes right in the end.
    """
    turn = MEANWHILE.index(meanwhile)
    stride = 1 if LONG else len(MEANWHILE)
    fatal = 1 if LONG else 1 + turn
    while _killed(fatal, mode, "", meanwhile):
        fatal += stride
    assert fatal > 12
