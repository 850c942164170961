"""
The router's own answers: JSON, with a request id, and never more than one per request.
"""

from __future__ import annotations

import json
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.web.server import Request

from sgl_droute.errors import RouterError

_SERVER = b"sgl-droute"


def request_id(request: Request) -> bytes:
    """
    The request's ``X-Request-Id``: the client's, else one made now and kept.
    """
    given = request.requestHeaders.getRawHeaders(b"x-request-id")
    if given and given[0]:
        return given[0]
    made = uuid4().hex.encode("ascii")
    request.requestHeaders.setRawHeaders(b"X-Request-Id", [made])
    return made


def reply(request: Request, answer: Any, status: int = 200) -> bytes:
    """
    The body of a JSON answer; status and headers are set on *request*.
    """
    body = encoded(answer)
    request.setResponseCode(status)
    request.setHeader(b"Server", _SERVER)
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.setHeader(b"X-Request-Id", request_id(request))
    return body


async def refuse(request: Request, error: RouterError) -> bytes | None:
    """
    Tell the client of *error*. Where its answer has begun already it is cut instead, so that the
    client does not take a part for the whole.
    """
    if request.startedWriting:
        await _cut(request)
        return None
    for name, value in error.headers.items():
        request.setHeader(name, value)
    return reply(request, {"error": str(error)}, error.status)


def refusal(error: RouterError) -> bytes:
    """
    A whole HTTP answer as bytes, for a request that never became one.
    """
    body = encoded({"error": str(error)})
    headers = {
        "Server": _SERVER.decode("ascii"),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-Id": uuid4().hex,
        **error.headers,
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def encoded(answer: Any) -> bytes:
    """
    *answer* as one line of JSON.
    """
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _cut(request: Request) -> None:
    if request.channel is None:
        return
    gone = request.notifyFinish()
    abort(request)
    with suppress(ConnectionAborted, ConnectionDone, ConnectionLost, CancelledError):
        await gone


def abort(request: Request) -> None:
    """
    Reset the connection of *request*: any kinder end would pass a torn answer off as whole.
    """
    transport: Any = request.transport
    transport.abortConnection()
