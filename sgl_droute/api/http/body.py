"""
The body of a request, taken out of the bytes that arrive on its connection.

Where it is kept, and how large it may be, is the request's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

from sgl_droute.api.http.head import TOKEN
from sgl_droute.errors import BadRequest, RequestTimeout

# Bytes per second that a body must come with, counted over all of its time.
SLOWEST = 100
# What chunks may cost: so many bytes on the wire for each of the body, beyond some that are free.
_COST, _FREE = 4, 1 << 16

_TRAILER = re.compile(TOKEN + rb":[\t -~\x80-\xff]*")


class BodyReader:
    """
    Reads one body.

    Args:
        length: Bytes of it; None when it comes in chunks.
        take: Called with each part.
        now: The time (seconds).
        patience: Seconds that it may be silent.
    """

    def __init__(
        self, length: int | None, take: Callable[[bytes], None], now: float, patience: float
    ) -> None:
        self._missing = length
        self._take = take
        self._rest: bytes | None = None
        self._taken = 0
        self._decoder = _ChunkedTransferDecoder(self._part, self._ended) if length is None else None
        self._began = self._moved = now
        self._patience = patience
        self._received = 0

    def feed(self, data: bytes, now: float) -> bytes | None:
        """
        What follows the body in *data*; None while there is more of it to come.

        Raises:
            BadRequest: The chunks, or the trailers behind them, are malformed.
        """
        self._moved = now
        self._received += len(data)
        if self._missing is None:
            return self._feed_chunks(data)
        if len(data) > self._missing:
            data, self._rest = data[: self._missing], data[self._missing :]
        self._missing -= len(data)
        self._take(data)
        return None if self._missing else self._rest or b""

    def silence_left(self, now: float) -> float:
        """
        Seconds that it may still be silent.

        Raises:
            RequestTimeout: None are left, or it comes too slowly.
        """
        left = self._moved + self._patience - now
        if left <= 0:
            late = f"The request's body did not arrive within {self._patience:g} s"
            raise RequestTimeout(late)
        if self._received < SLOWEST * (now - self._began):
            slow = f"The request's body came with less than {SLOWEST} bytes per second"
            raise RequestTimeout(slow)
        return left

    def _feed_chunks(self, data: bytes) -> bytes | None:
        assert self._decoder is not None
        try:
            self._decoder.dataReceived(data)
        except (ValueError, _MalformedChunkedDataError) as problem:
            raise BadRequest("Malformed request: the chunks are not sound") from problem
        if self._received > _COST * self._taken + _FREE:
            raise BadRequest("Malformed request: the chunks are too small")
        if self._rest is None:
            return None
        if not all(_TRAILER.fullmatch(line) for line in self._decoder._trailerHeaders):
            raise BadRequest("Malformed trailer")
        return self._rest

    def _part(self, data: bytes) -> None:
        self._taken += len(data)
        self._take(data)

    def _ended(self, rest: bytes) -> None:
        self._rest = rest
