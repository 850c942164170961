"""
What the flight recorder writes, when, and what it does without a disk.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from sgl_droute.fleet.capabilities import IMAGE, VIDEO, Capabilities
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.workers.recorder import Recorder, open_recorder
from sgl_droute.workers.tape import Tape

W1, W2 = "http://w1:1", "http://w2:1"
FLUX = Capabilities(frozenset({"image"}), "flux", frozenset({"flux", "f"}), 2)
Line = dict[str, Any]


@define(eq=False)
class Hand:
    """
    A thread that does what it is told when the test lets it.
    """

    eager: bool = True
    _given: list[tuple[Callable[[], None], Deferred[None]]] = field(factory=list, init=False)

    def __call__(self, function: Callable[[], None]) -> Deferred[None]:
        result: Deferred[None] = Deferred()
        self._given.append((function, result))
        if self.eager:
            self.work()
        return result

    @property
    def waiting(self) -> int:
        return len(self._given)

    def work(self) -> None:
        while self._given:
            function, result = self._given.pop(0)
            try:
                function()
            except Exception:
                result.errback()
            else:
                result.callback(None)


@define(eq=False)
class Bench:
    """
    A recorder in test hands.
    """

    path: Path
    most_bytes: int = 1 << 20
    most_waiting: int = 1000
    clock: Clock = field(factory=Clock, init=False)
    hand: Hand = field(factory=Hand, init=False)
    pool: Pool = field(factory=Pool, init=False)
    recorder: Recorder = field(init=False)

    def __attrs_post_init__(self) -> None:
        tape = Tape(self.path, 1000.0, {"algorithm": "random"}, self.most_bytes)
        self.recorder = Recorder(tape, self.clock, self.hand, self.most_waiting)

    def started(self) -> Bench:
        self.recorder.follow(self.pool)
        self.recorder.startService()
        return self

    def note(self, name: str, job: Job, **facts: Any) -> None:
        self.recorder.note(Event(name, self.clock.seconds(), job, **facts))

    def lines(self) -> list[Line]:
        """
        What is in the file a second later.
        """
        self.clock.advance(1.0)
        return read(self.path)


def read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(lines: list[Line]) -> list[str]:
    return [line["event"] for line in lines]


def said(logged: list[LogEvent]) -> list[str]:
    return [
        f"{event['log_level'].name}: {formatEvent(event)}"
        for event in logged
        if event["log_namespace"] == "sgl_droute.workers.recorder"
    ]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A recorder that is not started yet."""
    return Bench(tmp_path / "flight.jsonl")


def test_header(bench: Bench) -> None:
    """
    A file begins with its version, the wall clock, what the scheduler was told, and the workers
    that are there.
    """
    bench.pool.record_capabilities(bench.pool.add(W1), FLUX)
    bench.clock.advance(5.0)
    header, *others = bench.started().lines()
    assert others == []
    assert len(header.pop("run")) == 16
    assert header == {
        "event": "recording",
        "version": 1,
        "t": 5.0,
        "offset": 1000.0,
        "rules": {"algorithm": "random"},
        "workers": [
            {
                "url": W1,
                "model": "flux",
                "names": ["f", "flux"],
                "abilities": ["image"],
                "replicas": 2,
                "concurrency": None,
                "speed": None,
                "eligible": True,
            }
        ],
    }


def test_life_of_a_job(bench: Bench) -> None:
    """
    With its arrival stands what a replay needs, with its later events what came of it; times are
    told to the microsecond, and those within a job from its arrival on.
    """
    bench.pool.record_capabilities(bench.pool.add(W1), FLUX)
    bench.started()
    job = Job(
        id="j",
        want=evolve(IMAGE, model="f"),
        demand=Known(7.5),
        submitted=0.0,
        priority=3,
        batch="b",
        deadline=9.0,
        expires=8.0,
        hand_over=7.0,
    )
    job.length = 2.123456789
    bench.note("submitted", job)
    bench.clock.advance(0.1234567)
    bench.note("bound", job, worker=W1, start=0.5, end=2.5)
    bench.note("ended", job, worker=W1, took=1.75, reason="well")
    _, submitted, bound, ended = bench.lines()
    assert submitted == {
        "event": "submitted",
        "t": 0.0,
        "job": "j",
        "want": {
            "word": "image",
            "abilities": ["image"],
            "strict": False,
            "model": "f",
            "session": False,
            "slot": True,
            "kind": "image",
        },
        "length": 2.123457,
        "work": {"flux": 7.5},
        "priority": 3,
        "batch": "b",
        "deadline": 9.0,
        "expires": 8.0,
        "hand_over": 7.0,
    }
    common = {"t": 0.123457, "job": "j", "worker": W1}
    assert bound == {**common, "event": "bound", "start": 0.5, "end": 2.5}
    assert ended == {**common, "event": "ended", "took": 1.75, "outcome": "well"}


