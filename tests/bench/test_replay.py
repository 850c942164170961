"""
Recordings of the flight recorder, read back and replayed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.harness.replay.command import rules_of
from bench.harness.replay.options import read_settings
from bench.harness.replay.outcome import Outcome, outcome
from bench.harness.replay.plot import draw
from bench.harness.replay.reader import read
from bench.harness.replay.recording import Asked, Change, NoRecording, Present, Recording
from bench.harness.replay.run import Replay
from bench.harness.replay.truth import Truth
from bench.harness.virtual.engine import Machine, Task
from sgl_droute.fleet.capabilities import ANYTHING, IMAGE, VIDEO, Capabilities
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.tape import Anew, Changed, Entry, Tape

ROOT = Path(__file__).resolve().parents[2]
W1, W2, W3 = (f"http://w{number}:1" for number in (1, 2, 3))
FLUX = Capabilities(frozenset({"image"}), "flux", frozenset({"flux"}))
WAN = Capabilities(frozenset({"image", "video"}), "wan", frozenset({"wan"}))
Line = dict[str, Any]


def worker(url: str, capabilities: Capabilities = FLUX) -> Worker:
    return Worker(url=url, serial=1, capabilities=capabilities)


def line(event: str, t: float = 0.0, job: str | None = None, **facts: Any) -> Line:
    return {"event": event, "t": t, **({} if job is None else {"job": job}), **facts}


def header(*urls: str, t: float = 0.0, run: str = "r", **facts: Any) -> Line:
    workers = [{"url": url, "model": "flux"} for url in urls]
    return line("recording", t, version=1, offset=100.0, run=run, workers=workers, **facts)


def life(id: str, at: float, took: float, url: str = W1, **facts: Any) -> list[Line]:
    return [
        line("submitted", at, id, work={"flux": 1.0}, **facts),
        line("bound", at, id, worker=url, start=at, end=at + 1.0),
        line("ended", at + took, id, worker=url, took=took, outcome="well"),
    ]


def written(path: Path, *lines: Line | str) -> Path:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def of(
    jobs: Sequence[Asked], workers: Sequence[str] = (W1,), changes: Sequence[Change] = ()
) -> Recording:
    """
    A recording of *jobs* on *workers* that were there before.
    """
    there = [Change(-1.0, url, Present(url, FLUX)) for url in workers]
    return Recording(list(jobs), [*there, *changes])


def asked(id: str, at: float = 0.0, took: float | None = 1.0, **facts: Any) -> Asked:
    return Asked(**{"id": id, "at": at, "want": IMAGE, "work": {}, "took": took, **facts})


def replayed(recording: Recording, **rules: Any) -> Outcome:
    return Replay(recording, Truth(recording), Rules(**rules)).run()


def began(recording: Recording, **rules: Any) -> list[float]:
    """
    When workers were given the jobs.
    """
    replay = Replay(recording, Truth(recording), Rules(**rules))
    events: list[Event] = []
    replay.scheduler.watch(events.append)
    replay.run()
    return [event.time for event in events if event.name == "bound"]


# Reading.


def test_reads_what_the_recorder_writes(tmp_path: Path) -> None:
    """
    A job and the workers come back from the file as they were, on a clock that begins with the
    first job.
    """
    job = Job(
        id="j",
        want=evolve(VIDEO, model="wan"),
        demand=Known(7.0),
        submitted=10.0,
        priority=2,
        client="c",
        batch="b",
        group="g",
        deadline=19.0,
        expires=18.0,
        hand_over=17.0,
    )
    job.length = 3.0
    tuned = evolve(worker(W2, WAN), concurrency="auto", speed=0.5, draining=True)
    entries: list[Entry] = [
        Anew(5.0, (worker(W1),), 0),
        Changed(9.0, None, tuned),
        Event("submitted", 10.0, job),
        Event("bound", 11.0, job, W2, 12.0, 15.5),
        Event("abandoned", 14.0, job, W2),
        Event("ended", 16.0, job, W2, took=3.25, reason="well"),
        Changed(20.0, worker(W1), None),
    ]
    path = tmp_path / "flight.jsonl"
    Tape(path, 1000.0, {"fair": True}).write(entries)
    recording = read([path])
    (found,) = recording.jobs
    assert found.want == job.want
    assert (found.at, found.work, found.length) == (0.0, {"wan": 7.0}, 3.0)
    assert (found.priority, found.batch) == (2, "b")
    assert (found.deadline, found.expires, found.hand_over) == (9.0, 8.0, 7.0)
    assert (found.worker, found.predicted, found.took, found.left) == (W2, 3.5, 3.25, 4.0)
    assert found.client not in ("", "c")
    assert found.group not in (None, "g")
    assert recording.changes == [
        Change(-5.0, W1, Present(W1, FLUX)),
        Change(-1.0, W2, Present(W2, WAN, "auto", 0.5, False)),
        Change(10.0, W1, None),
    ]
    assert recording.rules == {"fair": True}
    assert not recording.passed_over


def test_broken_lines(tmp_path: Path) -> None:
    """
    Cut lines, lines of another shape, unknown events and unknown fields stop nothing: the lines
    that are not used are counted.
    """
    path = written(
        tmp_path / "f",
        header(W1),
        "[1]",
        line("submitted", 1.0, "cut")["event"],
        *life("a", 1.0, 2.0, tomorrow={"is": "new"}),
        line("submitted", "soon", "b"),  # type: ignore[arg-type]
        line("worker", 1.0, url="not a url"),
        line("levitated", 2.0, "a"),
        line("ended", 2.0, "from before", took=1.0),
        line("lost", 2.0, count=3),
    )
    with path.open("a") as file:
        file.write('{"event":"submitted","t":9,"jo')
    recording = read([path])
    assert [job.took for job in recording.jobs] == [2.0]
    assert recording.passed_over == {
        "broken": 5,
        "of unknown events": 1,
        "of jobs that came before": 1,
        "lost": 3,
    }


def test_jobs_without_gpu_time(tmp_path: Path) -> None:
    """
    What only reads takes no GPU time: it is counted, and not replayed.
    """
    reads = life("b", 1.0, 2.0, want={"kind": "video", "slot": False})
    recording = read([written(tmp_path / "f", header(W1), *reads, *life("a", 1.0, 2.0))])
    assert [job.id for job in recording.jobs] == ["a"]
    assert recording.passed_over == {"jobs that take no GPU time": 1}


@given(data=st.data())
def test_any_damage(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    However the lines behind the header are damaged, reading ends with what is left or says that
    there is none.
    """
    whole = "\n".join(json.dumps(each) for each in life("a", 1.0, 2.0, batch="b", want={}))
    spot = st.integers(0, len(whole))
    first, last = sorted((data.draw(spot), data.draw(spot)))
    filling = data.draw(st.text(max_size=5) | st.sampled_from(["null", "[]", '"x"', "-1", "1e999"]))
    path = tmp_path_factory.mktemp("damaged") / "f"
    damaged = whole[:first] + filling + whole[last:]
    path.write_text(json.dumps(header(W1)) + "\n" + damaged, errors="replace")
    try:
        recording = read([path])
    except NoRecording:
        return
    assert len(recording.jobs) == 1


