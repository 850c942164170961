"""
What clients are told of errors, for those who compare it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def told(body: bytes, ids: Sequence[str]) -> dict[str, Any]:
    """
    What an error's *body* says, but for its ``request_id``, which is the one of *ids*: the values
    of the header ``X-Request-Id``.
    """
    said: dict[str, Any] = json.loads(body)
    assert [said.pop("request_id")] == list(ids)
    assert ids[0]
    return said


def unknown(kind: str) -> dict[str, str]:
    """
    What is told of an id that nobody has.
    """
    return {"error": f"Unknown {kind}_id", "reason": "not_found"}


def incapable(kind: str) -> dict[str, str]:
    """
    What is told of work of a *kind* that no worker can do.
    """
    text = f"No {kind}-capable workers available in current worker pool."
    return {"error": text, "reason": "no_capable_worker"}
