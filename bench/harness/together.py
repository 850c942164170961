"""
Several coroutines at once.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Deferred[Any], Any, T]]) -> list[T]:
    """
    The results of *coroutines*, all run at once. When one fails the others are cancelled and its
    own error is raised; being cancelled cancels all.
    """
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    try:
        results: list[T] = await gatherResults(running, consumeErrors=True)
    except FirstError as first:
        for each in running:
            each.cancel()
        first.subFailure.raiseException()
    return results