def test_files_in_any_order(tmp_path: Path) -> None:
    """
    Two files of one recording are one recording, whichever is named first: the job that ends in the
    second is the one that began in the first, and workers that are in both came once.
    """
    submitted, bound, ended = life("a", 1.0, 5.0)
    old = written(tmp_path / "f.1", header(W1, W2), submitted, bound)
    new = written(tmp_path / "f", header(W1, t=3.0), ended)
    for files in ([old, new], [new, old]):
        recording = read(files)
        assert [job.took for job in recording.jobs] == [5.0]
        assert [(change.url, change.at, change.now is None) for change in recording.changes] == [
            (W1, -1.0, False),
            (W2, -1.0, False),
            (W2, 2.0, True),
        ]


def test_two_runs(tmp_path: Path) -> None:
    """
    After a restart of the router its ids stand for other jobs, and its clock is another.
    """
    later = {**header(W1, t=1.0, run="s"), "offset": 150.0}
    path = written(tmp_path / "f", header(W1), *life("a", 1.0, 2.0), later, *life("a", 2.0, 3.0))
    assert [(job.at, job.took) for job in read([path]).jobs] == [(0.0, 2.0), (51.0, 3.0)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not what the option --record writes"),
        ("Dear diary,\n", "is not what the option --record writes"),
        ('{"a": 1}\n{"b": 2}\n', "is not what the option --record writes"),
        ("\0\1\udcff" * 1000, "is not what the option --record writes"),
        ("[" * 100_000, "is not what the option --record writes"),
        (json.dumps({**header(), "version": 2}), "is of version 2, and this reads 1"),
        (json.dumps(header()), "there is no job in this recording"),
    ],
)
def test_no_recording(text: str, reason: str, tmp_path: Path) -> None:
    """
    What is no recording is told apart, with the file's name, in one line.
    """
    path = tmp_path / "file"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(NoRecording) as problem:
        read([path])
    assert str(problem.value) == f"{path}: {reason}"


