"""
What holds of the waiting line whatever clients, operators and workers do.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.line import IMAGE, IMAGES, answer, lined, parking_of, post, queue
from tests.memory import Client, MemoryRouter

VIDEOS = "/v1/videos"
VIDEO = {"size": "64x64", "num_frames": 5}
# A video takes 51 s, an image 26 s.
BOTH = SimulatorSettings(model="cosmos3", speed=0.001, pictures=1, video_side=64)

_STEP = st.one_of(
    st.tuples(st.just("post"), st.sampled_from([0, 0, 0, 3, -1])),
    st.tuples(st.just("film"), st.just(0)),
    st.tuples(st.just("sample"), st.integers(0, 2)),
    st.tuples(st.just("read"), st.just(0)),
    st.tuples(st.just("late"), st.integers(1, 40)),
    st.tuples(st.just("hang up"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("cancel batch"), st.integers(0, 2)),
    st.tuples(st.just("stop"), st.sampled_from("ab")),
    st.tuples(st.just("start"), st.sampled_from("ab")),
    st.tuples(st.just("remove"), st.sampled_from("ab")),
    st.tuples(st.just("add"), st.sampled_from("ab")),
    st.tuples(st.just("wait"), st.integers(1, 30)),
)


@given(
    steps=st.lists(_STEP, max_size=40),
    concurrency=st.sampled_from([0, 1, 2, "auto"]),
    algorithm=st.sampled_from(["least-request", "least-work"]),
    most=st.sampled_from([2, 1000]),
)
@settings(max_examples=25)
def test_whatever_happens(
    steps: list[tuple[str, Any]], concurrency: int | str, algorithm: str, most: int
) -> None:
    """
    Whatever clients, operators and workers do, every request is answered once, no request is worked
    on twice, and in the end nothing waits, runs, or is kept.
    """
    router = lined(
        *"abc",
        simulator=BOTH,
        worker_concurrency=concurrency,
        routing_algorithm=algorithm,
        max_connections=most,
        queue_size=20,
        queue_timeout=300.0,
        job_poll_interval=1.0,
        health_check_interval=5.0,
        timeout=400.0,
    )
    life = _Life(router)
    for step in steps:
        life.act(*step)
    for name in "ab":
        life.act("start", name)
    for _ in range(150):
        if not (queue(router)["waiting_count"] or queue(router)["running_count"]):
            break
        router.wait(10.0, step=10.0)
    assert [client.failure for client in life.clients if client.reply is None] == []
    told = queue(router)
    assert (told["waiting"], told["running"]) == ([], [])
    assert set(router.loads.values()) == {0}
    assert [worker.jobs for worker in router.service.pool] == [0] * len(router.service.pool)
    assert parking_of(router).held == 0
    assert max(Counter(life.begun()).values(), default=1) == 1
    for number in range(3):
        shown = router.ask("GET", f"/rollouts/{number}")
        assert shown.status == 404 or shown.json["waiting"] == shown.json["running"] == 0
    client = post(router, "last")
    router.until(lambda: client.reply is not None)
    assert answer(client).status == 200


class _Life:
    """
    A router whose workers come and go.
    """

    def __init__(self, router: MemoryRouter) -> None:
        self.router = router
        self.clients: list[Client] = []
        self.posted = 0
        self._agents = dict(router.network.agents)
        self._processes = list(router.workers.values())

    def act(self, what: str, value: Any) -> None:
        getattr(self, what.replace(" ", "_"))(value)
        self.router.settle()

    def begun(self) -> list[str]:
        """The names of all requests that any GPU has begun with."""
        return [each.prompt for one in self._processes for each in one.journal.generations]

    def _send(self, path: str, wish: dict[str, Any], **headers: object) -> None:
        self.posted += 1
        name = f"{self.posted}"
        self.clients.append(post(self.router, name, path, json=wish, **headers))

    def post(self, priority: int) -> None:
        self._send(IMAGES, IMAGE, X_Priority=priority)

    def film(self, _: object) -> None:
        self._send(VIDEOS, VIDEO)

    def sample(self, batch: int) -> None:
        self._send(IMAGES, IMAGE, X_Rollout_Batch=batch, X_Rollout_Group=batch)

    def read(self, _: object) -> None:
        self.clients.append(self.router.begin("GET", "/server_info"))

    def late(self, seconds: int) -> None:
        self._send(IMAGES, IMAGE, X_Deadline_Ms=seconds * 1000)

    def hang_up(self, number: int) -> None:
        pending = [client for client in self.clients if client.reply is None]
        if number < len(pending):
            pending[number].hang_up()
            self.clients.remove(pending[number])

    def cancel(self, number: int) -> None:
        for job in queue(self.router)["waiting"][number : number + 1]:
            assert self.router.ask("DELETE", f"/queue/{job['id']}").status == 200

    def cancel_batch(self, batch: int) -> None:
        assert self.router.ask("DELETE", f"/rollouts/{batch}").status in (200, 404)

    def stop(self, name: str) -> None:
        self.router.network.agents.pop(f"http://{name}:1".encode(), None)

    def start(self, name: str) -> None:
        url = f"http://{name}:1".encode()
        if url not in self.router.network.agents:
            self.router.network.agents[url] = self._agents[url]

    def remove(self, name: str) -> None:
        self.router.ask("DELETE", f"/workers/http%3A%2F%2F{name}%3A1")

    def add(self, name: str) -> None:
        self.router.ask("POST", f"/add_worker?url=http://{name}:1")

    def wait(self, seconds: int) -> None:
        self.router.wait(seconds)
