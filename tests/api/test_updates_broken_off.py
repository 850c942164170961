"""
Updates that do not come to their usual end, though nobody kills the router: it is stopped, its disk
is full, or workers are being brought up to date meanwhile.
"""

from __future__ import annotations

import gc

import pytest

from sgl_droute.fleet.weights import DISK
from tests.api.updates import (
    CHECKSUM,
    answered,
    epochs,
    fault,
    fleet,
    orders,
    sources,
    states,
    stop,
    update,
    updating,
    url,
    urls,
    weights,
)


@pytest.mark.parametrize("waiting", [0, 5])
def test_the_router_stops(waiting: int) -> None:
    """
    An update in which the router is stopped is interrupted as by a crash, and those that waited for
    its end are not begun.
    """
    router = fleet(*"abc", durable=True)
    update(router, "old")
    clients = [updating(router, "new")]
    router.wait(0.25, 0.25)
    clients += [updating(router, f"later {number}") for number in range(waiting)]
    stop(router)
    router.start_again()
    router.wait(20)
    assert weights(router)["interrupted"]["results"] == dict.fromkeys(urls("abc"), "lost")
    assert states(router) == dict.fromkeys("abc", "stale")
    assert [orders(router, name).count(DISK) for name in "abc"] == [2, 2, 2]
    client = router.begin("POST", "/weights/resolve", json={"action": "retry"})
    assert answered(router, client).json["consistent"] is True
    assert [sources(router, name) for name in "abc"] == [{"new"}] * 3
    assert not any(client.reply and client.reply.status == 200 for client in clients)


def test_the_disk_is_full_in_the_middle() -> None:
    """
    A worker whose call cannot be noted is not called, and its result says so; what the others took
    counts.
    """
    router = fleet(*"ab", durable=True)
    assert router.disk is not None
    client = updating(router, "new", "?mode=rolling&strict=true")
    router.wait(0.25, 0.25)
    router.disk.full = True
    reply = answered(router, client)
    assert (reply.status, reply.json["epoch"], reply.json["stale"]) == (207, 1, [url("b")])
    assert [each["status_code"] for each in reply.json["results"]] == [200, 507]
    assert DISK not in orders(router, "b")
    assert epochs(router) == {"a": 1, "b": 0}
    router.disk.full = False
    router.wait(20)
    assert epochs(router) == {"a": 1, "b": 1}


def test_accept_while_workers_catch_up() -> None:
    """
    What most workers have is asked when nobody is being given anything else: here those that
    missed the update get it first, and there is nothing left to decide.
    """
    router = fleet(*"abc")
    update(router, "old")
    for name in "bc":
        fault(router, name, status=500)
    fault(router, "a", CHECKSUM, busy=30)
    assert update(router, "new").json["stale"] == urls("bc")
    client = router.begin("POST", "/weights/resolve", json={"action": "accept"})
    reply = answered(router, client)
    assert (reply.status, reply.json["epoch"]) == (200, 2)
    router.start_worker("d")
    router.ask("POST", "/add_worker?url=http://d:1")
    router.wait(60)
    assert epochs(router) == dict.fromkeys("abcd", 2)
    assert [sources(router, name) for name in "abcd"] == [{"new"}] * 4


def test_the_router_stops_behind_a_fence() -> None:
    """
    A router that is stopped while a fenced update waits for what workers may still be at stops in
    peace, and nothing was updated.
    """
    router = fleet(*"abc", durable=True)
    for name in "abc":
        fault(router, name, "/stats", times=1000, hang=True)
    client = updating(router, "new", "?mode=fenced&drain_timeout=60")
    router.wait(2)
    assert client.reply is None
    stop(router)
    del client
    gc.collect()  # what nobody has looked at is logged when it goes
    router.start_again()
    router.wait(20)
    assert not any(DISK in orders(router, name) for name in "abc")
    assert weights(router)["interrupted"] is None


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
def test_a_worker_that_left_with_half_an_update(restart: bool) -> None:
    """
    A worker that was removed while nobody knew whether it had taken an update is not taken for a
    new one when it comes back, not by a router that was restarted meanwhile either: it gets no work
    until it is known what it has.
    """
    router = fleet("a", durable=True)
    updating(router, "new")
    router.wait(0.25, 0.25)
    router.kill()
    router.start_again()
    router.ask("POST", f"/remove_worker?url={url('a')}")
    router.wait(10)
    assert sources(router, "a") == {"new"}  # it took it, and nobody was there to hear it
    if restart:
        router.kill()
        router.start_again()  # its own options have the worker
    else:
        router.ask("POST", f"/add_worker?url={url('a')}")
    for _ in range(20):
        assert states(router)["a"] == "stale"
        router.wait(1)
    assert "nobody knows" in weights(router)["workers"][0]["reason"]
    assert answered(router, updating(router, "last")).json["consistent"] is True
    assert states(router) == {"a": "ready"}


def test_a_worker_that_left_with_what_is_known() -> None:
    """
    A worker that was removed with weights that are known is as any other one when it comes back.
    """
    router = fleet(*"ab")
    router.ask("POST", f"/remove_worker?url={url('a')}")
    router.ask("POST", f"/add_worker?url={url('a')}")
    router.wait(5)
    assert states(router) == dict.fromkeys("ab", "ready")
