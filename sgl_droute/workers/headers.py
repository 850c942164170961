"""
Which headers cross the router, in which direction, and what they become on the way.

Pure: it reads and builds header lists and sends nothing.
"""

from __future__ import annotations

from twisted.web.http_headers import Headers

# RFC 9110 7.6.1, with the older names that RFC 2616 13.5.1 listed. ``Expect`` was answered here.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Made anew for the worker's connection.
_PER_CONNECTION = frozenset({b"content-length", b"host"})


# Workers let pages of any origin do anything, with credentials; it is for the router to say.
_ACCESS_CONTROL = frozenset(
    b"access-control-" + name
    for name in (
        b"allow-credentials",
        b"allow-headers",
        b"allow-methods",
        b"allow-origin",
        b"allow-private-network",
        b"expose-headers",
        b"max-age",
    )
)


def to_worker(
    headers: Headers,
    *,
    client: str,
    scheme: bytes,
    host: bytes,
    request_id: bytes,
    traceparent: str | None = None,
) -> Headers:
    """
    The headers of a request as a worker gets them.

    Args:
        headers: As the client sent them.
        client: The client's address, added to ``X-Forwarded-For``; empty when it has none.
        scheme: Set as ``X-Forwarded-Proto`` unless the request has one.
        host: Set as ``X-Forwarded-Host`` unless the request has one; empty when there is none.
        request_id: Sent as ``X-Request-Id``.
        traceparent: Sent in the place of the client's, where the router traces requests.
    """
    out = _crossing(headers, _PER_CONNECTION)
    forwarded = b", ".join(out.getRawHeaders(b"x-forwarded-for", []))
    chain = [part for part in (forwarded, client.encode("ascii", "replace")) if part]
    if chain:
        out.setRawHeaders(b"X-Forwarded-For", [b", ".join(chain)])
    if not out.hasHeader(b"x-forwarded-proto"):
        out.setRawHeaders(b"X-Forwarded-Proto", [scheme])
    if host and not out.hasHeader(b"x-forwarded-host"):
        out.setRawHeaders(b"X-Forwarded-Host", [host])
    out.setRawHeaders(b"X-Request-Id", [request_id])
    if traceparent is not None:
        out.setRawHeaders(b"traceparent", [traceparent.encode("ascii")])
    return out


def to_client(headers: Headers, *, worker: bytes, client_base: bytes) -> Headers:
    """
    The headers of an answer as the client gets them.

    Args:
        headers: As the worker sent them.
        worker: Base URL of the worker: a ``Location`` at its address is put right.
        client_base: What such a ``Location`` begins with instead: the address that the client used.
    """
    out = _crossing(headers, _ACCESS_CONTROL)
    locations = out.getRawHeaders(b"location")
    if locations:
        out.setRawHeaders(
            b"Location", [_rebased(location, worker, client_base) for location in locations]
        )
    return out


def connection_tokens(headers: Headers) -> set[bytes]:
    """
    The lower-case names in ``Connection``: options, and headers that go no further than one hop.
    """
    return tokens(headers, b"connection")


def tokens(headers: Headers, name: bytes) -> set[bytes]:
    """
    The lower-case elements of a header whose value is a list.
    """
    values = headers.getRawHeaders(name, [])
    return {token.strip().lower() for value in values for token in value.split(b",")} - {b""}


def head_of(line: bytes, headers: Headers) -> bytes:
    """
    A whole head as bytes: the first *line*, *headers*, and the empty line behind them.
    """
    lines = [line]
    for name, values in headers.getAllRawHeaders():
        lines += [b"%b: %b" % (name, value) for value in values]
    return b"\r\n".join([*lines, b"", b""])


def _rebased(location: bytes, worker: bytes, client_base: bytes) -> bytes:
    # A worker that believes X-Forwarded-Proto puts the client's scheme before its own address.
    scheme, separator, rest = location.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return location
    authority = worker.partition(b"://")[2]
    head, tail = rest[: len(authority)], rest[len(authority) :]
    if head.lower() == authority and tail[:1] in (b"", b"/", b"?", b"#"):
        return client_base + tail
    return location


def _crossing(headers: Headers, dropped: frozenset[bytes]) -> Headers:
    named = connection_tokens(headers)
    out = Headers()
    for name, values in headers.getAllRawHeaders():
        lower = name.lower()
        if lower in _HOP_BY_HOP or lower in named or lower in dropped:
            continue
        out.setRawHeaders(name, list(values))
    return out
