"""
The tables of a state file, and each change of the state as one statement on them.

It knows SQL; files, locks and failures are the business of `sgl_droute.state.database`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from sgl_droute.state.saved import SavedOwner, SavedWorker

APPLICATION_ID = 0x53474C64  # "SGLd", in the file's header
VERSION = 1

CREATE = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
    """
    CREATE TABLE workers (
        url TEXT PRIMARY KEY,
        place INTEGER NOT NULL,
        dead INTEGER NOT NULL,
        draining INTEGER NOT NULL,
        leaving INTEGER NOT NULL,
        disabled INTEGER NOT NULL,
        asleep INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE owners (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        worker TEXT NOT NULL,
        used REAL NOT NULL,
        open INTEGER NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

Key = tuple[str, ...]


@frozen
class Change:
    """
    One change of the state: of two with the same key only the later one matters.

    Attributes:
        key: The row that it is about: the table and the row's own key.
        sql: The statement.
        values: The statement's values.
        drops: The row is gone after it.
    """

    key: Key
    sql: str
    values: tuple[object, ...]
    drops: bool = False


@frozen
class Contents:
    """
    All rows of a state file.

    Attributes:
        places: By the URL of each worker, its place in the order of registration.
        workers: In that order.
        owners: Least recently used first.
        loras: As in `sgl_droute.state.saved.Saved`.
    """

    places: Mapping[str, int]
    workers: tuple[SavedWorker, ...]
    owners: tuple[SavedOwner, ...]
    loras: tuple[Mapping[str, Any], ...]

    def keys(self) -> set[Key]:
        """
        The keys of all workers and owners.
        """
        workers = {worker_key(worker.url) for worker in self.workers}
        return workers | {owner_key(owner.kind, owner.id) for owner in self.owners}


EMPTY = Contents({}, (), (), ())


def worker_key(url: str) -> Key:
    return ("workers", url)


def owner_key(kind: str, owner_id: str) -> Key:
    return ("owners", kind, owner_id)


def put_worker(worker: SavedWorker, place: int) -> Change:
    return Change(
        worker_key(worker.url),
        "INSERT OR REPLACE INTO workers"
        " (url, place, dead, draining, leaving, disabled, asleep) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            worker.url,
            place,
            worker.dead,
            worker.draining,
            worker.leaving,
            worker.disabled,
            worker.asleep,
        ),
    )


def drop_worker(url: str) -> Change:
    return Change(worker_key(url), "DELETE FROM workers WHERE url = ?", (url,), drops=True)


def put_owner(owner: SavedOwner) -> Change:
    return Change(
        owner_key(owner.kind, owner.id),
        "INSERT OR REPLACE INTO owners (kind, id, worker, used, open) VALUES (?, ?, ?, ?, ?)",
        (owner.kind, owner.id, owner.worker, owner.used, owner.open),
    )


def drop_owner(kind: str, owner_id: str) -> Change:
    sql = "DELETE FROM owners WHERE kind = ? AND id = ?"
    return Change(owner_key(kind, owner_id), sql, (kind, owner_id), drops=True)


def put_loras(calls: Sequence[Mapping[str, Any]]) -> Change:
    """
    The LoRA set as one value.

    Raises:
        TypeError, ValueError: The calls hold something that is no JSON.
    """
    text = json.dumps([dict(call) for call in calls])
    sql = "INSERT OR REPLACE INTO facts (name, value) VALUES ('loras', ?)"
    return Change(("facts", "loras"), sql, (text,))


def read(connection: sqlite3.Connection) -> Contents:
    """
    All rows, as of one moment.

    Raises:
        sqlite3.Error, TypeError, ValueError: They cannot be read, or are not what was written.
    """
    connection.execute("BEGIN")
    workers = connection.execute(
        "SELECT url, place, dead, draining, leaving, disabled, asleep FROM workers ORDER BY place"
    ).fetchall()
    owners = connection.execute(
        "SELECT kind, id, worker, used, open FROM owners ORDER BY used, kind, id"
    ).fetchall()
    loras = connection.execute("SELECT value FROM facts WHERE name = 'loras'").fetchone()
    connection.execute("COMMIT")
    return Contents(
        {url: place for url, place, *_ in workers},
        tuple(_worker(url, *flags) for url, _, *flags in workers),
        tuple(
            SavedOwner(kind=kind, id=owner_id, worker=worker, used=used, open=bool(still_open))
            for kind, owner_id, worker, used, still_open in owners
        ),
        tuple(json.loads(loras[0])) if loras else (),
    )


def _worker(
    url: str, dead: int, draining: int, leaving: int, disabled: int, asleep: int
) -> SavedWorker:
    return SavedWorker(
        url=url,
        dead=bool(dead),
        draining=bool(draining),
        leaving=bool(leaving),
        disabled=bool(disabled),
        asleep=bool(asleep),
    )
