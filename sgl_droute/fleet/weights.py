"""
Which weights all workers of a model are to have, and which a worker has.

Workers keep no version number and forget everything when they restart. So each call that changes
what they generate gets a number here, and a worker has those calls that it was seen to take.
Pure: who is called, and when, is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from attrs import evolve, field, frozen

from sgl_droute.fleet.loras import MERGE, SET, LoraCall, LoraSet
from sgl_droute.fleet.modules import (
    NONE,
    UNNAMED_TENSORS,
    Modules,
    apart,
    joined,
    within,
    without,
)

DISK = "/update_weights_from_disk"
TENSOR = "/update_weights_from_tensor"


@frozen
class Update:
    """
    One call that loads weights.

    Attributes:
        number: Its place among all calls that change what the fleet generates, from 1.
        path: `DISK` or `TENSOR`.
        body: Its body as it came; empty for tensors, which are bound to a GPU of their sender.
        modules: The parts of the model that it replaces.
    """

    number: int
    path: str
    body: bytes = b""
    modules: Modules = None

    @property
    def source(self) -> str | None:
        """Where its weights come from; None where it does not say."""
        try:
            path = json.loads(self.body or b"{}").get("model_path")
        except (ValueError, AttributeError, RecursionError):
            return None
        return path if isinstance(path, str) else None

    @property
    def replayable(self) -> bool:
        """Whether another worker can be given it later."""
        return self.path == DISK

    # What becomes of a fleet that is told to do it, and of its workers; as of an `Adaptation`.

    def desired(self, before: Desired) -> Desired:
        return before.updated(self)

    def took(self, actual: Actual, before: Desired, now: Desired) -> Actual:
        return actual.took(self, now)

    def refused(self, actual: Actual) -> Actual:
        return actual

    def lost(self, actual: Actual, now: Desired) -> Actual:
        return actual.lost(self, now)

    def saved(self) -> dict[str, Any]:
        """
        It as a JSON object.
        """
        return {
            "number": self.number,
            "path": self.path,
            "body": self.body.decode("latin-1"),
            "modules": None if self.modules is None else sorted(self.modules),
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Update:
        """
        What `saved` gave.
        """
        return cls(
            int(saved["number"]),
            str(saved["path"]),
            str(saved["body"]).encode("latin-1"),
            _modules(saved["modules"]),
        )


@frozen
class Adaptation:
    """
    One call that changes the LoRA adapters.

    Attributes:
        number: As of an `Update`.
        call: The call.
    """

    number: int
    call: LoraCall

    def desired(self, before: Desired) -> Desired:
        """
        What is to be had when a worker took it.
        """
        return before.adapted(self.call, self.number)

    def took(self, actual: Actual, before: Desired, now: Desired) -> Actual:
        """
        What a worker has that took it.

        Args:
            before: What was desired before anybody took it.
            now: What is desired by now.
        """
        return actual.adapted(self.call, before, now)

    def refused(self, actual: Actual) -> Actual:
        """
        What a worker has that refused it: its parameters got other names all the same.
        """
        return actual.lora_called(self.call, actual.loras)

    def lost(self, actual: Actual, now: Desired) -> Actual:
        """
        What a worker has if nobody knows what it made of it.
        """
        return evolve(actual.lora_called(self.call, None, answered=False), epoch=None)

    def saved(self) -> dict[str, Any]:
        """
        It as a JSON object.
        """
        return {"number": self.number, "lora": self.call.path, "body": dict(self.call.body)}


Change = Update | Adaptation


def change_restored(saved: Mapping[str, Any]) -> Change:
    """
    What the ``saved`` of a change gave.
    """
    if "lora" in saved:
        return Adaptation(int(saved["number"]), LoraCall(str(saved["lora"]), dict(saved["body"])))
    return Update.restored(saved)


def modules_of(path: str, fields: Mapping[str, Any] | None) -> Modules:
    """
    The parts of a model that an update replaces.

    Args:
        path: `DISK` or `TENSOR`.
        fields: The JSON of its body; None if that was not read.
    """
    named = None if fields is None else fields.get("target_modules")
    if isinstance(named, (list, tuple)) and named and "all" not in named:
        return frozenset(str(each) for each in named)
    return None if path == DISK else UNNAMED_TENSORS


@frozen
class Desired:
    """
    What all workers of one model are to have.

    Attributes:
        epoch: Number of its last change; the first one makes it 1.
        used: Highest number that may have been given to any, before a crash of the router forgot
            that; no later one gets it.
        updates: What a worker just started needs of weights, in order: the last update of all
            modules and all that came after it, but for those that a later one replaces.
        loras: The LoRA set, to be given after them.
        loras_number: Number of the call that made that set; 0 while there is none.
        sums: Checksum of each module that is known, and the LoRA history (see `Actual`) for which
            it holds; of modules that no adapter touches it holds for any.
    """

    epoch: int = 0
    used: int = 0
    updates: tuple[Update, ...] = ()
    loras: LoraSet = field(factory=LoraSet)
    loras_number: int = 0
    sums: Mapping[str, tuple[str, str]] = field(factory=dict)

    def updated(self, update: Update) -> Desired:
        """
        This after *update* was taken.
        """
        kept = (each for each in self.updates if not within(each.modules, update.modules))
        untouched = {
            name: known
            for name, known in self.sums.items()
            if apart(frozenset({name}), update.modules)
        }
        return evolve(self, epoch=self.next, updates=(*kept, update), sums=untouched)

    def adapted(self, call: LoraCall, number: int) -> Desired:
        """
        This after a LoRA *call* was taken; itself if that changes nothing.
        """
        loras = self.loras.after(call)
        if loras is self.loras:
            return self
        return evolve(self, epoch=self.next, loras=loras, loras_number=number)

    @property
    def next(self) -> int:
        """The epoch that the next change leads to."""
        return max(self.epoch, self.used) + 1

    def after_a_crash(self) -> Desired:
        """
        This when the last change of it may have been forgotten.
        """
        return evolve(self, used=self.next)

    def has(self, change: Change) -> bool:
        """Whether *change* is part of it."""
        return change.number == self.loras_number or change.number in self.numbers

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of its updates."""
        return frozenset(update.number for update in self.updates)

    def missing(self, actual: Actual) -> tuple[Update, ...]:
        """
        The updates that bring a worker that has *actual* up to date, in order.
        """
        todo: list[Update] = []
        for update in self.updates:
            lacks = not actual.sure or update.number not in actual.has
            torn = not apart(update.modules, actual.torn)
            undone = any(not apart(update.modules, each.modules) for each in todo)
            if lacks or torn or undone:
                todo.append(update)
        return tuple(todo)

    def cures(self, actual: Actual) -> bool:
        """
        Whether `missing` replaces all of which nobody knows what it is.
        """
        return within(actual.torn, joined(update.modules for update in self.missing(actual)))

    def saved(self) -> dict[str, Any]:
        """
        It as a JSON object.
        """
        return {
            "epoch": self.epoch,
            "used": self.used,
            "updates": [update.saved() for update in self.updates],
            "loras": self.loras.saved(),
            "loras_number": self.loras_number,
            "sums": {name: list(known) for name, known in self.sums.items()},
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Desired:
        """
        What `saved` gave.
        """
        return cls(
            int(saved["epoch"]),
            int(saved["used"]),
            tuple(Update.restored(each) for each in saved["updates"]),
            LoraSet.restored(saved["loras"]),
            int(saved["loras_number"]),
            {str(name): (str(value), str(under)) for name, (value, under) in saved["sums"].items()},
        )


@frozen
class Actual:
    """
    What one worker has, since its process started.

    Attributes:
        epoch: The epoch of its model that it has; None if it has something between two, or nobody
            knows.
        has: Numbers of the updates that it took, of those that are still needed.
        loras: Number of the LoRA set that it has; None if it has something else.
        history: A digest of all LoRA calls that it was sent: the checksums of its transformers
            depend on them. Empty without any, None if that is not known.
        torn: The modules of which nobody knows what they are.
        sure: Whether the process that has this is still there. It is not while the router, after
            a restart of its own, knows no better.
        stranded: An operator wants it to get no work until it is restarted.
        source: Where the last weights came from that it took; None since its start.
        calls: Calls that changed it, as far as they were sent (count).
    """

    epoch: int | None = 0
    has: frozenset[int] = frozenset()
    loras: int | None = 0
    history: str | None = ""
    torn: Modules = NONE
    sure: bool = True
    stranded: bool = False
    source: str | None = None
    calls: int = 0

    @property
    def known(self) -> bool:
        """Whether it is known what this is, be that what is wanted or not."""
        return self.torn == NONE and self.loras is not None

    def current(self, desired: Desired) -> bool:
        """
        Whether this is what is *desired*.
        """
        # To be at the start needs no proof: a process that took its place is there too.
        sure = self.sure or not (desired.numbers or desired.loras_number)
        whole = sure and not self.stranded and self.torn == NONE
        return whole and desired.numbers <= self.has and self.loras == desired.loras_number

    def called(self) -> Actual:
        """
        This when one more call is sent.
        """
        return evolve(self, calls=self.calls + 1)

    def took(self, update: Update, desired: Desired) -> Actual:
        """
        This after the worker took *update*. If that is none of those that are *desired* by now,
        something else is to replace it.
        """
        if update.number not in desired.numbers:
            return self.lost(update, desired)
        # Whoever takes all weights anew has these, whatever it had.
        before = self.begun_anew() if update.modules is None and not self.sure else self
        others = {each.number: each.modules for each in desired.updates}
        kept = {
            number
            for number in before.has & others.keys()
            if number < update.number or apart(others[number], update.modules)
        }
        now = evolve(
            before,
            has=frozenset(kept | {update.number}),
            torn=without(before.torn, update.modules),
            source=update.source if update.replayable else self.source,
        )
        return now.labelled(desired)

    def adapted(self, call: LoraCall, before: Desired, now: Desired) -> Actual:
        """
        This after the worker took a LoRA *call*.

        Args:
            before: What was desired until then.
            now: What is desired by now.
        """
        has_all = self.loras == before.loras_number or (self.loras == 0 and now.loras.single)
        whole = "all" in call.targets and (call.path == SET or not now.loras)
        loras = now.loras_number if has_all or (whole and call.path != MERGE) else None
        return self.lora_called(call, loras).labelled(now)

    def lora_called(self, call: LoraCall, loras: int | None, *, answered: bool = True) -> Actual:
        """
        This after the worker was sent a LoRA *call*, and has set *loras* now.
        """
        history = _further(self.history, call) if answered else None
        return evolve(self, loras=loras, history=history)

    def lost(self, update: Update, desired: Desired) -> Actual:
        """
        This when nobody knows whether, or how far, the worker took *update*.
        """
        others = {each.number: each.modules for each in desired.updates}
        kept = {
            number
            for number in self.has & others.keys()
            if number != update.number and apart(others[number], update.modules)
        }
        torn = joined((self.torn, update.modules))
        return evolve(self, epoch=None, has=frozenset(kept), torn=torn)

    def proven(self, desired: Desired, sums: Mapping[str, str]) -> Actual:
        """
        This when checksums have shown that its weights are the *desired* ones. Adapters that are
        not merged do not show in them; that its process is the one that was given them does, as
        the sum of a transformer is another one until the first of them.

        Args:
            sums: The checksums.
        """
        told = any(
            self.history and desired.sums.get(name) == (value, self.history)
            for name, value in sums.items()
        )
        same = self.sure or self.loras == 0 or told
        now = evolve(
            self,
            has=desired.numbers,
            torn=NONE,
            sure=True,
            loras=self.loras if same else None,
            history=self.history if same else None,
        )
        return now.labelled(desired)

    def begun_anew(self) -> Actual:
        """
        This when all has to be given to it. Adapters that it never had it does not have now.
        """
        return evolve(
            self,
            has=frozenset(),
            loras=0 if self.loras == 0 else None,
            history="" if self.history == "" else None,
            sure=True,
            epoch=None,
        )

    def labelled(self, desired: Desired) -> Actual:
        """
        This with its epoch, as far as that can be told.
        """
        return evolve(self, epoch=desired.epoch if self.current(desired) else None)

    def saved(self) -> dict[str, Any]:
        """
        It as a JSON object.
        """
        return {
            "epoch": self.epoch,
            "has": sorted(self.has),
            "loras": self.loras,
            "history": self.history,
            "torn": None if self.torn is None else sorted(self.torn),
            "stranded": self.stranded,
            "source": self.source,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Actual:
        """
        What `saved` gave, of a worker that may have been restarted since.
        """
        return cls(
            epoch=saved["epoch"],
            has=frozenset(saved["has"]),
            loras=saved["loras"],
            history=saved["history"],
            torn=_modules(saved["torn"]),
            stranded=bool(saved["stranded"]),
            source=saved["source"],
            sure=False,
        )


def _further(history: str | None, call: LoraCall) -> str | None:
    if history is None:
        return None
    told = f"{history}\n{call.path}\n{sorted(call.body.items(), key=str)}"
    return sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _modules(saved: Any) -> Modules:
    return None if saved is None else frozenset(str(each) for each in saved)
