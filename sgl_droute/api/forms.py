"""
The fields of a form and the names of its files, read from a body that may be large.

What the fields mean is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from twisted.internet.task import Cooperator, TaskFinished
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, NeedData, State

from sgl_droute.workers.bodies import Cursor, Spool

# Bytes read of a form with files; what comes behind is as if it were not there. To read a MiB takes
# a third of a millisecond.
MOST_READ = 64 << 20
# Bytes kept of a field.
LONGEST_FIELD = 4100
# What Starlette, under the workers, takes of a form.
_MOST_FIELDS = 1000
# RFC 2046 5.1.1.
_LONGEST_BOUNDARY = 70
_STEP = 1 << 14
# Bytes of a file that are passed over in one step.
_STRIDE = 1 << 16
# Bytes that a form may have before its first part, and a part in its headers, beside one step. To
# parse headers takes up to a microsecond per byte.
_MOST_HEADERS = 1 << 12

# The parts of a form in their order: the name of each, and its text; None for a file.
Parts = list[tuple[str, str | None]]


def urlencoded_parts(body: bytes, wanted: Collection[str]) -> Parts:
    """
    The *wanted* fields of a URL-encoded form.
    """
    parts: Parts = []
    longest = 3 * max(map(len, wanted))
    for field in body.split(b"&", _MOST_FIELDS)[:_MOST_FIELDS]:
        name, _, value = field.partition(b"=")
        if len(name) <= longest:
            decoded = _decoded(name).decode("utf-8", "replace")
            if decoded in wanted:
                parts.append((decoded, _text(_decoded(value[: 3 * LONGEST_FIELD]))))
    return parts


async def multipart_parts(
    spool: Spool, boundary: str, wanted: Collection[str], cooperator: Cooperator
) -> Parts:
    """
    The *wanted* fields of a form, and all of its files that have a name; read in steps.

    Raises:
        ValueError: It is malformed, or closed meanwhile.
    """
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise ValueError("no boundary that could be one")
    parts: Parts = []
    task = cooperator.cooperate(_read(spool.cursor(), boundary.encode(), wanted, parts))
    try:
        await task.whenDone()
    except RequestEntityTooLarge as problem:
        raise ValueError("too much of anything but files") from problem
    finally:
        with suppress(TaskFinished):
            task.stop()
    return parts


def _read(cursor: Cursor, boundary: bytes, wanted: Collection[str], parts: Parts) -> Iterator[None]:
    decoder = MultipartDecoder(
        boundary, max_form_memory_size=_STEP + _MOST_HEADERS, max_parts=_MOST_FIELDS
    )
    name, text = "", None
    while decoder.state is not State.EPILOGUE and cursor.position < MOST_READ:
        decoder.receive_data(cursor.read(_STEP) or None)
        while not isinstance(event := decoder.next_event(), NeedData):
            if isinstance(event, Field):
                name, text = event.name, bytearray() if event.name in wanted else None
            elif isinstance(event, File):
                text = None
                if event.filename:
                    parts.append((event.name, None))
            elif isinstance(event, Data) and text is not None:
                text += event.data[: LONGEST_FIELD - len(text)]
                if not event.more_data:
                    parts.append((name, _text(bytes(text))))
            yield
        if text is None and decoder.state is State.DATA:
            yield from _pass_over(cursor, decoder, b"--" + boundary)
        yield


def _pass_over(cursor: Cursor, decoder: MultipartDecoder, delimiter: bytes) -> Iterator[None]:
    """
    Move *cursor* on to where the part that *decoder* is in may end: to look for that in large steps
    takes a tenth of the time that decoding takes.
    """
    start = cursor.position
    seen = bytes(decoder.buffer)  # at most a piece of the delimiter
    while cursor.position < MOST_READ:
        data = cursor.read(_STRIDE)
        if not data:
            break
        seen += data
        found = seen.find(delimiter)
        if found >= 0:
            cursor.position = max(start, cursor.position - len(seen) + found - len(b"\r\n"))
            break
        seen = seen[-len(delimiter) - len(b"\r\n") :]
        yield
    if cursor.position > start:
        # Nothing that was seen before has its end there; no delimiter holds this byte.
        decoder.receive_data(b"\0")


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _text(data: bytes) -> str:
    """
    *data* as text, which may be cut within its last character; nothing where it is none.
    """
    try:
        return data[:LONGEST_FIELD].decode()
    except UnicodeDecodeError as problem:
        if len(data) >= LONGEST_FIELD and problem.start > LONGEST_FIELD - 4:
            return data[: problem.start].decode()
        return ""
