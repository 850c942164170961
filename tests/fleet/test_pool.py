"""
The pool: who there is and what they have; counts go back to whom they came from.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from sgl_droute.errors import BadRequest, NotFound, NoWorker, RouterError
from sgl_droute.fleet.capabilities import ANYTHING, IMAGE, MESH, REALTIME, VIDEO, Want, reported
from sgl_droute.fleet.loras import LoraCall, LoraSet
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, Worker

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")
URLS = st.sampled_from([f"http://w{number}:30000" for number in range(5)])


def pool_of(*names: str) -> Pool:
    pool = Pool()
    for name in names:
        pool.add(f"http://{name}:1")
    return pool


def test_known_workers_are_not_added_twice() -> None:
    """
    Another spelling of a registered URL is the same worker.
    """
    pool = pool_of("a")
    assert pool.add("HTTP://A:1/").serial == pool["http://a:1"].serial
    assert len(pool) == 1


def test_unknown_worker() -> None:
    """
    Removing a worker that is not there is told as 404.
    """
    with pytest.raises(NotFound):
        pool_of("a").remove("http://b:1")


def test_a_visit_ends_with_an_error_too() -> None:
    """
    What was counted is taken back however the block ends.
    """
    pool = pool_of("a")
    with pytest.raises(ZeroDivisionError), pool.visit(pool["http://a:1"]) as worker:
        raise ZeroDivisionError(worker)
    assert pool["http://a:1"].idle


def test_counts_of_a_former_registration() -> None:
    """
    A worker that was removed and registered again does not inherit the end of old requests.
    """
    pool = pool_of("a")
    former = pool["http://a:1"]
    pool.count(former, 1, sessions=1)
    pool.remove("http://a:1")
    pool.add("http://a:1")
    pool.count(pool["http://a:1"], 1)
    pool.count(former, -1, sessions=1)
    now = pool["http://a:1"]
    assert (now.in_flight, now.sessions) == (1, 0)


def test_no_more_ends_than_begins() -> None:
    """
    A request that ends twice is an error, and the count stays true.
    """
    pool = pool_of("a")
    with pytest.raises(ValueError, match="more requests ended than began"):
        pool.count(pool["http://a:1"], -1)
    assert pool["http://a:1"].in_flight == 0


def test_reading_keeps_a_worker() -> None:
    """
    A download from a worker keeps it from leaving as other requests do.
    """
    pool = pool_of("a")
    with pool.visit(pool["http://a:1"]):
        pool.count(pool["http://a:1"], 1)
        now = pool["http://a:1"]
        assert (now.in_flight, now.idle) == (2, False)
        pool.count(now, -1)
    assert pool["http://a:1"].idle


def able(pool: Pool, url: str, *tasks: str, model: str = "m") -> None:
    known = reported({"model_path": model, "supported_task_types": list(tasks)}, None)
    pool.record_capabilities(pool[url], known)


def mixed() -> Pool:
    pool = pool_of("image", "video", "mesh")
    able(pool, "http://image:1", "T2I")
    able(pool, "http://video:1", "T2V")
    able(pool, "http://mesh:1", "I2M")
    return pool


def why(pool: Pool, want: Want) -> tuple[type[RouterError], str]:
    error = pool.nobody(want)
    return type(error), str(error)


def test_why_nobody() -> None:
    """
    An empty pool and one without healthy workers are told apart.
    """
    pool = pool_of()
    assert why(pool, ANYTHING) == (NoWorker, "No workers registered in the pool")
    worker = pool.add("http://a:1")
    pool.record_probe(worker, BAD, threshold=1)
    assert why(pool, ANYTHING) == (NoWorker, "No healthy workers available in the pool")
    for nobody in (pool, pool_of()):
        with pytest.raises(NoWorker, match="No healthy workers available in the pool"):
            nobody.order_takers()


def test_nobody_is_able() -> None:
    """
    A video request that no worker could ever serve is the client's error, also without workers.
    """
    pool = pool_of("image")
    able(pool, "http://image:1", "T2I")
    sentence = "No video-capable workers available in current worker pool."
    assert why(pool, VIDEO) == why(pool_of(), VIDEO) == (BadRequest, sentence)


@pytest.mark.parametrize(
    ("facet", "word"),
    [
        ({"draining": True}, "draining"),
        ({"disabled": True}, "disabled"),
        ({"asleep": True}, "sleeping"),
        ({"stale": True}, "stale"),
        ({"dead": True}, "dead"),
        ({"sessions": 1}, "in a realtime session"),
    ],
)
def test_the_able_are_not_eligible(facet: dict[str, Any], word: str) -> None:
    """
    Able workers that get no traffic now are a 503 that says why.
    """
    pool = mixed()
    pool.change(pool["http://video:1"], lambda now: evolve(now, **facet))
    sentence = f"No eligible video-capable workers available in the pool: 1 {word}"
    assert why(pool, REALTIME) == (NoWorker, sentence)


def test_a_model_that_cannot() -> None:
    """
    A model whose workers make no videos is named in the refusal.
    """
    pool = pool_of("a", "b")
    able(pool, "http://a:1", "T2I", model="org/a")
    able(pool, "http://b:1", "T2V", model="org/b")
    kind, sentence = why(pool, evolve(VIDEO, model="org/a"))
    assert kind is BadRequest
    assert sentence.endswith("None of them serves the model 'org/a'.")


def test_a_draining_worker_leaves_when_it_is_idle() -> None:
    """
    It goes with its last request or job, and what it holds can still be asked for.
    """
    pool = pool_of("a")
    worker = pool["http://a:1"]
    pool.count(worker, 1)
    pool.change(worker, lambda now: evolve(now, jobs=1, draining=True, leaving=True))
    pool.count(worker, -1)
    assert "http://a:1" in pool
    pool.change(worker, lambda now: evolve(now, jobs=0))
    assert "http://a:1" not in pool
    assert pool.holder("http://a:1") is not None
    pool.add("http://a:1")
    assert not pool["http://a:1"].draining


def test_a_leaving_worker_that_is_registered_again() -> None:
    """
    It stays, and takes work.
    """
    pool = pool_of("a")
    worker = pool["http://a:1"]
    pool.record_probe(worker, GOOD, threshold=3)
    pool.count(worker, 1)
    pool.change(worker, lambda now: evolve(now, draining=True, leaving=True))
    pool.add("http://a:1")
    pool.count(worker, -1)
    assert pool["http://a:1"].state == "ready"


def test_observers() -> None:
    """
    Every change is told with the record before and after it, but for requests that come and go.
    """
    pool = pool_of()
    seen: list[tuple[Any, Any]] = []
    pool.watch(lambda before, now: seen.append((before, now)))
    worker = pool.add("http://a:1")
    with pool.visit(worker):
        draining = pool.change(worker, lambda now: evolve(now, draining=True))
    gone = pool.remove("http://a:1")
    assert draining is not None
    assert (draining.in_flight, gone.in_flight) == (1, 0)
    assert seen == [
        (None, worker),
        (evolve(worker, in_flight=1), draining),
        (gone, None),
    ]


def test_observers_hear_changes_in_order() -> None:
    """
    A change that an observer makes is told after the one that it answers.
    """
    pool = pool_of()
    told: list[tuple[int, bool]] = []

    def disable(before: Worker | None, now: Worker | None) -> None:
        if before is None and now is not None:
            pool.change(now, lambda worker: evolve(worker, disabled=True))

    pool.watch(disable)
    pool.watch(lambda before, now: told.append((now.serial, now.disabled)) if now else None)
    pool.add("http://a:1")
    assert told == [(1, False), (1, True)]


SET = LoraSet().after(LoraCall("/v1/set_lora", {"lora_nickname": "x", "lora_path": "p/x"}))


def healthy(*names: str) -> Pool:
    pool = pool_of(*names)
    for worker in pool:
        pool.record_probe(worker, GOOD, threshold=3)
    return pool


def test_who_missed_a_lora_call_is_stale() -> None:
    """
    Workers that took the call go on; the others get nothing until they have caught up.
    """
    pool = healthy("a", "b")
    took = [pool["http://a:1"]]
    pool.record_loras(SET, took)
    assert [worker.state for worker in pool] == ["ready", "stale"]
    pool.record_caught_up(pool["http://b:1"], SET)
    assert [worker.state for worker in pool] == ["ready", "ready"]


def test_catching_up_with_yesterday() -> None:
    """
    A worker that took a set which is no longer the fleet's stays stale.
    """
    pool = healthy("a", "b")
    pool.record_loras(SET, [pool["http://a:1"]])
    later = SET.after(LoraCall("/v1/set_lora", {"lora_nickname": "y", "lora_path": "p/y"}))
    before = pool["http://b:1"]
    pool.record_loras(later, [pool["http://a:1"]])
    pool.record_caught_up(before, SET)
    assert pool["http://b:1"].stale
    assert not pool["http://a:1"].stale


def test_a_stale_worker_that_takes_a_whole_set() -> None:
    """
    A call that gives the whole set brings any worker up to date; one that builds on others only
    those who had these.
    """
    pool = healthy("a", "b")
    pool.record_loras(SET, [pool["http://a:1"]])
    merged = SET.after(LoraCall("/v1/merge_lora_weights", {}))
    pool.record_loras(merged, list(pool))
    assert [worker.state for worker in pool] == ["ready", "stale"]
    again = merged.after(LoraCall("/v1/set_lora", {"lora_nickname": "y", "lora_path": "p/y"}))
    pool.record_loras(again, list(pool))
    assert [worker.state for worker in pool] == ["ready", "ready"]


def test_a_restart_during_the_call() -> None:
    """
    A worker that was restarted after it took the call has forgotten it.
    """
    pool = healthy("a", "b")
    took = list(pool)
    pool.record_lapse(pool["http://b:1"])
    pool.record_probe(pool["http://b:1"], GOOD, threshold=3)
    pool.record_loras(SET, took)
    assert [worker.state for worker in pool] == ["ready", "stale"]


def test_new_and_returned_workers_are_stale() -> None:
    """
    With a LoRA set in force, who joins or was out of reach gets no work before it has the set.
    """
    pool = healthy("a")
    pool.record_loras(SET, list(pool))
    pool.add("http://new:1")
    assert pool["http://new:1"].stale
    pool.record_lapse(pool["http://a:1"])
    assert pool["http://a:1"].stale
    pool.record_caught_up(pool["http://a:1"], SET)
    assert pool["http://a:1"].stale
    pool.record_probe(pool["http://a:1"], GOOD, threshold=3)
    pool.record_caught_up(pool["http://a:1"], SET)
    assert not pool["http://a:1"].stale


def test_back_from_quarantine_with_a_set_in_force() -> None:
    """
    Whoever was quarantined may have been restarted: it catches up before it gets work.
    """
    pool = healthy("a", "b")
    pool.record_loras(SET, list(pool))
    for _ in range(3):
        pool.record_probe(pool["http://a:1"], Probe(healthy=False, silent=True), threshold=3)
    assert pool["http://a:1"].dead
    pool.add("http://a:1")
    pool.record_probe(pool["http://a:1"], GOOD, threshold=3)
    assert pool["http://a:1"].state == "stale"
    assert pool["http://b:1"].state == "ready"


FACETS = ("draining", "disabled", "asleep", "stale")
TASKS = {"image": ("T2I",), "video": ("T2V",), "both": ("T2V", "T2I"), "mesh": ("I2M",)}
WANTS = [
    ANYTHING,
    IMAGE,
    VIDEO,
    MESH,
    REALTIME,
    evolve(IMAGE, model="image"),
    evolve(VIDEO, model="both"),
]


class PoolMachine(RuleBasedStateMachine):
    """
    Any order of registrations, removals, probes and requests.
    """

    visits: Bundle[Any] = Bundle("visits")
    counted: Bundle[Any] = Bundle("counted")

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.open: Counter[int] = Counter()
        self.sessions: Counter[int] = Counter()

    @rule(url=URLS)
    def add(self, url: str) -> None:
        self.pool.add(url)

    @rule(url=URLS)
    def remove(self, url: str) -> None:
        if url in self.pool:
            self.pool.remove(url)
        else:
            with pytest.raises(NotFound):
                self.pool.remove(url)

    @rule(url=URLS, probe=st.sampled_from([GOOD, BAD]))
    def probe(self, url: str, probe: Probe) -> None:
        if url in self.pool:
            self.pool.record_probe(self.pool[url], probe, threshold=2)

    @rule(url=URLS)
    def probe_of_a_former_registration(self, url: str) -> None:
        gone = Worker(url=url, serial=0)
        assert self.pool.record_probe(gone, BAD, threshold=1) is None

    @rule(url=URLS, facet=st.sampled_from(FACETS), holds=st.booleans())
    def set_facet(self, url: str, facet: str, holds: bool) -> None:
        facets: dict[str, Any] = {facet: holds}
        if url in self.pool:
            self.pool.change(self.pool[url], lambda now: evolve(now, **facets))

    @rule(url=URLS)
    def leave(self, url: str) -> None:
        if url in self.pool:
            idle = self.pool[url].idle
            self.pool.change(self.pool[url], lambda now: evolve(now, draining=True, leaving=True))
            assert (url not in self.pool) == idle

    @rule(url=URLS, name=st.sampled_from(list(TASKS)))
    def learn(self, url: str, name: str) -> None:
        if url in self.pool:
            able(self.pool, url, *TASKS[name], model=name)

    @rule(url=URLS, jobs=st.integers(0, 3))
    def count_jobs(self, url: str, jobs: int) -> None:
        if url in self.pool:
            self.pool.change(self.pool[url], lambda now: evolve(now, jobs=jobs))

    @rule(target=visits, url=URLS)
    def visit(self, url: str) -> Any:
        if url not in self.pool:
            return multiple()
        stack = ExitStack()
        worker = stack.enter_context(self.pool.visit(self.pool[url]))
        self.open[worker.serial] += 1
        return stack, worker.serial

    @rule(visit=consumes(visits))
    def end_visit(self, visit: tuple[ExitStack, int]) -> None:
        stack, serial = visit
        self.open[serial] -= 1
        stack.close()

    @rule(target=counted, url=URLS, session=st.booleans())
    def begin(self, url: str, session: bool) -> Any:
        if url not in self.pool:
            return multiple()
        worker = self.pool[url]
        self.pool.count(worker, 1, sessions=session)
        self.open[worker.serial] += 1
        self.sessions[worker.serial] += session
        return worker, session

    @rule(begun=consumes(counted))
    def end(self, begun: tuple[Worker, bool]) -> None:
        worker, session = begun
        self.open[worker.serial] -= 1
        self.sessions[worker.serial] -= session
        self.pool.count(worker, -1, sessions=session)

    @rule(want=st.sampled_from(WANTS))
    def ask_why(self, want: Want) -> None:
        """That nobody is able at all is said of those alone who will not be able later."""
        allowed = any(want.allows(each.capabilities) for each in self.pool)
        error = self.pool.nobody(want)
        assert isinstance(error, BadRequest) == (want.strict and not allowed)
        assert isinstance(error, (BadRequest, NoWorker))

    @invariant()
    def counts_are_true(self) -> None:
        for worker in self.pool:
            assert worker.in_flight == self.open[worker.serial]
            assert worker.sessions == self.sessions[worker.serial]

    @invariant()
    def nobody_idle_is_leaving(self) -> None:
        assert not any(worker.leaving and worker.idle for worker in self.pool)

    @invariant()
    def order_is_registration(self) -> None:
        serials = [worker.serial for worker in self.pool]
        assert serials == sorted(serials)


TestPoolMachine = PoolMachine.TestCase
