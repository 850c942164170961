"""
Open jobs: each counts as load of its worker from its creation to its end, and no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sgl_droute.fleet.jobs import USUAL_DURATION, EndedJob, OpenJobs

W1, W2 = "http://w1:1", "http://w2:1"


class Line:
    """
    The video jobs of one worker, told of in few words.
    """

    def __init__(self, jobs: OpenJobs | None = None, worker: str = W1, serial: int = 1) -> None:
        self.jobs = OpenJobs() if jobs is None else jobs
        self.worker, self.serial = worker, serial

    def create(self, *ids: str, now: float) -> None:
        for id in ids:
            self.jobs.created("video", id, self.worker, self.serial, now)

    def show(self, id: str, status: object, now: float, **fields: object) -> None:
        row = {"status": status, **fields}
        self.jobs.seen("video", id, self.worker, self.serial, row, now)

    def delete(self, id: str, now: float) -> None:
        self.jobs.deleted("video", id, now)

    @property
    def count(self) -> int:
        return self.jobs.count(self.worker, self.serial)

    @property
    def front(self) -> list[str]:
        return [job.id for job in self.jobs.front(self.worker, self.serial)]

    def ends(self, *times: float) -> bool:
        """Whether one job after the other ends at these times and not before."""
        for time in times:
            before = self.count
            self.jobs.tick(time - 0.001)
            if self.count != before:
                return False
            self.jobs.tick(time + 0.001)
            if self.count != before - 1:
                return False
        return True


def test_a_job_is_load_until_it_ends() -> None:
    """
    A job counts from its creation until it was seen completed or failed, and the change is told.
    """
    told: list[tuple[str, int, int]] = []
    line = Line(OpenJobs(lambda *change: told.append(change)))
    line.create("a", "b", now=0.0)
    line.create("a", now=1.0)
    line.show("a", "in_progress", 1.0, progress=3)
    line.show("a", "completed", 2.0, progress=100)
    line.show("b", "failed", 2.0)
    line.show("b", "failed", 3.0)
    assert told == [(W1, 1, 1), (W1, 1, 2), (W1, 1, 1), (W1, 1, 0)]
    assert len(line.jobs) == 0


def test_a_job_of_another_router() -> None:
    """
    A job that a poll or a list shows waiting or running is load too, in order of creation.
    """
    line = Line()
    line.create("new", now=100.0)
    line.show("c", "queued", 101.0, created_at=30)
    line.show("b", "queued", 101.0, created_at=20)
    line.show("a", "in_progress", 101.0, created_at=10, progress=50)
    line.show("late", "queued", 101.0, created_at=10**9)
    line.show("done", "completed", 101.0)
    assert line.front == ["a", "b", "c", "new"]
    assert [job.id for job in line.jobs.front(W1, 1, n=2)] == ["a", "b"]
    assert line.count == 5


@pytest.mark.parametrize("status", ["deleted", "paused", None, 7, ["queued"], {}])
def test_other_words_change_nothing(status: object) -> None:
    """
    A status that says nothing of load neither opens a job nor ends one.
    """
    line = Line()
    line.show("a", status, 1.0)
    assert line.count == 0
    line.create("a", now=2.0)
    before = line.jobs.get("video", "a")
    line.show("a", status, 3.0, progress=50)
    assert line.jobs.get("video", "a") == before


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, "7", -1, 101, 10**400, float("nan"), float("inf"), -(10**400), [], {}, 1.5]
)


@given(JUNK, JUNK, JUNK, st.sampled_from(["queued", "in_progress", "completed", "failed"]))
def test_wrong_types_are_ignored(progress: Any, created: Any, took: Any, status: str) -> None:
    """
    A worker's answer may hold anything: nothing raises, and nothing impossible is believed.
    """
    line = Line()
    fields = {"progress": progress, "created_at": created, "inference_time_s": took}
    line.show("a", status, 50.0, **fields)
    job = line.jobs.get("video", "a")
    assert job is None or (job.progress == 0 and 0 <= job.created <= 50.0)
    line.show("a", status, 51.0, **fields)
    line.create("b", now=60.0)
    line.delete("b", now=61.0)
    line.jobs.tick(1e6)
    assert (line.jobs.get("video", "a") is None) == (status in ("completed", "failed"))


def test_a_deleted_job_runs_on() -> None:
    """
    A deleted job counts until such jobs usually end, whether its worker knows it or not; it is not
    asked about any more.
    """
    line = Line()
    line.create("a", now=10.0)
    line.delete("a", now=20.0)
    line.jobs.lost("video", "a")
    line.show("a", "in_progress", 21.0)
    line.show("a", "queued", 22.0)
    assert line.front == []
    assert line.ends(10.0 + USUAL_DURATION)


def test_deleted_jobs_run_one_after_the_other() -> None:
    """
    A deleted job that waits begins when the one before it ends.
    """
    line = Line(OpenJobs(expected=lambda kind, id: 40.0))
    line.create("a", "b", "c", now=0.0)
    line.delete("c", now=1.0)
    line.delete("b", now=2.0)
    line.jobs.tick(1000.0)
    assert line.count == 3
    line.show("a", "completed", 1000.0)
    assert line.ends(1040.0, 1080.0)


def test_many_deleted_jobs_end_in_one_tick() -> None:
    """
    However seldom `tick` is called, each job is counted for its own time only.
    """
    line = Line()
    line.create("a", "b", "c", now=0.0)
    for id in "abc":
        line.delete(id, now=1.0)
    line.jobs.tick(2 * USUAL_DURATION + 1)
    assert line.count == 1
    assert line.ends(3 * USUAL_DURATION)


def test_a_later_job_that_runs() -> None:
    """
    When a later job runs or is done, deleted ones before it are over; others are asked about.
    """
    line = Line()
    line.create("a", "b", "c", "d", now=0.0)
    line.delete("a", now=1.0)
    line.delete("d", now=1.0)
    line.show("c", "in_progress", 2.0)
    assert line.jobs.get("video", "a") is None
    assert line.jobs.get("video", "d") is not None
    assert line.front == ["b", "c"]


def test_progress_predicts() -> None:
    """
    A job that was seen at 25 percent 10 s after its start takes 30 s more, however long it stands
    there; what was shown first is not its own doing.
    """
    line = Line()
    line.create("a", now=0.0)
    line.show("a", "in_progress", 10.0, progress=25)
    line.show("a", "in_progress", 12.0, progress=25)
    line.show("a", "in_progress", 13.0, progress=1)
    line.delete("a", now=14.0)
    assert line.ends(40.0)
    line.show("b", "in_progress", 100.0, progress=50)
    line.show("b", "in_progress", 110.0, progress=60)
    line.delete("b", now=111.0)
    assert line.ends(150.0)
    line.show("c", "in_progress", 200.0, progress=50)
    line.delete("c", now=201.0)
    assert line.ends(200.0 + USUAL_DURATION / 2)


def test_a_job_behind_an_image() -> None:
    """
    A job that still waits although it is the first has not begun.
    """
    line = Line()
    line.create("a", now=0.0)
    line.show("a", "queued", 50.0)
    line.delete("a", now=60.0)
    assert line.ends(50.0 + USUAL_DURATION)


def test_durations_are_asked_for() -> None:
    """
    A job takes as long as whoever predicts that says, and else the usual time.
    """
    line = Line(OpenJobs(expected=lambda kind, id: 7.0 if id == "known" else None))
    line.create("known", "unknown", now=0.0)
    line.delete("known", now=0.0)
    line.delete("unknown", now=0.0)
    assert line.ends(7.0, 7.0 + USUAL_DURATION)


def test_whoever_predicts_is_told_of_the_end() -> None:
    """
    The end of a job is told with what it took, if its worker said so and did it.
    """
    told: list[tuple[str, str, float | None, bool]] = []
    opened: list[str] = []
    line = Line(
        OpenJobs(on_open=lambda job: opened.append(job.id), on_end=lambda *end: told.append(end))
    )
    line.create("done", "failed", "lost", "gone", now=0.0)
    assert opened == ["done", "failed", "lost", "gone"]
    line.show("done", "completed", 9.0, inference_time_s=7.5)
    line.show("failed", "failed", 10.0, inference_time_s=1.0)
    line.jobs.lost("video", "lost")
    line.jobs.worker_lost(W1, 1)
    assert told == [
        ("video", "done", 7.5, True),
        ("video", "failed", None, False),
        ("video", "lost", None, False),
        ("video", "gone", None, False),
    ]


def test_who_watches_is_told_how_each_job_ended() -> None:
    """
    Each job's end is told once, when it is known: a deletion at once, and not when its load ends.
    """
    told: list[EndedJob] = []
    line = Line()
    line.jobs.watch(told.append)
    line.create("deleted", "done", "failed", "lost", "gone", now=0.0)
    for _ in range(2):
        line.delete("deleted", now=1.0)
    line.show("done", "completed", 9.0, inference_time_s=7.5, size="1x1")
    line.show("failed", "failed", 10.0, error={"message": "no"})
    line.jobs.lost("video", "lost")
    line.jobs.worker_lost(W1, 1)
    assert [(ended.job.id, ended.how, ended.took) for ended in told] == [
        ("deleted", "deleted", None),
        ("done", "completed", 7.5),
        ("failed", "failed", None),
        ("lost", "lost", None),
        ("gone", "lost", None),
    ]
    assert told[1].fields["size"] == "1x1"
    assert told[2].fields["error"] == {"message": "no"}
    assert told[3].fields == {}


@pytest.mark.parametrize(
    "end",
    [
        lambda line: line.show("v", "completed", 2.0),
        lambda line: line.jobs.tick(1e6),
        lambda line: line.jobs.restarted(W1, 1),
        lambda line: line.jobs.worker_lost(W1, 1),
    ],
)
def test_the_end_of_a_deleted_job_is_no_news(end: Callable[[Line], None]) -> None:
    """
    However a deleted job stops counting as load, that is not told.
    """
    told: list[EndedJob] = []
    line = Line()
    line.create("v", now=0.0)
    line.delete("v", now=1.0)
    line.jobs.watch(told.append)
    end(line)
    assert (told, line.count) == ([], 0)


def test_a_lost_worker() -> None:
    """
    The jobs of a registration end with it, the deleted ones too; its successor's do not.
    """
    told: list[tuple[str, int, int]] = []
    jobs = OpenJobs(lambda *change: told.append(change))
    before, after = Line(jobs, W1, 1), Line(jobs, W1, 2)
    before.create("a", "b", now=0.0)
    before.delete("b", now=1.0)
    after.create("c", now=2.0)
    jobs.worker_lost(W1, 1)
    jobs.worker_lost(W1, 1)
    assert told[3:] == [(W1, 1, 0)]
    assert (before.count, after.count) == (0, 1)


def test_a_job_is_load_of_one_worker() -> None:
    """
    An id that another worker shows does not count twice.
    """
    jobs = OpenJobs()
    one, two = Line(jobs), Line(jobs, W2, 2)
    one.create("a", now=0.0)
    two.show("a", "queued", 1.0)
    assert (one.count, two.count) == (0, 1)


def test_bounded() -> None:
    """
    Beyond its limit the job that is known for longest ends.
    """
    line = Line(OpenJobs(most=3))
    line.create("a", "b", "c", "d", now=0.0)
    assert line.front == ["b", "c", "d"]


IDS = st.sampled_from("abcdef")
HOMES = st.sampled_from([(W1, 1), (W2, 2), (W1, 3)])


class JobsMachine(RuleBasedStateMachine):
    """
    Any order of what routers hear of jobs, beside a plain map of who has what.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.jobs = OpenJobs(self.counted)
        self.told: dict[tuple[str, int], int] = {}
        self.open: dict[str, tuple[str, int]] = {}
        self.deleted: set[str] = set()

    def counted(self, worker: str, serial: int, count: int) -> None:
        assert count >= 0
        assert count != self.told.get((worker, serial), 0)
        self.told[worker, serial] = count

    def over(self, id: str) -> None:
        self.open.pop(id, None)
        self.deleted.discard(id)

    def opened(self, id: str, home: tuple[str, int]) -> None:
        if self.open.get(id) != home:
            self.over(id)
        self.open[id] = home

    @rule(seconds=st.sampled_from([0.0, 1.0, USUAL_DURATION]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.jobs.tick(self.now)
        for id in list(self.deleted):
            if self.jobs.get("video", id) is None:
                self.over(id)

    @rule(id=IDS, home=HOMES)
    def create(self, id: str, home: tuple[str, int]) -> None:
        self.jobs.created("video", id, *home, self.now)
        self.opened(id, home)

    @rule(
        id=IDS,
        home=HOMES,
        status=st.sampled_from(["queued", "in_progress"]),
        progress=st.integers(0, 100),
        created=st.integers(900, 1300),
    )
    def show(
        self, id: str, home: tuple[str, int], status: str, progress: int, created: int
    ) -> None:
        row = {"status": status, "progress": progress, "created_at": created}
        self.jobs.seen("video", id, *home, row, self.now)
        self.opened(id, home)
        if status == "in_progress":
            self.overtaken(home)

    def overtaken(self, home: tuple[str, int]) -> None:
        for other in [each for each in self.deleted if self.open[each] == home]:
            if self.jobs.get("video", other) is None:
                self.over(other)

    @rule(id=IDS, home=HOMES, status=st.sampled_from(["completed", "failed"]))
    def finish(self, id: str, home: tuple[str, int], status: str) -> None:
        self.jobs.seen("video", id, *home, {"status": status}, self.now)
        self.over(id)
        self.overtaken(home)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        self.jobs.deleted("video", id, self.now)
        if id in self.open:
            self.deleted.add(id)

    @rule(id=IDS)
    def lose(self, id: str) -> None:
        self.jobs.lost("video", id)
        if id not in self.deleted:
            self.over(id)

    @rule(home=HOMES)
    def lose_worker(self, home: tuple[str, int]) -> None:
        self.jobs.worker_lost(*home)
        for id in [id for id, other in self.open.items() if other == home]:
            self.over(id)

    @rule()
    def come_to_rest(self) -> None:
        for id in list(self.open):
            if id not in self.deleted:
                self.jobs.seen("video", id, *self.open[id], {"status": "failed"}, self.now)
        for _ in range(2):  # the first in line may begin with the first
            self.jobs.tick(self.now)
            self.now += 1e6
        self.open.clear()
        self.deleted.clear()
        assert len(self.jobs) == 0

    @invariant()
    def counts_are_true(self) -> None:
        for home in [(W1, 1), (W2, 2), (W1, 3)]:
            ids = {id for id, other in self.open.items() if other == home}
            assert self.jobs.count(*home) == len(ids) == self.told.get(home, 0)
            front = self.jobs.front(*home, n=100)
            assert {job.id for job in front} == ids - self.deleted
            assert [job.created for job in front] == sorted(job.created for job in front)


TestJobsMachine = JobsMachine.TestCase


def test_openings_and_ends_are_told() -> None:
    """
    Whoever keeps the jobs hears of each that was opened or ended.
    """
    told: list[tuple[str, str]] = []
    jobs = OpenJobs(on_change=lambda kind, id: told.append((kind, id)))
    jobs.created("video", "a", W1, 1, 0.0)
    jobs.created("mesh", "b", W1, 1, 0.0)
    jobs.seen("video", "a", W1, 1, {"status": "completed"}, 1.0)
    jobs.worker_lost(W1, 1)
    assert told == [("video", "a"), ("mesh", "b"), ("video", "a"), ("mesh", "b")]


def test_a_new_process_works_on_no_deleted_job() -> None:
    """
    When a worker was restarted its deleted jobs end; the others are still to be asked about.
    """
    jobs = OpenJobs()
    for id in ("a", "b", "c"):
        jobs.created("video", id, W1, 1, 0.0)
    jobs.deleted("video", "a", 1.0)
    jobs.deleted("video", "c", 1.0)
    jobs.restarted(W1, 1)
    assert jobs.count(W1, 1) == 1
    assert [job.id for job in jobs.front(W1, 1)] == ["b"]
