"""
The ways to choose a worker: least-request, least-work, round-robin, random.

Each keeps an index of keys and their loads and answers `choose` without a walk over the fleet. None
knows what a key stands for, nor why it was added or left out. Their queues are `OrderedDict`: to
find its first key a plain dict walks over all that were deleted before it.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import NamedTuple, Protocol

from attrs import define, field

# Keys whose usual seconds differ by less are compared by their backlog alone.
_ALIKE = math.log(1.05)


class Load(NamedTuple):
    """
    What a choice may depend on.

    Attributes:
        jobs: What the key has before it (count).
        free: When it will have finished them (seconds); 0 while it has none.
        pace: Seconds that it takes for a unit of work.
        fixed: Seconds that it takes besides.
        usual: Seconds that it takes for a job of average work.
        model: What *pace* is for.
    """

    jobs: int
    free: float = 0.0
    pace: float = 1.0
    fixed: float = 0.0
    usual: float = 1.0
    model: str | None = None


class Asked(NamedTuple):
    """
    What a choice is for.

    Attributes:
        now: The time (seconds).
        work: The work of the job on keys that serve a model.
    """

    now: float
    work: Callable[[str | None], float]


NOTHING = Asked(0.0, lambda model: 0.0)


class Selection(Protocol):
    """An index of the keys that may be chosen."""

    def put(self, key: str, load: Load) -> None:
        """Let *key* be chosen from now on, with this load; known ones get the new load."""

    def discard(self, key: str) -> None:
        """Let *key* not be chosen any more; unknown ones are ignored."""

    def choose(self, without: Collection[str] = (), asked: Asked = NOTHING) -> str | None:
        """The next key, none of *without*; None when there is none."""

    def __contains__(self, key: object) -> bool: ...

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

    def put(self, key: str, load: Load) -> None:
        count = load.jobs
        if self._loads.get(key) == count:
            return
        self.discard(key)
        self._loads[key] = count
        self._buckets.setdefault(count, OrderedDict())[key] = None
        if count not in self._heaped:
            self._heaped.add(count)
            heapq.heappush(self._heap, count)

    def discard(self, key: str) -> None:
        load = self._loads.pop(key, None)
        if load is None:
            return
        bucket = self._buckets[load]
        del bucket[key]
        if not bucket:
            del self._buckets[load]

    def choose(self, without: Collection[str] = (), asked: Asked = NOTHING) -> str | None:
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

    def __contains__(self, key: object) -> bool:
        return key in self._loads

    def __len__(self) -> int:
        return len(self._loads)


_Alike = tuple[str | None, int]


class _Entry(NamedTuple):
    """A key in a heap: idle ones by their load, then in the order in which that changed."""

    free: float
    jobs: int
    turn: int
    key: str


@define(eq=False)
class LeastWork:
    """
    The key with the earliest predicted end of the job; among equals the one with the smallest load,
    then the one whose load changed longest ago.

    Keys that are about equally fast stand in one heap, earliest end of the backlog first, and only
    the first of each heap is compared: within a heap a choice may be off by what 5 % of a usual job
    take.
    """

    _loads: dict[str, Load] = field(factory=dict)
    _entries: dict[str, tuple[_Alike, _Entry]] = field(factory=dict)
    _heaps: dict[_Alike, list[_Entry]] = field(factory=dict)
    _turns: int = 0
    _stale: int = 0

    def put(self, key: str, load: Load) -> None:
        if self._loads.get(key) == load:
            return
        self.discard(key)
        self._turns += 1
        alike = load.model, round(math.log(load.usual) / _ALIKE)
        entry = _Entry(load.free, load.jobs, self._turns, key)
        self._loads[key] = load
        self._entries[key] = alike, entry
        heapq.heappush(self._heaps.setdefault(alike, []), entry)
        if self._stale > 2 * len(self._loads) + 64:
            self._sweep()

    def discard(self, key: str) -> None:
        if self._loads.pop(key, None) is not None:
            del self._entries[key]
            self._stale += 1

    def choose(self, without: Collection[str] = (), asked: Asked = NOTHING) -> str | None:
        best = self.earliest(asked, without)
        return None if best is None else best[1]

    def earliest(self, asked: Asked, without: Collection[str] = ()) -> tuple[float, str] | None:
        """
        The predicted end on the key to be chosen, and that key.
        """
        now, works, entries = asked.now, dict[str | None, float](), self._entries
        best: tuple[float, int, int, str] | None = None
        for alike, heap in list(self._heaps.items()):
            first: _Entry | None = heap[0]
            # Mostly it is the one: a call for each of a hundred heaps would be most of a choice.
            known = entries.get(heap[0].key)
            if known is None or known[1] is not first or heap[0].key in without:
                first = self._first(alike, without)
            if first is None:
                continue
            began = first.free if first.free > now else now
            if best is not None and began > best[0]:
                continue
            load = self._loads[first.key]
            if load.model not in works:
                works[load.model] = asked.work(load.model)
            end = began + works[load.model] * load.pace + load.fixed
            if best is None or end <= best[0]:
                found = end, first.jobs, first.turn, first.key
                best = found if best is None else min(best, found)
        return None if best is None else (best[0], best[3])

    def load(self, key: str) -> Load:
        """The load of *key*, which is one of those that may be chosen."""
        return self._loads[key]

    def _first(self, alike: _Alike, without: Collection[str]) -> _Entry | None:
        heap = self._heaps[alike]
        while heap and not self._valid(heap[0]):
            heapq.heappop(heap)
            self._stale -= 1
        if not heap:
            del self._heaps[alike]
            return None
        if heap[0].key not in without:
            return heap[0]
        others = (entry for entry in heap if entry.key not in without)
        return min((entry for entry in others if self._valid(entry)), default=None)

    def _valid(self, entry: _Entry) -> bool:
        known = self._entries.get(entry.key)
        return known is not None and known[1] is entry

    def _sweep(self) -> None:
        self._heaps.clear()
        for alike, entry in self._entries.values():
            self._heaps.setdefault(alike, []).append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._stale = 0

    def __contains__(self, key: object) -> bool:
        return key in self._loads

    def __len__(self) -> int:
        return len(self._loads)


@define(eq=False)
class RoundRobin:
    """
    The key that was chosen longest ago; new keys wait for their turn at the end.
    """

    _turns: OrderedDict[str, None] = field(factory=OrderedDict)

    def put(self, key: str, load: Load) -> None:
        self._turns.setdefault(key, None)

    def discard(self, key: str) -> None:
        self._turns.pop(key, None)

    def choose(self, without: Collection[str] = (), asked: Asked = NOTHING) -> str | None:
        chosen = next((key for key in self._turns if key not in without), None)
        if chosen is not None:
            self._turns.move_to_end(chosen)
        return chosen

    def __contains__(self, key: object) -> bool:
        return key in self._turns

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

    def put(self, key: str, load: Load) -> None:
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

    def choose(self, without: Collection[str] = (), asked: Asked = NOTHING) -> str | None:
        keys = [key for key in self._keys if key not in without] if without else self._keys
        return self._random.choice(keys) if keys else None

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._keys)


def _least_request(random: Random) -> Selection:
    return LeastRequest()


def _least_work(random: Random) -> Selection:
    return LeastWork()


def _round_robin(random: Random) -> Selection:
    return RoundRobin()


ALGORITHMS: dict[str, Callable[[Random], Selection]] = {
    "least-request": _least_request,
    "least-work": _least_work,
    "round-robin": _round_robin,
    "random": RandomChoice,
}