# How long jobs take.


def test_measured_speeds() -> None:
    """
    A job takes on another worker what it took on its own, scaled by how fast both were with all
    their jobs.
    """
    jobs = [
        asked(f"{url}{size}", took=size * pace, work={"flux": size}, worker=url)
        for url, pace in ((W1, 1.0), (W2, 2.0), (W3, 1.0))
        for size in (1.0, 2.0, 3.0, 4.0, 5.0)
    ]
    truth = Truth(of(jobs, [W1, W2, W3]))
    assert truth.speeds() == {W1: 1.0, W2: 0.5, W3: 1.0}
    for job in jobs:
        size = job.work["flux"]
        assert [truth.seconds(job, url) for url in (W1, W2, W3)] == [size, 2 * size, size]
    assert truth.sources == {"measured": 15}


def test_few_samples() -> None:
    """
    Four jobs say nothing about a worker's speed, and neither does work that is not known.
    """
    few = [asked(str(n), took=5.0, work={"flux": 1.0}, worker=W1) for n in range(4)]
    unknown = [asked(f"u{n}", took=9.0, worker=W2) for n in range(9)]
    truth = Truth(of([*few, *unknown], [W1, W2]))
    assert truth.speeds() == {}
    assert truth.seconds(few[0], W2) == 5.0


def test_other_model() -> None:
    """
    On a worker of another model a job takes as long as its work is there, at that worker's pace.
    """
    jobs = [
        asked(f"{url}{n}", took=pace, work={"flux": 1.0, "wan": 10.0}, worker=url)
        for url, pace in ((W1, 2.0), (W2, 30.0))
        for n in range(5)
    ]
    recording = of(jobs, [W1])
    recording.changes.append(Change(-1.0, W2, Present(W2, WAN)))
    truth = Truth(recording)
    assert truth.seconds(jobs[0], W2) == pytest.approx(30.0)
    assert truth.seconds(jobs[-1], W1) == pytest.approx(2.0)


def test_not_measured() -> None:
    """
    A job without a measurement takes what was predicted, else what was expected on a usual worker,
    else the mean of its kind, else the mean of all; how many is told.
    """
    predicted = asked("p", took=None, predicted=3.0, worker=W1)
    expected = asked("e", took=None, length=5.0)
    like_others, alone = asked("l", took=None), asked("a", took=None, want=ANYTHING)
    truth = Truth(of([asked("m", took=1.0), predicted, expected, like_others, alone]))
    found = [truth.seconds(job, W1) for job in (predicted, expected, like_others, alone)]
    assert found == [3.0, 5.0, 3.0, 3.0]
    assert truth.sources == {"measured": 1, "predicted": 2, "average": 2}


def test_nothing_measured() -> None:
    """
    A recording that tells of no job how long it takes cannot be replayed.
    """
    with pytest.raises(NoRecording, match="how long a job takes"):
        Truth(of([asked("a", took=None)]))


# Replaying.


def test_one_after_the_other() -> None:
    """
    A worker works on one job after the other; latencies run from arrival to end, and what the other
    worker did not do is idle time.
    """
    jobs = [asked("a", 0.0, 4.0), asked("b", 0.0, 2.0), asked("c", 1.0, 3.0)]
    outcome = replayed(of(jobs))
    assert outcome.latencies == (4.0, 6.0, 8.0)
    assert (outcome.makespan, outcome.idle) == (9.0, 0.0)
    assert outcome.fates == {"done": 3}
    wide = replayed(of(jobs[:1], [W1, W2]))
    assert (wide.makespan, wide.idle) == (4.0, 0.5)


