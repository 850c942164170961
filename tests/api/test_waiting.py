"""
The waiting line as clients see it and change it: ``/queue`` and ``/rollouts``.
"""

from __future__ import annotations

from typing import Any

import pytest

from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.line import (
    SECONDS,
    answer,
    arrived,
    batch,
    header,
    lined,
    post,
    queue,
    served,
)
from tests.memory import MemoryRouter

VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
FILMS = SimulatorSettings(model="fastwan", speed=0.001, video_side=64)


def rollout(router: MemoryRouter, name: str = "b") -> Any:
    """
    What ``GET /rollouts`` tells of a batch.
    """
    reply = router.ask("GET", f"/rollouts/{name}")
    assert reply.status == 200, reply.body
    return reply.json


def counts(router: MemoryRouter, name: str = "b") -> dict[str, int]:
    """
    Those of its counts that are not 0.
    """
    names = ("waiting", "running", "done", "failed", "cancelled")
    shown = rollout(router, name)
    return {each: shown[each] for each in names if shown[each]}


# Who waits.


def test_nobody_is_there() -> None:
    """
    An idle router has empty lists.
    """
    router = lined("a")
    assert queue(router) == {
        "waiting": [],
        "running": [],
        "waiting_count": 0,
        "running_count": 0,
    }


def test_who_waits() -> None:
    """
    Each job in line is shown with its place, its prospects, who asks, and what it waits for.
    """
    router = lined("a", "b", learned=6)
    for _ in range(2):
        post(router)
    post(router, X_Client_Id="me", X_Rollout_Batch="b", X_Rollout_Group="g")
    router.wait(3)
    post(router, X_Priority=4)
    first, second = queue(router)["waiting"]
    assert first == {
        "id": first["id"],
        "kind": "image",
        "position": 1,
        "waited": 0.0,
        "predicted_start": pytest.approx(7, abs=0.2),
        "predicted_end": pytest.approx(17, abs=0.5),
        "priority": 4,
        "client": "ip:127.0.0.1",
        "batch": None,
        "group": None,
        "why": "all of 2 workers that can take it are busy",
    }
    assert second == {
        **first,
        "id": second["id"],
        "position": 2,
        "waited": pytest.approx(3),
        "priority": 0,
        "client": "id:me",
        "batch": "b",
        "group": "g",
    }


def test_who_runs() -> None:
    """
    Each job at a worker is shown with that worker, what it does, and its predicted end.
    """
    router = lined("a", learned=6, worker_concurrency=2)
    post(router, X_Client_Id="me")
    router.wait(2)
    post(router)
    first, second = queue(router)["running"]
    assert first == {
        "id": first["id"],
        "kind": "image",
        "worker": "http://a:1",
        "state": "running",
        "waited": 0.0,
        "predicted_start": pytest.approx(-2),
        "predicted_end": pytest.approx(8, abs=0.2),
        "priority": 0,
        "client": "id:me",
        "batch": None,
        "group": None,
    }
    assert second["state"] == "queued at its worker"
    assert second["predicted_start"] == pytest.approx(8, abs=0.2)
    assert second["predicted_end"] == pytest.approx(18, abs=0.5)


def test_names_are_those_of_answers() -> None:
    """
    A job's id is what its answer has in ``X-Router-Job``.
    """
    router = lined("a")
    clients = [post(router) for _ in range(3)]
    shown = queue(router)
    ids = [each["id"] for each in shown["running"] + shown["waiting"]]
    router.until(lambda: all(client.reply for client in clients))
    assert ids == [header(answer(client), "X-Router-Job") for client in clients]
    assert queue(router)["running_count"] == 0


def test_a_video_runs_on() -> None:
    """
    A video is shown until it has ended, not only until its request was answered.
    """
    router = lined("a", simulator=FILMS, job_poll_interval=1.0)
    reply = answer(post(router, "", "/v1/videos", json=VIDEO))
    [video] = queue(router)["running"]
    assert video["id"] == header(reply, "X-Router-Job")
    assert (video["kind"], video["state"]) == ("video", "running")
    router.wait(10)
    assert queue(router)["running"] == []


def test_other_states() -> None:
    """
    What takes no GPU time is open.
    """
    router = lined("a")
    post(router)
    router.begin("GET", "/stats")
    first, second = queue(router)["running"]
    assert (first["state"], second["state"]) == ("running", "open")
    assert (second["predicted_start"], second["predicted_end"]) == (None, None)


