"""
What a strict client makes of the bytes that it got.
"""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPResponse
from typing import Any

from attrs import frozen


@frozen
class Outcome:
    """
    An answer as far as it came.

    Attributes:
        status: 0 when not even a head came.
        whole: Whether it came to its end, by its own framing.
        body: What came of it, decoded.
    """

    status: int
    whole: bool
    body: bytes

    def __str__(self) -> str:
        if not self.status:
            return "no answer"
        return f"{self.status}" if self.whole else f"{self.status}, cut"


class _Wire:
    """Stands in for a socket that all bytes have come through."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def outcome(data: bytes, *, method: str = "GET") -> Outcome:
    """
    The first answer in *data*. One whose body has no framing counts as cut: a router never sends
    that to a client that speaks HTTP/1.1.
    """
    wire: Any = _Wire(data)
    answer = HTTPResponse(wire, method=method)
    try:
        answer.begin()
    except (HTTPException, ValueError, ConnectionError):
        return Outcome(0, whole=False, body=b"")
    if b"\r\n\r\n" not in data:
        return Outcome(0, whole=False, body=b"")
    if answer.length is None and not answer.chunked:
        return Outcome(answer.status, whole=False, body=answer.read())
    try:
        return Outcome(answer.status, whole=True, body=answer.read())
    except HTTPException as cut:
        partial: bytes = getattr(cut, "partial", b"")
        return Outcome(answer.status, whole=False, body=partial)
