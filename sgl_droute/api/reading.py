"""
Request bodies and parameters that the router itself reads. Those for workers are never judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, TypeVar, cast

from twisted.web.server import Request

from sgl_droute.api.forwarded import spooled_body
from sgl_droute.errors import BadRequest, BodyTooLarge

_LARGEST_BODY = 1 << 16
_COUNT = re.compile("[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")
T = TypeVar("T", bound=str)
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def json_fields(request: Request, known: Collection[str]) -> dict[str, Any]:
    """
    The JSON object in the body of *request*.

    Raises:
        BadRequest: It is none, or has other fields than the *known* ones.
        BodyTooLarge: It is larger than any such object.
    """
    spool = spooled_body(request)
    if spool.length > _LARGEST_BODY:
        raise BodyTooLarge(f"The request body is larger than {_LARGEST_BODY} bytes")
    try:
        fields = json.loads(spool.read())
    except (ValueError, RecursionError) as problem:
        raise BadRequest(f"The request body is not JSON: {problem}") from problem
    if not isinstance(fields, dict):
        raise BadRequest("The request body must be a JSON object")
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise BadRequest(f"Unknown fields: {', '.join(unknown)}; known: {', '.join(known)}")
    return fields


def parameter(request: Request, *names: str) -> str | None:
    """
    The first value of the query parameter with the first of *names* that is there; None without.

    Raises:
        BadRequest: It is not UTF-8.
    """
    for name in names:
        values = request.args.get(name.encode("ascii"))
        if values:
            try:
                return str(values[0], "utf-8")
            except UnicodeDecodeError:
                raise BadRequest(f"{name} is not UTF-8") from None
    return None


def flag(request: Request, name: str) -> bool:
    """
    Whether the query parameter *name* is ``true`` or ``1``; false without it.

    Raises:
        BadRequest: It is anything but these, ``false`` or ``0``.
    """
    text = parameter(request, name)
    if text is None:
        return False
    if text.lower() not in _WORDS:
        raise BadRequest(f"{name} must be true or false, not {text!r}")
    return _WORDS[text.lower()]


def choice(request: Request, name: str, among: Sequence[T]) -> T | None:
    """
    The query parameter *name*, one of *among*; None without it.

    Raises:
        BadRequest: It is none of these.
    """
    text = parameter(request, name)
    if text is None:
        return None
    if text not in among:
        raise BadRequest(f"{name} must be one of {', '.join(among)}, not {text!r}")
    return among[among.index(cast(T, text))]


def count(request: Request, name: str) -> int | None:
    """
    The query parameter *name*, a count from 1; None without it.

    Raises:
        BadRequest: It is no such count.
    """
    text = parameter(request, name)
    if text is None:
        return None
    if not _COUNT.fullmatch(text) or not int(text):
        raise BadRequest(f"{name} must be a whole number, 1 or more, not {text!r}")
    return int(text)


def seconds(request: Request, name: str) -> float | None:
    """
    The query parameter *name*, a number of seconds, 0 or more; None without it.

    Raises:
        BadRequest: It is no such number.
    """
    text = parameter(request, name)
    if text is None:
        return None
    if not _SECONDS.fullmatch(text):
        raise BadRequest(f"{name} must be a number of seconds, 0 or more, not {text!r}")
    return float(text)
