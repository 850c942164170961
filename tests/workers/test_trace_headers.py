"""
Headers of W3C Trace Context on their way to a worker.
"""

from __future__ import annotations

from twisted.web.http_headers import Headers

from sgl_droute.workers.headers import to_worker


def test_they_are_passed_on() -> None:
    """
    ``traceparent`` and ``tracestate`` reach the worker as the client sent them.
    """
    given = {
        b"traceparent": [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
        b"tracestate": [b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", b"x=1"],
    }
    headers = to_worker(
        Headers(given), client="10.0.0.7", scheme=b"http", host=b"router", request_id=b"1"
    )
    for name, values in given.items():
        assert headers.getRawHeaders(name) == values
