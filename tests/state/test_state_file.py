"""
The state file itself: what is taken, what is refused, and what happens when it cannot be written.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.state import database as database_module
from sgl_droute.state.database import Database, StateError
from sgl_droute.state.saved import SavedOwner, SavedWorker
from sgl_droute.state.tables import (
    EMPTY,
    STEPS,
    Contents,
    put_owner,
    put_speeds,
    put_webhook,
    put_weights,
    put_worker,
)
from tests.state.hands import Bench

W1 = SavedWorker(url="http://w1:1")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the state file may be made."""
    return str(tmp_path / "router.sqlite")


@pytest.fixture
def written(path: str) -> str:
    """A state file that holds one worker."""
    database = Database(path)
    database.write([put_worker(W1, 0)], patience=0.0)
    database.close()
    return path


# How version 1 made its file, and wrote into it.
FIRST_VERSION = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA application_id = 1397181540",
    "PRAGMA user_version = 1",
    "CREATE TABLE workers (url TEXT PRIMARY KEY, place INTEGER NOT NULL, dead INTEGER NOT NULL,"
    " draining INTEGER NOT NULL, leaving INTEGER NOT NULL, disabled INTEGER NOT NULL,"
    " asleep INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE owners (kind TEXT NOT NULL, id TEXT NOT NULL, worker TEXT NOT NULL,"
    " used REAL NOT NULL, open INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "INSERT INTO workers VALUES ('http://w2:1', 1, 0, 1, 0, 0, 1)",
    "INSERT INTO workers VALUES ('http://w1:1', 3, 1, 0, 0, 0, 0)",
    "INSERT INTO owners VALUES ('video', 'v', 'http://w1:1', 2.5, 1)",
    """INSERT INTO facts VALUES ('loras', '[{"a": 1}]')""",
)
OF_FIRST_VERSION = Contents(
    {"http://w2:1": 1, "http://w1:1": 3},
    (
        SavedWorker(url="http://w2:1", draining=True, asleep=True),
        SavedWorker(url="http://w1:1", dead=True),
    ),
    (SavedOwner(kind="video", id="v", worker="http://w1:1", used=2.5, open=True),),
    ({"a": 1},),
    (),
    "",
)

# What version 2 made of it, and wrote.
SECOND_VERSION = (
    *FIRST_VERSION,
    "ALTER TABLE workers ADD COLUMN concurrency",
    "ALTER TABLE workers ADD COLUMN speed REAL",
    "CREATE TABLE speeds (url TEXT PRIMARY KEY, learned TEXT NOT NULL) WITHOUT ROWID",
    "PRAGMA user_version = 2",
    "INSERT INTO speeds VALUES ('http://w2:1', '[1]')",
)
OF_SECOND_VERSION = evolve(OF_FIRST_VERSION, speeds=(("http://w2:1", "[1]"),))

# And version 3.
THIRD_VERSION = (
    *SECOND_VERSION,
    "ALTER TABLE workers ADD COLUMN barred INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE owners ADD COLUMN epoch TEXT NOT NULL DEFAULT ''",
    "PRAGMA user_version = 3",
    "INSERT INTO workers VALUES ('http://w3:1', 5, 1, 0, 0, 0, 0, NULL, NULL, 1)",
    "INSERT INTO owners VALUES ('image', 'i', 'http://w1:1', 3.5, 0, '7-8')",
)
OF_THIRD_VERSION = evolve(
    OF_SECOND_VERSION,
    places={**OF_SECOND_VERSION.places, "http://w3:1": 5},
    workers=(*OF_SECOND_VERSION.workers, SavedWorker(url="http://w3:1", dead=True, barred=True)),
    owners=(
        *OF_SECOND_VERSION.owners,
        SavedOwner(kind="image", id="i", worker="http://w1:1", used=3.5, epoch="7-8"),
    ),
)
OLDER = {
    1: (FIRST_VERSION, OF_FIRST_VERSION),
    2: (SECOND_VERSION, OF_SECOND_VERSION),
    3: (THIRD_VERSION, OF_THIRD_VERSION),
}


@frozen
class Older:
    """
    A state file as an older version left it.

    Attributes:
        path: The file.
        version: That version.
        contents: What it holds.
    """

    path: str
    version: int
    contents: Contents

    @property
    def steps(self) -> Sequence[str]:
        return STEPS[self.version]


@pytest.fixture(params=sorted(OLDER))
def older(path: str, request: pytest.FixtureRequest) -> Older:
    """A state file of each older version."""
    statements, contents = OLDER[request.param]
    execute(path, *statements)
    return Older(path, request.param, contents)


def owner(name: str, used: float = 0.0) -> SavedOwner:
    return SavedOwner(kind="video", id=name, worker=W1.url, used=used)


