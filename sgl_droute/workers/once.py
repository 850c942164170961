"""
Work that is wanted by several and done once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@define(eq=False)
class Once(Generic[K, T]):
    """
    Runs work by key, each key once at a time: who wants what is under way waits for that.

    Args:
        abandon: Whether work is cancelled when nobody waits for it any more.
    """

    abandon: bool = False
    _under_way: dict[K, tuple[Deferred[T], list[Deferred[T]]]] = field(factory=dict, init=False)

    def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        The result of the work under way for *key*, begun now if there is none. Cancelling the wait
        for it does not reach the work while others wait, nor at all unless it is to be abandoned.
        """
        waiting: Deferred[T] = Deferred(lambda waiting: self._leave(key, waiting))
        if key in self._under_way:
            self._under_way[key][1].append(waiting)
        else:
            self._begin(key, work, [waiting])
        return waiting

    def again(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        As `run`, but begun in any case: work under way for *key* is cancelled, and whoever waits
        for that waits for this.
        """
        waiting: Deferred[T] = Deferred(lambda waiting: self._leave(key, waiting))
        superseded, others = self._under_way.pop(key, (None, []))
        self._begin(key, work, [*others, waiting])
        if superseded is not None:
            superseded.cancel()
        return waiting

    def settled(self, key: K) -> Deferred[None]:
        """
        Fires when no work for *key* is under way, however that ended.
        """
        if key not in self._under_way:
            return succeed(None)
        ended: Deferred[T] = Deferred()
        settled: Deferred[None] = Deferred(lambda _: self._leave(key, ended))
        self._under_way[key][1].append(ended)
        ended.addBoth(lambda _: settled.callback(None))
        return settled

    def stop(self) -> Deferred[Any]:
        """
        Cancel everything that is under way; fires when it has ended.
        """
        ending = [self.settled(key) for key in self._under_way]
        for running, _ in list(self._under_way.values()):
            running.cancel()
        return DeferredList(ending)

    def _leave(self, key: K, leaving: Deferred[T]) -> None:
        running, waiting = self._under_way.get(key, (None, []))
        if leaving in waiting:
            waiting.remove(leaving)
            if running is not None and self.abandon and not waiting:
                running.cancel()

    def _begin(
        self, key: K, work: Callable[[], Coroutine[Any, Any, T]], waiting: list[Deferred[T]]
    ) -> None:
        running = Deferred.fromCoroutine(work())
        self._under_way[key] = (running, waiting)
        running.addBoth(self._ended, key, running)

    def _ended(self, result: T | Failure, key: K, ended: Deferred[T]) -> None:
        running, waiting = self._under_way.get(key, (None, []))
        if running is not ended:
            return  # superseded
        del self._under_way[key]
        for each in waiting:
            if each.called:
                continue
            if isinstance(result, Failure):
                each.errback(result)
            else:
                each.callback(result)