def test_work_by_model(bench: Bench) -> None:
    """
    The work is told for the models of those workers that may get the job, as they are when it
    arrives; nothing is told of a job of which nothing is known.
    """
    for url, capabilities in {W1: FLUX, W2: Capabilities(frozenset({"video"}), "wan")}.items():
        bench.pool.record_capabilities(bench.pool.add(url), capabilities)
    bench.started()
    bench.note("submitted", Job(id="1", want=VIDEO, demand=Known(1.0)))
    bench.note("submitted", Job(id="2", demand=Known(1.0)))
    bench.pool.remove(W2)
    bench.pool.record_capabilities(bench.pool[W1], Capabilities())
    bench.note("submitted", Job(id="3", demand=Known(1.0)))
    bench.note("submitted", Job(id="4"))
    works = [line["work"] for line in bench.lines() if line["event"] == "submitted"]
    assert works == [{"wan": 1.0}, {"flux": 1.0, "wan": 1.0}, {"": 1.0}, {}]


def test_no_secrets(bench: Bench) -> None:
    """
    Who asks is told apart and not told: neither a key nor a group is in the file, and another
    recording has other names for them.
    """
    asked = [("sk-key-1", "a cat"), ("sk-key-2", "a cat"), ("sk-key-1", "\ud800 dog")]
    for again in (bench.started(), Bench(bench.path.with_name("other.jsonl")).started()):
        for number, (client, group) in enumerate(asked):
            again.note("submitted", Job(id=str(number), client=client, group=group))
        lines = again.lines()[1:]
        clients = [line["client"] for line in lines]
        assert clients[0] == clients[2] != clients[1]
        groups = [line["group"] for line in lines]
        assert groups[0] == groups[1] != groups[2]
        text = again.path.read_text()
        assert "key" not in text
        assert "cat" not in text
    assert read(bench.path)[1]["client"] != lines[0]["client"]


def test_workers(bench: Bench) -> None:
    """
    Workers that come, change in what they serve, may have or are said to be, or go are told; how
    much they have in flight is not.
    """
    bench.started()
    worker = bench.pool.add(W1)
    bench.clock.advance(0.5)
    bench.pool.record_capabilities(worker, FLUX)
    bench.pool.change(worker, lambda now: evolve(now, speed=0.5))
    bench.pool.change(worker, lambda now: evolve(now, concurrency="auto"))
    with bench.pool.visit(worker):
        pass
    bench.pool.change(worker, lambda now: evolve(now, draining=True))
    bench.pool.remove(W1)
    lines = bench.lines()
    assert names(lines) == ["recording", *["worker"] * 5, "gone"]
    assert [line["t"] for line in lines] == [0.0, 0.0, *[0.5] * 5]
    assert [line.get("model") for line in lines] == [None, None, *["flux"] * 4, None]
    assert [line.get("speed") for line in lines] == [None, None, None, 0.5, 0.5, 0.5, None]
    assert lines[4]["concurrency"] == "auto"
    assert [line.get("eligible") for line in lines[4:]] == [True, False, None]
    assert lines[-1] == {"event": "gone", "t": 0.5, "url": W1}


def test_endless_times(bench: Bench) -> None:
    """
    A time that never comes is not in the file, which stays JSON.
    """
    bench.started()
    job = Job(id="j", deadline=float("inf"))
    bench.note("submitted", job)
    bench.note("bound", job, worker=W1, start=0.0, end=float("inf"))
    _, submitted, bound = bench.lines()
    assert "deadline" not in submitted
    assert set(bound) == {"event", "t", "job", "worker", "start"}


def test_once_per_second(bench: Bench) -> None:
    """
    Nothing is written on the reactor's thread, a write begins once per second at most, and never
    before the last one has ended; nothing is lost by that.
    """
    bench.hand.eager = False
    bench.started()
    assert bench.hand.waiting == 1  # the header
    bench.hand.work()
    for number in range(3):
        bench.note("submitted", Job(id=str(number)))
        bench.clock.advance(0.25)
    assert bench.hand.waiting == 0
    bench.clock.advance(0.25)
    assert bench.hand.waiting == 1
    bench.note("submitted", Job(id="3"))
    bench.clock.advance(5.0)
    assert bench.hand.waiting == 1
    bench.hand.work()
    bench.hand.eager = True
    assert [line["job"] for line in bench.lines()[1:]] == ["0", "1", "2", "3"]