def test_replicas() -> None:
    """
    A worker with two replicas works on two jobs at once, and both count as time that it offers.
    """
    both = Present(W1, evolve(FLUX, replicas=2))
    recording = of([asked("a", took=4.0), asked("b", took=2.0)], [], [Change(-1.0, W1, both)])
    outcome = replayed(recording)
    assert outcome.latencies == (2.0, 4.0)
    assert outcome.idle == 0.25


def test_clients_leave() -> None:
    """
    A client leaves at the age at which it left: out of the line, or the worker works on for nobody;
    one that is served before stays.
    """
    jobs = [
        asked("served", took=2.0, left=5.0),
        asked("waits", took=100.0, left=1.0),
        asked("runs", took=4.0, left=3.0),
    ]
    outcome = replayed(of(jobs), concurrency=1)
    assert outcome.fates == {"done": 1, "left": 2}
    assert outcome.latencies == (2.0,)
    assert outcome.makespan == 6.0


def test_videos_are_answered_at_once() -> None:
    """
    A video's client has its id as soon as a worker has the job: it no longer counts as open, its
    client cannot leave, and its slot is taken until it is made.
    """
    both = [Change(-1.0, W1, Present(W1, WAN))]
    videos = [asked(str(n), took=10.0, want=VIDEO, left=12.0) for n in range(3)]
    outcome = replayed(of(videos, [], both), concurrency=1)
    assert outcome.fates == {"done": 2, "left": 1}
    assert outcome.latencies == (10.0, 20.0)
    images = [asked(str(n), took=10.0) for n in range(3)]
    assert [began(of(jobs, [], both), max_running=1) for jobs in (videos, images)] == [
        [0.0, 0.0, 0.0],
        [0.0, 10.0, 20.0],
    ]


def test_jobs_that_wait_for_ever() -> None:
    """
    A job of which nothing came is told as stuck.
    """
    job = Job(id="a", want=IMAGE, submitted=2.0)
    made = outcome("random", [Task(job, 1.0)], [Machine()], [Change(-1.0, W1, Present(W1, FLUX))])
    assert made.fates == {"stuck": 1}
    assert (made.makespan, made.latencies, made.idle) == (2.0, (), 1.0)


def test_workers_come_and_go() -> None:
    """
    Workers come, go and stop taking work when they did; without any, jobs are refused as they would
    be, and time that no eligible worker offers is not idle time.
    """
    closed = Present(W1, FLUX, eligible=False)
    changes = [Change(5.0, W1, closed), Change(10.0, W2, Present(W2, FLUX)), Change(20.0, W2, None)]
    jobs = [asked(str(at), at, 1.0) for at in (0.0, 6.0, 12.0, 21.0)]
    outcome = replayed(of(jobs, [W1], changes))
    assert outcome.fates == {"done": 2, "refused": 2}
    assert outcome.makespan == 21.0
    assert outcome.idle == pytest.approx(1 - 2 / 15)


def test_line_is_bounded() -> None:
    """
    The rules hold: a full line refuses, what waited too long is dropped.
    """
    jobs = [asked(str(n), took=10.0, expires=5.0) for n in range(4)]
    outcome = replayed(of(jobs), concurrency=1, queue_size=2)
    assert outcome.fates == {"done": 1, "refused": 1, "dropped": 2}


def test_priority() -> None:
    """
    Priorities hold in the replay.
    """
    jobs = [asked("first", took=1.0), asked("low", took=1.0), asked("high", took=5.0, priority=5)]
    assert replayed(of(jobs), concurrency=1).latencies == (1.0, 6.0, 7.0)


