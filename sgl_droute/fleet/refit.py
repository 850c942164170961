"""
One update of the fleet's weights or adapters: whom it called, and what they made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import define, field

from sgl_droute.fleet.epochs import Model
from sgl_droute.fleet.weights import Change, Desired, change_restored


class Verdict(Enum):
    """
    What a worker made of a call that changes its weights or adapters.
    """

    TOOK = "took"
    # It has no use for the call, and needs nothing of it.
    EXEMPT = "exempt"
    # It kept what it had.
    REFUSED = "refused"
    # It answered otherwise: nobody knows what it has.
    FAILED = "failed"
    # It may have taken it, or may do so yet.
    LOST = "lost"


@define(eq=False)
class Refit:
    """
    One update.

    Attributes:
        change: What workers are told.
        path: The path of the call.
        body: Its body as it is told; cut, if it is long.
        mode: ``broadcast``, ``fenced`` or ``rolling``; ``resolve`` where an operator had it ended.
        when: When it began (seconds since 1970).
        models: The models that it is for; None among them for workers that have not said theirs.
        before: What was desired of each of them.
        outcomes: By URL of each worker that was called, what it made of it; None so far.
        reached: By each model whose epoch it raised, what that is since.
        seconds: How long it took; None while it is under way.
        note: How it ended, if not as usual.
    """

    change: Change
    path: str
    body: str
    mode: str
    when: float
    models: frozenset[Model]
    before: Mapping[Model, Desired] = field(factory=dict)
    outcomes: dict[str, Verdict | None] = field(factory=dict)
    reached: dict[Model, int] = field(factory=dict)
    seconds: float | None = None
    note: str = ""

    @property
    def unfinished(self) -> list[str]:
        """URLs of the workers that were called and of which nobody knows what they have."""
        unknown = (None, Verdict.LOST, Verdict.FAILED)
        return [url for url, verdict in self.outcomes.items() if verdict in unknown]

    def saved(self) -> dict[str, Any]:
        """
        It as a JSON object.
        """
        return {
            "change": self.change.saved(),
            "path": self.path,
            "body": self.body,
            "mode": self.mode,
            "when": self.when,
            "models": sorted(self.models, key=lambda model: model or ""),
            "outcomes": {url: each and each.value for url, each in self.outcomes.items()},
            "reached": [[model, epoch] for model, epoch in self.reached.items()],
            "seconds": self.seconds,
            "note": self.note,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Refit:
        """
        What `saved` gave.
        """
        return cls(
            change_restored(saved["change"]),
            saved["path"],
            saved["body"],
            saved["mode"],
            saved["when"],
            frozenset(saved["models"]),
            outcomes={url: each and Verdict(each) for url, each in saved["outcomes"].items()},
            reached={model: int(epoch) for model, epoch in saved["reached"]},
            seconds=saved["seconds"],
            note=saved["note"],
        )
