"""
The tables of a state file, and each change of the state as one statement on them.

It knows SQL; files, locks and failures are the business of `sgl_droute.state.database`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.fleet.worker import Concurrency
from sgl_droute.state.saved import SavedOwner, SavedWorker

APPLICATION_ID = 0x53474C64  # "SGLd", in the file's header
VERSION = 4

_SPEEDS = "CREATE TABLE speeds (url TEXT PRIMARY KEY, learned TEXT NOT NULL) WITHOUT ROWID"

_WEBHOOKS = """
    CREATE TABLE webhooks (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        url TEXT NOT NULL,
        event TEXT NOT NULL,
        body TEXT NOT NULL,
        tries INTEGER NOT NULL,
        due REAL NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID
"""

_CREATE = (
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
        asleep INTEGER NOT NULL,
        concurrency,
        speed REAL,
        barred INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE owners (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        worker TEXT NOT NULL,
        used REAL NOT NULL,
        open INTEGER NOT NULL,
        epoch TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    _SPEEDS,
    _WEBHOOKS,
)

_FROM_THIRD = (_WEBHOOKS, f"PRAGMA user_version = {VERSION}")
_FROM_SECOND = (
    "ALTER TABLE workers ADD COLUMN barred INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE owners ADD COLUMN epoch TEXT NOT NULL DEFAULT ''",
    *_FROM_THIRD,
)

# What makes a file of each older version one of this; 0 is a file without tables.
STEPS: Mapping[int, tuple[str, ...]] = {
    0: _CREATE,
    1: (
        "ALTER TABLE workers ADD COLUMN concurrency",
        "ALTER TABLE workers ADD COLUMN speed REAL",
        _SPEEDS,
        *_FROM_SECOND,
    ),
    2: _FROM_SECOND,
    3: _FROM_THIRD,
}

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
        loras, speeds, weights, webhooks: As in `sgl_droute.state.saved.Saved`.
    """

    places: Mapping[str, int]
    workers: tuple[SavedWorker, ...]
    owners: tuple[SavedOwner, ...]
    loras: tuple[Mapping[str, Any], ...]
    speeds: tuple[tuple[str, str], ...]
    weights: str
    webhooks: tuple[Webhook, ...] = ()

    def keys(self) -> set[Key]:
        """
        The keys of all workers, owners, speeds and webhooks.
        """
        workers = {worker_key(worker.url) for worker in self.workers}
        owners = {owner_key(owner.kind, owner.id) for owner in self.owners}
        speeds = {speeds_key(url) for url, _ in self.speeds}
        webhooks = {webhook_key(*webhook.key) for webhook in self.webhooks}
        return workers | owners | speeds | webhooks


EMPTY = Contents({}, (), (), (), (), "")


def worker_key(url: str) -> Key:
    return ("workers", url)


def speeds_key(url: str) -> Key:
    return ("speeds", url)


def owner_key(kind: str, owner_id: str) -> Key:
    return ("owners", kind, owner_id)


def webhook_key(kind: str, job_id: str) -> Key:
    return ("webhooks", kind, job_id)


def put_worker(worker: SavedWorker, place: int) -> Change:
    return Change(
        worker_key(worker.url),
        "INSERT OR REPLACE INTO workers"
        " (url, place, dead, draining, leaving, disabled, asleep, concurrency, speed, barred)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            worker.url,
            place,
            worker.dead,
            worker.draining,
            worker.leaving,
            worker.disabled,
            worker.asleep,
            worker.concurrency,
            worker.speed,
            worker.barred,
        ),
    )


def drop_worker(url: str) -> Change:
    return Change(worker_key(url), "DELETE FROM workers WHERE url = ?", (url,), drops=True)


def put_owner(owner: SavedOwner) -> Change:
    return Change(
        owner_key(owner.kind, owner.id),
        "INSERT OR REPLACE INTO owners (kind, id, worker, used, open, epoch)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (owner.kind, owner.id, owner.worker, owner.used, owner.open, owner.epoch),
    )


