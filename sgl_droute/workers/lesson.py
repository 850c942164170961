"""
What is learned from an answer while it streams by.

Only its first and last few KiB are kept, and nothing is held up. What the fields mean is known to
whoever asked for the lesson.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from sgl_droute.fleet.excerpt import Excerpt, PackedExcerpt

Learn = Callable[[Mapping[str, Any]], None]


@define(eq=False)
class Lesson:
    """
    Reads the top-level fields of an answer that streams by.

    Once an answer is cut nothing more is told of it.

    Args:
        learn: Called once with the fields that could be read: early, as soon as an ``id`` is among
            them, else at the end.
        told: Called once, at the end, with all fields that can be read then.
        excerpt: Reads the answer.
    """

    _learn: Learn | None = None
    _told: Learn | None = None
    _excerpt: Excerpt | PackedExcerpt = field(factory=Excerpt)

    @classmethod
    def of(
        cls, response: IResponse, learn: Learn | None = None, told: Learn | None = None
    ) -> Lesson | None:
        """
        The lesson of *response*; None if its body is not plain JSON.

        Of msgpack *told* gets ``inference_time_s``, and *learn* nothing.
        """
        kind = _content_type(response.headers)
        if kind == b"application/json":
            return cls(learn, told)
        if kind == b"application/msgpack" and told is not None:
            return cls(None, told, PackedExcerpt())
        return None

    def feed(self, data: bytes) -> None:
        """
        Take note of the next part of the body.
        """
        if self._learn is None:
            if self._told is not None:
                self._excerpt.feed(data)
            return
        before = self._excerpt.head_complete
        self._excerpt.feed(data)
        if self._excerpt.head_complete and not before:
            fields = self._excerpt.fields()
            if "id" in fields:
                learn, self._learn = self._learn, None
                learn(fields)

    def end(self) -> None:
        """
        Take note that the body has come to its end.
        """
        learn, self._learn = self._learn, None
        told, self._told = self._told, None
        if learn is None and told is None:
            return
        self._excerpt.end()
        fields = self._excerpt.fields()
        for tell in (learn, told):
            if tell is not None:
                tell(fields)


def _content_type(headers: Headers) -> bytes:
    """
    The media type of a body that can be read as it is; nothing for one that is compressed.
    """
    if headers.hasHeader(b"content-encoding"):
        return b""
    types = headers.getRawHeaders(b"content-type", [b""])
    return types[0].partition(b";")[0].strip().lower()