def test_how_many_are_shown() -> None:
    """
    ``limit`` bounds both lists and no count.
    """
    router = lined("a", "b")
    for _ in range(5):
        post(router)
    for limit, shown in ((0, 0), (1, 1), (2, 2), (100_000, 3)):
        told = router.ask("GET", f"/queue?limit={limit}").json
        assert len(told["waiting"]) == shown
        assert len(told["running"]) == min(shown, 2)
        assert (told["waiting_count"], told["running_count"]) == (3, 2)


@pytest.mark.parametrize("limit", ["", "-1", "many", "1.0", "100001", "9" * 5000, "%C2%B2"])
def test_limits_that_make_no_sense(limit: str) -> None:
    """
    A limit that is no count is refused.
    """
    reply = lined("a").ask("GET", f"/queue?limit={limit}")
    assert reply.status == 400
    assert "limit" in reply.json["error"]


def test_looking_costs_nobody_a_place() -> None:
    """
    Asking who waits changes nothing, also while a worker just became free.
    """
    router = lined("a")
    clients = [post(router, number) for number in range(4)]
    for _ in range(50):
        queue(router)
        router.wait(1)
    assert served(router) == ["0", "1", "2", "3"]
    assert all(answer(client).status == 200 for client in clients)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/queue", "GET"),
        ("GET", "/queue/1", "DELETE"),
        ("PUT", "/rollouts/b", "DELETE, GET"),
    ],
)
def test_other_methods(method: str, path: str, allow: str) -> None:
    """
    The paths are the router's own and take no other method.
    """
    router = lined("a")
    reply = router.ask(method, path)
    assert reply.status == 405
    assert set(header(reply, "Allow").split(", ")) >= set(allow.split(", "))
    assert not router.workers["a"].journal.received


# Out of the line.


def test_a_cancelled_job() -> None:
    """
    A job that is cancelled while it waits is told so, no worker sees it, and the others go on.
    """
    router = lined("a")
    clients = [post(router, number) for number in range(3)]
    id = queue(router)["waiting"][0]["id"]
    told = router.ask("DELETE", f"/queue/{id}")
    assert (told.status, told.json) == (
        200,
        {"status": "success", "id": id, "state": "cancelled"},
    )
    router.settle()
    reply = answer(clients[1])
    assert reply.status == 409
    assert reply.json["reason"] == "cancelled"
    assert header(reply, "X-Router-Job") == id
    router.until(lambda: clients[2].reply is not None)
    assert served(router) == ["0", "2"]


def test_a_job_that_runs() -> None:
    """
    What is at a worker cannot be cancelled, and runs on.
    """
    router = lined("a")
    client = post(router)
    [job] = queue(router)["running"]
    told = router.ask("DELETE", f"/queue/{job['id']}")
    assert told.status == 409
    assert told.json["reason"] == "running"
    router.wait(SECONDS)
    assert answer(client).status == 200


def test_a_video_that_runs() -> None:
    """
    A video that was accepted is at its worker too.
    """
    router = lined("a", simulator=FILMS)
    id = header(answer(post(router, "", "/v1/videos", json=VIDEO)), "X-Router-Job")
    assert router.ask("DELETE", f"/queue/{id}").status == 409


def test_a_job_that_is_not_there() -> None:
    """
    Jobs that never were, have ended or were cancelled before are not known.
    """
    router = lined("a")
    clients = [post(router) for _ in range(2)]
    [running], [waiting] = queue(router)["running"], queue(router)["waiting"]
    assert router.ask("DELETE", f"/queue/{waiting['id']}").status == 200
    router.wait(SECONDS)
    assert answer(clients[0]).status == 200
    for id in (running["id"], waiting["id"], "nobody"):
        assert router.ask("DELETE", f"/queue/{id}").status == 404


def test_cancelling_frees_no_slot_twice() -> None:
    """
    After all of a line was cancelled the worker still has one request at a time.
    """
    router = lined("a")
    post(router)
    waiting = [post(router) for _ in range(5)]
    for job in queue(router)["waiting"]:
        router.ask("DELETE", f"/queue/{job['id']}")
    router.settle()
    assert {answer(client).status for client in waiting} == {409}
    for _ in range(2):
        post(router)
    assert arrived(router, "a") == 1
    assert router.loads == {"http://a:1": 1}


# Batches.


