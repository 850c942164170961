"""
A limit on what goes on at once, first come, first served.

It counts turns and knows nothing of what they are for.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class Gate:
    """
    Gives out at most so many turns at once.

    Unlike `twisted.internet.defer.DeferredSemaphore` it never calls itself: a thousand waiting
    turns that end as soon as they begin need no stack. Leaving the line costs the same wherever
    one stands in it.

    Attributes:
        size: Turns that it gives out at once (count).
    """

    size: int
    _taken: int = field(default=0, init=False)
    _waiting: OrderedDict[Deferred[None], None] = field(factory=OrderedDict, init=False)
    _opening: bool = field(default=False, init=False)

    @property
    def free(self) -> int:
        """Turns that can be taken at once (count); below 0 while more are out than there are."""
        return self.size - self._taken

    def acquire(self) -> Deferred[None]:
        """
        Fires when it is this turn; cancelling it leaves the line.
        """
        turn: Deferred[None] = Deferred(lambda turn: self._waiting.pop(turn, None))
        self._waiting[turn] = None
        self._open()
        return turn

    def turn(self) -> Gate:
        """
        A turn that lasts as long as the ``async with`` block it is given to.
        """
        return self

    async def __aenter__(self) -> None:
        if self._taken < self.size and not self._waiting:
            self._taken += 1
        else:
            await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """
        Give a turn back.
        """
        self._taken -= 1
        self._open()

    def resize(self, size: int) -> None:
        """
        Give out so many turns at once from now on; those that are out end in peace.
        """
        self.size = size
        self._open()

    def _open(self) -> None:
        if self._opening:
            return  # whoever opens now sees this turn too
        self._opening = True
        try:
            while self._taken < self.size and self._waiting:
                turn, _ = self._waiting.popitem(last=False)
                self._taken += 1
                turn.callback(None)
        finally:
            self._opening = False
