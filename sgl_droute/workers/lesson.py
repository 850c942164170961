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

from sgl_droute.fleet.excerpt import Excerpt

Learn = Callable[[Mapping[str, Any]], None]


@define(eq=False)
class Lesson:
    """
    Reads the top-level fields of a JSON object that streams by.

    Args:
        learn: Called once with the fields that could be read: early, as soon as an ``id`` is among
            them, else at the end; never for an answer that is cut before.
    """

    learn: Learn
    _excerpt: Excerpt = field(factory=Excerpt, init=False)
    _learned: bool = field(default=False, init=False)

    @classmethod
    def of(cls, response: IResponse, learn: Learn) -> Lesson | None:
        """
        The lesson of *response*; None if its body is not plain JSON.
        """
        return cls(learn) if _is_json(response.headers) else None

    def feed(self, data: bytes) -> None:
        """
        Take note of the next part of the body.
        """
        if self._learned:
            return
        before = self._excerpt.head_complete
        self._excerpt.feed(data)
        if self._excerpt.head_complete and not before:
            fields = self._excerpt.fields()
            if "id" in fields:
                self._tell(fields)

    def end(self) -> None:
        """
        Take note that the body has come to its end.
        """
        if not self._learned:
            self._excerpt.end()
            self._tell(self._excerpt.fields())

    def _tell(self, fields: Mapping[str, Any]) -> None:
        self._learned = True
        self.learn(fields)


def _is_json(headers: Headers) -> bool:
    types = headers.getRawHeaders(b"content-type", [b""])
    encoded = headers.hasHeader(b"content-encoding")
    return types[0].partition(b";")[0].strip().lower() == b"application/json" and not encoded