def test_a_batch_from_begin_to_end() -> None:
    """
    A batch is counted by what its requests do, and has ended when none is left to do anything.
    """
    router = lined("a", "b", learned=6)
    clients = batch(router, "b", 50, 50, 50)
    assert rollout(router) == {
        "id": "b",
        "expected": None,
        "waiting": 1,
        "running": 2,
        "done": 0,
        "failed": 0,
        "cancelled": 0,
        "predicted_end": pytest.approx(20, abs=1),
    }
    router.wait(4)
    assert rollout(router)["predicted_end"] == pytest.approx(16, abs=1)
    router.wait(SECONDS - 3)
    assert counts(router) == {"running": 1, "done": 2}
    router.until(lambda: clients[2].reply is not None)
    assert counts(router) == {"done": 3}
    assert rollout(router)["predicted_end"] is None


def test_how_many_are_expected() -> None:
    """
    ``X-Rollout-Size`` says how many there will be, and keeps no worker idle for them.
    """
    router = lined("a")
    batch(router, "b", 50, X_Rollout_Size=7)
    assert rollout(router)["expected"] == 7
    client = post(router, "other")
    router.wait(2 * SECONDS)
    assert answer(client).status == 200
    batch(router, "b", 50, X_Rollout_Size=9)
    assert rollout(router)["expected"] == 9


def test_requests_that_fail() -> None:
    """
    Failed are those that a worker failed, that were refused, and whose client left a worker;
    cancelled are those whose client left the line.
    """
    router = lined("a", queue_size=2)
    router.workers["a"].engine.faults.fail_generations = 1
    clients = batch(router, "b", 50, 50, 50, 50)
    assert answer(clients[3]).status == 503
    clients[2].hang_up()
    router.settle()
    assert counts(router) == {"waiting": 1, "running": 1, "failed": 1, "cancelled": 1}
    router.wait(SECONDS)
    assert answer(clients[0]).status == 500
    assert counts(router) == {"running": 1, "failed": 2, "cancelled": 1}
    clients[1].hang_up()
    router.settle()
    assert counts(router) == {"failed": 3, "cancelled": 1}


def test_a_cancelled_batch() -> None:
    """
    What waits of a batch is cancelled, what runs ends, and other requests are none of its business.
    """
    router = lined("a")
    clients = batch(router, "b", 50, 50, 50)
    other, elsewhere = post(router, "other"), batch(router, "c", 50)
    told = router.ask("DELETE", "/rollouts/b")
    assert (told.status, told.json) == (200, {"status": "success", "cancelled": 2})
    router.settle()
    assert [answer(client).status for client in clients[1:]] == [409, 409]
    assert {answer(client).json["reason"] for client in clients[1:]} == {"cancelled"}
    assert counts(router) == {"running": 1, "cancelled": 2}
    router.until(lambda: elsewhere[0].reply is not None)
    assert [answer(client).status for client in (clients[0], other, *elsewhere)] == [200] * 3
    assert counts(router) == {"done": 1, "cancelled": 2}
    assert router.ask("DELETE", "/rollouts/b").json["cancelled"] == 0


def test_a_batch_after_its_cancelling() -> None:
    """
    Requests that come later are served: it was what waited then that was cancelled.
    """
    router = lined("a")
    batch(router, "b", 50, 50)
    router.ask("DELETE", "/rollouts/b")
    [late] = batch(router, "b", 50)
    router.until(lambda: late.reply is not None)
    assert answer(late).status == 200
    assert counts(router) == {"done": 2, "cancelled": 1}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_batch_that_is_not_known(method: str) -> None:
    """
    A batch of which there was no request is not known.
    """
    reply = lined("a").ask(method, "/rollouts/nothing")
    assert reply.status == 404


def test_names_with_slashes() -> None:
    """
    A batch may have any name that a header can hold.
    """
    router = lined("a")
    batch(router, "run/7?#%", 50)
    shown = router.ask("GET", "/rollouts/run%2F7%3F%23%25")
    assert shown.json["id"] == "run/7?#%"


def test_a_batch_of_trainers_samples() -> None:
    """
    Trainers' samples are a batch like any other, shown longest first.
    """
    router = lined("a", learned=0)
    sizes = (256, 64, 128)
    clients = [post(router)]
    for side in sizes:
        wish = {"width": side, "height": side, "seed": 1}
        clients.append(post(router, side, "/rollout/generate", json=wish, X_Rollout_Batch="b"))
    assert {each["kind"] for each in queue(router)["waiting"]} == {"rollout"}
    router.until(lambda: all(client.reply for client in clients))
    assert [answer(client).status for client in clients] == [200] * 4
    assert served(router)[1:] == ["256", "128", "64"]
