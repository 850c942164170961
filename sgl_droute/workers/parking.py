"""
Where the bodies of waiting requests are kept: in memory up to a limit, the others on disk.

Larger bodies are in files of their own already. Who waits, and for what, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from io import BytesIO
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol

from attrs import define, field
from twisted.logger import Logger

from sgl_droute.errors import NoStorage
from sgl_droute.workers.bodies import Spool

log = Logger()

# Bytes of the file that each body there has for itself. What a body leaves free is a hole, which
# takes no space.
LARGEST_PARKED = 1 << 17


class HasBody(Protocol):
    """A request, as far as its body is concerned."""

    content: Any


@define(eq=False)
class Parking:
    """
    Keeps the bodies of waiting requests from piling up in memory.

    Bodies beyond the limit share one temporary file without a name, which is there as long as any
    of them waits; neither a crash nor a lost request leaves anything behind.

    Args:
        limit: Bytes of waiting bodies that stay in memory.

    Attributes:
        held: Bytes of waiting bodies in memory.
    """

    limit: int = 32 << 20
    held: int = field(default=0, init=False)
    _yard: _Yard = field(factory=lambda: _Yard(), init=False)

    @contextmanager
    def parked(self, request: HasBody) -> Iterator[None]:
        """
        While it waits within, the body of *request* may be gone from memory; it is back when the
        wait ends well. When that raises, the request gets an answer without its body.

        Raises:
            NoStorage: The body could not be read back.
        """
        content = request.content
        size = _size_in_memory(content)
        place = self._parked_at(content, size)
        if place is None:
            self.held += size
            try:
                yield
            finally:
                self.held -= size
            return
        # Closed when the client leaves, as the body itself would be.
        request.content = placeholder = BytesIO()
        content.close()
        try:
            yield
            if not placeholder.closed and request.content is placeholder:
                request.content = BytesIO(self._yard.read(place, size))
        finally:
            self._yard.leave(place)

    def _parked_at(self, content: BinaryIO, size: int) -> int | None:
        if self.held + size <= self.limit or not 0 < size <= LARGEST_PARKED:
            return None
        return self._yard.enter(Spool(content, size).read())


@define(eq=False)
class _Yard:
    """
    A temporary file with places of one size.
    """

    _file: BinaryIO | None = field(default=None, init=False)
    _failing: bool = field(default=False, init=False)
    _taken: int = field(default=0, init=False)
    _places: int = field(default=0, init=False)
    _free: list[int] = field(factory=list, init=False)

    def enter(self, body: bytes) -> int | None:
        """
        The place where *body* is now; None if it cannot be written.
        """
        place = self._free[-1] if self._free else self._places
        try:
            self._write(place, body)
        except OSError as problem:
            self._close_if_empty()
            if not self._failing:  # once: thousands may wait
                log.warn("bodies of waiting requests stay in memory: {error}", error=problem)
            self._failing = True
            return None
        self._failing = False
        if self._free:
            self._free.pop()
        else:
            self._places += 1
        self._taken += 1
        return place

    def read(self, place: int, size: int) -> bytes:
        """
        The *size* bytes of the body in *place*.

        Raises:
            NoStorage: They could not be read.
        """
        assert self._file is not None
        try:
            self._file.seek(place * LARGEST_PARKED)
            body = self._file.read(size)
        except OSError as problem:
            raise _lost(problem.strerror) from problem
        if len(body) < size:
            raise _lost(f"{len(body)} bytes of {size} are left")
        return body

    def leave(self, place: int) -> None:
        """
        Give *place* back.
        """
        self._taken -= 1
        self._free.append(place)
        self._close_if_empty()

    def _write(self, place: int, body: bytes) -> None:
        if self._file is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115
        self._file.seek(place * LARGEST_PARKED)
        written = self._file.write(body)
        if written < len(body):
            raise OSError(ENOSPC, f"{written} bytes of {len(body)} were written")

    def _close_if_empty(self) -> None:
        if self._taken or self._file is None:
            return
        with suppress(OSError):
            self._file.close()
        self._file = None
        self._places = 0
        self._free.clear()


def _lost(reason: str | None) -> NoStorage:
    return NoStorage(f"The request body could not be kept: {reason}")


def _size_in_memory(content: Any) -> int:
    """
    Bytes of *content*; 0 if it is closed, or a file on disk.
    """
    if content is None or content.closed or getattr(content, "name", None) is not None:
        return 0
    return Spool.of(content).length