def test_same_traffic_for_all() -> None:
    """
    A replay changes nothing in the recording: the next one gives the same.
    """
    jobs = [asked(str(n), n / 3, 1.0 + n % 4, worker=W1) for n in range(50)]
    recording = of(jobs, [W1, W2])
    assert replayed(recording) == replayed(recording)


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=30),
    workers=st.integers(1, 3),
    algorithm=st.sampled_from(list(ALGORITHMS)),
    concurrency=st.sampled_from([0, 1, 2, "auto"]),
)
def test_replay_of_a_replay(
    arrivals: list[tuple[int, int]],
    workers: int,
    algorithm: str,
    concurrency: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """
    Traffic that is recorded and replayed with the rules that it was recorded under gives the same
    latencies again.
    """
    jobs = [
        asked(str(n), float(at), float(took), work={"flux": 1e4 * took})
        for n, (at, took) in enumerate(sorted(arrivals))
    ]
    recording = of(jobs, [W1, W2, W3][:workers])

    def run(recording: Recording, entries: list[Entry]) -> Outcome:
        rules = Rules(algorithm=algorithm, concurrency=concurrency, random=Random(1))
        replay = Replay(recording, Truth(recording), rules)
        replay.scheduler.watch(entries.append)
        return replay.run()

    entries: list[Entry] = [Anew(0.0, tuple(map(worker, [W1, W2, W3][:workers])), 0)]
    before = run(recording, entries)
    path = tmp_path_factory.mktemp("again") / "f"
    Tape(path).write(entries)
    after = run(read([path]), [])
    assert after.latencies == pytest.approx(before.latencies, abs=1e-3)
    assert after.fates == before.fates == {"done": len(jobs)}


# The command.


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    """
    All algorithms are replayed unless some are named, each once; slots are as recorded unless told.
    """
    usual = read_settings("replay.py", ["f"])
    assert usual.algorithms == tuple(ALGORITHMS)
    assert usual.concurrency is None
    words = ["f", "g", "--algorithm", "random", "--algorithm", "random", "--concurrency", "auto"]
    told = read_settings("replay.py", words)
    assert told.files == (Path("f"), Path("g"))
    assert (told.algorithms, told.concurrency) == (("random",), "auto")
    for wrong in (["--concurrency", "-1"], ["--algorithm", "best"], ["--plot", "/no/folder/x"]):
        with pytest.raises(SystemExit) as ended:
            read_settings("replay.py", ["f", *wrong])
        assert ended.value.code == 2
        assert wrong[0] in capsys.readouterr().err


def test_recorded_rules() -> None:
    """
    The rules are those of the recorded router, and the usual ones where it says nothing of use.
    """
    told = {"fair": True, "queue_size": 5, "concurrency": "auto", "bind_ahead": "x", "new": 1}
    rules = rules_of(told)
    assert (rules.fair, rules.queue_size, rules.concurrency) == (True, 5, "auto")
    assert rules.bind_ahead == Rules().bind_ahead


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "bench/replay.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_command(tmp_path: Path) -> None:
    """
    The script prints a row for each algorithm and says what it did not use, and writes JSON and a
    picture.
    """
    lines = [each for n in range(20) for each in life(str(n), n / 2, 1.0, url=(W1, W2)[n % 2])]
    path = written(tmp_path / "f", header(W1, W2), *lines, "{", line("submitted", 9.0, "x"))
    made, drawn = tmp_path / "out.json", tmp_path / "out.png"
    words = ["--algorithm", "least-request", "--algorithm", "least-work", "--concurrency", "1"]
    ran = command(path, *words, "--json", made, "--plot", drawn)
    assert (ran.returncode, ran.stderr) == (0, "")
    said = ran.stdout.splitlines()
    assert said[0] == "21 jobs in 9.5 s, 2 workers, worker concurrency 1"
    assert "Seconds that were not measured: 1 average" in said
    assert "Not used: 1 broken" in said
    rows = [each.split("|")[1].strip() for each in said if each.startswith("|")]
    assert rows[2:] == ["least-request", "least-work"]
    whole = json.loads(made.read_text())
    assert [each["algorithm"] for each in whole["results"]] == ["least-request", "least-work"]
    assert all(len(each["latencies"]) == 21 for each in whole["results"])
    assert whole["rules"]["concurrency"] == 1
    with Image.open(drawn) as image:
        assert image.format == "PNG"


def test_picture_of_nothing(tmp_path: Path) -> None:
    """
    An algorithm under which no job was done has its place in the picture.
    """
    nothing = Outcome(algorithm="random", makespan=1.0, latencies=(), fates={}, idle=None)
    draw([nothing], "nothing", tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as image:
        assert image.format == "PNG"


def test_command_refuses(tmp_path: Path) -> None:
    """
    A file that is no recording, or not there, is one line on standard error and exit status 2.
    """
    for path in (written(tmp_path / "diary", "Dear diary,"), tmp_path / "missing", tmp_path):
        ran = command(path)
        assert (ran.returncode, ran.stdout) == (2, "")
        (said,) = ran.stderr.splitlines()
        assert said.startswith("replay.py: ")
        assert str(path) in said
