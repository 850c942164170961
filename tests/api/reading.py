"""
What a worker reads from a body: with the parsers that workers have, and in all ways that they use.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from io import BytesIO
from typing import Any

import msgpack  # type: ignore[import-untyped]
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, Cooperator

from sgl_droute.api.fields.file_fields import named_files
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.naming import Meaning, meaning, names_file
from sgl_droute.workers.bodies import Spool

# Workers read what is in these also where it is JSON in a text.
_EXTRAS = ("extra_body", "extra_json", "extra_args", "extra_params")

REFUSED = "refused"


def router_finds(body: bytes, content_type: str | None) -> str | None:
    """
    The field that the router finds; `REFUSED` if it does not take the body.
    """
    clock = Clock()
    cooperator = Cooperator(scheduler=lambda step: clock.callLater(0, step))
    found = named_files(Spool.of(BytesIO(body)), content_type, cooperator)
    outcome: list[Any] = []
    Deferred.fromCoroutine(found).addBoth(outcome.append)
    while not outcome:
        clock.advance(0)
    result = outcome[0]
    if isinstance(result, (str, type(None))):
        return result
    result.trap(BadRequest)
    return REFUSED


def worker_files(body: bytes, content_type: str | None) -> list[str]:
    """
    The fields that name files, for a worker that takes the body in any of the ways that there are.
    """
    found: list[str] = []
    kind = (content_type or "").lower()
    form = _form(body, content_type or "")
    is_form = "multipart/form-data" in kind
    fields = form + [
        (name, each)
        for name, value in form
        if isinstance(value, str) and name in _EXTRAS
        for each in [_json(value)]
    ]
    found += _files_of(fields)
    if not is_form:
        found += _files_of(_object(_json(body)))
    if "msgpack" in kind:
        found += _files_of(_object(_msgpack(body)))
    return found


def _form(body: bytes, content_type: str) -> list[tuple[str, Any]]:
    kind, _ = parse_options_header(content_type)
    parsers: dict[bytes, Any] = {
        b"multipart/form-data": MultiPartParser,
        b"application/x-www-form-urlencoded": FormParser,
    }
    if kind not in parsers:
        return []

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = parsers[kind](Headers({"content-type": content_type}), stream())
    try:
        parser.parse().send(None)
    except StopIteration as end:
        items: list[tuple[str, Any]] = end.value.multi_items()
        return items
    except (MultiPartException, UnicodeError, ValueError):
        return []
    finally:
        # Those too of parts that never ended, which nobody else knows.
        for file in getattr(parser, "_files_to_close_on_error", ()):
            file.close()
    raise AssertionError("the body is in memory")


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return None


class Pairs(list[tuple[Any, Any]]):
    """The members of an object, all of them."""


def _msgpack(body: bytes) -> Any:
    try:
        return msgpack.unpackb(body, raw=False, object_pairs_hook=Pairs)
    except (ValueError, msgpack.UnpackException):
        return None


def _object(value: Any) -> list[tuple[Any, Any]]:
    """What ``dict(value)`` has: workers make that of a body."""
    if isinstance(value, Pairs):
        return value
    try:
        return list(dict(value or {}).items())
    except (TypeError, ValueError):
        return []


def _files_of(fields: Any, within: Meaning | None = None) -> list[str]:
    found: list[str] = []
    for name, value in fields:
        name = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        if not isinstance(name, str):
            continue
        means = meaning(name)
        inner = means if means in (Meaning.PATH, Meaning.MEDIA) else within
        if name in _EXTRAS and isinstance(value, str):
            value = _json(value)
        if name in ("observation", "parameters") and isinstance(value, list):
            value = Pairs(_object(value))
        if isinstance(value, UploadFile):
            if "/" in (value.filename or ""):
                found.append(name)
        elif means in (Meaning.PATH, Meaning.MEDIA) or (
            means is Meaning.ID and isinstance(value, str)
        ):
            found += [name for text in _texts(value) if names_file(text, means)]
        if isinstance(value, Pairs):
            found += _files_of(value, inner)
        elif isinstance(value, list):
            found += _files_of([("", each) for each in value], inner)
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and not isinstance(value, Pairs):
        for each in value:
            yield from _texts(each)
