"""
Which pages of other origins may use the router from a browser (the CORS protocol of the Fetch
standard).

Workers allow all of them everything; what they say of it does not reach clients.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import define
from twisted.web.server import Request

from sgl_droute.api.replies import empty_reply

# Headers of answers that such pages may read, beside the few that all may.
_EXPOSED = b", ".join(
    (
        b"Content-Range",
        b"ETag",
        b"Retry-After",
        b"Server-Timing",
        b"X-Request-Id",
        b"X-Router-Job",
        b"X-Router-Why",
        b"X-Router-Worker",
        b"X-Weights-Epoch",
        b"X-Workers-Missing",
    )
)
# Seconds for which a browser may remember what it was told; none remembers for longer.
_MAX_AGE = b"7200"

Stamps = dict[bytes, bytes]

NOTHING: Stamps = {}


@define(eq=False)
class Cors:
    """
    Tells browsers what pages may do.

    Args:
        origins: Whose pages may use the router, such as ``https://studio.example.com``; ``*`` for
            any. What may be done with them needs a key all the same, and cookies are never used.
    """

    origins: Collection[str] = ()

    def stamps(self, request: Request) -> Stamps:
        """
        Headers that any answer to *request* needs.
        """
        if not self.origins:
            return NOTHING
        if "*" in self.origins:
            return {
                b"Access-Control-Allow-Origin": b"*",
                b"Access-Control-Expose-Headers": _EXPOSED,
            }
        # Whatever is kept of the answer is for this origin only.
        stamps = {b"Vary": b"Origin"}
        origin = request.getHeader(b"origin")
        if origin is not None and origin.decode("latin-1") in self.origins:
            stamps[b"Access-Control-Allow-Origin"] = origin
            stamps[b"Access-Control-Expose-Headers"] = _EXPOSED
        return stamps

    def answer(self, request: Request, methods: str) -> bytes:
        """
        Answer ``OPTIONS``, a browser's question before the request itself included.

        Args:
            methods: What the path takes, between commas.
        """
        request.setHeader(b"Allow", methods.encode("ascii"))
        if b"Access-Control-Allow-Origin" in self.stamps(request):
            request.setHeader(b"Access-Control-Allow-Methods", methods.encode("ascii"))
            wanted = request.getHeader(b"access-control-request-headers")
            if wanted:
                request.setHeader(b"Access-Control-Allow-Headers", wanted)
            request.setHeader(b"Access-Control-Max-Age", _MAX_AGE)
        return empty_reply(request)
