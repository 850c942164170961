"""
A worker that does not know an id any more: when that shows that it was restarted.
"""

from __future__ import annotations

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.job import JOBS
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.owners import Entry, Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, Worker

GOOD = Probe(healthy=True)
GONE = Probe(healthy=False, silent=True, gone=True, reason="connection refused")
A = "http://a:1"
KINDS = ("image", *JOBS)
PICK = st.integers(0, 1000)
MOST = 3  # ids at a time: more would seldom be met again


@define(eq=False)
class Watched:
    """
    A worker at `A` that is met, what is known of its holdings, and the restarts that were noticed.
    """

    pool: Pool = field(factory=Pool)
    holdings: Holdings = field(init=False)
    restarts: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.holdings = Holdings(self.pool, Owners(ttl=1e6), OpenJobs(), lambda: 1000.0)
        self.holdings.on_restart = lambda worker: self.restarts.append(worker.url)
        self.pool.add(A)
        self.check(GOOD)

    def check(self, *probes: Probe) -> None:
        for probe in probes:
            self.pool.record_probe(self.pool[A], probe, threshold=9)

    def make(self, kind: str = "video", worker: Worker | None = None) -> None:
        fields = {"id": "x", "status": "queued"}
        self.holdings.made(kind, worker or self.pool[A], fields)

    def see(self, worker: Worker | None = None) -> None:
        self.holdings.seen("video", "x", worker or self.pool[A], {"status": "queued"})


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_its_process_does_not_know(kind: str) -> None:
    """
    A worker that does not know what the process there made was restarted; that is told once, when
    nobody holds the thing and its job any more.
    """
    fleet = Watched()
    fleet.make(kind)
    before = fleet.pool[A]
    fleet.holdings.on_restart = lambda worker: fleet.restarts.append(
        f"{worker.serial == before.serial} {len(fleet.holdings.owners)} {fleet.pool[A].jobs}"
    )
    fleet.holdings.lost(kind, "x")
    fleet.holdings.lost(kind, "x")
    assert fleet.restarts == ["True 0 0"]


def test_what_a_restart_means() -> None:
    """
    Unless told otherwise, the pool takes what answers next for a new process.
    """
    pool = Pool()
    holdings = Holdings(pool, Owners(ttl=1e6), OpenJobs(), lambda: 1000.0)
    before = pool.record_probe(pool.add(A), GOOD, threshold=3)
    assert before is not None
    holdings.made("image", before, {"id": "x"})
    holdings.lost("image", "x")
    assert (before.lapsed, pool[A].lapsed) == (False, True)
    now = pool.record_probe(before, GOOD, threshold=3)
    assert now is not None
    assert now.incarnation == before.incarnation + 1


def test_an_id_that_was_seen() -> None:
    """
    What was made before the last restart, and is there all the same, is proof of the next one.
    """
    fleet = Watched()
    fleet.make()
    fleet.check(GONE, GOOD)
    fleet.see()
    fleet.holdings.lost("video", "x")
    assert fleet.restarts == [A]


def test_an_id_of_a_former_process() -> None:
    """
    That a new process does not know what one before it made proves nothing.
    """
    fleet = Watched()
    fleet.make()
    fleet.check(GONE, GOOD)
    fleet.holdings.lost("video", "x")
    assert fleet.restarts == []


@pytest.mark.parametrize("probes", [(GONE,), (GONE, GOOD)])
def test_an_answer_across_a_restart(probes: tuple[Probe, ...]) -> None:
    """
    Nobody knows which process made, or told of, a thing when the worker may have been restarted
    since it was asked.
    """
    fleet = Watched()
    before = fleet.pool[A]
    fleet.check(*probes)
    fleet.make(worker=before)
    fleet.see(before)
    fleet.check(GOOD)
    fleet.holdings.lost("video", "x")
    assert fleet.restarts == []


def test_an_id_from_before_the_first_check() -> None:
    """
    What was made before the worker was met proves nothing until it is heard of again.
    """
    fleet = Watched()
    fleet.pool.remove(A)
    fleet.pool.add(A)
    fleet.make()
    fleet.check(GOOD)
    fleet.holdings.lost("video", "x")
    assert fleet.restarts == []
    fleet.make()
    fleet.holdings.lost("video", "x")
    assert fleet.restarts == [A]


def test_an_id_of_a_former_registration() -> None:
    """
    A worker that was removed and registered again counts its processes anew, and what one of the
    former registration made proves nothing; nor does anything while it is gone.
    """
    fleet = Watched()
    fleet.make()
    former = fleet.pool[A]
    fleet.pool.remove(A)
    fleet.pool.add(A)
    fleet.check(GOOD)
    assert fleet.pool[A].incarnation == former.incarnation
    fleet.holdings.lost("video", "x")
    fleet.make()
    fleet.pool.remove(A)
    fleet.holdings.lost("video", "x")
    assert fleet.restarts == []


