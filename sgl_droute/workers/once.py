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
            return waiting
        running = Deferred.fromCoroutine(work())
        self._under_way[key] = (running, [waiting])
        running.addBoth(self._ended, key)
        return waiting

    def settled(self, key: K) -> Deferred[None]:
        """
        Fires when no work for *key* is under way.
        """
        if key not in self._under_way:
            return succeed(None)
        ended: Deferred[T] = Deferred(lambda ended: self._leave(key, ended))
        self._under_way[key][1].append(ended)
        return ended.addBoth(_nothing)

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

    def _ended(self, result: T | Failure, key: K) -> None:
        _, waiting = self._under_way.pop(key)
        for each in waiting:
            if each.called:
                continue
            if isinstance(result, Failure):
                each.errback(result)
            else:
                each.callback(result)


def waiting_for(origin: Deferred[T]) -> Deferred[T]:
    """
    Fires with the result of *origin*; cancelling it does not reach *origin*.
    """
    waiting: Deferred[T] = Deferred()

    def pass_on(result: T) -> T:
        if not waiting.called:
            waiting.callback(result)
        return result

    def fail(failure: Failure) -> Failure | None:
        if waiting.called:
            return failure
        waiting.errback(failure)
        return None

    origin.addCallbacks(pass_on, fail)
    return waiting


def _nothing(_: object) -> None:
    """The result of waiting for whatever end."""
