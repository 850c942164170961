"""
One webhook: what it tells, and when it is tried again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen
from attrs.validators import ge

# Seconds before the second try and at most between two, and for how long it is tried in all.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 3600.0
PATIENCE = 86400.0
# Tries after which the pause does not grow any more, at the latest.
_DOUBLED = 30

# What a worker tells of a job that whoever asked for it may want to know, and how much of it.
_TOLD = (
    "model",
    "size",
    "seconds",
    "quality",
    "format",
    "created_at",
    "completed_at",
    "num_outputs",
    "inference_time_s",
    "error",
)
_LONGEST_TEXT = 1000
_LONGEST_NAME = 100
_MOST_MEMBERS = 10
_LARGEST_NUMBER = 2**53


@frozen(kw_only=True)
class Webhook:
    """
    A call that is to be made when a job is over.

    Attributes:
        kind: The job's kind; with *id* the key.
        id: The job's id.
        url: What is called, normalised.
        event: The id of what it tells, the same at each try.
        body: What it tells; empty until the job is over.
        tries: How often it was made in vain (count).
        due: When it is to be made next (seconds since 1970).
        until: After that it is not made any more.
    """

    kind: str
    id: str
    url: str
    event: str
    body: str = ""
    tries: int = field(default=0, validator=ge(0))
    due: float = 0.0
    until: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """By what it is known."""
        return self.kind, self.id

    @property
    def over(self) -> bool:
        """Whether its job is."""
        return bool(self.body)


def tried_in_vain(webhook: Webhook, now: float) -> Webhook | None:
    """
    *webhook* after a try that failed *now*; None if that was the last one.
    """
    pause = min(FIRST_PAUSE * 2 ** min(webhook.tries, _DOUBLED), LONGEST_PAUSE)
    after = evolve(webhook, tries=webhook.tries + 1, due=now + pause)
    return after if after.due <= after.until else None


def body_of(event: str, kind: str, id: str, how: str, fields: Mapping[str, Any], now: float) -> str:
    """
    What a webhook tells of a job that is over, as one line of JSON; nothing of its worker.

    Args:
        how: ``completed``, ``failed`` or ``lost``.
        fields: What its worker told of it.
    """
    told = {name: _plain(fields[name]) for name in _TOLD if name in fields}
    data = {"id": id, "kind": kind, "status": how, **told}
    return json.dumps(
        {"id": event, "type": f"{kind}.{how}", "created_at": int(now), "data": data},
        separators=(",", ":"),
    )


def _plain(value: Any) -> Any:
    """
    *value* as far as it is short and JSON; of an object, such as an error, its members.
    """
    if isinstance(value, dict):
        return {
            name[:_LONGEST_NAME]: _scalar(each)
            for name, each in list(value.items())[:_MOST_MEMBERS]
        }
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST_NUMBER:
        return value
    return None
