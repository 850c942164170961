"""
What holds of weights whatever clients, operators, workers and the router's end do.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_droute.fleet.loras import SET, UNMERGE
from sgl_droute.fleet.modules import NONE
from sgl_droute.fleet.weights import DISK
from tests.api.updates import (
    LONG,
    RELEASE,
    RESUME,
    Traffic,
    change,
    fault,
    fleet,
    sources,
    states,
    stop,
    updating,
    url,
    weights,
)
from tests.memory import Client

_FAULTS: list[dict[str, Any]] = [
    {"status": 400},
    {"status": 500},
    {"status": 500, "work": True},
    {"hang": True, "work": True},
    {"hang": True},
    {"cut_after": 3},
    {"exit": True},
    {"exit": True, "work": True},
    {"dead": True},
]
_NAMES = st.sampled_from("abc")
_MODES = st.sampled_from(["", "?mode=fenced&drain_timeout=60", "?mode=rolling", "?verify=true"])

_STEP = st.one_of(
    st.tuples(st.just("update"), _MODES),
    st.tuples(st.just("part"), _MODES),
    st.tuples(st.just("adapt"), st.sampled_from(["fox", "owl"])),
    st.tuples(st.just("plain"), st.none()),
    st.tuples(st.just("sleep"), st.none()),
    st.tuples(st.just("wake"), st.none()),
    st.tuples(st.just("go wrong"), st.tuples(_NAMES, st.sampled_from(_FAULTS))),
    st.tuples(st.just("stop"), _NAMES),
    st.tuples(st.just("start"), _NAMES),
    st.tuples(st.just("remove"), _NAMES),
    st.tuples(st.just("add"), _NAMES),
    st.tuples(st.just("disable"), _NAMES),
    st.tuples(st.just("enable"), _NAMES),
    st.tuples(st.just("verify"), st.none()),
    st.tuples(st.just("kill"), st.none()),
    st.tuples(st.just("end in order"), st.none()),
    st.tuples(st.just("leave"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 6.0, 20.0])),
)


@given(steps=st.lists(_STEP, max_size=50 if LONG else 15))
@settings(max_examples=200 if LONG else 8)
def test_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    """
    Whatever happens, each picture was made with the weights of the epoch that its answer tells, and
    when all are well again the next update makes them equal; those of whose adapters nobody knows
    get them by themselves before they work.
    """
    life = _Life()
    for what, value in steps:
        getattr(life, what.replace(" ", "_"))(value)
        life.traffic.wait(0.5, 0.5)
    life.end()


class _Life:
    """
    A fleet that is updated while it comes and goes.
    """

    def __init__(self) -> None:
        self.router = fleet(*"abc", durable=True, readmit_after=2)
        self.traffic = Traffic(self.router)
        self.number = 0
        self.clients: list[Client] = []

    def _call(self, path: str, body: object) -> None:
        self.clients.append(self.router.begin("POST", path, json=body))

    def _update(self, query: str, **fields: object) -> None:
        self.number += 1
        self._call(f"{DISK}{query}", {"model_path": f"p{self.number}", **fields})

    def update(self, query: str) -> None:
        self._update(query)

    def part(self, query: str) -> None:
        self._update(query, target_modules=["vae"])

    def adapt(self, name: str) -> None:
        self._call(SET, {"lora_nickname": name, "lora_path": f"loras/{name}"})

    def plain(self, _: object) -> None:
        self._call(UNMERGE, {})

    def sleep(self, _: object) -> None:
        self._call(RELEASE, {})

    def wake(self, _: object) -> None:
        self._call(RESUME, {})

    def verify(self, _: object) -> None:
        self._call("/weights/verify", {})

    def go_wrong(self, what: tuple[str, dict[str, Any]]) -> None:
        name, rule = what
        if name in self.router.workers:
            fault(self.router, name, **rule)

    def stop(self, name: str) -> None:
        if name in self.router.workers:
            self.router.kill_worker(name)

    def start(self, name: str) -> None:
        worker = self.router.workers.get(name)
        if worker is None or worker.gpu.dead:
            if worker is not None:
                self.router.kill_worker(name)
            self.traffic.wait(6, 2)  # a worker loads for longer than between two health checks
            self.router.start_worker(name)

    def remove(self, name: str) -> None:
        self.router.ask("POST", f"/remove_worker?url={url(name)}")

    def add(self, name: str) -> None:
        self.router.ask("POST", f"/add_worker?url={url(name)}")

    def disable(self, name: str) -> None:
        change(self.router, name, disabled=True)

    def enable(self, name: str) -> None:
        change(self.router, name, disabled=False)

    def kill(self, _: object) -> None:
        self.router.kill()
        self.router.start_again()

    def end_in_order(self, _: object) -> None:
        stop(self.router)
        self.router.start_again()

    def leave(self, _: object) -> None:
        self.traffic.post()
        self.traffic.leave()

    def wait(self, seconds: float) -> None:
        self.traffic.wait(seconds, 1.0)

    def end(self) -> None:
        router, traffic = self.router, self.traffic
        traffic.wait(60, 5)
        for name in "abc":
            self.start(name)
            if states(router).get(name) in (None, "dead"):
                self.add(name)
            self.enable(name)
            router.workers[name].faults.clear()
        traffic.until(router.begin("POST", RESUME, json={}))
        traffic.wait(40, 5)
        reply = traffic.until(updating(router, "last"))
        assert reply is not None
        assert {each["status_code"] for each in reply.json["results"]} == {200}
        if reply.json["stale"]:  # a restart of the router left open which adapters they have
            assert all(router.service.pool[url].actual.torn == NONE for url in reply.json["stale"])
            router.until(lambda: set(states(router).values()) == {"ready"}, limit=400)
        else:
            assert reply.json["consistent"] is True, (reply.json, weights(router))
        assert all(sources(router, name) == {"last"} for name in "abc")
        traffic.wait(5, 1)
        traffic.end()
        assert set(states(router).values()) == {"ready"}
        assert set(router.loads.values()) == {0}
        traffic.check()
