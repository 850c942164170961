"""
Workers are asked what they serve when they join, when they come back, and every minute.
"""

from __future__ import annotations

from typing import Any

import pytest

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.workers.readiness import Readiness
from tests.memory import MemoryRouter

UNKNOWN = Capabilities()
QUESTIONS = ("/model_info", "/v1/models")
REPLICAS = "/server_info"


def started(*workers: str, **options: Any) -> MemoryRouter:
    router = MemoryRouter(*workers, **options)
    router.service.startService()
    router.settle()
    return router


def asked(router: MemoryRouter, name: str) -> int:
    """
    How often a worker was asked what it serves.
    """
    received = router.workers[name].engine.journal.received
    counts = {question: sum(each.target == question for each in received) for question in QUESTIONS}
    assert len(set(counts.values())) == 1
    return counts[QUESTIONS[0]]


def known(router: MemoryRouter, name: str) -> Capabilities:
    return router.service.pool[f"http://{name}:1"].capabilities


def abilities(router: MemoryRouter, name: str) -> set[str] | None:
    found = known(router, name).abilities
    return None if found is None else set(found)


def fault(router: MemoryRouter, name: str, **rule: Any) -> None:
    router.workers[name].backstage.obey(parse_orders({"rules": [rule]}))


def replace(router: MemoryRouter, name: str, model: str) -> None:
    """
    Another worker at the same URL.
    """
    router._simulator = SimulatorSettings(model=model)
    router.start_worker(name)


def readiness(router: MemoryRouter) -> Readiness:
    return router.service.control.readiness


def test_on_joining() -> None:
    """
    Workers are known as soon as they answered their first health check.
    """
    router = started("a")
    assert known(router, "a") == Capabilities(
        frozenset({"image"}), "Qwen/Qwen-Image", frozenset({"Qwen/Qwen-Image"})
    )
    replace(router, "b", "fastwan")
    router.ask("POST", "/add_worker?url=http://b:1")
    assert abilities(router, "b") == {"video"}
    assert (asked(router, "a"), asked(router, "b")) == (1, 1)


def test_names() -> None:
    """
    A worker's names are its path and the id of its model card.
    """
    simulator = SimulatorSettings(model="fastwan", served_model_name="films")
    router = started("a", simulator=simulator)
    path = "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers"
    assert known(router, "a") == Capabilities(
        frozenset({"video"}), path, frozenset({path, "films"})
    )


def test_every_minute() -> None:
    """
    A worker that is known is asked again every 60 s, and what it says then counts.
    """
    router = started("a")
    replace(router, "a", "cosmos3")
    router.wait(55)
    assert asked(router, "a") == 0
    assert abilities(router, "a") == {"image"}
    router.wait(10)
    assert asked(router, "a") == 1
    assert abilities(router, "a") == {"image", "video"}
    router.wait(60)
    assert asked(router, "a") == 2


def test_after_a_restart() -> None:
    """
    What comes back after a failed health check is asked at once: it may serve something else.
    """
    router = started("a")
    router.stop_worker("a")
    router.wait(10)
    replace(router, "a", "fastwan")
    router.wait(10)
    assert abilities(router, "a") == {"video"}


def test_after_a_late_answer() -> None:
    """
    A worker that was merely late is the same as before, and is not asked out of turn.
    """
    router = started("a")
    fault(router, "a", path="/health", hang=True, times=1)
    router.wait(31)
    assert router.service.pool["http://a:1"].state == "ready"
    assert asked(router, "a") == 1


def test_unknown_until_known() -> None:
    """
    A worker that does not say what it serves is asked at every health check until it does.
    """
    router = MemoryRouter("a")
    fault(router, "a", path="/model_info", status=500, times=3)
    fault(router, "a", path="/v1/models", status=500, times=3)
    router.service.startService()
    router.settle()
    router.wait(20)
    assert known(router, "a") == UNKNOWN
    assert asked(router, "a") == 3
    router.wait(10)
    assert abilities(router, "a") == {"image"}
    router.wait(30)
    assert asked(router, "a") == 4


