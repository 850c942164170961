"""
Which worker holds an image, a video or a mesh.

It remembers what it is told, for as long as that is used, and what nobody has for a few seconds.
Whether a worker is still there it does not know.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from sys import intern

from attrs import define, evolve, field, frozen
from attrs.validators import ge, gt

# Seconds for which "every worker said no" is believed, and how many such ids are kept.
UNKNOWN_FOR = 5.0
MOST_UNKNOWN = 10_000
LONGEST_ID = 256
# Uses are noted in steps of this share of the time to live, so that polling causes no writes.
_STEP = 1 / 100

# The life of an entry whose end would prove nothing.
DOUBTED = -2

_Key = tuple[str, str]


@frozen
class Entry:
    """
    Who holds an id.

    Attributes:
        worker: URL of the worker.
        used: Wall-clock time of the last use (seconds), a hundredth of the time to live too early
            at most.
        epoch: The weights epoch that the thing was made at, as ``X-Weights-Epoch`` tells it; empty
            when not known.
        life: Number of the worker's process that had it last, as `Owners.learn` was told; -1 when
            not known, `DOUBTED` when it may have been deleted since.
    """

    worker: str
    used: float
    epoch: str = ""
    life: int = -1


@define(eq=False)
class Owners:
    """
    The ids that workers gave out, by kind: "image", "video", "mesh".

    Args:
        ttl: Seconds that an id is kept after its last use; up to a hundredth more.
        most: Ids kept (count); beyond that the least recently used are dropped.
        on_change: Called with kind, id and entry when an id is learned, changes its worker or epoch
            or is used a hundredth of *ttl* after its entry says; with None when it is dropped.
    """

    ttl: float = field(validator=gt(0))
    most: int = field(default=250_000, validator=ge(1))
    on_change: Callable[[str, str, Entry | None], object] = lambda kind, id, entry: None
    _entries: OrderedDict[_Key, Entry] = field(factory=OrderedDict, init=False)
    _unknown: OrderedDict[_Key, float] = field(factory=OrderedDict, init=False)

    def restore(self, entries: Iterable[tuple[str, str, Entry]]) -> None:
        """
        Take over kinds, ids and entries that `on_change` told earlier; for an empty map.

        They are not told again; those that are too old or too many are told as dropped in time.
        Which process had them is not taken over: it may be another one by now.
        """
        for kind, id, entry in sorted(entries, key=lambda each: each[2].used):
            worker, epoch = intern(entry.worker), intern(entry.epoch)
            self._entries[kind, id] = Entry(worker, entry.used, epoch)
            self._shrink()

    def learn(
        self, kind: str, id: str, worker: str, now: float, *, epoch: str = "", life: int = -1
    ) -> None:
        """
        Note that *worker* holds the id; ids that are empty, over 256 characters or unprintable are
        not kept.

        Args:
            epoch: The weights epoch that the thing was made at; empty for what is known already.
            life: A number that no two processes at the URL share; -1 for what is known already.
        """
        if not keepable(id):
            return
        key = (kind, id)
        self._unknown.pop(key, None)
        self._expire(now)
        entry = self._entries.get(key)
        if entry is None or entry.worker != worker:
            self._keep(key, Entry(worker, now, intern(epoch), life))
            self._shrink()
        elif epoch not in ("", entry.epoch):
            self._keep(key, Entry(worker, now, intern(epoch), _later(entry.life, life)))
        else:
            self._live(key, life)
            self._use(key, self._entries[key], now)

    def owner(self, kind: str, id: str, now: float) -> str | None:
        """
        URL of the worker that holds the id, None if that is not known; this is a use of it.
        """
        self._expire(now)
        key = (kind, id)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._old(entry, now):
            self._drop(key)
            return None
        self._use(key, entry, now)
        return entry.worker

    def entry(self, kind: str, id: str) -> Entry | None:
        """
        What is kept of the id; this is no use of it.
        """
        return self._entries.get((kind, id))

    def doubt(self, kind: str, id: str) -> None:
        """
        Note that the worker may forget the id without being restarted; true until it has another
        worker.
        """
        if (kind, id) in self._entries:
            self._live((kind, id), DOUBTED)

    def forget(self, kind: str, id: str) -> None:
        """
        Note that nobody holds the id any more, as far as is known.
        """
        if (kind, id) in self._entries:
            self._drop((kind, id))

    def unknown(self, kind: str, id: str, now: float) -> None:
        """
        Note that every worker said no; ignored if the id was learned meanwhile.
        """
        key = (kind, id)
        if key in self._entries or not keepable(id):
            return
        self._unknown[key] = now
        self._unknown.move_to_end(key)
        if len(self._unknown) > MOST_UNKNOWN:
            self._unknown.popitem(last=False)

    def is_unknown(self, kind: str, id: str, now: float) -> bool:
        """
        Whether every worker said no within the last 5 s.
        """
        said = self._unknown.get((kind, id))
        if said is None:
            return False
        # A clock that was set back must not keep it for longer.
        if 0 <= now - said < UNKNOWN_FOR:
            return True
        del self._unknown[kind, id]
        return False

    def clear_unknown(self) -> None:
        """
        Believe no "no" any longer: somebody new may know.
        """
        self._unknown.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _live(self, key: _Key, life: int) -> None:
        entry = self._entries[key]
        life = _later(entry.life, life)
        if life != entry.life:  # told nobody: it is no use after a restart
            self._entries[key] = evolve(entry, life=life)

    def _use(self, key: _Key, entry: Entry, now: float) -> None:
        self._entries.move_to_end(key)
        if abs(now - entry.used) > self.ttl * _STEP:
            self._keep(key, evolve(entry, used=now))

    def _keep(self, key: _Key, entry: Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self.on_change(*key, entry)

    def _drop(self, key: _Key) -> None:
        del self._entries[key]
        self.on_change(*key, None)

    def _shrink(self) -> None:
        while len(self._entries) > self.most:
            self._drop(next(iter(self._entries)))

    def _expire(self, now: float) -> None:
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if not self._old(entry, now):
                break
            self._drop(key)

    def _old(self, entry: Entry, now: float) -> bool:
        return now - entry.used > self.ttl * (1 + _STEP)


def _later(known: int, life: int) -> int:
    return known if known == DOUBTED or life == -1 else life


def keepable(id: str) -> bool:
    """
    Whether an id is one that is kept: 1 to 256 printable characters that fit into one path segment.
    """
    return 0 < len(id) <= LONGEST_ID and id.isprintable() and "/" not in id
