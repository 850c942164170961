"""
Whether a request names files on its worker, which not every key may.

It reads a body in every way in which a worker might: what is refused here must not depend on what
the request says that it is. Bodies that cannot be read so are refused too.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress

from attrs import frozen
from twisted.internet.task import Cooperator, TaskFinished
from twisted.web.server import Request

from sgl_droute.api.entry.access import Doorkeeper
from sgl_droute.api.entry.door import caller_of
from sgl_droute.api.fields.form_scanning import boundary_of, multipart_steps, urlencoded_steps
from sgl_droute.api.fields.msgpack_scanning import msgpack_steps
from sgl_droute.api.fields.scanning import Scan, Steps, names_nothing
from sgl_droute.api.forwarded import spooled_body
from sgl_droute.errors import BadRequest, Forbidden
from sgl_droute.workers.bodies import Spool

# Bytes of a body that is read at once: reading in steps costs a turn of the reactor.
_AT_ONCE = 1 << 14
_LONGEST_SHOWN = 100
_SPACE = b" \t\n\r"
_NOT_UTF_8 = (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)  # UTF-32 begins with these, or with zeros
# What a body begins with that workers may take for JSON, in whichever Unicode encoding it is.
_MAY_BE_JSON = re.compile(rb"[ \t\n\r]*[{\[]|\xef\xbb\xbf|\xfe\xff|\xff\xfe|[^\0]{0,3}\0")


async def named_files(spool: Spool, content_type: str | None, cooperator: Cooperator) -> str | None:
    """
    The first field in a request's body that names a file on a worker; None if none does.

    Args:
        content_type: The request's header, as it came.

    Raises:
        BadRequest: The body is nothing that the router can read.
    """
    if not spool.length:
        return None
    try:
        steps = _steps(spool, content_type or "")
        if spool.length <= _AT_ONCE:
            return _at_once(steps)
        return await _in_steps(steps, cooperator)
    except ValueError as problem:
        text = "The request body cannot be searched for names of files, as its key asks for"
        raise BadRequest(f"{text}: {problem}") from problem


@frozen
class FileFields:
    """
    Keeps requests from naming files on workers.

    Args:
        door: Knows whose may.
        cooperator: Reads large bodies in steps.
    """

    door: Doorkeeper
    cooperator: Cooperator

    async def check(self, request: Request) -> None:
        """
        Raise unless *request*, which was let in, names no file on a worker, or its caller may.

        Raises:
            Forbidden: It names one.
            BadRequest: Its body is nothing that the router can read.
        """
        if self.door.names_files_freely(request):
            return
        types = request.requestHeaders.getRawHeaders(b"content-type", [])
        if len(types) > 1:
            raise BadRequest("Content-Type is given more than once")
        content_type = types[0].decode("latin-1") if types else None
        name = await named_files(spooled_body(request), content_type, self.cooperator)
        if name is not None:
            shown = name[:_LONGEST_SHOWN] or "A text"
            raise Forbidden(
                f"{shown} names a file on a worker, which {_whose(request)} may not",
                fields={"field": shown},
            )

    def check_tunnel(self, request: Request) -> None:
        """
        As `check`, of a WebSocket handshake: what is said in it later is not looked at.

        Raises:
            Forbidden: Its caller may not name files.
        """
        if not self.door.names_files_freely(request):
            who = _whose(request)
            raise Forbidden(f"A WebSocket may name files on a worker, which {who} may not")


def _whose(request: Request) -> str:
    key = caller_of(request).key
    return "its caller" if key is None else f"key {key.name}"


def _steps(spool: Spool, content_type: str) -> Steps[str | None]:
    """
    All ways in which a worker might read the body.
    """
    kind = content_type.lower()
    if "multipart/form-data" in kind:
        return multipart_steps(spool.cursor().read, boundary_of(content_type))
    head = spool.cursor().read(64).removeprefix(codecs.BOM_UTF8).lstrip(_SPACE)
    if "msgpack" in kind and head[:1] not in (b"{", b"["):
        return msgpack_steps(spool.cursor().read)
    if kind.partition(";")[0].strip() == "application/x-www-form-urlencoded":
        return _urlencoded(spool)
    return _json(spool)


def _urlencoded(spool: Spool) -> Steps[str | None]:
    found = yield from urlencoded_steps(spool.read())
    if found is None and _MAY_BE_JSON.match(spool.read()):
        found = yield from _json(spool)
    return found


def _json(spool: Spool) -> Steps[str | None]:
    if spool.length <= _AT_ONCE and names_nothing(spool.read()):
        return None
    cursor = spool.cursor()
    head = cursor.read(4)
    if b"\0" in head or head.startswith(_NOT_UTF_8):
        raise ValueError("it is not UTF-8")
    if head.startswith(codecs.BOM_UTF8):
        cursor.seek(len(codecs.BOM_UTF8))
    else:
        cursor.seek(0)
    while first := cursor.read(1 << 16):
        first = first.lstrip(_SPACE)
        if first:
            break
        yield
    if first[:1] != b"{":
        raise ValueError("it is no JSON object, and no form")
    cursor.seek(cursor.tell() - len(first))
    return (yield from Scan(cursor.read).steps())


def _at_once(steps: Steps[str | None]) -> str | None:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: str | None = end.value
            return found


async def _in_steps(steps: Steps[str | None], cooperator: Cooperator) -> str | None:
    found: list[str | None] = []

    def run() -> Steps[None]:
        found.append((yield from steps))

    task = cooperator.cooperate(run())
    try:
        await task.whenDone()
    finally:
        with suppress(TaskFinished):
            task.stop()
    return found[0]
