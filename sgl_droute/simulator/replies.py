"""
Answers of a worker, and the errors that are answers.

The shapes are those of FastAPI: ``detail`` as text, a list of ``detail`` objects for schema
violations, and a plain-text 500 for whatever broke on the way. Knows nothing of sockets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from attrs import field, frozen

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"


@frozen
class Reply:
    """
    One answer.

    Attributes:
        body: The whole body, or its pieces when it is long.
        size: Length of the body (bytes); None sends it chunked.
    """

    status: int
    content_type: str | None
    body: bytes | Iterable[bytes]
    headers: Mapping[str, str] = field(factory=dict)
    size: int | None = field()

    @size.default
    def _counted(self) -> int | None:
        return len(self.body) if isinstance(self.body, bytes) else None


class WorkerError(Exception):
    """
    A request that ends in the answer *reply*.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status, reply.body)
        self.reply = reply


class GenerationFailed(Exception):
    """
    The GPU process could not do the work; the text is what its log says.
    """


class BackendDead(GenerationFailed):
    """
    The GPU process is gone for good.
    """


def as_json(value: object) -> bytes:
    """
    *value* as compact UTF-8 JSON.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, JSON, as_json(value), headers or {})


def detail(status: int, text: str) -> WorkerError:
    return WorkerError(json_reply({"detail": text}, status))


def internal_error() -> WorkerError:
    return WorkerError(Reply(500, PLAIN, b"Internal Server Error"))


@frozen
class Problem:
    """
    One schema violation, as pydantic words it.
    """

    kind: str
    location: tuple[str | int, ...]
    message: str
    given: object
    context: Mapping[str, object] | None = None

    def as_json(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "type": self.kind,
            "loc": list(self.location),
            "msg": self.message,
            "input": self.given,
        }
        return shown if self.context is None else {**shown, "ctx": self.context}


def unprocessable(*problems: Problem) -> WorkerError:
    return WorkerError(json_reply({"detail": [problem.as_json() for problem in problems]}, 422))


def missing(location: tuple[str | int, ...], given: object) -> Problem:
    return Problem("missing", location, "Field required", given)
