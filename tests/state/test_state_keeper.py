"""
The keeper: what the fleet remembers goes to a store, and comes back from it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.loras import SET, LoraCall
from sgl_droute.fleet.owners import Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, quarantined
from sgl_droute.state.keeper import Keeper
from sgl_droute.state.saved import Saved
from sgl_droute.state.store import Store
from tests.state.model import Model

GOOD, BAD = Probe(healthy=True), Probe(healthy=False, reason="/health answered 503")
A, B = "http://a:1", "http://b:1"


class Fleet:
    """A pool and its holdings, kept in a store."""

    def __init__(self, store: Store) -> None:
        self.now = 1_000_000.0
        self.pool = Pool()
        self.holdings = Holdings(self.pool, Owners(3600.0), OpenJobs(), lambda: self.now)
        Keeper(store, self.pool, self.holdings).begin()

    @property
    def states(self) -> dict[str, str]:
        return {worker.url: worker.state for worker in self.pool}


def store() -> Model:
    return Model(Saved())


def test_flags_survive() -> None:
    """
    Quarantine, drain, disabled and sleep come back, in order of registration.
    """
    kept = store()
    fleet = Fleet(kept)
    flags: dict[str, dict[str, Any]] = {
        "well": {},
        "draining": {"draining": True},
        "disabled": {"disabled": True},
        "asleep": {"asleep": True},
    }
    for name, facets in flags.items():
        worker = fleet.pool.add(f"http://{name}:1")
        fleet.pool.change(worker, partial(evolve, **facets))
    dead = fleet.pool.add("http://dead:1")
    fleet.pool.change(dead, lambda now: quarantined(now, "by hand"))
    again = Fleet(kept)
    assert list(again.states.values()) == ["joining", "draining", "disabled", "sleeping", "dead"]
    assert not again.pool["http://dead:1"].probed
    assert list(again.states) == list(fleet.states)


def test_a_worker_that_never_was_well_may_still_join() -> None:
    """
    A loading worker that was counted as dead is probed on after a restart.
    """
    kept = store()
    fleet = Fleet(kept)
    worker = fleet.pool.add(A)
    fleet.pool.record_probe(worker, BAD, threshold=1)
    assert fleet.states == {A: "dead"}
    again = Fleet(kept)
    assert again.states == {A: "joining"}


def test_removed_workers_stay_away() -> None:
    """
    A worker that was removed, or drained and left, is not registered after a restart.
    """
    kept = store()
    fleet = Fleet(kept)
    fleet.pool.add(A)
    fleet.pool.remove(A)
    leaving = fleet.pool.add(B)
    fleet.pool.change(leaving, lambda now: evolve(now, draining=True, leaving=True))
    assert Fleet(kept).states == {}


def test_a_drain_goes_on() -> None:
    """
    A worker that was about to leave is still draining after a restart while it has a job, and
    leaves when that has ended.
    """
    kept = store()
    fleet = Fleet(kept)
    worker = fleet.pool.add(A)
    fleet.holdings.made("video", worker, {"id": "v", "status": "queued"})
    fleet.pool.change(worker, lambda now: evolve(now, draining=True, leaving=True))
    again = Fleet(kept)
    assert again.states == {A: "draining"}
    assert again.pool[A].jobs == 1
    again.holdings.seen("video", "v", again.pool[A], {"status": "completed"})
    assert again.states == {}
    assert Fleet(kept).states == {}


def test_finished_jobs_are_no_load_after_a_restart() -> None:
    """
    Only jobs that were open when last heard of count.
    """
    kept = store()
    fleet = Fleet(kept)
    worker = fleet.pool.add(A)
    for name, status in {"done": "completed", "failed": "failed", "open": "queued"}.items():
        fleet.holdings.made("video", worker, {"id": name, "status": "queued"})
        fleet.holdings.seen("video", name, worker, {"status": status})
    again = Fleet(kept)
    assert again.pool[A].jobs == 1
    assert again.holdings.jobs.get("video", "open") is not None
    assert again.holdings.owners.owner("video", "done", again.now) == A


def test_the_lora_set_survives() -> None:
    """
    The set comes back, and every worker has to take it before it gets work.
    """
    kept = store()
    fleet = Fleet(kept)
    worker = fleet.pool.add(A)
    fleet.pool.record_probe(worker, GOOD, threshold=3)
    loras = fleet.pool.loras.after(LoraCall(SET, {"lora_nickname": "x", "lora_path": "p/x"}))
    fleet.pool.record_loras(loras, list(fleet.pool))
    assert fleet.states == {A: "ready"}
    again = Fleet(kept)
    assert again.pool.loras == loras
    assert again.states == {A: "stale"}


def test_workers_of_one_run_are_not_kept() -> None:
    """
    Workers that were started for this run are gone with it.
    """
    kept = store()
    fleet = Fleet(kept)
    fleet.pool.add(A)
    fleet.pool.add(B, lasting=False)
    fleet.pool.change(fleet.pool[B], partial(evolve, disabled=True))
    assert list(Fleet(kept).states) == [A]


IDS = st.sampled_from([f"id{number}" for number in range(6)])
URLS = st.sampled_from([A, B, "http://c:1"])
FLAGS = ("draining", "disabled", "asleep")


class KeptFleet(RuleBasedStateMachine):
    """
    Whatever happens to a fleet, one that begins with its state knows the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = store()
        self.fleet = Fleet(self.store)

    @rule(url=URLS)
    def add(self, url: str) -> None:
        self.fleet.pool.add(url)

    @rule(url=URLS)
    def remove(self, url: str) -> None:
        if url in self.fleet.pool:
            self.fleet.pool.remove(url)

    @rule(url=URLS, flag=st.sampled_from(FLAGS), holds=st.booleans())
    def flag(self, url: str, flag: str, holds: bool) -> None:
        facets: dict[str, Any] = {flag: holds}
        if url in self.fleet.pool:
            self.fleet.pool.change(self.fleet.pool[url], lambda now: evolve(now, **facets))

    @rule(url=URLS)
    def quarantine(self, url: str) -> None:
        if url in self.fleet.pool:
            self.fleet.pool.change(self.fleet.pool[url], lambda now: quarantined(now, "x"))

    @rule(url=URLS, id=IDS, kind=st.sampled_from(["video", "image"]))
    def make(self, url: str, id: str, kind: str) -> None:
        if url in self.fleet.pool:
            self.fleet.holdings.made(kind, self.fleet.pool[url], {"id": id, "status": "queued"})

    @rule(id=IDS, status=st.sampled_from(["in_progress", "completed", "failed"]))
    def poll(self, id: str, status: str) -> None:
        entry = self.fleet.holdings.owners.entry("video", id)
        if entry is not None and entry.worker in self.fleet.pool:
            worker = self.fleet.pool[entry.worker]
            self.fleet.holdings.seen("video", id, worker, {"status": status})

    @rule(id=IDS)
    def forget(self, id: str) -> None:
        self.fleet.holdings.lost("video", id)

    @rule()
    def restart(self) -> None:
        self.fleet = Fleet(self.store)

    @invariant()
    def the_same_is_known(self) -> None:
        again = Fleet(self.store)
        for mine, other in zip(self.fleet.pool, again.pool, strict=True):
            assert mine.url == other.url
            assert (mine.dead and not mine.probed) == other.dead
            for flag in FLAGS:
                assert getattr(mine, flag) == getattr(other, flag)
            assert mine.jobs == other.jobs
        for number in range(6):
            for kind in ("video", "image"):
                mine_entry = self.fleet.holdings.owners.entry(kind, f"id{number}")
                assert mine_entry == again.holdings.owners.entry(kind, f"id{number}")


TestKeptFleet = KeptFleet.TestCase
