"""
The keeper: what the fleet remembers goes to a store, and comes back from it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.job import Known
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.owners import Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.worker import Concurrency, quarantined
from sgl_droute.state.keeper import Keeper
from sgl_droute.state.saved import Saved
from tests.state.kept import BAD, GOOD, A, B, Fleet
from tests.state.model import Model


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


@pytest.mark.parametrize("barred", [False, True])
def test_who_may_come_back_survives(barred: bool) -> None:
    """
    Good health checks bring back a worker that was quarantined for bad ones, also after a restart,
    and never one that an operator quarantined.
    """
    kept = store()
    fleet = Fleet(kept)
    fleet.ready(A)
    fleet.pool.record_probe(fleet.pool[A], BAD, threshold=1)
    if barred:
        fleet.pool.change(fleet.pool[A], lambda now: quarantined(now, "by hand"))
    again = Fleet(kept)
    again.pool.record_probe(again.pool[A], GOOD, threshold=1, readmit=2)
    assert again.states == {A: "dead"}
    again.pool.record_probe(again.pool[A], GOOD, threshold=1, readmit=2)
    assert again.states == {A: "dead" if barred else "ready"}


def test_settings_survive() -> None:
    """
    What an operator said of a worker's concurrency and speed comes back, and so does its end.
    """
    kept = store()
    fleet = Fleet(kept)
    for url, concurrency in ((A, "auto"), (B, 0)):
        worker = fleet.pool.add(url)
        fleet.pool.change(worker, partial(evolve, concurrency=concurrency, speed=0.5))
    again = Fleet(kept)
    assert [(each.concurrency, each.speed) for each in again.pool] == [("auto", 0.5), (0, 0.5)]
    again.pool.change(again.pool[A], partial(evolve, concurrency=None, speed=None))
    assert (Fleet(kept).pool[A].concurrency, Fleet(kept).pool[A].speed) == (None, None)


def test_learned_speeds_survive() -> None:
    """
    What was learned is known after a stop, of each worker by itself.
    """
    kept = store()
    fleet = Fleet(kept)
    for url in (A, B):
        fleet.pool.add(url)
        fleet.lessons.learn(url, f"of {url}")
    kept.write(last=True)
    assert Fleet(kept).lessons.texts == {A: f"of {A}", B: f"of {B}"}


def test_learned_speeds_are_written_now_and_then() -> None:
    """
    However much is learned of a worker, it is asked for and put once in 30 s, as it is then.
    """
    kept = store()
    fleet = Fleet(kept)
    for url in (A, B):
        fleet.pool.add(url)
    for second in range(91):
        fleet.now = 1_000_000.0 + second
        fleet.lessons.learn(A, str(second))
        kept.write()
        if second == 29:
            assert kept.puts == {}
    fleet.lessons.learn(B, "not yet")
    kept.write()
    assert (kept.puts, fleet.lessons.asked) == ({A: 2}, 2)
    assert kept.speeds == {A: "61"}
    fleet.now += 1000.0
    for _ in range(3):
        kept.write()
    assert (kept.puts, kept.speeds) == ({A: 3, B: 1}, {A: "90", B: "not yet"})


def test_learned_speeds_go_with_their_worker() -> None:
    """
    Nothing stays of a worker that left, and nothing that comes late is asked for or kept.
    """
    kept = store()
    fleet = Fleet(kept)
    fleet.pool.add(A)
    fleet.lessons.learn(A, "first")
    kept.write(last=True)
    fleet.lessons.learn(A, "second")
    fleet.pool.remove(A)
    kept.write(last=True)
    fleet.lessons.learn(A, "late")
    kept.write(last=True)
    assert (kept.speeds, fleet.lessons.asked) == ({}, 1)
    assert Fleet(kept).lessons.texts == {}


def test_learned_speeds_of_nobody() -> None:
    """
    Speeds of workers that are not in the fleet, or are there for one run only, are not kept.
    """
    kept = Model(Saved(speeds=((A, "left behind"),)))
    fleet = Fleet(kept)
    fleet.pool.add(B, lasting=False)
    fleet.lessons.learn(B, "for one run")
    kept.write(last=True)
    assert fleet.lessons.texts == {B: "for one run"}
    assert kept.speeds == {}


def test_nothing_to_keep_of_a_speed() -> None:
    """
    Where nothing is to be kept after all, nothing is put.
    """
    kept = store()
    fleet = Fleet(kept)
    fleet.pool.add(A)
    fleet.lessons.on_change(A, "image")
    kept.write(last=True)
    assert (fleet.lessons.asked, kept.puts) == (1, {})


def test_predictions_survive() -> None:
    """
    A fleet begun with the state predicts as the one before it did.
    """
    kept, demand = store(), Known(100_000.0)
    before, after = Speeds(), Speeds()
    for number, speeds in enumerate((before, after)):
        pool = Pool()
        holdings = Holdings(pool, Owners(3600.0), OpenJobs(), lambda: 0.0)
        Keeper(kept, pool, holdings, speeds).begin()
        worker = pool.add(A)
        if number == 0:
            for _ in range(5):
                speeds.learn(worker, "image", demand, 3.0)
            kept.write(last=True)
    assert before.learned(worker, "image")
    assert after.learned(worker, "image")
    expected = before.seconds(worker, "image", demand)
    assert after.seconds(worker, "image", demand) == pytest.approx(expected, rel=0.05)


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


def test_epochs_survive() -> None:
    """
    What a thing was made at comes back; which process of its worker had it does not.
    """
    kept = store()
    fleet = Fleet(kept)
    fleet.pool.add(A)
    fleet.pool.record_probe(fleet.pool[A], GOOD, threshold=3)
    fleet.holdings.made("video", fleet.pool[A], {"id": "v", "status": "queued"}, "7-8")
    fleet.holdings.made("image", fleet.pool[A], {"id": "i"})
    again = Fleet(kept)
    assert [again.holdings.epoch(*key) for key in (("video", "v"), ("image", "i"))] == ["7-8", ""]
    again.pool.record_probe(again.pool[A], GOOD, threshold=3)
    again.holdings.lost("video", "v")
    assert not again.pool[A].lapsed


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


def test_webhooks_survive() -> None:
    """
    The calls that are still to be made come back as they were, and one that was made does not.
    """
    kept = store()
    fleet = Fleet(kept)
    for name in ("open", "over", "made"):
        fleet.webhooks.expect("video", name, "http://h/x", f"evt_{name}")
    for name in ("over", "made"):
        fleet.webhooks.end("video", name, "completed", {}, 5.0)
        webhook = fleet.webhooks.take(5.0)
        assert webhook is not None
        if name == "made":
            fleet.webhooks.forget(webhook)
        else:
            fleet.webhooks.failed(webhook, 6.0)
    again = Fleet(kept)
    assert [each.id for each in again.webhooks.expected()] == ["open"]
    assert again.webhooks.take(6.9) is None
    webhook = again.webhooks.take(7.0)
    assert webhook is not None
    assert (webhook.event, webhook.tries, webhook.until) == ("evt_over", 1, 5.0 + 86400.0)
    assert len(again.webhooks) == 2


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

    @rule(
        url=URLS,
        concurrency=st.sampled_from([None, "auto", 0, 3]),
        speed=st.sampled_from([None, 0.5, 2.0]),
    )
    def configure(self, url: str, concurrency: Concurrency | None, speed: float | None) -> None:
        facets: dict[str, Any] = {"concurrency": concurrency, "speed": speed}
        if url in self.fleet.pool:
            self.fleet.pool.change(self.fleet.pool[url], lambda now: evolve(now, **facets))

    @rule(url=URLS, barred=st.booleans())
    def quarantine(self, url: str, barred: bool) -> None:
        if url in self.fleet.pool:
            self.fleet.pool.change(
                self.fleet.pool[url], lambda now: quarantined(now, "x", barred=barred)
            )

    @rule(url=URLS)
    def check(self, url: str) -> None:
        if url in self.fleet.pool:
            self.fleet.pool.record_probe(self.fleet.pool[url], GOOD, threshold=3)

    @rule(
        url=URLS,
        id=IDS,
        kind=st.sampled_from(["video", "image"]),
        epoch=st.sampled_from(["", "7", "7-8", "unknown"]),
    )
    def make(self, url: str, id: str, kind: str, epoch: str) -> None:
        fields = {"id": id, "status": "queued"}
        if url in self.fleet.pool:
            self.fleet.holdings.made(kind, self.fleet.pool[url], fields, epoch)

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
            assert mine.barred == other.barred
            for flag in FLAGS:
                assert getattr(mine, flag) == getattr(other, flag)
            assert mine.jobs == other.jobs
            assert (mine.concurrency, mine.speed) == (other.concurrency, other.speed)
        for number in range(6):
            for kind in ("video", "image"):
                entry = self.fleet.holdings.owners.entry(kind, f"id{number}")
                expected = None if entry is None else evolve(entry, life=-1)
                assert again.holdings.owners.entry(kind, f"id{number}") == expected


TestKeptFleet = KeptFleet.TestCase
