"""
Requests that workers have not begun to answer, and the wait for their end.

A worker does one thing after the other in the order in which it hears of them, but two connections
have no order: what must come behind a request is sent when that is answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import define, field
from twisted.internet.defer import Deferred

from sgl_droute.fleet.worker import Worker


@define(eq=False)
class Outstanding:
    """
    The requests on their way, by worker.
    """

    _counts: dict[int, int] = field(factory=dict, init=False)
    _waiting: dict[int, list[Deferred[None]]] = field(factory=dict, init=False)

    @contextmanager
    def request(self, worker: Worker) -> Iterator[None]:
        """
        One request to *worker*, outstanding while the block runs.
        """
        serial = worker.serial
        self._counts[serial] = self._counts.get(serial, 0) + 1
        try:
            yield
        finally:
            self._counts[serial] -= 1
            if not self._counts[serial]:
                del self._counts[serial]
                for waiting in self._waiting.pop(serial, []):
                    if not waiting.called:  # left in answer to the end of one before it
                        waiting.callback(None)

    def any(self, worker: Worker) -> bool:
        """
        Whether a request to *worker* is outstanding.
        """
        return worker.serial in self._counts

    def none(self, worker: Worker) -> Deferred[None]:
        """
        Fires when no request to *worker* is outstanding.
        """
        done: Deferred[None] = Deferred(lambda _: self._leave(worker.serial, done))
        if worker.serial in self._counts:
            self._waiting.setdefault(worker.serial, []).append(done)
        else:
            done.callback(None)
        return done

    def _leave(self, serial: int, waiting: Deferred[None]) -> None:
        with suppress(ValueError):  # the end has come, and is being told to those before it
            self._waiting.get(serial, []).remove(waiting)
