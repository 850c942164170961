"""
What a client wishes for its request beside the work itself, read from its headers.

What comes of a wish is decided by the scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen
from twisted.web.server import Request

from sgl_droute.api.entry.door import caller_of, digest_of
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.capabilities import RequiredEpoch

# Requests that a client may announce for one batch.
LARGEST_BATCH = 1_000_000
_LONGEST_NAME = 200
_LONGEST_SHOWN = 100
_WHOLE = re.compile(r"[+-]?[0-9]+")
_MILLISECONDS = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}")
_EPOCH = re.compile(r"(>?=)[ \t]*([0-9]{1,15})")
_VISIBLE = re.compile(r"[!-~]+")
_YES = ("1", "true", "yes")

_PRIORITY = b"X-Priority"
_DEADLINE = b"X-Deadline-Ms"
_BATCH = b"X-Rollout-Batch"
_SIZE = b"X-Rollout-Size"
_GROUP = b"X-Rollout-Group"
_WHY = b"X-Router-Why"
_REQUIRED = b"X-Require-Epoch"
_CLIENT = b"X-Client-Id"
_KEY = b"Authorization"
_WISHES = frozenset({_PRIORITY, _DEADLINE, _BATCH, _SIZE, _GROUP, _WHY, _REQUIRED})
_KNOWN = _WISHES | {_CLIENT, _KEY}

Given = dict[bytes, Sequence[bytes]]


@frozen
class Wishes:
    """
    What one request's client wishes.

    Attributes:
        client: Who asks: the name of its key, or a digest of what it sends as one where keys are
            not asked for, or the name it gives itself, or its address.
        priority: Higher first; 0 is usual.
        deadline: When the answer must be there (seconds, on the clock of who asked).
        batch: The rollout batch that it belongs to.
        size: How many requests that batch will have.
        group: Requests of the same group are best served by the same worker.
        why: Whether the answer shall tell how its worker was chosen.
        epoch: The weights epochs that its worker may have; None for any.
        share: Turns that its client has in line for one of a usual client.
    """

    client: str
    priority: int = 0
    deadline: float | None = None
    batch: str | None = None
    size: int | None = None
    group: str | None = None
    why: bool = False
    epoch: RequiredEpoch | None = None
    share: float = 1.0


def wishes_of(request: Request, *, max_priority: int, now: float) -> Wishes:
    """
    The wishes of *request*.

    Args:
        max_priority: Priorities are brought within this, above and below zero.
        now: What the deadline counts from (seconds).

    Raises:
        BadRequest: A header has no value that it may have, or is there twice.
    """
    headers = request.requestHeaders.getAllRawHeaders()
    given = {name: values for name, values in headers if name in _KNOWN}
    caller = caller_of(request)
    client = caller.client or _client(request, given)
    if _WISHES.isdisjoint(given):
        return Wishes(client, share=caller.share)
    batch, size = _name(given, _BATCH), _size(given)
    if batch is not None and batch.startswith("/"):
        raise _bad(_BATCH, "a name that does not begin with a slash", batch)
    if size is not None and batch is None:
        raise BadRequest("X-Rollout-Size needs X-Rollout-Batch beside it")
    return Wishes(
        client,
        _priority(given, max_priority),
        _deadline(given, now),
        batch,
        size,
        _name(given, _GROUP),
        (_text(given, _WHY) or "").lower() in _YES,
        _epoch(given),
        caller.share,
    )


def _client(request: Request, given: Given) -> str:
    if _KEY in given:
        return f"key:{digest_of(given[_KEY])}"
    name = _name(given, _CLIENT)
    if name is not None:
        return "id:" + name
    return f"ip:{getattr(request.getClientAddress(), 'host', '')}"


def _priority(given: Given, most: int) -> int:
    text = _text(given, _PRIORITY)
    if text is None:
        return 0
    return max(-most, min(most, _whole(_PRIORITY, text)))


def _deadline(given: Given, now: float) -> float | None:
    text = _text(given, _DEADLINE)
    if text is None:
        return None
    if not _MILLISECONDS.fullmatch(text) or float(text) <= 0:
        raise _bad(_DEADLINE, "a number of milliseconds above 0", text)
    return now + float(text) / 1000


def _size(given: Given) -> int | None:
    text = _text(given, _SIZE)
    if text is None:
        return None
    size = _whole(_SIZE, text)
    if not 1 <= size <= LARGEST_BATCH:
        raise _bad(_SIZE, f"from 1 to {LARGEST_BATCH}", text)
    return size


def _epoch(given: Given) -> RequiredEpoch | None:
    text = _text(given, _REQUIRED)
    if text is None:
        return None
    found = _EPOCH.fullmatch(text)
    if found is None:
        raise _bad(_REQUIRED, "=N or >=N with a weights epoch N", text)
    operator, number = found.groups()
    return RequiredEpoch(int(number), exact=operator == "=")


def _name(given: Given, header: bytes) -> str | None:
    text = _text(given, header)
    if text is not None and not (len(text) <= _LONGEST_NAME and _VISIBLE.fullmatch(text)):
        raise _bad(header, f"1 to {_LONGEST_NAME} visible ASCII characters", text)
    return text


def _whole(header: bytes, text: str) -> int:
    try:
        if _WHOLE.fullmatch(text):
            return int(text)
    except ValueError:
        pass  # more digits than Python reads
    raise _bad(header, "a whole number", text)


def _text(given: Given, header: bytes) -> str | None:
    values = given.get(header)
    if values is None:
        return None
    if len(values) > 1:
        raise BadRequest(f"{header.decode('ascii')} is given {len(values)} times")
    return values[0].decode("latin-1").strip(" \t")


def _bad(header: bytes, expected: str, text: str) -> BadRequest:
    shown = repr(text[:_LONGEST_SHOWN])
    return BadRequest(f"{header.decode('ascii')} must be {expected}, not {shown}")
