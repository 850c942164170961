"""
What may come from a worker instead of what was asked for, and passes on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgl_droute.api.openapi.words import TEXT, Part, ref

_DETAIL = {"application/json": {"schema": ref("WorkerError")}}
_DEAD = {"application/json": {"schema": ref("WorkerDead")}}
_PLAIN: dict[str, Any] = {"text/plain": {"schema": TEXT}}


def _from_worker(description: str, **content: Any) -> Part:
    return {"description": f"The worker's: {description}", "content": content}


UNKNOWN = _from_worker("it does not know that, or has no such route.", **_DETAIL)
REFUSALS: Mapping[int, Part] = {
    400: _from_worker("it does not take that.", **_DETAIL),
    422: _from_worker("a field is missing or has a wrong type.", **_DETAIL),
    503: _from_worker("its GPU process is gone.", **_DEAD),
}
FAILED = _from_worker("it failed at the work; its log says why.", **_PLAIN, **_DETAIL)
NOT_ALLOWED = _from_worker("its route does not take this method.", **_DETAIL)
# A route that a prompt enhancer stands behind.
UPSTREAM: Mapping[int, Part] = {
    502: _from_worker("its prompt enhancer failed.", **_DETAIL),
    504: _from_worker("its prompt enhancer took too long.", **_DETAIL),
}
GENERATION: Mapping[int, Part] = {**REFUSALS, 500: FAILED}
READING: Mapping[int, Part] = {404: UNKNOWN}
FILE: Mapping[int, Part] = {
    206: {"description": "The part that `Range` asks for.", "content": {"*/*": {}}},
    400: _from_worker(
        "the file is in cloud storage, or `Range` is malformed.", **_PLAIN, **_DETAIL
    ),
    404: _from_worker("there is no such file, or not yet.", **_DETAIL),
    416: _from_worker("the file has no such part.", **_PLAIN),
    422: _from_worker("`variant` is no number.", **_DETAIL),
}
