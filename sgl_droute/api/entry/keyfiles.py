"""
The files that keys are in: read at start, and again when they change.

What is in them is known to `sgl_droute.fleet.keyring`.
"""

from __future__ import annotations

import os
from secrets import token_bytes
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sgl_droute.api.entry.door import Door
from sgl_droute.fleet.keyring import Key, Keyring, keyring, parse_keys
from sgl_droute.text_files import text_of

log = Logger()

# Seconds between two looks at the files.
INTERVAL = 1.0

# What tells that a file has changed; None for one that is not there.
Stamp = tuple[int, int, int] | None


@frozen
class KeySources:
    """
    Where keys come from.

    Attributes:
        api: File of keys for generations; empty if there is none.
        admin: File of keys for the fleet; empty if there is none.
    """

    api: str = ""
    admin: str = ""

    def read(self, secret: bytes) -> Keyring:
        """
        The keys in the files.

        Raises:
            ValueError: One line that says what is wrong with which file.
        """
        api, admin = _keys_of(self.api), _keys_of(self.admin)
        try:
            return keyring(secret, api, admin)
        except ValueError as problem:
            raise ValueError(f"{self.admin}: {problem}") from None

    def stamps(self) -> tuple[Stamp, ...]:
        """
        What differs once one of the files has changed.
        """
        return tuple(_stamp(path) for path in (self.api, self.admin) if path)


@define(eq=False, slots=False)
class KeyFiles(Service):
    """
    Keeps the keys of a door as the files have them, while it runs.

    Args:
        door: Told of the keys.
        sources: The files.
        clock: Provides the time.

    Raises:
        ValueError: One line that says what is wrong with which file.
    """

    door: Door
    sources: KeySources
    clock: IReactorTime
    _secret: bytes = field(factory=lambda: token_bytes(32), init=False, repr=False)
    _seen: tuple[Stamp, ...] = field(default=(), init=False)
    _loop: LoopingCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.reload()

    def reload(self, sources: KeySources | None = None) -> None:
        """
        Have the door know what is in the files now; what keys that stay have used of their limits
        stays too.

        Args:
            sources: Other files from now on; the same if None.

        Raises:
            ValueError: As of the class; nothing is changed.
        """
        chosen = sources or self.sources
        # Stamped first: a file that changes while it is read is read once more.
        seen = chosen.stamps()
        known = chosen.read(self._secret)
        self.sources, self._seen = chosen, seen
        self.door.use(known)

    def startService(self) -> None:
        """
        Look at the files now and then.
        """
        super().startService()
        self._loop = LoopingCall(self._look)
        self._loop.clock = self.clock
        self._loop.start(INTERVAL, now=False)

    def stopService(self) -> Any:
        """
        Let the files be.
        """
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()
        return super().stopService()

    def _look(self) -> None:
        stamps = self.sources.stamps()
        if stamps == self._seen:
            return
        try:
            self.reload()
        except ValueError as problem:
            self._seen = stamps  # told once
            log.error("The keys stay as they were: {problem}", problem=str(problem))
        else:
            log.info("The router knows {count} keys", count=len(self.door.keyring.keys))


def _keys_of(path: str) -> tuple[Key, ...] | None:
    if not path:
        return None
    return parse_keys(text_of(path), path)


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
