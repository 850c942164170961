"""
The LoRA set of the fleet: the shortest list of calls that gives it to a worker just started.

A worker holds its adapters for all requests alike and forgets them when it restarts. Pure: who has
been called, and when, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

SET = "/v1/set_lora"
MERGE = "/v1/merge_lora_weights"
UNMERGE = "/v1/unmerge_lora_weights"
PATHS = (SET, MERGE, UNMERGE)

# Nicknames whose path is remembered.
_MOST_NAMES = 1000


@frozen
class LoraCall:
    """
    One call that changes a worker's adapters.

    Attributes:
        path: One of `PATHS`.
        body: Its JSON.
    """

    path: str
    body: Mapping[str, Any]

    @property
    def targets(self) -> frozenset[str]:
        """The parts of the model it is for; ``all`` if it names none."""
        named = [each for each in _listed(self.body.get("target")) if isinstance(each, str)]
        return frozenset(named) or frozenset({"all"})

    def covers(self, other: LoraCall) -> bool:
        """Whether all that *other* did is undone or done again by this later call."""
        same_parts = "all" in self.targets or other.targets <= self.targets
        return same_parts and (self.path == SET or other.path != SET)


@frozen
class LoraSet:
    """
    What the adapters of every worker are meant to be; false while nothing was ever set.

    Attributes:
        calls: What gives it to a worker just started, in order.
        known: The path behind each nickname that was ever set; a worker needs it only the first
            time, a restarted one needs it again.
    """

    calls: tuple[LoraCall, ...] = ()
    known: Mapping[str, str] = field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.calls)

    @property
    def single(self) -> bool:
        """Whether its last call alone gives all of it."""
        return len(self.calls) < 2

    def after(self, call: LoraCall) -> LoraSet:
        """
        The set after *call* succeeded.
        """
        known = dict(self.known)
        if call.path == SET:
            call = evolve(call, body=self._with_paths(call.body))
            for name, path in _named_paths(call.body):
                if path is not None:
                    known.pop(name, None)
                    known[name] = path
            for name in list(known)[: max(0, len(known) - _MOST_NAMES)]:
                del known[name]
        kept = [each for each in self.calls if not call.covers(each)]
        if call.path != SET and not kept:
            return self  # there is nothing to merge, or to unmerge, in a worker just started
        return LoraSet((*kept, call), known)

    def saved(self) -> list[dict[str, Any]]:
        """
        All of it as JSON objects.
        """
        calls: list[dict[str, Any]] = [{"path": c.path, "body": dict(c.body)} for c in self.calls]
        return [*calls, {"known": dict(self.known)}] if calls or self.known else []

    @classmethod
    def restored(cls, saved: Iterable[Mapping[str, Any]]) -> LoraSet:
        """
        The set that `saved` gave.
        """
        calls, known = [], {}
        for each in saved:
            if "known" in each:
                known = dict(each["known"])
            else:
                calls.append(LoraCall(str(each["path"]), dict(each["body"])))
        return cls(tuple(calls), known)

    def _with_paths(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        pairs = _named_paths(body)
        paths = [path or self.known.get(name) for name, path in pairs]
        if not any(paths):
            return body
        many = isinstance(body.get("lora_nickname"), (list, tuple))
        return {**body, "lora_path": paths if many else paths[0]}


def has_no_loras(answer: str) -> bool:
    """
    Whether a worker's *answer* to a LoRA call says that its pipeline takes no adapters at all: such
    a worker has nothing to catch up with.
    """
    return "Lora is not enabled" in answer


def _named_paths(body: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """
    Each nickname with its path; one path alone is for all of them, as workers take it.
    """
    names = _listed(body.get("lora_nickname"))
    given = body.get("lora_path")
    paths = list(given) if isinstance(given, (list, tuple)) else [given] * len(names)
    paths += [None] * (len(names) - len(paths))
    return [
        (name, path if isinstance(path, str) else None)
        for name, path in zip(names, paths, strict=False)
        if isinstance(name, str)
    ]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
