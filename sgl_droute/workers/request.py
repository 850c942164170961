"""
A request to a worker as bytes.

It knows how a request is written (RFC 9112), not over what it is sent.
"""

from __future__ import annotations

import re

from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IClientRequest
from zope.interface import implementer

from sgl_droute.errors import BadRequest

_REQUEST_LINE = re.compile(rb"[^\x00-\x20\x7f]+ [^\x00-\x20\x7f]+ HTTP/1\.1")

# Told here, whatever the headers say.
_OURS = frozenset({b"Host", b"Content-Length", b"Transfer-Encoding"})

# Methods whose requests say so when they have no body (RFC 9110 8.6).
_WITH_BODY = frozenset({b"POST", b"PUT"})


@implementer(IClientRequest)
class WorkerRequest:
    """
    One request, ready to be written.

    Args:
        base: Base URL of the worker, whose authority becomes the ``Host``.
        target: Sent as it is.
        headers: All others; ``Host`` and those that tell where the body ends are made anew.
        body: Producer of the body; one that has all of it in memory may show it as ``data``.

    Attributes:
        written: The head, with the body if that is in memory.
        rest: Producer of the body if it is not.

    Raises:
        BadRequest: It would be no request, or more than one.
    """

    __slots__ = ("absoluteURI", "headers", "method", "rest", "written")

    def __init__(
        self,
        method: bytes,
        base: bytes,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None = None,
    ) -> None:
        self.method = method
        self.absoluteURI = base + target
        self.headers = headers
        self.rest: IBodyProducer | None = None
        lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: " + base.partition(b"://")[2]]
        for name, values in headers.getAllRawHeaders():
            if name not in _OURS:
                lines += [name + b": " + value for value in values]
        data = b""
        if body is not None:
            lines.append(_framing(body))
            held: bytes | None = getattr(body, "data", None)
            if held is not None and len(held) == body.length:
                data = held
            else:
                self.rest = body
        elif method in _WITH_BODY:
            lines.append(b"Content-Length: 0")
        lines += (b"", b"")
        head = b"\r\n".join(lines)
        _check(head, lines)
        self.written = head + data if data else head


def _framing(body: IBodyProducer) -> bytes:
    if body.length is UNKNOWN_LENGTH:
        return b"Transfer-Encoding: chunked"
    return b"Content-Length: %d" % body.length


def _check(head: bytes, lines: list[bytes]) -> None:
    ends = len(lines) - 1
    if (
        head.count(b"\n") != ends
        or head.count(b"\r") != ends
        or b"\0" in head
        or not _REQUEST_LINE.fullmatch(lines[0])
    ):
        raise BadRequest("The request holds characters that no request may hold")
