"""
When and how changes get from memory into the file, on a clock and a thread moved by hand.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.state.database import StateError
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from tests.state.hands import Bench

W1, W2, W3 = (SavedWorker(url=f"http://w{n}:1") for n in (1, 2, 3))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A started store over a new file, which nothing has been written to."""
    bench = Bench(str(tmp_path / "router.sqlite"))
    bench.store.load()
    bench.store.startService()
    return bench


def owner(name: str, used: float = 0.0, *, worker: str = W1.url, kind: str = "video") -> SavedOwner:
    return SavedOwner(kind=kind, id=name, worker=worker, used=used)


def in_file(bench: Bench) -> Saved:
    return bench.restarted().store.load()


def lines(logged: list[LogEvent], level: str) -> list[str | None]:
    return [
        formatEvent(event)
        for event in logged
        if event["log_namespace"] == "sgl_droute.state.sqlite" and event["log_level"].name == level
    ]


def result_of(stopping: Deferred[None]) -> list[None]:
    results: list[None] = []
    stopping.addCallback(results.append)
    return results


def ends_of(waiting: Deferred[None]) -> list[object]:
    """
    How the wait ends, when it does: with None, or the error.
    """
    ends: list[object] = []
    waiting.addBoth(lambda end: ends.append(end.value if isinstance(end, Failure) else end))
    return ends


def test_everything_comes_back(bench: Bench) -> None:
    """
    Every flag, setting, owner, learned speed, webhook and what is known of the weights is read as
    it was put; half a second is enough.
    """
    workers = [
        SavedWorker(url=f"http://{name}:1", **{name: True})
        for name in ("dead", "barred", "draining", "leaving", "disabled", "asleep")
    ]
    workers += [
        SavedWorker(url="http://c1:1", concurrency="auto", speed=0.25),
        SavedWorker(url="http://c2:1", concurrency=0),
        SavedWorker(url="http://c3:1", concurrency=1_000_000, speed=1000.0),
        SavedWorker(url="http://c4:1", speed=0.001),
    ]
    owners = [
        SavedOwner(kind="image", id="a/b c\0é", worker="http://w:1", used=0.25),
        SavedOwner(kind="video", id="v", worker="http://w:1", used=1.5, open=True),
        SavedOwner(kind="mesh", id="v", worker="http://w:2", used=2.0, epoch="7-8"),
    ]
    for worker in workers:
        bench.store.put_worker(worker)
    for each in reversed(owners):
        bench.store.put_owner(each)
    bench.store.put_speeds(W2.url, "[1,2]")
    bench.store.put_speeds(W1.url, "é\0")
    bench.store.put_weights('{"é\0": "\\ud800"}')
    call = Webhook(kind="video", id="v", url="http://h/x?y", event="evt_1")
    over = evolve(call, id="é\0", body="{}", tries=3, due=1e9 + 0.25, until=2e9)
    for webhook in (over, call):
        bench.store.put_webhook(webhook)
    bench.store.put_webhook(evolve(call, id="\ud800"))
    bench.clock.advance(0.5)
    speeds = ((W1.url, "é\0"), (W2.url, "[1,2]"))
    saved = in_file(bench)
    weights = '{"é\0": "\\ud800"}'
    assert saved == Saved(tuple(workers), tuple(owners), (), speeds, weights, (call, over))
    assert [type(worker.concurrency) for worker in saved.workers[-3:]] == [int, int, type(None)]


def test_changes_are_merged(bench: Bench) -> None:
    """
    A row changed a thousand times is written once, as it was last; one that came and went within
    the half second is not written at all.
    """
    for used in range(1000):
        bench.store.put_owner(owner("v", used / 1000))
        bench.store.put_speeds(W1.url, str(used))
        bench.store.put_weights(str(used))
    bench.store.put_owner(owner("short-lived"))
    bench.store.drop_owner("video", "short-lived")
    bench.store.put_speeds(W2.url, "short-lived")
    bench.store.drop_speeds(W2.url)
    assert bench.database.written == []
    bench.clock.advance(0.5)
    assert bench.database.written == [3]
    assert in_file(bench).owners == (owner("v", 0.999),)
    assert in_file(bench).speeds == ((W1.url, "999"),)
    assert in_file(bench).weights == "999"


def test_speeds_are_dropped(bench: Bench) -> None:
    """
    What was learned of a worker goes when it is dropped, also in a later process, and not before.
    """
    bench.store.put_speeds(W1.url, "1")
    bench.store.put_speeds(W2.url, "2")
    bench.clock.advance(0.5)
    bench.store.drop_worker(W1.url)
    bench.clock.advance(0.5)
    again = bench.restarted()
    assert again.store.load().speeds == ((W1.url, "1"), (W2.url, "2"))
    again.store.startService()
    again.store.drop_speeds(W1.url)
    again.clock.advance(0.5)
    assert in_file(again).speeds == ((W2.url, "2"),)


