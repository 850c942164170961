"""
The pool: leases are given back to whom they came from, and nobody unfit gets one.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from sgl_droute.errors import BadRequest, NotFound, NoWorker
from sgl_droute.fleet.capabilities import (
    ANYTHING,
    IMAGE,
    MESH,
    REALTIME,
    VIDEO,
    Want,
    reported,
)
from sgl_droute.fleet.loras import LoraCall, LoraSet
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.worker import Probe, Worker

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")
URLS = st.sampled_from([f"http://w{number}:30000" for number in range(5)])


def pool_of(*names: str) -> Pool:
    pool = Pool()
    for name in names:
        pool.add(f"http://{name}:1")
    return pool


def test_sequential_requests_are_shared_evenly() -> None:
    """
    Three idle workers and twelve requests in a row: 4, 4, 4.
    """
    pool = pool_of("a", "b", "c")
    served: Counter[str] = Counter()
    for _ in range(12):
        with pool.lease() as worker:
            served[worker.url] += 1
    assert set(served.values()) == {4}


def test_known_workers_are_not_added_twice() -> None:
    """
    Another spelling of a registered URL is the same worker.
    """
    pool = pool_of("a")
    assert pool.add("HTTP://A:1/").serial == pool["http://a:1"].serial
    assert len(pool) == 1


def test_a_lease_ends_with_an_error_too() -> None:
    """
    The slot comes back however the block ends.
    """
    pool = pool_of("a")
    with pytest.raises(ZeroDivisionError), pool.lease() as worker:
        raise ZeroDivisionError(worker)
    assert pool["http://a:1"].in_flight == 0


def test_a_lease_of_a_former_registration() -> None:
    """
    A worker that was removed and registered again does not inherit the end of old requests.
    """
    pool = pool_of("a")
    with pool.lease():
        pool.remove("http://a:1")
        pool.add("http://a:1")
        with pool.lease():
            assert pool["http://a:1"].in_flight == 1
    assert pool["http://a:1"].in_flight == 0


def test_why_nobody() -> None:
    """
    An empty pool and one without healthy workers are told apart.
    """
    pool = pool_of()
    with pytest.raises(NoWorker, match="No workers registered in the pool"), pool.lease():
        pass
    worker = pool.add("http://a:1")
    pool.record_probe(worker, BAD, threshold=1)
    with pytest.raises(NoWorker, match="No healthy workers available in the pool"), pool.lease():
        pass
    with pytest.raises(NoWorker, match="No healthy workers available in the pool"):
        pool.order_takers()
    with pytest.raises(NoWorker, match="No healthy workers available in the pool"):
        pool_of().order_takers()


def test_doubtful_workers_are_the_last_resort() -> None:
    """
    A new worker whose first check failed gets work only while nobody else is left.
    """
    pool = pool_of("loading", "well")
    pool.record_probe(pool["http://loading:1"], BAD, threshold=3)
    pool.record_probe(pool["http://well:1"], GOOD, threshold=3)
    for _ in range(3):
        with pool.lease() as worker:
            assert worker.url == "http://well:1"
    with pool.lease(ANYTHING, {"http://well:1"}) as worker:
        assert worker.url == "http://loading:1"


def test_unknown_worker() -> None:
    """
    Removing a worker that is not there is told as 404.
    """
    with pytest.raises(NotFound):
        pool_of("a").remove("http://b:1")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_next_worker_is_another(algorithm: str) -> None:
    """
    Leaving out those already tried, every worker is offered once.
    """
    pool = Pool(algorithm, Random(3))
    for number in range(10):
        pool.add(f"http://w{number}:1")
    tried: list[str] = []
    for _ in range(10):
        with pool.lease(ANYTHING, tried) as worker:
            tried.append(worker.url)
    assert len(set(tried)) == 10
    with pytest.raises(NoWorker), pool.lease(ANYTHING, tried):
        pass


def able(pool: Pool, url: str, *tasks: str, model: str = "m") -> None:
    known = reported({"model_path": model, "supported_task_types": list(tasks)}, None)
    pool.record_capabilities(pool[url], known)


def chosen(pool: Pool, want: Want = ANYTHING) -> str:
    with pool.lease(want) as worker:
        return worker.url


def mixed() -> Pool:
    pool = pool_of("image", "video", "mesh")
    able(pool, "http://image:1", "T2I")
    able(pool, "http://video:1", "T2V")
    able(pool, "http://mesh:1", "I2M")
    return pool


def test_requests_go_to_those_who_are_able() -> None:
    """
    In a mixed fleet every kind of request meets its kind of worker.
    """
    pool = mixed()
    for _ in range(4):
        assert chosen(pool, IMAGE) == "http://image:1"
        assert chosen(pool, VIDEO) == "http://video:1"
        assert chosen(pool, MESH) == "http://mesh:1"


def test_unknown_counts_as_able() -> None:
    """
    A worker that has not said what it serves is tried.
    """
    pool = mixed()
    pool.add("http://new:1")
    pool.remove("http://video:1")
    assert chosen(pool, VIDEO) == "http://new:1"


def test_nobody_is_able() -> None:
    """
    A video request that no worker could ever serve is the client's error, also without workers.
    """
    pool = pool_of("image")
    able(pool, "http://image:1", "T2I")
    sentence = "^No video-capable workers available in current worker pool\\.$"
    for nobody in (pool, pool_of()):
        with pytest.raises(BadRequest, match=sentence), nobody.lease(VIDEO):
            pass


def test_images_go_to_the_unable_if_need_be() -> None:
    """
    Where no usable worker makes images, one of them says so itself; not while another is left.
    """
    pool = mixed()
    pool.record_probe(pool["http://image:1"], BAD, threshold=1)
    assert chosen(pool, IMAGE) in ("http://video:1", "http://mesh:1")
    pool.add("http://new:1")
    assert {chosen(pool, IMAGE) for _ in range(5)} == {"http://new:1"}


@pytest.mark.parametrize(
    ("facet", "word"),
    [
        ({"draining": True}, "draining"),
        ({"disabled": True}, "disabled"),
        ({"asleep": True}, "sleeping"),
        ({"stale": True}, "stale"),
    ],
)
def test_the_able_are_not_eligible(facet: dict[str, Any], word: str) -> None:
    """
    Able workers that get no traffic now are a 503 that says why.
    """
    pool = mixed()
    pool.change(pool["http://video:1"], lambda now: evolve(now, **facet))
    sentence = f"No eligible video-capable workers available in the pool: 1 {word}"
    with pytest.raises(NoWorker, match=sentence), pool.lease(VIDEO):
        pass
    assert chosen(pool, IMAGE) == "http://image:1"


def test_the_able_are_dead() -> None:
    """
    When all able workers are quarantined that is what is said.
    """
    pool = mixed()
    pool.record_probe(pool["http://video:1"], BAD, threshold=1)
    sentence = "No eligible video-capable workers available in the pool: 1 dead"
    with pytest.raises(NoWorker, match=sentence), pool.lease(VIDEO):
        pass


def test_the_model_chooses() -> None:
    """
    Of several models the named one is used; a name that nobody has is no wish.
    """
    pool = pool_of("a", "b")
    assert not pool.several_models
    able(pool, "http://a:1", "T2I", model="org/a")
    able(pool, "http://b:1", "T2I", model="org/b")
    assert pool.several_models
    for _ in range(3):
        assert chosen(pool, evolve(IMAGE, model="org/b")) == "http://b:1"
    assert {chosen(pool, evolve(IMAGE, model="org/c")) for _ in range(2)} == {
        "http://a:1",
        "http://b:1",
    }


def test_a_model_whose_worker_is_dead() -> None:
    """
    The other model is no substitute for one that is served, if not now.
    """
    pool = pool_of("a", "b")
    able(pool, "http://a:1", "T2I", model="org/a")
    able(pool, "http://b:1", "T2I", model="org/b")
    pool.record_probe(pool["http://b:1"], BAD, threshold=1)
    with pytest.raises(NoWorker), pool.lease(evolve(IMAGE, model="org/b")):
        pass


def test_a_model_that_cannot() -> None:
    """
    A model whose workers make no videos is named in the refusal.
    """
    pool = pool_of("a", "b")
    able(pool, "http://a:1", "T2I", model="org/a")
    able(pool, "http://b:1", "T2V", model="org/b")
    sentence = "No video-capable workers .*None of them serves the model 'org/a'"
    with pytest.raises(BadRequest, match=sentence), pool.lease(evolve(VIDEO, model="org/a")):
        pass


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


def test_strict_model() -> None:
    """
    When told so, a name that nobody serves is 404; one that a silent worker may serve goes there.
    """
    pool = Pool(strict_model=True)
    pool.add("http://a:1")
    able(pool, "http://a:1", "T2I", model="org/a")
    assert pool.several_models
    assert chosen(pool, evolve(IMAGE, model="org/a")) == "http://a:1"
    with pytest.raises(NotFound, match="'org/c'"), pool.lease(evolve(IMAGE, model="org/c")):
        pass
    pool.add("http://new:1")
    assert chosen(pool, evolve(IMAGE, model="org/c")) == "http://new:1"
    assert chosen(pool, evolve(IMAGE, model="org/a")) == "http://a:1"


def test_names_that_are_served_no_more_are_forgotten() -> None:
    """
    What clients ask for leaves no trace behind once nobody serves it.
    """
    pool = pool_of("a", "b")
    for number in range(50):
        able(pool, "http://a:1", "T2I", model=f"org/{number}")
        assert chosen(pool, evolve(IMAGE, model=f"org/{number}")) == "http://a:1"
        chosen(pool, evolve(IMAGE, model=f"other/{number}"))
    assert len(pool._desks) <= 3


def test_jobs_are_load() -> None:
    """
    Twelve jobs created one after the other on three idle workers go 4, 4, 4.
    """
    pool = pool_of("a", "b", "c")
    for _ in range(12):
        with pool.lease(VIDEO) as worker:
            pool.change(worker, lambda now: evolve(now, jobs=now.jobs + 1))
    assert [worker.jobs for worker in pool] == [4, 4, 4]


def test_reading_is_no_load() -> None:
    """
    A download from a worker keeps it from leaving, and no work from it.
    """
    pool = pool_of("a", "b")
    with pool.visit(pool["http://a:1"]), pool.lease() as first, pool.lease() as second:
        assert {first.url, second.url} == {"http://a:1", "http://b:1"}
        assert pool["http://a:1"].in_flight == 2
        assert pool["http://a:1"].load == 1
    assert pool["http://a:1"].idle


def test_one_session_per_worker() -> None:
    """
    Two workers take two realtime sessions; a third is refused until one of them has ended.
    """
    pool = pool_of("a", "b")
    with pool.lease(REALTIME) as first:
        with pool.lease(REALTIME) as second:
            assert first.url != second.url
            sentence = "No eligible video-capable workers .*: 2 in a realtime session$"
            with pytest.raises(NoWorker, match=sentence), pool.lease(REALTIME):
                pass
        assert chosen(pool, REALTIME) == second.url


def test_a_worker_in_session_is_the_last_able_one() -> None:
    """
    Other work goes to whoever shares no GPU with a session, even if that worker has more to do or
    has yet to pass a health check; but sooner to a session's worker than to one that is unable.
    """
    pool = pool_of("session", "other", "mesh")
    able(pool, "http://session:1", "T2V", "T2I")
    able(pool, "http://other:1", "T2V", "T2I")
    able(pool, "http://mesh:1", "I2M")
    with pool.lease(REALTIME) as worker, ExitStack() as others:
        free = {"http://session:1": "http://other:1", "http://other:1": "http://session:1"}
        other = free[worker.url]
        assert {others.enter_context(pool.lease(IMAGE)).url for _ in range(5)} == {other}
        pool.record_probe(pool[other], BAD, threshold=3)
        assert chosen(pool, IMAGE) == other
        pool.change(pool[other], lambda now: evolve(now, draining=True))
        assert chosen(pool, IMAGE) == worker.url
        assert chosen(pool, VIDEO) == worker.url


def test_a_session_of_a_former_registration() -> None:
    """
    A worker that was removed and registered again is not held full by the session of before.
    """
    pool = pool_of("a")
    with pool.lease(REALTIME):
        pool.remove("http://a:1")
        pool.add("http://a:1")
        assert chosen(pool, REALTIME) == "http://a:1"


def test_a_draining_worker_leaves_when_it_is_idle() -> None:
    """
    It goes with its last request or job, and what it holds can still be asked for.
    """
    pool = pool_of("a")
    with pool.lease() as worker:
        pool.change(worker, lambda now: evolve(now, jobs=1, draining=True, leaving=True))
    assert "http://a:1" in pool
    pool.change(worker, lambda now: evolve(now, jobs=0))
    assert "http://a:1" not in pool
    assert pool.holder("http://a:1") is not None
    pool.add("http://a:1")
    assert not pool["http://a:1"].draining


def test_observers() -> None:
    """
    Every change is told with the record before and after it.
    """
    pool = pool_of()
    seen: list[tuple[Any, Any]] = []
    pool.watch(lambda before, now: seen.append((before, now)))
    worker = pool.add("http://a:1")
    with pool.lease():
        pass
    pool.remove("http://a:1")
    flat = [(b and b.in_flight, n and n.in_flight) for b, n in seen]
    assert flat == [(None, 0), (0, 1), (1, 0), (0, None)]
    assert seen[0][1] == worker


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


def test_a_leaving_worker_that_is_registered_again() -> None:
    """
    It stays, and takes work.
    """
    pool = healthy("a")
    with pool.lease() as worker:
        pool.change(worker, lambda now: evolve(now, draining=True, leaving=True))
        pool.add("http://a:1")
    assert pool["http://a:1"].state == "ready"


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

    leases: Bundle[Any] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(random=Random(5))
        self.open: Counter[tuple[str, int]] = Counter()
        self.sessions: Counter[tuple[str, int]] = Counter()

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

    @rule(url=URLS, name=st.sampled_from(list(TASKS)))
    def learn(self, url: str, name: str) -> None:
        if url in self.pool:
            able(self.pool, url, *TASKS[name], model=name)

    @rule(url=URLS, jobs=st.integers(0, 3))
    def count_jobs(self, url: str, jobs: int) -> None:
        if url in self.pool:
            self.pool.change(self.pool[url], lambda now: evolve(now, jobs=jobs))

    @rule(target=leases, want=st.sampled_from(WANTS), without=st.sets(URLS))
    def lease(self, want: Want, without: set[str]) -> Any:
        stack = ExitStack()
        self.before = {each.url: each for each in self.pool}
        if not any(want.model in each.capabilities.names for each in self.pool):
            want = evolve(want, model=None)
        served = [each for each in self.pool if want.serves_model(each.capabilities)]
        able = [
            each
            for each in served
            if each.eligible and each.url not in without and want.allows(each.capabilities)
        ]
        if want.session:
            able = [each for each in able if each.sessions == 0]
        try:
            worker = stack.enter_context(self.pool.lease(want, without))
        except NoWorker:
            assert able == []
            assert not want.strict or any(want.allows(each.capabilities) for each in served)
            return multiple()
        except BadRequest:
            assert want.strict
            assert not any(want.allows(each.capabilities) for each in served)
            return multiple()
        assert worker.url in {each.url for each in able}
        willing = [each for each in able if not want.unable(each.capabilities)]
        free = [each for each in willing if not each.sessions]
        first_choice = [each for each in free if not each.doubtful]
        best = first_choice or free or willing or able
        assert worker.url in {each.url for each in best}
        assert self.before[worker.url].load == min(each.load for each in best)
        self.open[worker.url, worker.serial] += 1
        self.sessions[worker.url, worker.serial] += want.session
        return stack, worker, want.session

    @rule(lease=consumes(leases))
    def give_back(self, lease: tuple[ExitStack, Worker, bool]) -> None:
        stack, worker, session = lease
        stack.close()
        self.open[worker.url, worker.serial] -= 1
        self.sessions[worker.url, worker.serial] -= session

    @invariant()
    def counts_are_true(self) -> None:
        for worker in self.pool:
            assert worker.in_flight == self.open[worker.url, worker.serial]
            assert worker.sessions == self.sessions[worker.url, worker.serial]
            assert worker.sessions <= 1

    @invariant()
    def order_is_registration(self) -> None:
        serials = [worker.serial for worker in self.pool]
        assert serials == sorted(serials)


TestPoolMachine = PoolMachine.TestCase
