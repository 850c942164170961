"""
One state file: opened, checked, read, and written in transactions that a crash cannot tear.

All of it blocks. When it is called and from which thread is decided in `sgl_droute.state.sqlite`.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote

from attrs import define, field

from sgl_droute.state.tables import APPLICATION_ID, EMPTY, STEPS, VERSION, Change, Contents, read

_JOURNAL_LIMIT = 4 << 20


class StateError(ValueError):
    """
    The state cannot be read or written.

    Args:
        path: The state file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"state file {path}: {reason}")


@define(eq=False)
class Database:
    """
    The state file at *path*; used by one thread at a time. The first write makes a missing file,
    readable by its owner only, and turns one of an older version into one of this, whole or not at
    all.

    It never writes to a file that took the place of the one it knows: that would tear the state
    of whoever put it there.
    """

    path: str
    _connection: sqlite3.Connection | None = field(default=None, init=False)
    _known: tuple[int, int] | None = field(default=None, init=False)

    def read(self, *, patience: float) -> Contents:
        """
        What the file holds; nothing if it is missing but could be made. The file is closed again,
        because an open one must not be taken along when a program goes into the background.

        Args:
            patience: Seconds to wait while another process has locked the file.

        Raises:
            StateError: The file is no state file, of a newer version, locked, damaged, or cannot
                be read or written.
        """
        with self._told():
            if not self._found():
                self._check_folder()
                return EMPTY
            if not os.access(self.path, os.R_OK | os.W_OK):
                raise StateError(self.path, "cannot be read and written by this user")
            try:
                return self._contents(patience)
            except sqlite3.OperationalError as problem:
                if str(problem) != "disk I/O error":
                    raise
                # Readers share memory through a small file, which a full disk has no room for.
                return self._contents(patience, "PRAGMA locking_mode = EXCLUSIVE")

    def write(self, changes: Iterable[Change], *, patience: float) -> None:
        """
        Make all *changes* or none; they are on the disk when this returns.

        Args:
            changes: In order.
            patience: Seconds to wait while another process has locked the file.

        Raises:
            StateError: Nothing was changed.
        """
        try:
            with self._told():
                connection = self._writable(patience)
                connection.execute("BEGIN IMMEDIATE")
                for change in changes:
                    connection.execute(change.sql, change.values)
                connection.execute("COMMIT")
        except BaseException:
            self.close()  # whatever state it is in, the next write begins afresh
            raise

    def close(self) -> None:
        """
        Close the file, if it is open.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _found(self) -> bool:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            if self._known is not None:
                raise StateError(self.path, "was removed while in use") from None
            return False
        if not stat.S_ISREG(status.st_mode):
            raise StateError(self.path, "is not a regular file")
        known = (status.st_dev, status.st_ino)
        if self._known not in (None, known):
            raise StateError(self.path, "was replaced by another file while in use")
        self._known = known
        return True

    def _check_folder(self) -> None:
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise StateError(self.path, f"there is no folder {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StateError(self.path, f"this user cannot make files in {folder}")

    def _contents(self, patience: float, *settings: str) -> Contents:
        with closing(self._connected(patience)) as connection:
            for setting in settings:
                connection.execute(setting)
            version = self._version(connection)
            if not version:
                return EMPTY
            try:
                return read(connection, version)
            except (TypeError, ValueError) as problem:
                raise StateError(self.path, f"is damaged: {problem}") from problem

    def _writable(self, patience: float) -> sqlite3.Connection:
        if not self._found():
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._found()
        if self._connection is None:
            self._connection = self._connected(patience)
            self._prepare(self._connection)
        self._connection.execute(f"PRAGMA busy_timeout = {patience * 1000:.0f}")
        return self._connection

    def _connected(self, patience: float) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode=rw",
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) != VERSION:
            connection.execute("BEGIN IMMEDIATE")
            # Asked once more: somebody else may have done it meanwhile.
            for statement in STEPS.get(self._version(connection), ()):
                connection.execute(statement)
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")

    def _version(self, connection: sqlite3.Connection) -> int:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, tables) == (0, 0, 0):
            return 0
        if application != APPLICATION_ID:
            raise StateError(self.path, "is a database of another program")
        if not 1 <= version <= VERSION:
            raise StateError(
                self.path,
                f"has version {version}, and this sgl-droute reads versions 1 to {VERSION}"
                + (" only: a newer one wrote it" if version > VERSION else " only"),
            )
        return int(version)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as problem:
            raise StateError(self.path, _REASONS.get(str(problem), str(problem))) from problem
        except OSError as problem:
            raise StateError(self.path, problem.strerror or str(problem)) from problem


_REASONS = {
    "database is locked": "is locked by another process",
    "file is not a database": "is not an SQLite database",
    "database disk image is malformed": "is damaged",
    "database or disk is full": "the disk is full",
}
