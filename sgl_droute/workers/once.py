"""
Work that is wanted by several and done once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@define(eq=False)
class Once(Generic[K, T]):
    """
    Runs work by key, each key once at a time: who wants what is under way waits for that.
    """

    _under_way: dict[K, tuple[Deferred[T], list[Deferred[T]]]] = field(factory=dict, init=False)

    def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        The result of the work under way for *key*, begun now if there is none. Cancelling the wait
        for it does not reach the work.
        """
        waiting: Deferred[T] = Deferred()
        if key in self._under_way:
            self._under_way[key][1].append(waiting)
            return waiting
        running = Deferred.fromCoroutine(work())
        self._under_way[key] = (running, [waiting])
        running.addBoth(self._ended, key)
        return waiting

    def join(self) -> Deferred[Any]:
        """
        Fires when everything that is under way has ended.
        """
        joining: list[Deferred[T]] = []
        for _, waiting in self._under_way.values():
            joining.append(Deferred())
            waiting.append(joining[-1])
        return DeferredList(joining, consumeErrors=True)

    def stop(self) -> Deferred[Any]:
        """
        Cancel everything that is under way; fires when it has ended.
        """
        ending = self.join()
        for running, _ in list(self._under_way.values()):
            running.cancel()
        return ending

    def _ended(self, result: T | Failure, key: K) -> None:
        _, waiting = self._under_way.pop(key)
        for each in waiting:
            if each.called:
                continue
            if isinstance(result, Failure):
                each.errback(result)
            else:
                each.callback(result)