def drop_owner(kind: str, owner_id: str) -> Change:
    sql = "DELETE FROM owners WHERE kind = ? AND id = ?"
    return Change(owner_key(kind, owner_id), sql, (kind, owner_id), drops=True)


def put_weights(text: str) -> Change:
    sql = "INSERT OR REPLACE INTO facts (name, value) VALUES ('weights', ?)"
    return Change(("facts", "weights"), sql, (text,))


def put_speeds(url: str, text: str) -> Change:
    sql = "INSERT OR REPLACE INTO speeds (url, learned) VALUES (?, ?)"
    return Change(speeds_key(url), sql, (url, text))


def drop_speeds(url: str) -> Change:
    return Change(speeds_key(url), "DELETE FROM speeds WHERE url = ?", (url,), drops=True)


def put_webhook(webhook: Webhook) -> Change:
    return Change(
        webhook_key(*webhook.key),
        "INSERT OR REPLACE INTO webhooks (kind, id, url, event, body, tries, due, until)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            webhook.kind,
            webhook.id,
            webhook.url,
            webhook.event,
            webhook.body,
            webhook.tries,
            webhook.due,
            webhook.until,
        ),
    )


def drop_webhook(kind: str, job_id: str) -> Change:
    sql = "DELETE FROM webhooks WHERE kind = ? AND id = ?"
    return Change(webhook_key(kind, job_id), sql, (kind, job_id), drops=True)


def read(connection: sqlite3.Connection, version: int) -> Contents:
    """
    All rows, as of one moment.

    Args:
        version: That of the file; from 1 to `VERSION`.

    Raises:
        sqlite3.Error, TypeError, ValueError: They cannot be read, or are not what was written.
    """
    connection.execute("BEGIN")
    settings = "concurrency, speed" if version > 1 else "NULL, NULL"
    barred = "barred" if version > 2 else "0"
    workers = connection.execute(
        f"SELECT url, place, dead, draining, leaving, disabled, asleep, {settings}, {barred}"
        " FROM workers ORDER BY place"
    ).fetchall()
    epoch = "epoch" if version > 2 else "''"
    owners = connection.execute(
        f"SELECT kind, id, worker, used, open, {epoch} FROM owners ORDER BY used, kind, id"
    ).fetchall()
    facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
    learned = "SELECT url, learned FROM speeds ORDER BY url"
    speeds = connection.execute(learned).fetchall() if version > 1 else []
    called = "SELECT kind, id, url, event, body, tries, due, until FROM webhooks ORDER BY kind, id"
    webhooks = connection.execute(called).fetchall() if version > 3 else []
    connection.execute("COMMIT")
    weights = facts.get("weights", "")
    # What older versions kept of the LoRA set stays in the file, and is in the weights since.
    loras = () if weights else json.loads(facts.get("loras", "[]"))
    return Contents(
        {url: place for url, place, *_ in workers},
        tuple(_worker(url, *columns) for url, _, *columns in workers),
        tuple(
            SavedOwner(
                kind=kind, id=owner_id, worker=worker, used=used, open=bool(still_open), epoch=epoch
            )
            for kind, owner_id, worker, used, still_open, epoch in owners
        ),
        tuple(loras),
        tuple(speeds),
        weights,
        tuple(_webhook(*columns) for columns in webhooks),
    )


def _webhook(
    kind: str, id: str, url: str, event: str, body: str, tries: int, due: float, until: float
) -> Webhook:
    return Webhook(
        kind=kind, id=id, url=url, event=event, body=body, tries=tries, due=due, until=until
    )


def _worker(
    url: str,
    dead: int,
    draining: int,
    leaving: int,
    disabled: int,
    asleep: int,
    concurrency: Concurrency | None,
    speed: float | None,
    barred: int,
) -> SavedWorker:
    return SavedWorker(
        url=url,
        dead=bool(dead),
        draining=bool(draining),
        leaving=bool(leaving),
        disabled=bool(disabled),
        asleep=bool(asleep),
        concurrency=concurrency,
        speed=speed,
        barred=bool(barred),
    )
