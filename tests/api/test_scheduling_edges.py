"""
Jobs whose workers are removed, whose bodies are lost, and whose answers are odd.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import define, field
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from sgl_droute.errors import NoStorage, NotConnected
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.line import IMAGE, SECONDS, answer, arrived, header, lined, parking_of, post, queue
from tests.memory import MemoryRouter

VIDEOS = "/v1/videos"
VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
# The video above takes 77 s.
FILMS = SimulatorSettings(model="fastwan", speed=0.0001, video_side=64)


@define(eq=False)
class Held:
    """
    The way to a worker where POSTs stay until the test says what becomes of them, and anything else
    stays for good.
    """

    way: Any
    answers: list[Deferred[Any]] = field(factory=list)
    requests: list[tuple[Any, ...]] = field(factory=list)

    def request(self, *arguments: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        if arguments[0] == b"POST":
            self.requests.append(arguments)
            self.answers.append(answer)
        return answer

    def flush(self) -> None:
        self.way.flush()

    def let_go(self) -> None:
        """
        The worker gets the last request.
        """
        self.way.request(*self.requests[-1]).chainDeferred(self.answers[-1])

    def refuse(self) -> None:
        """
        The connection for the last request is refused.
        """
        self.answers[-1].errback(NotConnected("http://a:1", "connection refused"))


class Says(Resource):
    """
    A worker that answers whatever is posted with the same *fields*.
    """

    isLeaf = True

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def render_POST(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return json.dumps(self.fields).encode()


def hold(router: MemoryRouter, name: str = "a") -> Held:
    url = f"http://{name}:1".encode()
    agents: dict[bytes, Any] = router.network.agents
    agents[url] = held = Held(agents[url])
    return held


def says(router: MemoryRouter, **fields: Any) -> None:
    router.network.agents[b"http://a:1"] = RequestTraversalAgent(Says(**fields))


def scheduler_of(router: MemoryRouter) -> Scheduler:
    return router.service.turns.scheduler


def nothing_left(router: MemoryRouter) -> bool:
    scheduler = scheduler_of(router)
    return not (scheduler.floor.running or scheduler._things)


def remove(router: MemoryRouter, name: str) -> None:
    assert router.ask("DELETE", f"/workers/http:%2F%2F{name}:1").status == 200
    router.settle()


def test_nothing_goes_to_a_worker_that_is_removed() -> None:
    """
    The end of the videos of a removed worker frees nothing there: who waits gets one of the others.
    """
    router = lined("a", "b", simulator=FILMS)
    for name in ("v", "w"):
        assert answer(post(router, name, VIDEOS, json=VIDEO)).status == 200
    assert (arrived(router, "a"), arrived(router, "b")) == (1, 1)
    waiting = post(router, "x", VIDEOS, json=VIDEO)
    remove(router, "a")
    assert waiting.reply is None
    assert queue(router)["waiting_count"] == 1
    router.until(lambda: waiting.reply is not None)
    assert header(answer(waiting), "X-Router-Worker") == "http://b:1"
    assert (arrived(router, "a"), arrived(router, "b")) == (1, 2)


def test_a_body_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who waited and whose body cannot be read back is answered with 507, and the slot that it was to
    have goes to the next in line.
    """
    router = lined("a")
    parking = parking_of(router)
    parking.limit = 0
    post(router, "x")
    lost = post(router, "y")
    parking.limit = 1 << 20
    following = post(router, "z")

    def read(place: int, size: int) -> bytes:
        raise NoStorage("It is gone")

    monkeypatch.setattr(type(parking._yard), "read", lambda _, place, size: read(place, size))
    router.wait(SECONDS)
    assert answer(lost).status == 507
    assert following.reply is None
    assert arrived(router, "a") == 2
    router.wait(SECONDS)
    assert answer(following).status == 200
    assert router.loads == {"http://a:1": 0}
    assert nothing_left(router)


def test_the_next_is_told_when_one_is_refused() -> None:
    """
    When a job ends since its worker was not reached, the next one is on its way at once.
    """
    router = lined("a")
    held = hold(router)
    clients = [post(router, number) for number in range(3)]
    for number in (1, 2, 3):
        assert len(held.requests) == number
        held.refuse()
        router.settle()
    assert [answer(client).status for client in clients] == [502, 502, 502]
    assert nothing_left(router)


def test_an_absurd_job_holds_up_nobody() -> None:
    """
    A client that asks for more than anybody can do and leaves costs its worker minutes, and what
    others are told is no later than an hour.
    """
    router = lined("a", queue_size=1)
    hold(router)
    absurd = {**IMAGE, "size": "65536x65536", "num_inference_steps": 1 << 20, "n": 10}
    client = post(router, json=absurd)
    [running] = queue(router)["running"]
    assert running["predicted_end"] == 1800.0
    post(router, json=absurd)
    refused = answer(post(router))
    assert refused.status == 503
    assert refused.json["retry_after"] == int(header(refused, "Retry-After")) == 3600
    client.hang_up()
    router.settle()
    [running] = queue(router)["running"]
    assert running["state"] == "abandoned"
    assert running["predicted_end"] < 300


def test_a_worker_removed_before_it_answered() -> None:
    """
    A video whose worker is removed before the answer to its POST came is its client's, and leaves
    nothing behind in the router.
    """
    router = lined("a", simulator=FILMS)
    held = hold(router)
    client = post(router, "v", VIDEOS, json=VIDEO)
    remove(router, "a")
    held.let_go()
    router.settle()
    assert answer(client).status == 200
    assert nothing_left(router)
    assert queue(router)["running"] == []


@pytest.mark.parametrize("id", ["a/b", "x" * 257, ""])
def test_a_video_with_an_id_that_cannot_be_kept(id: str) -> None:
    """
    Nobody could ask about such a video: its slot is free when its POST is answered.
    """
    router = lined("a", simulator=FILMS)
    says(router, id=id, status="queued")
    for _ in range(2):
        assert answer(post(router, "v", VIDEOS, json=VIDEO)).status == 200
    assert nothing_left(router)


def test_a_video_that_is_made_at_once() -> None:
    """
    A video whose POST is answered when it is completed is learned once, and is over.
    """
    router = lined("a", simulator=FILMS)
    says(router, id="v", status="completed", progress=100, inference_time_s=5.0)
    assert answer(post(router, "v", VIDEOS, json=VIDEO)).status == 200
    router.settle()
    [worker] = router.service.pool
    shown: Any = router.service.control.speeds.shown(worker)
    assert shown["video"]["samples"] == 1
    assert nothing_left(router)


def test_a_batch_that_no_path_can_name() -> None:
    """
    The name of a batch does not begin with a slash, which ``/rollouts/`` could not be asked about.
    """
    router = lined("a")
    refused = answer(post(router, X_Rollout_Batch="/x"))
    assert refused.status == 400
    assert "X-Rollout-Batch" in refused.json["error"]
    assert arrived(router, "a") == 0
