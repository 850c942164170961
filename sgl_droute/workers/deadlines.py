"""
Many time limits behind one delayed call.

A request sets half a dozen limits and meets none of them: setting and cancelling one has to be
cheap. What is done when one passes is up to whoever set it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

log = Logger()

# Seconds at most between two looks at the limits, and so for how long a delayed call outlives them.
_LOOK = 1.0


class Deadline:
    """
    One limit; `cancel` ends it.

    Attributes:
        when: When it passes, by the clock (seconds).
        met: Whether it has passed.
    """

    __slots__ = ("_passed", "_queue", "met", "when")

    def __init__(
        self, when: float, passed: Callable[[], object], queue: dict[Deadline, None]
    ) -> None:
        self.when = when
        self.met = False
        self._passed = passed
        self._queue = queue
        queue[self] = None

    def cancel(self) -> None:
        """
        Let nothing happen; also when it has passed already.
        """
        self._queue.pop(self, None)

    def meet(self) -> None:
        """
        Do what is to be done.
        """
        del self._queue[self]
        self.met = True
        try:
            self._passed()
        except Exception:
            log.failure("a deadline could not be met")


@define(eq=False)
class Deadlines:
    """
    Calls back when time is over, never before.

    Limits of the same length pass in the order in which they were set, so each length is a queue,
    and only the heads of the queues are looked at.

    Args:
        clock: Provides the time.
    """

    clock: Any
    _queues: dict[float, dict[Deadline, None]] = field(factory=dict, init=False)
    _look: IDelayedCall | None = field(default=None, init=False)

    def set(self, seconds: float, passed: Callable[[], object]) -> Deadline:
        """
        Have *passed* called in *seconds* unless it is cancelled before.
        """
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = {}
        deadline = Deadline(self.clock.seconds() + seconds, passed, queue)
        if self._look is None:
            self._look = self.clock.callLater(min(seconds, _LOOK), self._look_now)
        elif seconds < _LOOK and deadline.when < self._look.getTime():
            self._look.reset(seconds)
        return deadline

    def stop(self) -> None:
        """
        Forget all limits.
        """
        self._queues.clear()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _look_now(self) -> None:
        self._look = None
        now = self.clock.seconds()
        for seconds, queue in list(self._queues.items()):
            for deadline in list(takewhile(lambda each: each.when <= now, queue)):
                # One that passes may cancel others, or stop them all.
                if deadline in queue and self._queues.get(seconds) is queue:
                    deadline.meet()
            if not queue and self._queues.get(seconds) is queue:
                del self._queues[seconds]
        self._look_again()

    def _look_again(self) -> None:
        heads = [next(iter(queue)).when for queue in self._queues.values() if queue]
        if not heads:
            return
        wait = min(max(min(heads) - self.clock.seconds(), 0.0), _LOOK)
        if self._look is None:
            self._look = self.clock.callLater(wait, self._look_now)
        elif self._look.getTime() > self.clock.seconds() + wait:  # set by a limit that passed
            self._look.reset(wait)
