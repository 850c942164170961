"""
Calls to the whole fleet: adapters that everybody has before work, and sleep.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from twisted.logger import LogEvent

from sgl_droute.fleet.loras import MERGE, SET, UNMERGE, LoraSet
from sgl_droute.fleet.weights import DISK, TENSOR
from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.settings import SimulatorSettings
from tests.memory import Client, MemoryRouter, Reply

IMAGE = {"prompt": "a red fox", "size": "64x64"}
FOX = {"lora_nickname": "fox", "lora_path": "loras/fox"}
OWL = {"lora_nickname": "owl", "lora_path": "loras/owl"}
CHECKSUM = "/get_weights_checksum"
RELEASE = "/release_memory_occupation"
RESUME = "/resume_memory_occupation"
# A picture takes 0.4 s, a LoRA call 1.5 s, release and resume 1 s, checksums 0.5 s.
QUICK = SimulatorSettings(model="flux.2-klein")


# What raises the weights epoch.
CHANGES = (SET, MERGE, UNMERGE, DISK, TENSOR)


def started(*workers: str, **options: Any) -> MemoryRouter:
    router = MemoryRouter(*workers, simulator=QUICK, **options)
    router.service.startService()
    router.settle()
    return router


def answered(router: MemoryRouter, client: Client) -> Reply:
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    return client.reply


def post(router: MemoryRouter, path: str, **kwargs: Any) -> Reply:
    return answered(router, router.begin("POST", path, **kwargs))


def statuses(answer: Reply) -> list[int]:
    assert answer.status == 200
    return [result["status_code"] for result in answer.json["results"]]


def orders(router: MemoryRouter, name: str) -> list[str]:
    """
    The POST requests that a worker received.
    """
    received = router.workers[name].engine.journal.received
    return [each.target for each in received if each.method == "POST"]


def state(router: MemoryRouter, name: str) -> str:
    return router.service.pool[f"http://{name}:1"].state


def fault(router: MemoryRouter, name: str, **rule: Any) -> None:
    router.workers[name].backstage.obey(parse_orders({"rules": [rule]}))


def loras(router: MemoryRouter) -> LoraSet:
    """
    The adapters that workers of the simulated model are to have.
    """
    return router.service.pool.epochs.desired(QUICK.public_name).loras


def adapters(router: MemoryRouter, name: str) -> list[str]:
    """
    The nicknames in force on a worker.
    """
    active = router.workers[name].weights.active
    return [adapter.nickname for adapter in active.get("transformer", [])]


def restart(router: MemoryRouter, name: str) -> None:
    """
    A new process, after a health check found the old one gone.
    """
    router.kill_worker(name)
    router.wait(10)
    router.start_worker(name)


# To all.


@pytest.mark.parametrize(
    "path",
    [
        SET,
        MERGE,
        UNMERGE,
        RELEASE,
        CHECKSUM,
        DISK,
        TENSOR,
        "/update_weights_from_tensor_checker",
    ],
)
def test_to_all(path: str) -> None:
    """
    The request goes as it came to every worker, drained ones too, and not to the dead; what changes
    weights or adapters not to the disabled either. The results come in order of registration.
    """
    router = started("a", "drains", "off", "dead", "gone")
    router.stop_worker("gone")
    for name, wish in (("drains", "draining"), ("off", "disabled"), ("dead", "is_dead")):
        router.ask("PUT", f"/workers/http%3A%2F%2F{name}%3A1", json={wish: True})
    body = b'{"lora_nickname":  "fox", "lora_path": "p", "model_path": "p"}'
    headers = {"Content-Type": "application/json"}
    answer = post(router, f"{path}?x=%2F", data=body, headers=headers)
    assert answer.status == 200
    results = answer.json["results"]
    spared = ["off"] if path in CHANGES else []
    reached = [name for name in ("a", "drains", "off") if name not in spared]
    asked = [f"http://{name}:1" for name in (*reached, "gone")]
    assert [result["worker_url"] for result in results] == asked
    assert {frozenset(result) for result in results} == {
        frozenset({"worker_url", "status_code", "body"})
    }
    assert results[-1]["status_code"] == 502
    for name in reached:
        received = [
            (each.target, each.body_sha256)
            for each in router.workers[name].engine.journal.received
            if each.method == "POST"
        ]
        assert received == [(f"{path}?x=%2F", sha256(body).hexdigest())]
    assert orders(router, "dead") == []
    for name in spared:
        assert f"{path}?x=%2F" not in orders(router, name)


@pytest.mark.parametrize("path", [SET, MERGE, UNMERGE, RELEASE, RESUME, CHECKSUM])
@pytest.mark.parametrize("workers", [(), ("dead",)])
def test_nobody(path: str, workers: tuple[str, ...]) -> None:
    """
    Without anybody to send to it is 503, and the next call with somebody works.
    """
    router = started(*workers)
    for name in workers:
        router.ask("PUT", f"/workers/http%3A%2F%2F{name}%3A1", json={"is_dead": True})
    answer = router.ask("POST", path, json=FOX)
    assert answer.status == 503
    assert answer.error == {
        "error": "No healthy workers available in the pool",
        "reason": "no_worker",
    }
    router.start_worker("a")
    router.ask("POST", "/workers?url=http://a:1")
    assert post(router, path, json=FOX).status == 200


# Adapters.


def test_adapters_for_all() -> None:
    """
    A LoRA set that everybody took is in force everywhere, and nobody is out of rotation.
    """
    router = started("a", "b")
    assert statuses(post(router, SET, json=FOX)) == [200, 200]
    assert [adapters(router, name) for name in "ab"] == [["fox"], ["fox"]]
    assert [state(router, name) for name in "ab"] == ["ready", "ready"]
    router.wait(30)
    assert [orders(router, name) for name in "ab"] == [[SET], [SET]]


@pytest.mark.parametrize("path", [MERGE, UNMERGE])
def test_merging_nothing(path: str) -> None:
    """
    To merge or unmerge before anything was set leaves nothing to replay.
    """
    router = started("a")
    assert statuses(post(router, path, json={})) == [200]
    assert not loras(router)


@pytest.mark.parametrize("how", ["fails", "refuses"])
def test_some_fail(how: str) -> None:
    """
    A worker that failed a call which another took gets no work until it has caught up, which is
    tried at once and at its health checks.
    """
    router = started("a", "b")
    agent = router.network.agents[b"http://b:1"]
    if how == "fails":
        fault(router, "b", path=SET, status=500, times=2)
    else:
        router.stop_worker("b")
    failed = 500 if how == "fails" else 502
    assert statuses(post(router, SET, json=FOX)) == [200, failed]
    router.network.agents[b"http://b:1"] = agent
    assert state(router, "b") == "stale"
    before = orders(router, "b")
    for _ in range(3):
        assert post(router, "/generate", json=IMAGE).status == 200
    assert orders(router, "b") == before
    router.wait(15)
    assert state(router, "b") == "ready"
    assert adapters(router, "b") == ["fox"]
    clients = [router.begin("POST", "/generate", json=IMAGE) for _ in range(2)]
    assert orders(router, "b")[-1] == "/v1/images/generations"
    assert [answered(router, client).status for client in clients] == [200, 200]


def test_catching_up_is_tried_again() -> None:
    """
    A replay that fails is repeated at health checks until it succeeds.
    """
    router = started("a", "b")
    fault(router, "b", path=SET, status=500, times=4)
    post(router, SET, json=FOX)
    router.wait(20)
    assert state(router, "b") == "stale"
    assert 2 <= len(orders(router, "b")) <= 4
    router.wait(25)
    assert (state(router, "b"), adapters(router, "b")) == ("ready", ["fox"])


def test_all_fail() -> None:
    """
    When nobody took a call nothing has changed: the set is the old one and all stay in rotation.
    """
    router = started("a", "b")
    post(router, SET, json=FOX)
    before = loras(router)
    for name in "ab":
        fault(router, name, path=SET, status=500, times=1)
    assert statuses(post(router, SET, json=OWL)) == [500, 500]
    assert loras(router) is before
    assert [state(router, name) for name in "ab"] == ["ready", "ready"]
    assert [adapters(router, name) for name in "ab"] == [["fox"], ["fox"]]


def test_a_worker_without_adapters() -> None:
    """
    A worker whose pipeline takes no adapters has nothing to catch up with: it stays in rotation,
    and joins it after a restart.
    """
    router = started("a", "mesh")
    refusal = {"detail": "Failed to set LoRA adapter: Lora is not enabled"}
    fault(router, "mesh", path=SET, status=500, body=refusal)
    assert statuses(post(router, SET, json=FOX)) == [200, 500]
    assert [state(router, name) for name in ("a", "mesh")] == ["ready", "ready"]
    restart(router, "mesh")
    fault(router, "mesh", path=SET, status=500, body=refusal)
    router.wait(10)
    assert state(router, "mesh") == "ready"


def test_nobody_has_adapters() -> None:
    """
    Where no pipeline takes adapters there is no set, and all go on working.
    """
    router = started("a")
    fault(router, "a", path=SET, status=500, body={"detail": "Lora is not enabled"})
    assert statuses(post(router, SET, json=FOX)) == [500]
    assert not loras(router)
    assert state(router, "a") == "ready"


def test_not_json() -> None:
    """
    What no worker understands is told by the workers and changes nothing.
    """
    router = started("a")
    assert statuses(post(router, SET, data=b"{")) == [422]
    assert not loras(router)
    assert state(router, "a") == "ready"


@pytest.mark.parametrize("how", ["joins", "restarts"])
def test_before_any_work(how: str) -> None:
    """
    A worker that joins or comes back has the fleet's set before its first request.
    """
    router = started("a", "b") if how == "restarts" else started("a")
    post(router, SET, json=FOX)
    if how == "restarts":
        restart(router, "b")
        assert state(router, "b") == "stale"
        router.until(lambda: SET in orders(router, "b"))
    else:
        router.start_worker("b")
        joined = router.ask("POST", "/workers?url=http://b:1").json["worker"]
        assert joined["state"] == "stale"
    clients = [router.begin("POST", "/generate", json=IMAGE) for _ in range(4)]
    while state(router, "b") == "stale":
        assert "/v1/images/generations" not in orders(router, "b")
        router.wait(0.1, 0.1)
    assert state(router, "b") == "ready"
    clients += [router.begin("POST", "/generate", json=IMAGE) for _ in range(4)]
    for client in clients:
        assert answered(router, client).status == 200
    assert orders(router, "b")[0] == SET
    assert "/v1/images/generations" in orders(router, "b")
    sums = {entry.weights for name in "ab" for entry in router.workers[name].journal.generations}
    assert len(sums) == 1


def test_the_last_worker_was_restarted() -> None:
    """
    While nobody has the fleet's set the answer is 503, not a picture without it.
    """
    router = started("a")
    post(router, SET, json=FOX)
    restart(router, "a")
    answer = router.ask("POST", "/generate", json=IMAGE)
    assert answer.status == 503
    assert "1 stale" in answer.json["error"]
    router.wait(15)
    assert post(router, "/generate", json=IMAGE).status == 200


def test_broken_off_work_tells_of_a_restart() -> None:
    """
    A worker that refuses a request gets no more of them without the set, also when its successor
    is there before the next health check.
    """
    router = started("a")
    post(router, SET, json=FOX)
    router.wait(1)
    router.stop_worker("a")
    assert router.ask("POST", "/generate", json=IMAGE).status == 502
    router.start_worker("a")
    assert router.ask("POST", "/generate", json=IMAGE).status == 503
    router.wait(15)
    assert post(router, "/generate", json=IMAGE).status == 200
    assert orders(router, "a") == [SET, "/v1/images/generations"]


def test_what_is_replayed() -> None:
    """
    A restarted worker gets the last set with the path of its nickname, and what came after it.
    """
    router = started("a", "b")
    for path, body in (
        (SET, FOX),
        (MERGE, {"strength": 0.3}),
        (SET, OWL),
        (SET, {"lora_nickname": "fox"}),
        (UNMERGE, {}),
        (MERGE, {"strength": 0.5}),
    ):
        assert statuses(post(router, path, json=body)) == [200, 200]
    restart(router, "b")
    router.wait(20)
    assert orders(router, "b") == [SET, MERGE, CHECKSUM]
    assert router.workers["b"].weights.loaded == {"fox": "loras/fox"}
    assert state(router, "b") == "ready"


def test_half_a_replay() -> None:
    """
    A worker that takes the first call of two and fails the second stays out and begins anew.
    """
    router = started("a", "b")
    post(router, SET, json=FOX)
    post(router, MERGE, json={"strength": 0.5})
    restart(router, "b")
    fault(router, "b", path=MERGE, status=500, times=1)
    router.wait(13)
    assert (state(router, "b"), orders(router, "b")) == ("stale", [SET, MERGE])
    router.wait(20)
    assert (state(router, "b"), orders(router, "b")) == (
        "ready",
        [SET, MERGE, SET, MERGE, CHECKSUM],
    )


def test_a_stale_worker_takes_a_whole_set() -> None:
    """
    A worker that missed a set and takes the next is up to date at once, without a replay.
    """
    router = started("a", "b")
    fault(router, "b", path=SET, status=500, times=2)
    post(router, SET, json=FOX)
    assert state(router, "b") == "stale"
    assert orders(router, "b") == [SET, SET]
    post(router, SET, json=OWL)
    assert state(router, "b") == "ready"
    router.wait(20)
    assert orders(router, "b") == [SET, SET, SET]


def test_a_stale_worker_takes_a_part() -> None:
    """
    A worker that missed the set and takes what builds on it is not up to date.
    """
    router = started("a", "b")
    fault(router, "b", path=SET, status=500, times=2)
    post(router, SET, json=FOX)
    assert statuses(post(router, MERGE, json={"strength": 0.5})) == [200, 200]
    assert state(router, "b") == "stale"
    router.wait(15)
    assert state(router, "b") == "ready"
    assert orders(router, "b") == [SET, SET, MERGE, SET, MERGE, CHECKSUM]


def test_one_after_the_other() -> None:
    """
    Calls at the same time go in one order to everybody: the second when all answered the first.
    """
    router = started("a", "b")
    fault(router, "b", path=SET, delay=5, times=1)
    clients = [router.begin("POST", SET, json=lora) for lora in (FOX, OWL)]
    router.wait(4)
    assert [orders(router, name) for name in "ab"] == [[SET], [SET]]
    for client in clients:
        assert statuses(answered(router, client)) == [200, 200]
    assert [adapters(router, name) for name in "ab"] == [["owl"], ["owl"]]
    assert [state(router, name) for name in "ab"] == ["ready", "ready"]


def test_many_at_once() -> None:
    """
    However many calls come at once, some failing, the fleet ends with the last that succeeded.
    """
    router = started("a", "b", "c")
    fault(router, "b", path=SET, status=500, times=3)
    fault(router, "c", path=SET, delay=3, times=2)
    loras = [{"lora_nickname": f"n{n}", "lora_path": f"p{n}"} for n in range(6)]
    clients = [router.begin("POST", SET, json=lora) for lora in loras]
    for client in clients:
        assert answered(router, client).status == 200
    router.wait(30)
    assert [adapters(router, name) for name in "abc"] == [["n5"]] * 3
    assert [state(router, name) for name in "abc"] == ["ready"] * 3


def test_a_call_during_a_replay() -> None:
    """
    A call that comes while a worker catches up reaches it after that; the newer set wins
    everywhere.
    """
    router = started("a")
    post(router, SET, json=FOX)
    router.start_worker("b")
    fault(router, "b", path=SET, delay=5, times=1)
    router.ask("POST", "/workers?url=http://b:1")
    client = router.begin("POST", SET, json=OWL)
    router.wait(4)
    assert orders(router, "b") == [SET]
    assert statuses(answered(router, client)) == [200, 200]
    assert [adapters(router, name) for name in "ab"] == [["owl"], ["owl"]]
    assert [state(router, name) for name in "ab"] == ["ready", "ready"]


def test_joining_during_a_call() -> None:
    """
    A worker that joins while a call is under way ends with the new set, and gets no work before.
    """
    router = started("a")
    post(router, SET, json=FOX)
    fault(router, "a", path=SET, delay=5, times=1)
    client = router.begin("POST", SET, json=OWL)
    router.start_worker("b")
    router.ask("POST", "/workers?url=http://b:1")
    assert statuses(answered(router, client)) == [200]
    assert state(router, "b") == "stale"
    router.wait(15)
    assert (adapters(router, "b"), state(router, "b")) == (["owl"], "ready")


def test_the_first_set_while_somebody_joins() -> None:
    """
    A worker that joins while the fleet's first set is under way has it before any work.
    """
    router = started("a")
    fault(router, "a", path=SET, delay=5, times=1)
    client = router.begin("POST", SET, json=FOX)
    router.start_worker("b")
    router.ask("POST", "/workers?url=http://b:1")
    assert statuses(answered(router, client)) == [200]
    assert state(router, "b") == "stale"
    router.wait(15)
    assert (adapters(router, "b"), state(router, "b")) == (["fox"], "ready")


def test_restarted_during_a_call() -> None:
    """
    A worker that took a call and was restarted before all had answered has to catch up.
    """
    router = started("a", "b")
    fault(router, "a", path=SET, delay=25, times=1)
    client = router.begin("POST", SET, json=FOX)
    router.wait(3)
    restart(router, "b")
    assert statuses(answered(router, client)) == [200, 200]
    router.wait(15)
    assert (adapters(router, "b"), state(router, "b")) == (["fox"], "ready")


@pytest.mark.parametrize("how", ["removed", "quarantined"])
def test_a_hanging_replay_of_somebody_who_is_out(how: str) -> None:
    """
    A worker that hangs while it catches up and is taken out for it holds up no call to the others.
    """
    router = started("a")
    post(router, SET, json=FOX)
    router.start_worker("b")
    fault(router, "b", path=SET, hang=True)
    router.ask("POST", "/workers?url=http://b:1")
    router.wait(10)
    path = "/workers/http%3A%2F%2Fb%3A1"
    if how == "removed":
        assert router.ask("DELETE", path).status == 200
    else:
        assert router.ask("PUT", path, json={"is_dead": True}).status == 200
    client = router.begin("POST", SET, json=OWL)
    router.wait(60)
    assert client.reply is not None
    assert statuses(client.reply) == [200]


@pytest.mark.parametrize("waiting", [False, True])
def test_hanging_up_on_a_call(waiting: bool) -> None:
    """
    A call outlives its client, also while it waits for its turn, and its effect is kept.
    """
    router = started("a", "b")
    fault(router, "a", path=SET, delay=5, times=1)
    first = router.begin("POST", SET, json=FOX)
    second = router.begin("POST", SET, json=OWL)
    (second if waiting else first).hang_up()
    router.settle()
    router.wait(20)
    assert [orders(router, name) for name in "ab"] == [[SET, SET]] * 2
    assert [adapters(router, name) for name in "ab"] == [["owl"]] * 2
    [last] = loras(router).calls
    assert last.body == OWL


def test_a_large_call_outlives_its_client() -> None:
    """
    The body is there for everybody after its client has gone.
    """
    router = started("a", "b")
    body = {**FOX, "extra": "x" * 900_000}
    fault(router, "a", path=SET, delay=3, times=1)
    router.begin("POST", SET, json=OWL)
    client = router.begin("POST", SET, json=body)
    client.hang_up()
    router.settle()
    router.wait(20)
    sizes = [router.workers[n].journal.received[-1].body_size for n in "ab"]
    assert orders(router, "a") == orders(router, "b") == [SET, SET]
    assert [adapters(router, name) for name in "ab"] == [["fox"]] * 2
    assert all(size == 0 or size > 900_000 for size in sizes)


def test_a_call_that_is_too_large_to_be_kept() -> None:
    """
    What could not be replayed is not sent in the first place.
    """
    router = started("a")
    answer = router.ask("POST", SET, json={**FOX, "extra": "x" * 1_100_000})
    assert answer.status == 413
    assert orders(router, "a") == []


def test_a_release_that_was_not_answered_is_sent_again() -> None:
    """
    A worker that gave no answer may hold its memory: it gets no work, and the next release.
    """
    router = started("a", timeout=5)
    fault(router, "a", path=RELEASE, hang=True, times=1)
    assert statuses(post(router, RELEASE)) == [502]
    assert state(router, "a") == "sleeping"
    assert not router.workers["a"].weights.sleeping
    assert statuses(post(router, RELEASE)) == [200]
    assert router.workers["a"].weights.sleeping


def test_a_sleeper_that_was_not_reached_sleeps_on() -> None:
    """
    A release that did not reach a restarted sleeper leaves it out of traffic.
    """
    router = started("a")
    post(router, RELEASE)
    restart(router, "a")
    router.wait(20)
    router.stop_worker("a")
    assert statuses(post(router, RELEASE)) == [502]
    assert state(router, "a") == "sleeping"


def test_stopping_during_a_call(logged: list[LogEvent]) -> None:
    """
    A router that stops ends its calls and replays; their clients are told.
    """
    router = started("a", "b")
    fault(router, "a", path=SET, hang=True)
    clients = [router.begin("POST", SET, json=lora) for lora in (FOX, OWL)]
    stopped: list[object] = []
    router.service.stopService().addBoth(stopped.append)
    router.settle()
    assert len(stopped) == 1
    assert [client.reply.status for client in clients if client.reply] == [503, 503]


def test_asleep_during_a_call() -> None:
    """
    A worker that slept through a call catches up when it wakes, before it gets work.
    """
    router = started("a", "b")
    fault(router, "b", path=RELEASE, status=500, times=1)
    assert statuses(post(router, RELEASE)) == [200, 500]
    assert [state(router, name) for name in "ab"] == ["sleeping", "ready"]
    assert statuses(post(router, SET, json=FOX)) == [200]
    assert statuses(post(router, RESUME)) == [200]
    assert orders(router, "a")[:2] == [RELEASE, RESUME]
    router.wait(5)
    assert (adapters(router, "a"), state(router, "a")) == (["fox"], "ready")


# Sleep.


def test_release_and_resume() -> None:
    """
    Released workers sleep and get no work, which the 503 says; resumed ones work again.
    """
    router = started("a", "b")
    released = post(router, RELEASE)
    assert statuses(released) == [200, 200]
    assert released.json["results"][0]["body"]["sleeping"] is True
    assert [state(router, name) for name in "ab"] == ["sleeping", "sleeping"]
    refused = router.ask("POST", "/generate", json=IMAGE)
    assert refused.status == 503
    assert "2 sleeping" in refused.json["error"]
    assert statuses(post(router, RESUME)) == [200, 200]
    assert [state(router, name) for name in "ab"] == ["ready", "ready"]
    assert post(router, "/generate", json=IMAGE).status == 200


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (RELEASE, "All workers are already sleeping"),
        (RESUME, "All workers are already active"),
    ],
)
def test_twice(path: str, message: str) -> None:
    """
    To release the sleeping or resume the awake is 200, says so, and asks nobody.
    """
    router = started("a", "b")
    post(router, RELEASE)
    if path == RESUME:
        post(router, RESUME)
    before = [orders(router, name) for name in "ab"]
    for _ in range(2):
        again = router.ask("POST", path)
        assert (again.status, again.json["message"]) == (200, message)
    assert [orders(router, name) for name in "ab"] == before


def test_no_work_from_the_moment_of_the_call() -> None:
    """
    A request that comes while a release is under way is refused, not put to sleep with the worker.
    """
    router = started("a")
    client = router.begin("POST", RELEASE)
    refused = router.ask("POST", "/generate", json=IMAGE)
    assert refused.status == 503
    assert "sleeping" in refused.json["error"]
    assert answered(router, client).status == 200
    assert orders(router, "a") == [RELEASE]


def test_work_comes_before_sleep() -> None:
    """
    A worker is released when it has answered what it was sent; others need not wait for that.
    """
    router = started("a", "b")
    for name in "ab":
        fault(router, name, path="/v1/images", delay=5, times=1)
    work = router.begin("POST", "/generate", json=IMAGE)
    busy = next(name for name in "ab" if router.loads[f"http://{name}:1"])
    idle = "b" if busy == "a" else "a"
    client = router.begin("POST", RELEASE)
    router.wait(4)
    assert RELEASE in orders(router, idle)
    assert RELEASE not in orders(router, busy)
    assert client.reply is None
    assert statuses(answered(router, client)) == [200, 200]
    assert work.reply is not None
    assert work.reply.status == 200
    assert orders(router, busy) == ["/v1/images/generations", RELEASE]


def test_work_whose_client_left_does_not_hold_up_sleep() -> None:
    """
    A request that nobody waits for any more is not waited for.
    """
    router = started("a")
    fault(router, "a", path="/v1/images", hang=True)
    work = router.begin("POST", "/generate", json=IMAGE)
    client = router.begin("POST", RELEASE)
    router.wait(10)
    assert client.reply is None
    work.hang_up()
    router.settle()
    assert statuses(answered(router, client)) == [200]


def test_the_waiting_line_finds_nobody() -> None:
    """
    Requests that wait for a free connection when all go to sleep are told so.
    """
    router = started("a", max_connections=1)
    works = [router.begin("POST", "/generate", json=IMAGE) for _ in range(3)]
    client = router.begin("POST", RELEASE)
    assert answered(router, client).status == 200
    router.wait(1)
    assert [work.reply.status for work in works if work.reply] == [200, 503, 503]


@pytest.mark.parametrize("how", ["fails", "refuses", "says no"])
def test_a_release_that_failed(how: str) -> None:
    """
    A worker that is known not to sleep goes on working.
    """
    router = started("a", "b")
    agent = router.network.agents[b"http://b:1"]
    if how == "fails":
        fault(router, "b", path=RELEASE, status=500)
    elif how == "refuses":
        router.stop_worker("b")
    else:
        fault(router, "b", path=RELEASE, status=200, body={"success": False, "message": "FSDP"})
    statuses(post(router, RELEASE))
    router.network.agents[b"http://b:1"] = agent
    assert [state(router, name) for name in "ab"] == ["sleeping", "ready"]
    assert post(router, "/generate", json=IMAGE).status == 200
    assert orders(router, "b")[-1] == "/v1/images/generations"


def test_a_release_that_may_have_happened() -> None:
    """
    A worker that did not answer may sleep or yet go to sleep: it gets no work, and resume wakes it.
    """
    router = started("a", timeout=20)
    fault(router, "a", path=RELEASE, delay=30)
    assert statuses(post(router, RELEASE)) == [502]
    assert state(router, "a") == "sleeping"
    router.wait(15)
    assert statuses(post(router, RESUME)) == [200]
    assert state(router, "a") == "ready"
    assert post(router, "/generate", json=IMAGE).status == 200


def test_a_resume_that_failed() -> None:
    """
    A worker that did not wake is still asleep, and can be woken again alone.
    """
    router = started("a", "b")
    post(router, RELEASE)
    fault(router, "b", path=RESUME, status=500, times=1)
    assert statuses(post(router, RESUME)) == [200, 500]
    assert [state(router, name) for name in "ab"] == ["ready", "sleeping"]
    assert statuses(post(router, RESUME)) == [200]
    assert state(router, "b") == "ready"
    assert orders(router, "a").count(RESUME) == 1


def test_only_the_sleeping_are_woken() -> None:
    """
    Resume asks nobody who is awake, and release nobody who sleeps.
    """
    router = started("a", "b")
    fault(router, "b", path=RELEASE, status=500, times=1)
    post(router, RELEASE)
    assert statuses(post(router, RELEASE)) == [200]
    assert orders(router, "a") == [RELEASE]
    fault(router, "b", path=RESUME, status=500, times=1)
    post(router, RESUME)
    post(router, RESUME)
    assert orders(router, "a") == [RELEASE, RESUME]


def test_sleepers_are_not_quarantined() -> None:
    """
    Failing health checks do not take a sleeping worker out.
    """
    router = started("a")
    post(router, RELEASE)
    fault(router, "a", path="/health", status=503, times=10)
    router.wait(80)
    assert state(router, "a") == "sleeping"
    assert statuses(post(router, RESUME)) == [200]
    router.wait(40)
    assert state(router, "a") == "ready"


def test_dead_sleepers_are_woken() -> None:
    """
    A worker that was quarantined while asleep is woken too; it stays quarantined.
    """
    router = started("a", "b")
    post(router, RELEASE)
    router.ask("PUT", "/workers/http%3A%2F%2Fb%3A1", json={"is_dead": True})
    assert statuses(post(router, RESUME)) == [200, 200]
    assert not router.workers["b"].weights.sleeping
    assert [state(router, name) for name in "ab"] == ["ready", "dead"]
    recovered = router.ask("PUT", "/workers/http%3A%2F%2Fb%3A1", json={"is_dead": False})
    assert recovered.json["worker"]["state"] == "ready"


def test_all_are_asleep_or_dead() -> None:
    """
    A fleet of which the living sleep is already sleeping.
    """
    router = started("a", "b")
    router.ask("PUT", "/workers/http%3A%2F%2Fb%3A1", json={"is_dead": True})
    assert statuses(post(router, RELEASE)) == [200]
    again = router.ask("POST", RELEASE)
    assert (again.status, again.json["message"]) == (200, "All workers are already sleeping")


def test_releases_at_the_same_time() -> None:
    """
    Of two releases at once one does it, and the other finds it done.
    """
    router = started("a", "b")
    clients = [router.begin("POST", RELEASE) for _ in range(2)]
    first, second = (answered(router, client) for client in clients)
    assert statuses(first) == [200, 200]
    assert (second.status, second.json["message"]) == (200, "All workers are already sleeping")
    assert [orders(router, name) for name in "ab"] == [[RELEASE], [RELEASE]]


@pytest.mark.parametrize("last", [RELEASE, RESUME])
def test_release_and_resume_at_the_same_time(last: str) -> None:
    """
    Calls against each other go one after the other: the last one holds, on every worker alike.
    """
    router = started("a", "b")
    first = RESUME if last == RELEASE else RELEASE
    if first == RESUME:
        post(router, RELEASE)
    fault(router, "a", path=first, delay=5)
    clients = [router.begin("POST", path) for path in (first, last)]
    for client in clients:
        assert statuses(answered(router, client)) == [200, 200]
    asleep = last == RELEASE
    assert [worker.weights.sleeping for worker in router.workers.values()] == [asleep] * 2
    assert [state(router, name) == "sleeping" for name in "ab"] == [asleep] * 2


@pytest.mark.parametrize("path", [RELEASE, RESUME])
@pytest.mark.parametrize("waiting", [False, True])
def test_hanging_up_on_sleep(path: str, waiting: bool) -> None:
    """
    A release or resume outlives its client, also while it waits for its turn or for open work.
    """
    router = started("a", "b")
    if path == RESUME:
        post(router, RELEASE)
    fault(router, "a", path=path, delay=5, times=1)
    clients = [router.begin("POST", path) for _ in range(2)]
    clients[waiting].hang_up()
    router.settle()
    router.wait(20)
    asleep = path == RELEASE
    assert [worker.weights.sleeping for worker in router.workers.values()] == [asleep] * 2
    assert [state(router, name) == "sleeping" for name in "ab"] == [asleep] * 2
    stayed = clients[not waiting].reply
    assert stayed is not None
    assert stayed.status == 200


def test_removed_during_a_release() -> None:
    """
    A worker that leaves while it is put to sleep breaks nothing; registered again it is awake.
    """
    router = started("a", "b")
    fault(router, "b", path=RELEASE, status=500, first_byte=3)
    client = router.begin("POST", RELEASE)
    router.ask("DELETE", "/workers/http%3A%2F%2Fb%3A1")
    router.ask("POST", "/workers?url=http://b:1")
    assert statuses(answered(router, client)) == [200, 500]
    assert [state(router, name) for name in "ab"] == ["sleeping", "ready"]


def test_restarted_asleep() -> None:
    """
    A worker that was restarted while it slept holds its memory again: it is put to sleep once more,
    at the latest by the next release.
    """
    router = started("a")
    post(router, RELEASE)
    restart(router, "a")
    router.wait(20)
    post(router, RELEASE)
    assert state(router, "a") == "sleeping"
    assert router.workers["a"].weights.sleeping


def test_the_set_is_empty_at_first() -> None:
    """
    A fleet without adapters needs no replay from anybody.
    """
    router = started("a")
    assert loras(router) == LoraSet()
    restart(router, "a")
    router.wait(10)
    assert state(router, "a") == "ready"
    assert orders(router, "a") == []
