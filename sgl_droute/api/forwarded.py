"""
A client's request as a worker gets it, and the headers of the worker's answer for the client.

The rules are in `sgl_droute.workers.headers`; this reads from the request what they need.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from sgl_droute.api.replies import request_id, stamps
from sgl_droute.api.telemetry.account import account_of
from sgl_droute.workers.bodies import Spool
from sgl_droute.workers.headers import to_client, to_worker


def spooled_body(request: Request) -> Spool:
    """
    The body of *request*, readable as often as needed until the request ends.
    """
    assert request.content is not None
    return Spool.of(request.content)


def worker_headers(request: Request) -> Headers:
    """
    What a worker gets of *request*'s headers.
    """
    return to_worker(
        request.requestHeaders,
        client=_client_address(request),
        scheme=_scheme(request),
        host=request.getHeader(b"host") or b"",
        request_id=request_id(request),
        traceparent=account_of(request).traceparent,
    )


def client_headers(request: Request, answer: Headers, worker: str) -> Headers:
    """
    What the client of *request* gets of the headers that *worker* (a base URL) answered.
    """
    scheme = _first(request, b"x-forwarded-proto") or _scheme(request)
    host = _first(request, b"x-forwarded-host") or request.getHeader(b"host") or b""
    prefix = request.getHeader(b"x-forwarded-prefix") or b""
    # Without a Host (HTTP/1.0) a relative reference is all that can be said.
    client_base = scheme + b"://" + host + prefix if host else prefix
    out = to_client(answer, worker=worker.encode("ascii"), client_base=client_base)
    out.setRawHeaders(b"X-Request-Id", [request_id(request)])
    for name, value in stamps(request).items():
        said = out.getRawHeaders(name, [])
        if value not in said:
            out.setRawHeaders(name, [*said, value])
    return out


def _first(request: Request, name: bytes) -> bytes:
    """
    The first element of a header that each proxy on the way may have added to.
    """
    values = request.requestHeaders.getRawHeaders(name, [b""])
    return values[0].partition(b",")[0].strip()


def _scheme(request: Request) -> bytes:
    return b"https" if request.isSecure() else b"http"


def _client_address(request: Request) -> str:
    peer = request.getClientAddress()
    return peer.host if isinstance(peer, (IPv4Address, IPv6Address)) else ""
