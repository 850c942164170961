"""
Answers as a strict client reads them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from attrs import frozen

from tests.errors import told

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [ -~]+")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~\x80-\xff]*)")
_BODILESS = (100, 204, 304)


@frozen
class Answer:
    """
    Status, headers (lower-case names) and body.
    """

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What it says of an error, as `told` has it."""
        return told(self.body, [self.headers[b"x-request-id"].decode("latin-1")])

    @property
    def closes(self) -> bool:
        """Whether it is the last one of its connection."""
        return self.headers.get(b"connection") == b"close"

    @property
    def from_worker(self) -> bool:
        """Whether a `tests.integration.strict_worker` gave it."""
        return self.headers.get(b"server") == b"strict"


def parse_answers(data: bytes) -> tuple[list[Answer], bytes]:
    """
    The whole answers in *data*, and what is left.
    """
    answers = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(line)
        matches = [_HEADER.fullmatch(each) for each in lines]
        assert status_line, line
        assert all(matches), head
        headers = {match[1].lower(): match[2] for match in matches if match}
        assert len(headers) == len(lines), head
        status = int(status_line[1])
        length = 0 if status in _BODILESS else int(headers[b"content-length"])
        if len(rest) < length:
            break
        answers.append(Answer(status, headers, rest[:length]))
        data = rest[length:]
    return answers, data


def assert_well_told(answer: Answer) -> None:
    """
    An error of the router is one sentence and one word in JSON, with what every answer has.
    """
    assert_signed(answer)
    assert answer.headers[b"content-type"] == b"application/json"
    assert list(answer.error) == ["error", "reason"]
    assert all(isinstance(each, str) and each for each in answer.json.values())
    assert b"Traceback" not in answer.body


def assert_signed(answer: Answer) -> None:
    """
    An answer of the router says so, when, and to which request.
    """
    assert answer.headers[b"server"] == b"sgl-droute"
    assert answer.headers[b"date"].endswith(b" GMT")
    assert answer.headers[b"x-request-id"]