def execute(path: str, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def refused(path: str) -> str:
    """
    What reading and writing say alike.
    """
    with pytest.raises(StateError) as reading:
        Database(path).read(patience=0.0)
    with pytest.raises(StateError):
        Database(path).write([put_worker(W1, 0)], patience=0.0)
    return str(reading.value)


def test_new_file_is_private(written: str) -> None:
    """
    Only its owner may read a state file and the journal beside it: they name the workers.
    """
    database = Database(written)
    database.write([put_worker(W1, 0)], patience=0.0)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in Path(written).parent.iterdir()}
    database.close()
    assert modes == {0o600}


def test_writes_survive_a_power_cut(written: str) -> None:
    """
    Writes go through a journal that is on the disk before a write returns.
    """
    database = Database(written)
    database.write([], patience=0.0)
    connection = database._connection
    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    database.close()


def test_empty_file_is_a_new_one(path: str) -> None:
    """
    A file of no bytes, as a crash while it is made leaves it, is taken as new.
    """
    Path(path).touch()
    assert Database(path).read(patience=0.0) == EMPTY
    database = Database(path)
    database.write([put_worker(W1, 0)], patience=0.0)
    database.close()
    assert Database(path).read(patience=0.0).workers == (W1,)


def test_awkward_path(tmp_path: Path) -> None:
    """
    Characters that mean something in a URL, and bytes that are no UTF-8, are part of the name.
    """
    path = str(tmp_path / "a?mode=memory#%41 é\udcff.sqlite")
    database = Database(path)
    database.write([put_worker(W1, 0)], patience=0.0)
    database.close()
    assert os.listdir(tmp_path) == [os.path.basename(path)]
    assert Database(path).read(patience=0.0).workers == (W1,)


def test_newer_version(written: str) -> None:
    """
    A file of a newer version is refused with both numbers, and is left as it was.
    """
    execute(written, "PRAGMA user_version = 7")
    before = Path(written).read_bytes()
    assert refused(written) == (
        f"state file {written}: has version 7, and this sgl-droute reads versions 1 to 4 only: "
        "a newer one wrote it"
    )
    assert Path(written).read_bytes() == before


def schema(path: str) -> dict[str, list[tuple[object, ...]]]:
    """
    The version of a file, and the columns of its tables.
    """
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchall()
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {"version": version} | {
            name: connection.execute(f"PRAGMA table_info({name})").fetchall()
            for (name,) in tables.fetchall()
        }


def test_older_version_is_read(older: Older) -> None:
    """
    A file of an older version is read whole, and reading leaves it as it was.
    """
    before = Path(older.path).read_bytes()
    assert Database(older.path).read(patience=0.0) == older.contents
    assert Path(older.path).read_bytes() == before


def test_older_version_is_upgraded(older: Older, tmp_path: Path) -> None:
    """
    The first write makes a file of an older version like a new one, and keeps all that it held; of
    the LoRA set that is told in another way from the first weights on.
    """
    fresh = str(tmp_path / "fresh.sqlite")
    fast = SavedWorker(url="http://w2:1", dead=True, barred=True, concurrency="auto", speed=2.0)
    made = SavedOwner(kind="video", id="w", worker=fast.url, used=4.0, epoch="7-8")
    call = Webhook(kind="video", id="w", url="http://h/x", event="e", body="{}", due=1.5, until=2.5)
    changes = [put_worker(fast, 1), put_owner(made), put_speeds(fast.url, "x"), put_weights("{}")]
    changes.append(put_webhook(call))
    for path in (older.path, fresh):
        database = Database(path)
        database.write(changes, patience=0.0)
        database.close()
    assert schema(older.path) == schema(fresh)
    assert Database(older.path).read(patience=0.0) == evolve(
        older.contents,
        workers=(fast, *older.contents.workers[1:]),
        owners=(*older.contents.owners, made),
        loras=(),
        speeds=((fast.url, "x"),),
        weights="{}",
        webhooks=(call,),
    )


