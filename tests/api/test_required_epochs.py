"""
``X-Require-Epoch``, and requests that come while weights are updated.
"""

from __future__ import annotations

import pytest

from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.line import VIDEO
from tests.api.updates import (
    VIDEOS,
    answered,
    epoch_of,
    fleet,
    image,
    update,
    updating,
)
from tests.memory import MemoryRouter

FILMS = SimulatorSettings(model="fastwan", video_side=64)


def states(router: MemoryRouter) -> list[str]:
    return [worker.state for worker in router.service.pool]


def test_requests_wait_for_an_update() -> None:
    """
    Requests that come during an update of the whole fleet are answered when it has ended, with the
    new weights.
    """
    router = fleet("a", "b")
    under_way = updating(router, "/w/1")
    router.wait(0.5)
    assert states(router) == ["updating", "updating"]
    clients = [image(router) for _ in range(4)]
    router.wait(0.5)
    assert all(client.reply is None for client in clients)
    assert router.ask("GET", "/queue").json["waiting_count"] == 4
    assert answered(router, under_way).json["epoch"] == 1
    replies = [answered(router, client) for client in clients]
    assert [(reply.status, epoch_of(reply)) for reply in replies] == [(200, "1")] * 4
    made = [len(worker.journal.generations) for worker in router.workers.values()]
    assert made == [2, 2], "they share what waited"


def test_the_line_is_as_long_as_always() -> None:
    """
    No more may wait for an update than may wait at all.
    """
    router = fleet("a", queue_size=2)
    updating(router, "/w/1")
    router.wait(0.5)
    clients = [image(router) for _ in range(3)]
    refused = answered(router, clients[2])
    assert (refused.status, refused.json["reason"]) == (503, "queue_full")
    assert [answered(router, client).status for client in clients[:2]] == [200, 200]


def test_a_later_epoch_is_waited_for() -> None:
    """
    A request that requires weights which no worker has yet waits until an update has brought them,
    and others pass it.
    """
    router = fleet("a", "b")
    later = image(router, X_Require_Epoch=">= 2")
    exact = image(router, X_Require_Epoch="=1")
    assert epoch_of(answered(router, image(router))) == "0"
    router.wait(100.0)
    assert later.reply is None
    assert exact.reply is None
    update(router, "/w/1")
    assert epoch_of(answered(router, exact)) == "1"
    router.wait(10.0)
    assert later.reply is None
    update(router, "/w/2")
    assert epoch_of(answered(router, later)) == "2"


def test_in_a_rolling_update() -> None:
    """
    While one worker after the other is updated those whose turn is still to come serve requests for
    the weights before, and the others those for the new ones.
    """
    router = fleet("a", "b", "c")
    under_way = updating(router, "/w/1", "?mode=rolling&max_unavailable=1")
    router.until(lambda: [worker.epoch for worker in router.service.pool].count(1) == 1)
    router.settle()
    assert under_way.reply is None
    for _ in range(3):
        old, new = image(router, X_Require_Epoch="=0"), image(router, X_Require_Epoch=">=1")
        assert epoch_of(answered(router, new)) == "1"
        assert epoch_of(answered(router, old)) == "0"
    assert answered(router, under_way).json["consistent"]
    assert answered(router, image(router, X_Require_Epoch="=0")).status == 412


def test_an_epoch_that_has_passed() -> None:
    """
    Weights that no worker will have any more are 412 at once, also for who waits already.
    """
    router = fleet("a")
    update(router, "/w/1")
    refused = answered(router, image(router, X_Require_Epoch="=0"))
    assert refused.status == 412
    assert refused.error == {
        "error": "It requires the weights epoch =0, and the fleet is at 1",
        "reason": "epoch",
        "queue_position": None,
        "retry_after": None,
    }
    assert refused.headers.hasHeader("X-Router-Job")
    running = [image(router) for _ in range(2)]
    under_way = updating(router, "/w/2")
    router.settle()
    waiting = [image(router, X_Require_Epoch="=1") for _ in range(2)]
    assert answered(router, under_way).json["epoch"] == 2
    assert [epoch_of(answered(router, client)) for client in running] == ["1", "1"]
    replies = [answered(router, client) for client in waiting]
    assert [reply.status for reply in replies] == [412, 412]
    jobs = {str(reply.headers.getRawHeaders("X-Router-Job")) for reply in replies}
    assert len(jobs) == 2


@pytest.mark.parametrize("limit", ["deadline", "queue_timeout"])
def test_the_time_is_up(limit: str) -> None:
    """
    A request that has waited as long as it may for weights that nobody has is a 412.
    """
    if limit == "deadline":
        client = image(router := fleet("a"), X_Require_Epoch=">=3", X_Deadline_Ms="2000")
    else:
        client = image(router := fleet("a", queue_timeout=2.0), X_Require_Epoch=">=3")
    reply = answered(router, client)
    assert reply.status == 412
    assert reply.json["reason"] == "epoch"
    assert reply.json["error"].endswith("for the weights epoch >=3, and the fleet is at 0")
    assert reply.json["queue_position"] == 1
    assert router.clock.seconds() < 10.0


@pytest.mark.parametrize("text", ["7", ">7", "=-1", "=7, =8", ""])
def test_what_is_no_epoch(text: str) -> None:
    """
    A header that names no epoch is 400, whatever is asked for.
    """
    router = fleet("a")
    reply = answered(router, image(router, X_Require_Epoch=text))
    assert reply.status == 400
    assert "X-Require-Epoch must be =N or >=N" in reply.json["error"]


def test_what_takes_no_gpu_time_requires_none() -> None:
    """
    A request that only reads goes to any worker, whatever weights it asks for.
    """
    router = fleet("a")
    headers = {"X-Require-Epoch": "=9"}
    assert router.ask("GET", "/v1/models", headers=headers).status == 200
    assert router.ask("GET", "/server_info", headers=headers).status == 200


def test_videos_too() -> None:
    """
    A video waits for its weights as an image does, however soon it would be handed over.
    """
    router = fleet("a", simulator=FILMS, job_accept_timeout=2.0)
    client = router.begin("POST", VIDEOS, json=VIDEO, headers={"X-Require-Epoch": ">=1"})
    router.wait(60.0)
    assert client.reply is None
    update(router, "/w/1")
    reply = answered(router, client)
    assert (reply.status, epoch_of(reply)) == (200, "1")
    refused = router.begin("POST", VIDEOS, json=VIDEO, headers={"X-Require-Epoch": "=0"})
    assert answered(router, refused).status == 412
