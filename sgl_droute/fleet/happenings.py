"""
What happened in the fleet, in order: numbered, and kept for those who were away for a while.

What is worth telling is up to `sgl_droute.fleet.reporter`, and how it is sent to clients is not
known here.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from attrs import define, field, frozen
from attrs.validators import ge

# Digits that the number in an id may have.
_DIGITS = 18


@frozen
class Happening:
    """
    Something that happened.

    Attributes:
        id: Its name, by which a client says how far it has read.
        kind: What it was, such as ``worker.state``.
        text: All of it as a JSON object in one line, kind and time included.
    """

    id: str
    kind: str
    text: str


@frozen
class Missed:
    """
    What somebody missed who has read up to some id.

    Attributes:
        reset: Says that some of it is lost; None if nothing is.
        rest: What is still there, oldest first.
    """

    reset: Happening | None
    rest: list[Happening]


@define(eq=False)
class Happenings:
    """
    The latest happenings of one run of the router.

    Args:
        run: A name of this run that no other has; part of all ids.
        now: The wall clock (seconds since 1970).
        most: Happenings kept (count).
    """

    run: str
    now: Callable[[], float]
    most: int = field(default=10_000, validator=ge(1))
    _kept: deque[Happening] = field(factory=deque, init=False)
    _count: int = field(default=0, init=False)
    _observers: list[Callable[[Happening], object]] = field(factory=list, init=False)

    @property
    def latest(self) -> str:
        """The id of the latest; there is one before anything has happened too."""
        return self._id(self._count)

    def watch(self, observer: Callable[[Happening], object]) -> None:
        """
        Have *observer* told of each, once it is kept.
        """
        self._observers.append(observer)

    def add(self, kind: str, fields: Mapping[str, Any]) -> None:
        """
        Keep what has happened now, with *fields* that JSON can tell.
        """
        self._count += 1
        happening = self._made(self._id(self._count), kind, fields)
        self._kept.append(happening)
        if len(self._kept) > self.most:
            self._kept.popleft()
        for observer in self._observers:
            observer(happening)

    def after(self, id: str) -> Missed:
        """
        What came after *id*. If it is of an earlier run, or too old, or none that was given, that
        is all that is kept, and it begins with a reset.
        """
        number = self._number(id)
        gone = self._count - len(self._kept)
        if number is not None and gone <= number <= self._count:
            return Missed(None, list(islice(self._kept, number - gone, None)))
        if number is not None and number < gone:
            return Missed(self._reset("too_old", gone - number), list(self._kept))
        return Missed(self._reset("unknown", None), list(self._kept))

    def greeting(self) -> Happening:
        """
        What a client is told first that has read nothing: from where it reads.
        """
        return self._made(self.latest, "hello", {})

    def _reset(self, why: str, lost: int | None) -> Happening:
        # Who leaves right after it comes back for all that is kept.
        id = self._id(self._count - len(self._kept))
        return self._made(id, "reset", {"why": why, "lost": lost, "kept": len(self._kept)})

    def _made(self, id: str, kind: str, fields: Mapping[str, Any]) -> Happening:
        told = {"type": kind, "time": _written(self.now()), **fields}
        return Happening(id, kind, json.dumps(told, separators=(",", ":")))

    def _id(self, number: int) -> str:
        return f"{self.run}-{number}"

    def _number(self, id: str) -> int | None:
        """
        The number of the happening with that *id*; None if it is none of this run.
        """
        run, _, number = id.rpartition("-")
        sound = number.isascii() and number.isdigit() and len(number) <= _DIGITS
        return int(number) if sound and run == self.run else None


def _written(seconds: float) -> str:
    """
    A time as ISO 8601 has it, in UTC and with milliseconds.
    """
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