def test_upgrade_that_fails(older: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Wherever an upgrade is cut off, the file is of its version as before, and the next write
    upgrades.
    """
    before = schema(older.path)
    for done in range(len(older.steps) + 1):
        steps = {older.version: (*older.steps[:done], "SELECT * FROM nowhere")}
        with monkeypatch.context() as patched:
            patched.setattr(database_module, "STEPS", steps)
            with pytest.raises(StateError, match="no such table: nowhere"):
                Database(older.path).write([put_speeds(W1.url, "x")], patience=0.0)
        assert schema(older.path) == before
        assert Database(older.path).read(patience=0.0) == older.contents
    database = Database(older.path)
    database.write([put_speeds(W1.url, "x")], patience=0.0)
    database.close()
    speeds = ((W1.url, "x"), *older.contents.speeds)
    assert Database(older.path).read(patience=0.0) == evolve(older.contents, speeds=speeds)


def test_killed_during_an_upgrade(older: Older) -> None:
    """
    What a process leaves that is killed during an upgrade is a file of the version before it.
    """
    for done in range(1, len(older.steps) + 1):
        copy = f"{older.path}-copy{done}"
        with closing(sqlite3.connect(older.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in older.steps[:done]:
                connection.execute(statement)
            for suffix in ("", "-wal"):
                shutil.copy(f"{older.path}{suffix}", f"{copy}{suffix}")
        assert Database(copy).read(patience=0.0) == older.contents


def test_upgrade_on_a_full_disk(older: Older) -> None:
    """
    A disk without room for the upgrade leaves the file as it was, and it is done when there is.
    """
    database = Database(older.path)
    with full_disk(0), pytest.raises(StateError):
        database.write([put_worker(W1, 3)], patience=0.0)
    assert Database(older.path).read(patience=0.0) == older.contents
    database.write([put_worker(W1, 3)], patience=0.0)
    database.close()
    second, _, *others = older.contents.workers
    assert Database(older.path).read(patience=0.0) == evolve(
        older.contents, workers=(second, W1, *others)
    )


def test_upgraded_by_another(older: Older) -> None:
    """
    A file that another process upgraded since it was read is written to all the same.
    """
    mine, other = Database(older.path), Database(older.path)
    mine.read(patience=0.0)
    for database, name in ((other, "other"), (mine, "mine")):
        database.write([put_speeds(f"http://{name}:1", "x")], patience=0.0)
        database.close()
    added = Database(older.path).read(patience=0.0).speeds[:2]
    assert added == (("http://mine:1", "x"), ("http://other:1", "x"))


def test_no_database(path: str) -> None:
    """
    A file that is no SQLite database is refused and left as it was.
    """
    Path(path).write_text("worker_urls: [http://w:1]\n" * 100)
    before = Path(path).read_bytes()
    assert refused(path) == f"state file {path}: is not an SQLite database"
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE workers (url)", "PRAGMA application_id = 5", "PRAGMA user_version = 1"],
)
def test_database_of_another_program(path: str, statement: str) -> None:
    """
    Somebody else's database is refused and left as it was, even one without tables.
    """
    execute(path, statement)
    before = Path(path).read_bytes()
    assert refused(path) == f"state file {path}: is a database of another program"
    assert Path(path).read_bytes() == before


def test_version_without_tables(written: str) -> None:
    """
    A file that says it is ours and lacks a table is refused.
    """
    execute(written, "DROP TABLE facts")
    with pytest.raises(StateError, match="no such table: facts"):
        Database(written).read(patience=0.0)


def test_damaged_file(written: str) -> None:
    """
    A file whose pages hold noise is refused.
    """
    size = os.path.getsize(written)
    with open(written, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    assert refused(written) == f"state file {written}: is damaged"


def test_damaged_value(written: str) -> None:
    """
    A LoRA set that is no JSON is refused.
    """
    execute(written, "INSERT INTO facts VALUES ('loras', '[')")
    with pytest.raises(StateError, match="is damaged: Expecting value"):
        Database(written).read(patience=0.0)


def test_loras_beside_weights(written: str) -> None:
    """
    Where weights were written, the LoRA set of an older version never comes back, whatever it is.
    """
    execute(written, "INSERT INTO facts VALUES ('loras', '[')")
    database = Database(written)
    database.write([put_weights("{}")], patience=0.0)
    database.close()
    contents = Database(written).read(patience=0.0)
    assert (contents.loras, contents.weights) == ((), "{}")


def test_no_folder(tmp_path: Path) -> None:
    """
    A path in a folder that is not there is refused, and the folder is not made.
    """
    path = str(tmp_path / "missing" / "router.sqlite")
    assert refused(path) == f"state file {path}: there is no folder {tmp_path}/missing"
    assert list(tmp_path.iterdir()) == []


def test_path_through_a_file(written: str) -> None:
    """
    A path below a file is refused.
    """
    path = f"{written}/router.sqlite"
    assert refused(path) == f"state file {path}: Not a directory"


def test_no_regular_file(tmp_path: Path) -> None:
    """
    A folder and a socket are refused.
    """
    assert refused(str(tmp_path)) == f"state file {tmp_path}: is not a regular file"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert "is not a regular file" in refused(str(tmp_path / "socket"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_no_permission(written: str) -> None:
    """
    A file that may not be written, and a folder in which none may be made, are refused.
    """
    os.chmod(written, 0o400)
    assert "cannot be read and written by this user" in refused(written)
    folder = Path(written).parent
    folder.chmod(0o500)
    assert f"this user cannot make files in {folder}" in refused(str(folder / "other.sqlite"))
    folder.chmod(0o700)


@contextmanager
def locked(path: str) -> Iterator[sqlite3.Connection]:
    """
    The file, kept from everybody else until the connection is closed.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with closing(connection):
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


def test_locked_at_start(written: str) -> None:
    """
    A file that stays locked is refused.
    """
    with locked(written):
        assert refused(written) == f"state file {written}: is locked by another process"


def test_locked_for_a_moment(written: str) -> None:
    """
    A file whose lock goes away in time is read.
    """
    with locked(written) as connection:
        timer = threading.Timer(0.1, connection.close)
        timer.start()
        contents = Database(written).read(patience=30.0)
        timer.join()
    assert contents.workers == (W1,)


def test_file_removed_in_use(path: str, tmp_path: Path) -> None:
    """
    When the folder is moved away, writing fails until it is back, and no torn state is begun.
    """
    folder, away = tmp_path / "state", tmp_path / "away"
    folder.mkdir()
    bench = Bench(str(folder / "router.sqlite"))
    bench.store.startService()
    bench.store.put_worker(W1)
    bench.clock.advance(0.5)
    folder.rename(away)
    bench.store.put_owner(owner("v"))
    with pytest.raises(StateError, match="was removed while in use"):
        bench.database.write([], patience=0.0)
    folder.mkdir()
    bench.clock.advance(0.5)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    away.rename(folder)
    bench.clock.advance(0.5)
    bench.store.stopService()
    saved = bench.restarted().store.load()
    assert (saved.workers, saved.owners) == ((W1,), (owner("v"),))


def test_file_replaced_in_use(written: str) -> None:
    """
    A file put in the place of the known one is not touched.
    """
    database = Database(written)
    database.read(patience=0.0)
    shutil.copy(written, f"{written}.backup")
    os.replace(f"{written}.backup", written)
    before = Path(written).read_bytes()
    with pytest.raises(StateError, match="was replaced by another file while in use"):
        database.write([put_worker(W1, 5)], patience=0.0)
    assert Path(written).read_bytes() == before


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """
    No file of this process can grow past *size* bytes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 100, 4096, 5000, 40_000])
def test_full_disk(path: str, room: int) -> None:
    """
    A write that the disk has no room for changes nothing, wherever it is cut off, and succeeds
    whole when there is room again.
    """
    bench = Bench(path, max_owners=10_000)
    bench.store.startService()
    bench.store.put_worker(W1)
    bench.clock.advance(0.5)
    for number in range(3000):
        bench.store.put_owner(owner(f"v{number:04}"))
    with full_disk(os.path.getsize(f"{path}-wal") + room):
        bench.clock.advance(0.5)
    assert bench.restarted().store.load().owners == ()
    bench.clock.advance(0.5)
    assert bench.database.written == [1, 3000]
    assert len(bench.restarted().store.load().owners) == 3000
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    bench.store.stopService()


def test_new_file_on_a_full_disk(path: str) -> None:
    """
    A file that cannot be made for want of room is made when there is some.
    """
    bench = Bench(path)
    bench.store.startService()
    bench.store.put_worker(W1)
    with full_disk(0):
        bench.clock.advance(0.5)
    assert bench.database.written == []
    bench.clock.advance(0.5)
    assert bench.restarted().store.load().workers == (W1,)
    bench.store.stopService()


@pytest.mark.parametrize("killed", [False, True])
def test_start_on_a_full_disk(path: str, killed: bool) -> None:
    """
    A disk without any room does not keep the state from being read, after a stop or a kill.
    """
    database = Database(path)
    database.write([put_worker(W1, 0)], patience=0.0)
    copy = f"{path}-copy"
    if killed:
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    else:
        database.close()
    shutil.copy(path, copy)
    database.close()
    with full_disk(0):
        assert Database(copy).read(patience=0.0).workers == (W1,)
    assert Database(copy).read(patience=0.0).workers == (W1,)


def test_file_is_bounded(path: str) -> None:
    """
    50 000 owners that come and go, 500 at a time, leave a file for 500 and a journal of 4 MiB.
    """
    bench = Bench(path, max_owners=500)
    bench.store.startService()
    sizes = []
    for number in range(50_000):
        bench.store.put_owner(owner(f"video_{number:032}", number))
        if number >= 500:
            bench.store.drop_owner("video", f"video_{number - 500:032}")
        if number % 250 == 249:
            bench.clock.advance(0.5)
            sizes.append(os.path.getsize(f"{path}-wal"))
    bench.store.stopService()
    assert max(sizes) <= 5 << 20
    assert os.path.getsize(path) < 1 << 18
    assert sum(bench.database.written) == 50_000 + 49_500
    assert len(bench.restarted().store.load().owners) == 500