def test_nothing_to_write(bench: Bench) -> None:
    """
    A second in which nothing happens costs the disk nothing.
    """
    bench.started()
    bench.hand.eager = False
    bench.clock.advance(10.0)
    assert bench.hand.waiting == 0


def test_stop_writes_the_rest(bench: Bench) -> None:
    """
    Stopping waits for the write under way and for one more with all the rest.
    """
    bench.hand.eager = False
    bench.started()
    bench.note("submitted", Job(id="j"))
    done: list[None] = []
    bench.recorder.stopService().addCallback(done.append)
    assert not done
    bench.hand.work()
    assert done == [None]
    assert names(read(bench.path)) == ["recording", "submitted"]
    bench.clock.advance(10.0)
    assert bench.hand.waiting == 0


def test_rotation(tmp_path: Path) -> None:
    """
    A file that would grow beyond its size makes room for a new one, which begins with the present
    workers; one old file stays, and no line is lost between them.
    """
    bench = Bench(tmp_path / "flight.jsonl", most_bytes=2000).started()
    bench.pool.add(W1)
    gone = bench.pool.add(W2)
    for number in range(7):
        bench.note("submitted", Job(id=str(number)))
    bench.pool.remove(gone.url)
    for number in range(7, 12):
        bench.note("submitted", Job(id=str(number)))
    bench.clock.advance(1.0)
    old, new = Path(f"{bench.path}.1"), bench.path
    assert sorted(tmp_path.iterdir()) == [new, old]
    assert old.stat().st_size <= 2000
    assert new.stat().st_size <= 2000
    jobs = [line["job"] for file in (old, new) for line in read(file) if "job" in line]
    assert jobs == [str(number) for number in range(12 - len(jobs), 12)]
    assert len(jobs) > 7
    header = read(new)[0]
    assert header["event"] == "recording"
    assert [worker["url"] for worker in header["workers"]] == [W1]
    assert header["run"] == read(old)[0]["run"]


