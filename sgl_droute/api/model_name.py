"""
The model that a request names, read from its body.

Whether anybody serves that model is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from twisted.internet.task import Cooperator, TaskFinished
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Field, MultipartDecoder, NeedData, State

from sgl_droute.workers.bodies import Cursor, Spool

# Bytes of a JSON or URL-encoded body; larger ones are not read.
LARGEST_BODY = 1 << 20
LONGEST_NAME = 1024
_MOST_BYTES = 4 * LONGEST_NAME
_NAME = b"model"
# What Starlette, under the workers, takes of a form.
_MOST_FIELDS = 1000
# RFC 2046 5.1.1.
_LONGEST_BOUNDARY = 70
_STEP = 1 << 14
# Bytes that a form may have before its first part, and a part in its headers, beside one step. To
# parse headers takes up to a microsecond per byte.
_MOST_HEADERS = 1 << 12


async def named_model(spool: Spool, content_type: str | None, cooperator: Cooperator) -> str | None:
    """
    The ``model`` of a request; None if it names none that could be one.

    JSON is read up to 1 MiB, forms with files to their end if need be, 16 KiB at a time. Malformed
    bodies name none. A form that has the field twice means the first one.

    Args:
        content_type: The request's header; what is no form is taken for JSON.
    """
    kind, options = parse_options_header(content_type)
    name: object = None
    try:
        if kind.lower() == "multipart/form-data":
            name = await _in_multipart(spool, options.get("boundary", ""), cooperator)
        elif spool.length <= LARGEST_BODY:
            urlencoded = kind.lower() == "application/x-www-form-urlencoded"
            name = (_in_urlencoded if urlencoded else _in_json)(spool.read())
    except (ValueError, RecursionError, RequestEntityTooLarge):
        return None  # malformed, or the client left and its body is closed
    return name if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME else None


def _in_json(body: bytes) -> object:
    if body.lstrip()[:1] != b"{":
        return None
    return json.loads(body).get("model")


def _in_urlencoded(body: bytes) -> str | None:
    for field in body.split(b"&", _MOST_FIELDS)[:_MOST_FIELDS]:
        name, _, value = field.partition(b"=")
        if len(name) <= 3 * len(_NAME) and _decoded(name) == _NAME:
            return _decoded(value).decode() if len(value) <= 3 * _MOST_BYTES else None
    return None


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


async def _in_multipart(spool: Spool, boundary: str, cooperator: Cooperator) -> str | None:
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        return None
    decoder = MultipartDecoder(
        boundary.encode(), max_form_memory_size=_STEP + _MOST_HEADERS, max_parts=_MOST_FIELDS
    )
    found: list[bytes] = []
    task = cooperator.cooperate(_search(spool.cursor(), decoder, found))
    try:
        await task.whenDone()
    finally:
        with suppress(TaskFinished):
            task.stop()
    return b"".join(found).decode()


def _search(cursor: Cursor, decoder: MultipartDecoder, found: list[bytes]) -> Iterator[None]:
    """
    Read the form up to its first text field ``model`` and put the pieces of that into *found*.
    """
    wanted, size = False, 0
    while decoder.state is not State.EPILOGUE:
        decoder.receive_data(cursor.read(_STEP) or None)
        while not isinstance(event := decoder.next_event(), NeedData):
            if isinstance(event, Data):
                if wanted:
                    found.append(event.data)
                    size += len(event.data)
                    if not event.more_data or size > _MOST_BYTES:
                        return
            else:
                wanted = isinstance(event, Field) and event.name == _NAME.decode()
            yield
        yield