@pytest.mark.parametrize("body", ["?", [], {}, {"data": 5}, {"task_type": 7}, None])
def test_answers_that_say_nothing(body: object) -> None:
    """
    Nonsense is as no answer: the worker is unknown, which counts as able, and is asked again.
    """
    router = MemoryRouter("a")
    for question in QUESTIONS:
        fault(router, "a", path=question, status=200, body=body, times=1)
    router.service.startService()
    router.settle()
    assert abilities(router, "a") is None
    assert router.ask("POST", "/v1/videos", json={"prompt": "x"}).status == 400
    router.wait(10)
    assert abilities(router, "a") == {"image"}


def test_one_answer_is_enough() -> None:
    """
    Without ``/v1/models`` the abilities are known from ``/model_info``, and the other way round.
    """
    for question in QUESTIONS:
        router = MemoryRouter("a")
        fault(router, "a", path=question, status=404)
        router.service.startService()
        router.settle()
        assert abilities(router, "a") == {"image"}
        assert known(router, "a").names == {"Qwen/Qwen-Image"}


def test_replicas() -> None:
    """
    How many replicas a worker has is learned with what it serves, and follows a change.
    """
    router = started("a", simulator=SimulatorSettings(dp_size=4))
    assert known(router, "a").replicas == 4
    router._simulator = SimulatorSettings(dp_size=2)
    router.start_worker("a")
    router.wait(65)
    assert known(router, "a").replicas == 2


@pytest.mark.parametrize(
    "rule",
    [{"status": 404}, {"status": 500}, {"hang": True}, {"status": 200, "body": "?"}],
    ids=["unknown route", "error", "silence", "no JSON"],
)
def test_replicas_untold(rule: dict[str, Any]) -> None:
    """
    A worker that does not say how many replicas it has is known all the same, with one of them; of
    one that had said so before, that is still believed.
    """
    router = MemoryRouter("a", "b", simulator=SimulatorSettings(dp_size=4))
    fault(router, "a", path=REPLICAS, **rule)
    router.service.startService()
    router.settle()
    router.wait(6)
    assert (abilities(router, "a"), known(router, "a").replicas) == ({"image"}, 1)
    fault(router, "b", path=REPLICAS, **rule)
    before = asked(router, "b")
    router.wait(70)
    assert asked(router, "b") > before
    assert known(router, "b").replicas == 4


def test_replicas_of_another_model() -> None:
    """
    What serves another model is another worker: nothing is believed of its predecessor.
    """
    router = started("a", simulator=SimulatorSettings(dp_size=4))
    replace(router, "a", "fastwan")
    fault(router, "a", path=REPLICAS, status=500)
    router.wait(65)
    assert (abilities(router, "a"), known(router, "a").replicas) == ({"video"}, 1)


def test_a_worker_that_warms_up() -> None:
    """
    A worker that holds ``/v1/models`` while it warms up is known all the same when it is ready.
    """
    router = started("a", simulator=SimulatorSettings(warmup_time=45, served_model_name="mine"))
    router.wait(40)
    assert router.service.pool["http://a:1"].state == "dead"
    router.wait(20)
    assert router.service.pool["http://a:1"].state == "ready"
    assert "mine" in known(router, "a").names


def test_a_silent_minute_forgets_nothing() -> None:
    """
    What was known of a worker stays known while it does not answer the question.
    """
    router = started("a")
    before = known(router, "a")
    for question in QUESTIONS:
        fault(router, "a", path=question, hang=True)
    router.wait(200)
    assert known(router, "a") == before


def test_a_hanging_question() -> None:
    """
    A worker that never answers the question is in service, and holds up nobody else.
    """
    router = MemoryRouter("a", "b")
    for question in QUESTIONS:
        fault(router, "a", path=question, hang=True)
    router.service.startService()
    router.settle()
    assert abilities(router, "b") == {"image"}
    assert router.service.pool["http://a:1"].state == "ready"
    router.wait(60)
    assert known(router, "a") == UNKNOWN
    assert router.service.pool["http://a:1"].state == "ready"


def test_the_dead_are_not_asked() -> None:
    """
    A worker that does not answer its health check is not asked what it serves.
    """
    router = MemoryRouter("a")
    fault(router, "a", path="/health", status=503)
    router.service.startService()
    router.settle()
    router.wait(100)
    assert asked(router, "a") == 0


def test_registered_anew() -> None:
    """
    A worker that was removed and registers again is asked again, and nothing of before is kept.
    """
    router = started("a")
    router.ask("POST", "/remove_worker?url=http://a:1")
    replace(router, "a", "fastwan")
    router.ask("POST", "/add_worker?url=http://a:1")
    assert asked(router, "a") == 1
    assert abilities(router, "a") == {"video"}


