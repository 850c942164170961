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

from sgl_droute.errors import NoCapableWorker, NotFound, NoWorker, RouterError
from sgl_droute.fleet.capabilities import ANYTHING, IMAGE, MESH, REALTIME, VIDEO, Want, reported
from sgl_droute.fleet.modules import ALL
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.weights import DISK, Actual, Desired, Update
from sgl_droute.fleet.worker import Probe, Worker

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")
LACKING = ". Stale workers lack weights or adapters that the fleet has: see GET /weights"
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
    assert why(pool, VIDEO) == why(pool_of(), VIDEO) == (NoCapableWorker, sentence)


@pytest.mark.parametrize(
    ("facet", "word"),
    [
        ({"draining": True}, "draining"),
        ({"disabled": True}, "disabled"),
        ({"asleep": True}, "sleeping"),
        ({"actual": Actual(torn=ALL)}, "stale"),
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
    kind, said = why(pool, REALTIME)
    assert kind is NoWorker
    assert said.removesuffix(LACKING) == sentence
    assert said.endswith(LACKING) == (word == "stale")


def test_a_model_that_cannot() -> None:
    """
    A model whose workers make no videos is named in the refusal.
    """
    pool = pool_of("a", "b")
    able(pool, "http://a:1", "T2I", model="org/a")
    able(pool, "http://b:1", "T2V", model="org/b")
    kind, sentence = why(pool, evolve(VIDEO, model="org/a"))
    assert kind is NoCapableWorker
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


def set_facet(pool: Pool, url: str, name: str) -> None:
    facets: dict[str, Any] = {name: True}
    pool.change(pool[url], lambda now: evolve(now, **facets))


def healthy(*names: str) -> Pool:
    pool = pool_of(*names)
    for worker in pool:
        pool.record_probe(worker, GOOD, threshold=3)
    return pool


def test_records_are_judged() -> None:
    """
    Every change is told with what follows from it for the weights: observers never see a worker
    that lacks what its model is to have and gets work all the same.
    """
    pool = pool_of()
    pool.epochs.set(None, Desired().updated(Update(1, DISK)))
    seen: list[tuple[str, bool]] = []
    pool.watch(lambda before, now: seen.append((now.state, now.eligible)) if now else None)
    worker = pool.add("http://a:1")
    pool.record_probe(worker, GOOD, threshold=3)
    pool.epochs.set(None, Desired())
    pool.judge()
    assert seen == [("stale", False), ("stale", False), ("ready", True)]


def test_judging_one() -> None:
    """
    Only the record that is asked about follows what is desired by now; one that is gone is no
    error, and one that says so already is not told again.
    """
    pool = healthy("a", "b")
    gone = pool.add("http://gone:1")
    pool.remove("http://gone:1")
    pool.epochs.set(None, Desired().updated(Update(1, DISK)))
    told: list[Worker | None] = []
    pool.watch(lambda before, now: told.append(now))
    for worker in (pool["http://a:1"], pool["http://a:1"], gone):
        pool.judge_one(worker)
    assert [worker.state for worker in pool] == ["stale", "ready"]
    assert told == [pool["http://a:1"]]


def test_who_catches_up() -> None:
    """
    Waiting is of use while a worker that may serve the request lacks nothing but weights; not for
    one that is out of rotation, is excluded, or serves another model.
    """
    pool = mixed()
    assert not pool.catches_up(VIDEO)
    pool.epochs.set("m", Desired().updated(Update(1, DISK)))
    pool.judge()
    assert pool.catches_up(VIDEO)
    assert not pool.catches_up(VIDEO, ["http://video:1"])
    assert not pool.catches_up(evolve(VIDEO, model="other"))
    pool.change(pool["http://video:1"], lambda now: evolve(now, disabled=True))
    assert not pool.catches_up(VIDEO)


def test_whom_an_update_goes_to() -> None:
    """
    It goes to all who can take it, and can be of use: not to those that are dead, asleep, disabled
    or of another model, but to those that have not said theirs.
    """
    pool = healthy("dead", "asleep", "disabled", "other", "draining", "mine", "unknown")
    for name in ("dead", "asleep", "disabled", "draining"):
        set_facet(pool, f"http://{name}:1", name)
        able(pool, f"http://{name}:1")
    able(pool, "http://other:1", model="o")
    able(pool, "http://mine:1")
    urls = [[worker.url[7:-2] for worker in pool.updatable(name)] for name in (None, "m", "o")]
    assert urls == [
        ["other", "draining", "mine", "unknown"],
        ["draining", "mine", "unknown"],
        ["other", "unknown"],
    ]


def test_nobody_to_update() -> None:
    """
    A model that nobody serves is told as 404; one of whose workers none can be called as 503.
    """
    pool = healthy("a")
    able(pool, "http://a:1")
    with pytest.raises(NotFound, match="'other' is served by no worker"):
        pool.updatable("other")
    pool.change(pool["http://a:1"], lambda now: evolve(now, disabled=True))
    for name in (None, "m"):
        with pytest.raises(NoWorker, match="1 disabled"):
            pool.updatable(name)


FACETS = ("draining", "disabled", "asleep")
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
        assert isinstance(error, NoCapableWorker) == (want.strict and not allowed)
        assert isinstance(error, (NoCapableWorker, NoWorker))

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