@given(
    sizes=st.lists(st.integers(0, 200), max_size=60),
    most=st.integers(500, 3000),
    per_write=st.integers(1, 20),
)
def test_files_stand_alone(
    sizes: list[int], most: int, per_write: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """
    Whatever is written in whatever portions: each file begins with a header, is JSON to its last
    line, and is larger than allowed only if a single line is; the last jobs are all there.
    """
    path = tmp_path_factory.mktemp("tape") / "flight.jsonl"
    tape = Tape(path, most_bytes=most)
    events = [
        Event("refused", 0.0, Job(id=str(number)), reason="x" * size)
        for number, size in enumerate(sizes)
    ]
    for start in range(0, len(events), per_write):
        tape.write(events[start : start + per_write])
    files = [file for file in (Path(f"{path}.1"), path) if file.exists()]
    jobs = [line["job"] for file in files for line in read(file)[1:]]
    assert jobs == [str(number) for number in range(len(sizes) - len(jobs), len(sizes))]
    for file in files:
        assert read(file)[0]["event"] == "recording"
        assert file.stat().st_size <= most
    assert len(files) == 2 or len(jobs) == len(sizes)


def test_appends(bench: Bench) -> None:
    """
    An older recording is added to, also one that broke off in the middle of a line.
    """
    bench.path.write_text('{"event": "recording"}\n{"event": "subm')
    bench.started()
    lines = bench.path.read_text().splitlines()
    assert lines[1] == '{"event": "subm'
    assert json.loads(lines[2])["event"] == "recording"


def test_no_folder(bench: Bench, logged: list[LogEvent]) -> None:
    """
    While the file cannot be written the log says so once, and once when it can; then a header with
    the workers of that moment follows, how many lines are missing, and what happens from then on.
    """
    bench.path = bench.recorder.tape.path = bench.path.parent / "away" / "flight.jsonl"
    bench.started()
    bench.pool.add(W1)
    bench.note("submitted", Job(id="lost"))
    bench.clock.pump([1.0] * 5)
    assert len(said(logged)) == 1
    assert said(logged)[0].startswith("warn: Nothing is being recorded, traffic goes on: [Errno 2]")
    bench.path.parent.mkdir()
    bench.note("submitted", Job(id="kept"))
    header, lost, kept = bench.lines()
    assert [worker["url"] for worker in header["workers"]] == [W1]
    assert (lost["event"], lost["count"]) == ("lost", 2)
    assert kept["job"] == "kept"
    assert said(logged)[1:] == [f"info: Recording goes on in {bench.path}"]


def test_taken_away(bench: Bench) -> None:
    """
    A file that somebody removes is begun anew, with a header.
    """
    bench.started()
    bench.pool.add(W1)
    bench.clock.advance(1.0)
    bench.path.unlink()
    bench.note("submitted", Job(id="j"))
    header, line = bench.lines()
    assert [worker["url"] for worker in header["workers"]] == [W1]
    assert line["job"] == "j"


def test_full_disk(bench: Bench, logged: list[LogEvent]) -> None:
    """
    A full disk stops nothing.
    """
    bench.path.symlink_to("/dev/full")
    bench.started()
    bench.clock.pump([1.0] * 3)
    assert len(said(logged)) == 1
    assert "No space left on device" in said(logged)[0]


def test_lost_at_the_end(bench: Bench, logged: list[LogEvent]) -> None:
    """
    When the recorder stops and the file still cannot be written, the log says how much is missing.
    """
    bench.recorder.tape.path = bench.path / "nowhere"
    bench.started()
    bench.note("submitted", Job(id="j"))
    bench.recorder.stopService()
    assert said(logged)[-1] == "warn: 1 lines were not recorded"


@pytest.mark.logs_failures
def test_broken_demand(bench: Bench, logged: list[LogEvent]) -> None:
    """
    A fault in what is recorded is logged as one, once, and recording goes on behind it.
    """

    class Broken:
        def work(self, model: str | None) -> float | None:
            raise ZeroDivisionError

    bench.pool.add(W1)
    bench.started()
    bench.note("submitted", Job(id="1", demand=Broken()))
    bench.clock.advance(1.0)
    bench.note("submitted", Job(id="2"))
    lines = bench.lines()
    assert names(lines) == ["recording", "recording", "lost", "submitted"]
    assert len([event for event in logged if "log_failure" in event]) == 1


def test_bounded(tmp_path: Path) -> None:
    """
    What waits for a slow disk is bounded: beyond that jobs and changes of workers are counted, and
    the file goes on with the workers as they are.
    """
    bench = Bench(tmp_path / "flight.jsonl", most_waiting=4)
    bench.hand.eager = False
    bench.started()
    bench.note("submitted", Job(id="0"))
    bench.pool.add(W1)
    for number in range(1, 10):
        bench.note("submitted", Job(id=str(number)))
    bench.pool.remove(W1)
    bench.pool.add(W2)
    bench.clock.advance(1.0)
    bench.hand.work()
    bench.hand.eager = True
    lines = bench.lines()
    assert [line["job"] for line in lines if "job" in line] == ["0", "1", "2"]
    assert names(lines)[-2:] == ["recording", "lost"]
    assert lines[-1]["count"] == 9
    assert [worker["url"] for worker in lines[-2]["workers"]] == [W2]


def test_thread_fails(bench: Bench, logged: list[LogEvent]) -> None:
    """
    Recording goes on after a thread that could not be had.
    """
    bench.recorder.in_thread = lambda function: fail(OSError("no more threads"))
    bench.started()
    bench.recorder.in_thread = bench.hand
    assert names(bench.lines()) == ["recording"]
    assert [line.partition(":")[0] for line in said(logged)] == ["warn", "info"]


@pytest_twisted.ensureDeferred
async def test_real_thread(tmp_path: Path) -> None:
    """
    With the reactor the file is written by another thread, with times that are those of the wall
    clock once the offset is added.
    """
    threads = set()

    class Demanding:
        def work(self, model: str | None) -> float | None:
            threads.add(threading.current_thread())
            return 1.0

    path = tmp_path / "flight.jsonl"
    recorder = open_recorder(path, reactor, Rules(fair=True))
    pool = Pool()
    pool.add(W1)
    recorder.follow(pool)
    recorder.startService()
    recorder.note(Event("submitted", reactor.seconds(), Job(id="j", demand=Demanding())))
    await recorder.stopService()
    header, line = read(path)
    assert header["rules"]["fair"] is True
    assert header["rules"]["concurrency"] == 0
    assert "random" not in header["rules"]
    assert abs(header["offset"] + line["t"] - path.stat().st_mtime) < 60
    assert len(threads) == 1
    assert threading.current_thread() not in threads