def test_removed_while_it_is_asked() -> None:
    """
    An answer that comes after its worker was removed says nothing of the one that is there now.
    """
    router = MemoryRouter("a")
    fault(router, "a", path="/v1/models", delay=3, times=1)
    router.service.startService()
    router.settle()
    router.ask("POST", "/remove_worker?url=http://a:1")
    replace(router, "a", "fastwan")
    router.ask("POST", "/add_worker?url=http://a:1")
    router.wait(5)
    assert abilities(router, "a") == {"video"}


def test_once_at_a_time() -> None:
    """
    Whoever wants a worker looked after while that is done waits for the same.
    """
    router = started("a")
    fault(router, "a", path="/model_info", delay=2, times=1)
    ready, worker = readiness(router), router.service.pool["http://a:1"]
    ended: list[None] = []
    for _ in range(3):
        ready.ask_again(worker).addCallback(ended.append)
    router.settle()
    assert ended == []
    router.wait(3)
    assert len(ended) == 3
    assert asked(router, "a") == 2


def test_looking_after_the_gone() -> None:
    """
    To look after a worker that cannot be reached, or has left, ends and never fails.
    """
    router = started("a")
    ready, worker = readiness(router), router.service.pool["http://a:1"]
    router.stop_worker("a")
    ended: list[object] = []
    ready.ask_again(worker).addBoth(ended.append)
    router.settle()
    router.service.pool.remove("http://a:1")
    ready.ask_again(worker).addBoth(ended.append)
    router.settle()
    assert ended == [None, None]


def test_hold() -> None:
    """
    Nobody who is held begins to catch up; at the end of the hold those who wait are looked after.
    """
    router = started("a")
    lora = {"lora_nickname": "fox", "lora_path": "p"}
    client = router.begin("POST", "/v1/set_lora", json=lora)
    router.until(lambda: client.reply is not None)
    for name in "bc":
        router.start_worker(name)
        fault(router, name, path="/v1/set_lora", status=500, times=1)
        router.ask("POST", f"/add_worker?url=http://{name}:1")
    ready, pool = readiness(router), router.service.pool
    with ready.hold([pool["http://b:1"]]):
        router.wait(30)
        assert [pool[f"http://{name}:1"].state for name in "bc"] == ["stale", "ready"]
    router.wait(5)  # the set takes 1.5 s, checksums 0.5 s each
    assert pool["http://b:1"].state == "ready"


def test_settled() -> None:
    """
    A worker is settled when it is not looked after any more.
    """
    router = started("a")
    ready, worker = readiness(router), router.service.pool["http://a:1"]
    fault(router, "a", path="/model_info", delay=2, times=1)
    router.service.pool.record_lapse(worker)
    router.wait(10)
    settled: list[None] = []
    ready.settled(worker).addCallback(settled.append)
    router.settle()
    assert settled == []
    router.wait(3)
    assert settled == [None]


def test_restarted_during_a_replay() -> None:
    """
    What an older process took does not make its successor ready.
    """
    router = started("a", "b")
    lora = {"lora_nickname": "fox", "lora_path": "p"}
    client = router.begin("POST", "/v1/set_lora", json=lora)
    router.until(lambda: client.reply is not None)
    router.stop_worker("b")
    router.wait(10)
    router.start_worker("b")
    fault(router, "b", path="/v1/set_lora", first_byte=25, times=1)
    router.until(lambda: bool(router.workers["b"].weights.loaded))
    last_words = router.network.agents[b"http://b:1"]
    router.stop_worker("b")
    router.network.agents[b"the old b"] = last_words
    router.wait(10)
    router.start_worker("b")
    router.until(lambda: router.service.pool["http://b:1"].state == "ready", 100)
    assert router.workers["b"].weights.loaded == {"fox": "p"}


def test_stopping() -> None:
    """
    A router that stops gives up what is under way, and that has ended then.
    """
    router = MemoryRouter("a")
    fault(router, "a", path="/model_info", hang=True)
    router.service.startService()
    router.settle()
    stopped: list[object] = []
    router.service.stopService().addBoth(stopped.append)
    router.settle()
    assert len(stopped) == 1
    router.wait(60)
    assert [each.target for each in router.workers["a"].journal.received] == [
        "/health",
        "/model_info",
    ]
