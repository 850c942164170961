"""
The store with the real reactor and a thread of its own.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent

from sgl_droute.state.database import Database, StateError
from sgl_droute.state.opening import open_store
from sgl_droute.state.saved import SavedOwner, SavedWorker
from sgl_droute.state.sqlite import OneThread, SqliteStore
from sgl_droute.state.store import Store
from sgl_droute.state.tables import Change

W1, W2 = SavedWorker(url="http://w1:1"), SavedWorker(url="http://w2:1")
WEEK = 7 * 86400.0


def opened(path: Path) -> Store:
    return open_store(f"sqlite://{path}", reactor, job_ttl=WEEK, max_owners=10_000)


def now() -> float:
    return reactor.seconds()


async def until(holds: Callable[[], bool]) -> None:
    """
    Look every hundredth of a second until something holds, for 20 s at most.
    """
    started = now()
    while not holds():
        assert now() < started + 20, "waited in vain"
        await deferLater(reactor, 0.01)


def said(logged: list[LogEvent], beginning: str) -> Callable[[], bool]:
    return lambda: any(str(event.get("log_format")).startswith(beginning) for event in logged)


@pytest_twisted.ensureDeferred
async def test_restart(tmp_path: Path) -> None:
    """
    What is put right before the service stops is there for the next one, and no thread stays.
    """
    path = tmp_path / "router.sqlite"
    store = opened(path)
    store.load()
    store.startService()
    owners = [SavedOwner(kind="video", id=str(n), worker=W1.url, used=now()) for n in range(100)]
    store.put_worker(W1)
    for owner in owners:
        store.put_owner(owner)
    await stopped(store)
    saved = opened(path).load()
    assert saved.workers == (W1,)
    assert set(saved.owners) == set(owners)
    assert not [each for each in threading.enumerate() if "state" in each.name]


@pytest_twisted.ensureDeferred
async def test_written_within_a_second(tmp_path: Path) -> None:
    """
    A change is in the file soon, while the service runs.
    """
    path = tmp_path / "router.sqlite"
    store = opened(path)
    store.load()
    store.startService()
    store.put_worker(W1)
    await until(lambda: path.exists() and opened(path).load().workers == (W1,))
    await stopped(store)


@pytest_twisted.ensureDeferred
async def test_locked_during_traffic(tmp_path: Path, logged: list[LogEvent]) -> None:
    """
    While another connection has locked the file, the log says so and changes are taken; they are
    written when it lets go.
    """
    path = tmp_path / "router.sqlite"
    store = opened(path)
    store.load()
    store.startService()
    store.put_worker(W1)
    await until(path.exists)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store.put_owner(SavedOwner(kind="mesh", id="m", worker=W1.url, used=now()))
        await until(said(logged, "The state is not being saved"))
    await until(said(logged, "The state is saved again"))
    assert [owner.id for owner in opened(path).load().owners] == ["m"]
    await stopped(store)


@pytest_twisted.ensureDeferred
async def test_waiting_for_a_write(tmp_path: Path) -> None:
    """
    When the wait is over another process would read what was put, whoever else put and waited in
    the meantime.
    """
    path = tmp_path / "router.sqlite"
    store = opened(path)
    store.load()
    store.startService()
    for number in range(20):
        store.put_weights(str(number))
        waiting = store.written()
        store.put_worker(SavedWorker(url=f"http://w{number}:1"))
        other = store.written()
        await waiting
        assert opened(path).load().weights == str(number)
        await other
        assert len(opened(path).load().workers) == number + 1
    await stopped(store)


@pytest_twisted.ensureDeferred
async def test_waiting_for_a_locked_file(tmp_path: Path) -> None:
    """
    Who waits while another connection has locked the file is told so; what was put is written when
    it lets go.
    """
    path = tmp_path / "router.sqlite"
    store = opened(path)
    store.load()
    store.startService()
    store.put_worker(W1)
    await store.written()
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store.put_weights("{}")
        with pytest.raises(StateError, match="is locked by another process"):
            await store.written()
    await store.written()
    assert opened(path).load().weights == "{}"
    await stopped(store)


class Stuck(Database):
    """A file on a disk that stands still until the test lets it go on."""

    begun = threading.Event()
    go_on = threading.Event()

    def write(self, changes: Iterable[Change], *, patience: float) -> None:
        self.begun.set()
        assert self.go_on.wait(20), "the reactor waited for the write"
        super().write(changes, patience=patience)


@pytest_twisted.ensureDeferred
async def test_the_reactor_never_waits(tmp_path: Path) -> None:
    """
    While the disk stands still the reactor goes on, and takes changes; none is lost.
    """
    database = Stuck(str(tmp_path / "router.sqlite"))
    store = SqliteStore(database, reactor, OneThread(reactor), job_ttl=WEEK, max_owners=10)
    store.load()
    store.startService()
    store.put_worker(W1)
    await until(database.begun.is_set)
    store.put_worker(W2)
    stopping = stopped(store)
    database.go_on.set()
    await stopping
    assert store.database.read(patience=0.0).workers == (W1, W2)


@pytest_twisted.ensureDeferred
async def test_refused_start(tmp_path: Path) -> None:
    """
    A file that cannot be used is a ValueError of one line before anything runs.
    """
    path = tmp_path / "router.sqlite"
    path.write_text("not a database, though it is longer than a header of one hundred bytes" * 2)
    with pytest.raises(StateError) as problem:
        opened(path).load()
    assert isinstance(problem.value, ValueError)
    assert str(problem.value) == f"state file {path}: is not an SQLite database"


async def stopped(store: Store) -> None:
    stopping = store.stopService()
    assert isinstance(stopping, Deferred)
    await stopping
