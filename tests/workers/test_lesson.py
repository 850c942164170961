"""
What is learned from an answer that streams by: once, early where possible, never from a torn one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http_headers import Headers

from sgl_droute.workers.lesson import Lesson


@define(eq=False)
class Pupil:
    """
    A lesson and what it told.
    """

    told: list[Mapping[str, Any]] = field(factory=list)
    lesson: Lesson = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lesson = Lesson(self.told.append)

    def hear(self, *parts: bytes) -> Pupil:
        for part in parts:
            self.lesson.feed(part)
        return self


@define
class Head:
    """
    As much of a response as a lesson looks at.
    """

    headers: Headers


def lesson_of(headers: dict[str, list[str]]) -> Lesson | None:
    response: Any = Head(Headers(headers))
    return Lesson.of(response, lambda fields: None)


def test_a_small_answer() -> None:
    """
    All fields of a small object are told when it is whole.
    """
    pupil = Pupil().hear(b'{"id":"v1",', b'"status":"queued"}')
    assert pupil.told == []
    pupil.lesson.end()
    assert pupil.told == [{"id": "v1", "status": "queued"}]


def test_early() -> None:
    """
    An id at the beginning of a large answer is told while that still streams, and once.
    """
    pupil = Pupil().hear(b'{"id":"i1","created":5,"data":[{"b64_json":"', b"A" * 4096)
    assert pupil.told == [{"id": "i1", "created": 5}]
    pupil.hear(b"A" * 100_000, b'"}],"inference_time_s":2.5}')
    pupil.lesson.end()
    assert len(pupil.told) == 1


def test_late() -> None:
    """
    An id at the end of a large answer is told at the end.
    """
    pupil = Pupil().hear(b'{"data":[{"b64_json":"', b"A" * 100_000, b'"}],"id":"i1","usage":null}')
    assert pupil.told == []
    pupil.lesson.end()
    assert pupil.told == [{"id": "i1", "usage": None}]


def test_torn() -> None:
    """
    An answer that is cut before its id can be told teaches nothing.
    """
    pupil = Pupil().hear(b'{"status":"queued","id":"v1"')
    assert pupil.told == []


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"id":"v1"', b'"id"', b"\xff", b"{}"])
def test_nothing_to_learn(body: bytes) -> None:
    """
    What is no JSON object has no fields; that is told too.
    """
    pupil = Pupil().hear(body)
    pupil.lesson.end()
    assert pupil.told == [{}]


def test_a_long_head_without_an_id() -> None:
    """
    Fields at both ends are told together when the id is at neither beginning nor end.
    """
    pupil = Pupil().hear(b'{"status":"completed","x":"', b"A" * 9000, b'","progress":100}')
    pupil.lesson.end()
    assert pupil.told == [{"status": "completed", "progress": 100}]


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("Application/JSON ;charset=utf-8", True),
        ("application/jsonl", False),
        ("application/problem+json", False),
        ("video/mp4", False),
        ("text/plain", False),
        ("", False),
    ],
)
def test_only_json_is_read(content_type: str, is_json: bool) -> None:
    """
    Files and texts are no lessons.
    """
    assert (lesson_of({"content-type": [content_type]}) is not None) is is_json


def test_no_content_type() -> None:
    """
    An answer that does not say what it is, is no lesson.
    """
    assert lesson_of({}) is None


def test_compressed() -> None:
    """
    What is compressed cannot be read as it streams by.
    """
    headers = {"content-type": ["application/json"], "content-encoding": ["gzip"]}
    assert lesson_of(headers) is None


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), TEXTS, st.lists(TEXTS, max_size=3))


@given(
    st.dictionaries(TEXTS, VALUES, max_size=6),
    st.sampled_from([0, 10, 5000, 20_000]),
    st.integers(0, 6),
    st.lists(st.integers(0, 30_000), max_size=8),
    st.booleans(),
)
def test_told_once_and_truly(
    fields: dict[str, Any], padding: int, place: int, cuts: list[int], ascii_only: bool
) -> None:
    """
    However an answer is cut into parts, it is told of once, all that is told is true, and a short
    ``id`` at either end is among it.
    """
    items = [(name, value) for name, value in fields.items() if name not in ("id", "pad")]
    items = [("id", "v1"), *items] if place % 2 else [*items, ("id", "v1")]
    items.insert(len(items) // 2 or place % 2, ("pad", "A" * padding))
    answer = dict(items)
    body = json.dumps(answer, ensure_ascii=ascii_only).encode()
    pupil = Pupil()
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, end in pairwise(places):
        pupil.hear(body[start:end])
    pupil.lesson.end()
    pupil.lesson.end()
    [told] = pupil.told
    assert all(answer[name] == value for name, value in told.items())
    assert told.get("id") == "v1"