def test_put_at_the_last_moment(bench: Bench) -> None:
    """
    Who asks for it is called before each write, and with true before the last one; what it puts is
    in that write.
    """
    calls: list[bool] = []

    def put(last: bool) -> None:
        calls.append(last)
        bench.store.put_speeds(W1.url, str(len(calls)))

    bench.store.before_writing(put)
    bench.clock.pump([0.5, 0.5])
    assert in_file(bench).speeds == ((W1.url, "2"),)
    bench.store.stopService()
    assert calls == [False, False, True]
    assert bench.database.written == [1, 1, 1]
    assert in_file(bench).speeds == ((W1.url, "3"),)


@pytest.mark.logs_failures
def test_a_put_that_breaks(bench: Bench, logged: list[LogEvent]) -> None:
    """
    What fails before a write is logged, and everything else is written.
    """
    bench.store.before_writing(lambda last: print(1 // 0))
    bench.store.put_worker(W1)
    bench.clock.advance(0.5)
    bench.store.put_worker(W2)
    assert result_of(bench.store.stopService()) == [None]
    failures = [event["log_failure"].type for event in logged if "log_failure" in event]
    assert failures == [ZeroDivisionError] * 2
    assert in_file(bench).workers == (W1, W2)


def test_nothing_to_write(bench: Bench) -> None:
    """
    Without changes there is no transaction and no file.
    """
    bench.clock.pump([0.5] * 4)
    assert bench.database.written == []
    assert not Path(bench.database.path).exists()


def test_workers_keep_their_order(bench: Bench) -> None:
    """
    A changed worker keeps its place, a worker registered anew goes to the end; also across a
    restart and within one write.
    """
    for worker in (W1, W2, W3):
        bench.store.put_worker(worker)
    bench.clock.advance(0.5)
    asleep = SavedWorker(url=W2.url, asleep=True)
    bench.store.put_worker(asleep)
    bench.store.drop_worker(W1.url)
    bench.store.put_worker(W1)
    bench.clock.advance(0.5)
    again = bench.restarted()
    assert again.store.load().workers == (asleep, W3, W1)
    again.store.startService()
    again.store.drop_worker(W3.url)
    again.store.put_worker(W3)
    again.clock.advance(0.5)
    assert in_file(again).workers == (asleep, W1, W3)


def test_dropping_a_worker_keeps_owners(bench: Bench) -> None:
    """
    Owners that name a dropped worker stay until they are dropped.
    """
    bench.store.put_worker(W1)
    bench.store.put_owner(owner("v"))
    bench.store.drop_worker(W1.url)
    bench.clock.advance(0.5)
    assert in_file(bench) == Saved((), (owner("v"),))


def test_one_write_at_a_time(bench: Bench) -> None:
    """
    No write starts while one is under way, however long it takes; what changed meanwhile follows
    at the next half second.
    """
    bench.thread.held = True
    bench.store.put_worker(W1)
    bench.clock.advance(0.5)
    bench.store.put_worker(W2)
    bench.clock.pump([0.5] * 10)
    assert len(bench.thread.calls) == 1
    bench.thread.finish()
    assert bench.database.written == [1]
    bench.clock.advance(0.5)
    bench.thread.finish()
    assert in_file(bench).workers == (W1, W2)


def test_failed_write_is_tried_again(bench: Bench, logged: list[LogEvent]) -> None:
    """
    Changes wait while the file cannot be written and are all there afterwards; the log says once
    that writing fails, and once that it works again.
    """
    bench.database.fill()
    for worker in (W1, W2, W3):
        bench.store.put_worker(worker)
        bench.clock.advance(0.5)
    (warning,) = lines(logged, "warn")
    assert warning == (
        "The state is not being saved, traffic goes on: "
        f"state file {bench.database.path}: the disk is full"
    )
    assert lines(logged, "info") == []
    bench.database.problem = None
    bench.clock.pump([0.5, 0.5])
    assert lines(logged, "info") == [f"The state is saved again in {bench.database.path}"]
    assert bench.database.written == [3]
    assert in_file(bench).workers == (W1, W2, W3)
    bench.database.fill()
    bench.store.drop_worker(W1.url)
    bench.clock.pump([0.5, 0.5])
    assert len(lines(logged, "warn")) == 2


def test_newer_change_wins_over_a_failed_batch(bench: Bench) -> None:
    """
    What was put or dropped during a write that then failed is not overwritten by that write.
    """
    bench.store.put_owner(owner("dropped"))
    bench.clock.advance(0.5)
    bench.thread.held = True
    bench.store.put_worker(W1)
    bench.store.put_owner(owner("dropped", 5.0))
    bench.store.put_owner(owner("never written"))
    bench.clock.advance(0.5)
    dead = SavedWorker(url=W1.url, dead=True)
    bench.store.put_worker(dead)
    bench.store.drop_owner("video", "dropped")
    bench.store.drop_owner("video", "never written")
    bench.database.fill()
    bench.thread.finish()
    bench.database.problem = None
    bench.thread.held = False
    bench.clock.advance(0.5)
    assert bench.database.written == [1, 2]
    assert in_file(bench) == Saved((dead,), ())


def test_drop_during_the_write_of_a_new_row(bench: Bench) -> None:
    """
    A row that is dropped while it is being written for the first time is gone after the next write.
    """
    bench.thread.held = True
    bench.store.put_owner(owner("v"))
    bench.clock.advance(0.5)
    bench.store.drop_owner("video", "v")
    bench.thread.finish()
    assert in_file(bench).owners == (owner("v"),)
    bench.clock.advance(0.5)
    bench.thread.finish()
    assert in_file(bench).owners == ()


def test_memory_is_bounded_while_writing_fails(bench: Bench) -> None:
    """
    While the file cannot be written, ids that come and go leave nothing behind in memory.
    """
    bench.store.put_worker(W1)
    bench.database.fill()
    for turn in range(200):
        for number in range(50):
            bench.store.put_owner(owner(f"{turn}-{number}"))
        bench.clock.advance(0.5)
        for number in range(50):
            bench.store.drop_owner("video", f"{turn}-{number}")
    bench.database.problem = None
    bench.clock.advance(0.5)
    assert bench.database.written == [1]


def test_stop_writes_what_is_left(bench: Bench) -> None:
    """
    Stopping waits for the write under way, writes the rest, ends the thread, and only then is done.
    """
    bench.thread.held = True
    bench.store.put_worker(W1)
    bench.clock.advance(0.5)
    bench.store.put_worker(W2)
    done = result_of(bench.store.stopService())
    while bench.thread.calls:
        assert done == []
        bench.thread.finish()
    assert done == [None]
    assert bench.database.written == [1, 1]
    assert not bench.thread.running
    assert in_file(bench).workers == (W1, W2)
    assert [path.name for path in Path(bench.database.path).parent.iterdir()] == ["router.sqlite"]


def test_stop_says_what_was_not_written(bench: Bench, logged: list[LogEvent]) -> None:
    """
    A last write that fails is counted in the log and does not keep the service from stopping.
    """
    bench.database.fill()
    bench.store.put_worker(W1)
    bench.store.put_owner(owner("v"))
    assert result_of(bench.store.stopService()) == [None]
    assert lines(logged, "warn")[1:] == ["2 changes of the state were not saved"]
    assert not bench.thread.running
    assert bench.clock.getDelayedCalls() == []


def test_stop_without_start(tmp_path: Path) -> None:
    """
    A store that never started stops at once; one that stopped can start again.
    """
    bench = Bench(str(tmp_path / "router.sqlite"))
    assert result_of(bench.store.stopService()) == [None]
    for worker in (W1, W2):
        bench.store.startService()
        bench.store.put_worker(worker)
        assert result_of(bench.store.stopService()) == [None]
    assert in_file(bench).workers == (W1, W2)


@pytest.mark.logs_failures
def test_unforeseen_failure(bench: Bench, logged: list[LogEvent]) -> None:
    """
    An error that nobody foresaw is logged once with its traceback, and writing is tried again.
    """
    bench.database.problem = ZeroDivisionError()
    bench.store.put_worker(W1)
    bench.clock.pump([0.5, 0.5, 0.5])
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [
        ZeroDivisionError
    ]
    bench.database.problem = None
    bench.clock.advance(0.5)
    assert in_file(bench).workers == (W1,)


def test_owners_expire(bench: Bench) -> None:
    """
    Owners last used longer ago than the time to live are not loaded, and are deleted from the file.
    """
    bench.store.put_owner(owner("old", 10.0))
    bench.store.put_owner(owner("just alive", 500.0))
    bench.clock.advance(0.5)
    bench.clock.advance(1499.5)
    again = bench.restarted()
    assert again.store.load().owners == (owner("just alive", 500.0),)
    again.store.startService()
    again.clock.advance(0.5)
    assert ids_in(again.database.path) == ["just alive"]


def test_least_recently_used_owners_go(bench: Bench) -> None:
    """
    Of more owners than allowed the least recently used are not loaded, and are deleted.
    """
    for used in (5.0, 3.0, 4.0, 1.0, 2.0):
        bench.store.put_owner(owner(f"v{used}", used))
    bench.clock.advance(0.5)
    again = Bench(bench.database.path, max_owners=2)
    assert again.store.load().owners == (owner("v4.0", 4.0), owner("v5.0", 5.0))
    again.store.startService()
    again.clock.advance(0.5)
    assert ids_in(again.database.path) == ["v4.0", "v5.0"]


def test_ids_that_are_no_text(bench: Bench) -> None:
    """
    An id or a speed with half a surrogate pair is not kept, and does not keep the others from being
    written.
    """
    bench.store.put_owner(owner("bad \ud800"))
    bench.store.drop_owner("video", "bad \ud800")
    bench.store.put_owner(owner("bad \ud800"))
    bench.store.put_speeds(W1.url, "bad \ud800")
    bench.store.put_owner(owner("good"))
    bench.clock.advance(0.5)
    assert in_file(bench) == Saved((), (owner("good"),))


def test_weights_that_are_no_text(bench: Bench) -> None:
    """
    What cannot be written is refused at once, and what was known stays.
    """
    bench.store.put_weights("{}")
    with pytest.raises(ValueError, match="surrogates not allowed"):
        bench.store.put_weights('{"\ud800": 1}')
    bench.clock.advance(0.5)
    assert in_file(bench).weights == "{}"


def test_written_at_once(bench: Bench) -> None:
    """
    Who waits for what was put has it on the disk without any time passing, with all else that was
    put before; and at once where there is nothing left to write.
    """
    bench.store.put_worker(W1)
    bench.store.put_weights("{}")
    assert ends_of(bench.store.written()) == [None]
    assert bench.database.written == [2]
    assert in_file(bench) == Saved((W1,), weights="{}")
    assert ends_of(bench.store.written()) == [None]
    bench.clock.advance(0.5)
    assert bench.database.written == [2]


def test_not_written_before_the_disk_has_it(bench: Bench) -> None:
    """
    Nobody is told before the write has ended.
    """
    bench.thread.held = True
    bench.store.put_weights("{}")
    ends = ends_of(bench.store.written())
    bench.clock.pump([0.5] * 4)
    assert ends == []
    bench.thread.finish()
    assert ends == [None]


@pytest.mark.parametrize("begun_by", ["clock", "caller"])
def test_written_during_a_write(bench: Bench, begun_by: str) -> None:
    """
    What is put while a write is under way is in the next one, which begins right after it, and
    until then nobody who waits for that is told.
    """
    bench.thread.held = True
    bench.store.put_weights("first")
    early = ends_of(bench.store.written()) if begun_by == "caller" else [None]
    bench.clock.advance(0.5)
    bench.store.put_weights("second")
    late = ends_of(bench.store.written())
    bench.thread.finish()
    assert (early, late) == ([None], [])
    assert in_file(bench).weights == "first"
    bench.thread.finish()
    assert late == [None]
    assert in_file(bench).weights == "second"


def test_writes_are_shared(bench: Bench) -> None:
    """
    However many wait, there is one write for what was put before the one under way began, and one
    for all the rest.
    """
    calls: list[bool] = []
    bench.store.before_writing(calls.append)
    bench.thread.held = True
    bench.store.put_weights("0")
    waiting = [ends_of(bench.store.written())]
    for number in range(1, 100):
        bench.store.put_weights(str(number))
        waiting.append(ends_of(bench.store.written()))
    bench.thread.finish()
    assert waiting == [[None], *[[]] * 99]
    bench.thread.finish()
    assert waiting == [[None]] * 100
    assert bench.thread.calls == []
    assert calls == [False, False]
    assert bench.database.written == [1, 1]
    assert in_file(bench).weights == "99"


def test_a_write_that_fails_is_told(bench: Bench) -> None:
    """
    All who wait for a write that does not succeed are told why, and the changes wait for the next
    one, as others do.
    """
    bench.thread.held = True
    bench.store.put_weights("first")
    early = ends_of(bench.store.written())
    bench.store.put_worker(W1)
    late = [ends_of(bench.store.written()) for _ in range(2)]
    bench.database.fill()
    bench.thread.finish()
    (problem,) = early
    assert isinstance(problem, StateError)
    assert str(problem) == f"state file {bench.database.path}: the disk is full"
    assert late == [[], []]
    bench.database.problem = None
    bench.thread.finish()
    assert late == [[None], [None]]
    assert in_file(bench) == Saved((W1,), weights="first")


@pytest.mark.logs_failures
def test_an_unforeseen_failure_is_told(bench: Bench) -> None:
    """
    An error that nobody foresaw reaches those who wait in the same way as others.
    """
    bench.database.problem = ZeroDivisionError("none left")
    bench.store.put_weights("{}")
    (problem,) = ends_of(bench.store.written())
    assert isinstance(problem, StateError)
    assert str(problem).endswith("was not written: ZeroDivisionError('none left')")
    bench.database.problem = None
    assert ends_of(bench.store.written()) == [None]
    assert in_file(bench).weights == "{}"


def test_what_is_held_back_is_put_for_those_who_wait(bench: Bench) -> None:
    """
    Before a write that somebody waits for, what was held back is put too.
    """
    calls: list[bool] = []

    def put(last: bool) -> None:
        calls.append(last)
        bench.store.put_speeds(W1.url, "1")

    bench.store.before_writing(put)
    assert ends_of(bench.store.written()) == [None]
    assert calls == [False]
    assert in_file(bench).speeds == ((W1.url, "1"),)


@pytest.mark.logs_failures
@pytest.mark.parametrize("others", [0, 1])
def test_what_was_held_back_is_missing(bench: Bench, others: int) -> None:
    """
    Where something that was held back could not be put, nobody is told that all is written, though
    all else is, if there is anything.
    """
    bench.store.before_writing(lambda last: print(1 // 0))
    bench.store.before_writing(lambda last: None)
    for _ in range(others):
        bench.store.put_worker(W1)
    (problem,) = ends_of(bench.store.written())
    assert isinstance(problem, StateError)
    assert "was not told all: ZeroDivisionError" in str(problem)
    assert bench.database.written == [1] * others
    assert in_file(bench).workers == (W1,) * others


def test_waiting_from_within(bench: Bench) -> None:
    """
    Who is told may put and wait again.
    """
    bench.store.put_weights("first")
    ends: list[object] = []

    def again(_: None) -> Deferred[None]:
        bench.store.put_weights("second")
        return bench.store.written()

    bench.store.written().addCallback(again).addBoth(ends.append)
    assert ends == [None]
    assert in_file(bench).weights == "second"


def test_a_wait_that_is_given_up(bench: Bench) -> None:
    """
    Who stops waiting is told so, and neither the write nor others who wait notice.
    """
    bench.thread.held = True
    bench.store.put_weights("{}")
    waiting = [bench.store.written() for _ in range(2)]
    given_up, patient = map(ends_of, waiting)
    waiting[0].cancel()
    assert [type(end) for end in given_up] == [CancelledError]
    bench.store.put_worker(W1)
    late = bench.store.written()
    late_end = ends_of(late)
    late.cancel()
    bench.thread.finish()
    bench.thread.finish()
    assert patient == [None]
    assert (len(given_up), len(late_end)) == (1, 1)
    assert in_file(bench) == Saved((W1,), weights="{}")


@pytest.mark.parametrize("full", [False, True])
def test_stop_while_somebody_waits(bench: Bench, full: bool) -> None:
    """
    All who wait are told how it ended before the service has stopped.
    """
    bench.thread.held = True
    bench.store.put_weights("first")
    early = ends_of(bench.store.written())
    bench.store.put_weights("second")
    late = ends_of(bench.store.written())
    done = result_of(bench.store.stopService())
    if full:
        bench.database.fill()
    while bench.thread.calls:
        assert done == []
        bench.thread.finish()
    assert done == [None]
    expected = StateError if full else type(None)
    assert [type(end) for end in (*early, *late)] == [expected] * 2


def test_waiting_for_a_store_at_rest(tmp_path: Path) -> None:
    """
    Before the service starts, and from the moment it is told to stop, nobody is promised a write;
    what was put is written all the same when it runs.
    """
    bench = Bench(str(tmp_path / "router.sqlite"))
    bench.store.put_weights("{}")
    said = f"state file {bench.database.path}: is not in use"
    assert [str(end) for end in ends_of(bench.store.written())] == [said]
    bench.store.startService()
    bench.thread.held = True
    done = result_of(bench.store.stopService())
    assert [str(end) for end in ends_of(bench.store.written())] == [said]
    while bench.thread.calls:
        bench.thread.finish()
    assert done == [None]
    assert [str(end) for end in ends_of(bench.store.written())] == [said]
    assert in_file(bench).weights == "{}"


def ids_in(path: str) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT id FROM owners ORDER BY id")]
