"""
The ways to choose a worker: least-request, round-robin, random.

Each keeps an index of keys and their loads and answers `choose` without a walk over the fleet. None
knows what a key stands for, nor why it was added or left out. Their queues are `OrderedDict`: to
find its first key a plain dict walks over all that were deleted before it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import Protocol

from attrs import define, field


class Selection(Protocol):
    """An index of the keys that may be chosen."""

    def put(self, key: str, load: int) -> None:
        """Let *key* be chosen from now on, with this load (count); known ones get the new load."""

    def discard(self, key: str) -> None:
        """Let *key* not be chosen any more; unknown ones are ignored."""

    def choose(self, without: Collection[str] = ()) -> str | None:
        """The next key, none of *without*; None when there is none."""

    def __len__(self) -> int: ...


@define(eq=False)
class LeastRequest:
    """
    The key with the smallest load; among equals the one whose load changed longest ago.

    Keys stand in one ordered bucket per load, and a heap holds the loads that have a bucket, so
    that a choice costs O(log n) in the number of different loads.
    """

    _loads: dict[str, int] = field(factory=dict)
    _buckets: dict[int, OrderedDict[str, None]] = field(factory=dict)
    _heap: list[int] = field(factory=list)
    _heaped: set[int] = field(factory=set)

    def put(self, key: str, load: int) -> None:
        if self._loads.get(key) == load:
            return
        self.discard(key)
        self._loads[key] = load
        self._buckets.setdefault(load, OrderedDict())[key] = None
        if load not in self._heaped:
            self._heaped.add(load)
            heapq.heappush(self._heap, load)

    def discard(self, key: str) -> None:
        load = self._loads.pop(key, None)
        if load is None:
            return
        bucket = self._buckets[load]
        del bucket[key]
        if not bucket:
            del self._buckets[load]

    def choose(self, without: Collection[str] = ()) -> str | None:
        while self._heap and self._heap[0] not in self._buckets:
            self._heaped.discard(heapq.heappop(self._heap))
        if not self._heap:
            return None
        first = next(iter(self._buckets[self._heap[0]]))
        if first not in without:
            return first
        return next((key for key in self._in_order() if key not in without), None)

    def _in_order(self) -> Iterator[str]:
        for load in sorted(self._buckets):
            yield from self._buckets[load]

    def __len__(self) -> int:
        return len(self._loads)


@define(eq=False)
class RoundRobin:
    """
    The key that was chosen longest ago; new keys wait for their turn at the end.
    """

    _turns: OrderedDict[str, None] = field(factory=OrderedDict)

    def put(self, key: str, load: int) -> None:
        self._turns.setdefault(key, None)

    def discard(self, key: str) -> None:
        self._turns.pop(key, None)

    def choose(self, without: Collection[str] = ()) -> str | None:
        chosen = next((key for key in self._turns if key not in without), None)
        if chosen is not None:
            self._turns.move_to_end(chosen)
        return chosen

    def __len__(self) -> int:
        return len(self._turns)


@define(eq=False)
class RandomChoice:
    """
    Any key, each as likely as the others.
    """

    _random: Random
    _keys: list[str] = field(factory=list)
    _places: dict[str, int] = field(factory=dict)

    def put(self, key: str, load: int) -> None:
        if key not in self._places:
            self._places[key] = len(self._keys)
            self._keys.append(key)

    def discard(self, key: str) -> None:
        place = self._places.pop(key, None)
        if place is None:
            return
        last = self._keys.pop()
        if last != key:
            self._keys[place] = last
            self._places[last] = place

    def choose(self, without: Collection[str] = ()) -> str | None:
        keys = [key for key in self._keys if key not in without] if without else self._keys
        return self._random.choice(keys) if keys else None

    def __len__(self) -> int:
        return len(self._keys)


def _least_request(random: Random) -> Selection:
    return LeastRequest()


def _round_robin(random: Random) -> Selection:
    return RoundRobin()


ALGORITHMS: dict[str, Callable[[Random], Selection]] = {
    "least-request": _least_request,
    "round-robin": _round_robin,
    "random": RandomChoice,
}