def test_an_id_that_was_restored() -> None:
    """
    What was made before a restart of the router proves nothing until it is heard of again.
    """
    fleet = Watched()
    for seen, restarts in ((False, []), (True, [A])):
        fleet.holdings.owners.restore([("video", "x", Entry(A, 1000.0, "7"))])
        if seen:
            fleet.see()
        fleet.holdings.lost("video", "x")
        assert fleet.restarts == restarts


def test_an_id_that_was_deleted() -> None:
    """
    A deletion proves nothing: neither when it was answered, nor while it is under way, nor if its
    answer never came, whatever is heard of the thing in between.
    """
    fleet = Watched()
    fleet.make()
    fleet.holdings.deleted("video", "x")
    fleet.holdings.lost("video", "x")
    fleet.make()
    fleet.holdings.deleting("video", "x")
    assert fleet.holdings.owners.entry("video", "x") is not None
    fleet.see()
    fleet.holdings.lost("video", "x")
    fleet.holdings.deleted("video", "x")
    assert fleet.restarts == []


class AnyRestarts(RuleBasedStateMachine):
    """
    A worker restarts, is checked, and is registered again, while clients create, poll and delete:
    a restart is noticed by an id only if there was one, and whenever that is certain.

    Attributes:
        process: What is really there: the ids that it knows.
        met: The process that was there when each life of the worker began, as far as the router
            can tell one from another.
        asked: The worker as it was whenever a request was sent that is still without an answer.
        surely: The lives in which ids were surely heard of.
        deleting: Ids whose deletion is under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Watched()
        self.fleet.holdings.on_restart = self.noticed
        self.process: set[str] = set()
        self.met = {self.life: self.process}
        self.asked: list[Worker] = []
        self.surely: dict[str, tuple[int, int]] = {}
        self.deleting: list[str] = []
        self.made = 0
        self.notices = 0

    @property
    def life(self) -> tuple[int, int]:
        now = self.fleet.pool[A]
        return now.serial, now.incarnation

    def noticed(self, worker: Worker) -> None:
        assert worker.lapsed or self.met[self.life] is not self.process
        self.fleet.pool.record_lapse(worker)
        self.notices += 1

    @rule()
    def restart(self) -> None:
        self.process = set()

    @rule(probe=st.sampled_from([GOOD, GONE]))
    def check(self, probe: Probe) -> None:
        self.fleet.check(probe)
        self.met.setdefault(self.life, self.process)

    @rule(restart=st.booleans())
    def register_again(self, restart: bool) -> None:
        self.fleet.pool.remove(A)
        self.fleet.pool.add(A)
        if restart:
            self.restart()
            self.check(GOOD)

    @precondition(lambda self: len(self.fleet.holdings.owners) + len(self.asked) < MOST)
    @rule()
    def ask(self) -> None:
        self.asked.append(self.fleet.pool[A])

    @precondition(lambda self: self.asked)
    @rule(pick=PICK)
    def answer(self, pick: int) -> None:
        worker = self.asked.pop(pick % len(self.asked))
        id = f"id{self.made}"
        self.made += 1
        self.process.add(id)
        self.fleet.holdings.made("video", worker, {"id": id, "status": "queued"})
        self.heard(id, worker)

    def heard(self, id: str, worker: Worker) -> None:
        now = self.fleet.pool[A]
        same = (worker.serial, worker.incarnation) == self.life
        if same and not now.lapsed and id not in self.deleting:
            self.surely[id] = self.life

    @precondition(lambda self: len(self.fleet.holdings.owners) > 0)
    @rule(pick=PICK)
    def poll(self, pick: int) -> None:
        self.ask_for(self.known(pick))

    def ask_for(self, id: str) -> None:
        if id in self.process:
            self.fleet.holdings.seen("video", id, self.fleet.pool[A], {"status": "queued"})
            self.heard(id, self.fleet.pool[A])
            return
        certain = self.surely.pop(id, None) == self.life
        before = self.notices
        self.fleet.holdings.lost("video", id)
        assert self.notices == before + certain

    def known(self, pick: int) -> str:
        ids = [id for id in map("id{}".format, range(self.made)) if self.holds(id)]
        return ids[pick % len(ids)]

    def holds(self, id: str) -> bool:
        return self.fleet.holdings.owners.entry("video", id) is not None

    @precondition(lambda self: len(self.fleet.holdings.owners) > 0)
    @rule(pick=PICK, polled=st.booleans())
    def begin_to_delete(self, pick: int, polled: bool) -> None:
        id = self.known(pick)
        self.fleet.holdings.deleting("video", id)
        self.deleting.append(id)
        self.surely.pop(id, None)
        if polled:
            self.ask_for(id)

    @precondition(lambda self: self.deleting)
    @rule(pick=PICK, answered=st.booleans())
    def delete(self, pick: int, answered: bool) -> None:
        id = self.deleting.pop(pick % len(self.deleting))
        if id in self.process:
            self.process.discard(id)
            if answered:
                self.fleet.holdings.deleted("video", id)
            else:
                self.ask_for(id)


TestAnyRestarts = AnyRestarts.TestCase
TestAnyRestarts.settings = settings(max_examples=200)
