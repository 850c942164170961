"""
The router's own answers: JSON, with a request id, and never more than one per request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from secrets import token_hex
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.web.http import datetimeToString
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
    made = new_id()
    request.requestHeaders.setRawHeaders(b"X-Request-Id", [made])
    return made


def stamp(request: Request, headers: Mapping[bytes, bytes]) -> None:
    """
    Have whatever answers *request* carry *headers*, one value each.
    """
    stamped: Any = request
    stamped.stamps = headers


def stamps(request: Request) -> Mapping[bytes, bytes]:
    """
    What `stamp` was given for *request*; nothing if it was not called.
    """
    return getattr(request, "stamps", {})


def reply(request: Request, answer: Any, status: int = 200) -> bytes:
    """
    The body of a JSON answer; status and headers are set on *request*.
    """
    return whole_reply(request, encoded(answer), b"application/json", status)


def whole_reply(request: Request, body: bytes, kind: bytes, status: int = 200) -> bytes:
    """
    As `reply`, with a *body* of another kind, which is its ``Content-Type``.
    """
    _begin(request, status)
    request.setHeader(b"Content-Type", kind)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


def empty_reply(request: Request) -> bytes:
    """
    As `reply`, with nothing to say.
    """
    _begin(request, 204)
    return b""


async def refuse(request: Request, error: RouterError) -> bytes | None:
    """
    Tell the client of *error*. Where its answer has begun already it is cut instead, so that the
    client does not take a part for the whole.
    """
    if request.startedWriting:
        await _cut(request)
        return None
    return error_reply(request, error)


def error_reply(request: Request, error: RouterError) -> bytes:
    """
    As `reply`, with what the client is told of *error*.
    """
    for name, value in error.headers.items():
        request.setHeader(name, value)
    return reply(request, _told(error, request_id(request)), error.status)


def refusal(error: RouterError, id: bytes) -> bytes:
    """
    A whole HTTP answer as bytes, the last one of its connection, to the request with that *id*.
    """
    body = encoded(_told(error, id))
    headers = {
        b"Server": _SERVER,
        b"Date": datetimeToString(),
        b"Content-Type": b"application/json",
        b"Content-Length": b"%d" % len(body),
        b"Connection": b"close",
        b"X-Request-Id": id,
        **{name.encode("ascii"): value.encode("ascii") for name, value in error.headers.items()},
    }
    phrase = HTTPStatus(error.status).phrase.encode("ascii")
    lines = [b"HTTP/1.1 %d %s" % (error.status, phrase)]
    lines += [name + b": " + value for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])


def _told(error: RouterError, id: bytes) -> dict[str, object]:
    text = id.decode("latin-1")
    return {"error": str(error), "reason": error.reason, **error.fields, "request_id": text}


def encoded(answer: Any) -> bytes:
    """
    *answer* as one line of JSON.
    """
    try:
        text = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which a worker may have echoed, has no UTF-8.
        text = json.dumps(answer, separators=(",", ":")).encode()
    return text + b"\n"


def _begin(request: Request, status: int) -> None:
    # Twisted has no phrase for 429.
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    request.setHeader(b"Server", _SERVER)
    request.setHeader(b"Date", datetimeToString())
    request.setHeader(b"X-Request-Id", request_id(request))
    for name, value in stamps(request).items():
        request.setHeader(name, value)


def new_id() -> bytes:
    """
    A request id that nobody else gives.
    """
    return token_hex(16).encode("ascii")


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
    # An HTTP/2 stream, on a site of another program, has no transport but resets itself.
    connection: Any = request.transport or request.channel
    connection.abortConnection()
