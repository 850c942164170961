"""
What a test process holds, to see that nothing is left behind.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from attrs import define, field

from tests.integration.sockets import eventually, reactor


@define(eq=False)
class Belongings:
    """
    What this process holds: open files and sockets by number, and what delayed calls will call.
    """

    files: dict[str, str] = field(factory=lambda: dict(_open()))
    calls: Counter[Any] = field(factory=lambda: _delayed())

    async def until_the_same(self) -> None:
        """
        Return once nothing is held that was not held then.
        """
        try:
            await eventually(lambda: not self._new())
        except AssertionError:
            raise AssertionError(f"left behind: {self._new()}") from None

    def _new(self) -> list[object]:
        files = [each for each in _open() if self.files.get(each[0]) != each[1]]
        return [*files, *(_delayed() - self.calls)]


def _delayed() -> Counter[Any]:
    return Counter(call.func for call in reactor.getDelayedCalls())


def _open() -> Iterator[tuple[str, str]]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            name = os.readlink(f"/proc/self/fd/{number}")
            if name != os.devnull:  # Twisted's reserve for when descriptors run out
                yield number, name
