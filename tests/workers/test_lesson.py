"""
What is learned from an answer that streams by: once, early where possible, never from a torn one.

What is told at its end is told besides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http_headers import Headers

from sgl_droute.fleet.excerpt import inference_time
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


def test_both() -> None:
    """
    Whoever asks for both gets the id early, and all fields at the end, once.
    """
    told: list[Mapping[str, Any]] = []
    learned: list[Mapping[str, Any]] = []
    lesson = Lesson(learned.append, told.append)
    lesson.feed(b'{"id":"i1","data":[{"b64_json":"' + b"A" * 5000)
    assert learned == [{"id": "i1"}]
    for _ in range(100):
        lesson.feed(b"A" * 65536)
    lesson.feed(b'"}],"inference_time_s":2.5}')
    assert told == []
    lesson.end()
    lesson.end()
    assert learned == [{"id": "i1"}]
    assert told == [{"id": "i1", "inference_time_s": 2.5}]


def test_only_the_end() -> None:
    """
    Whoever asks for the end only is told of that, and nothing of an answer that is cut.
    """
    told: list[Mapping[str, Any]] = []
    lesson = Lesson(told=told.append)
    lesson.feed(b'{"id":"i1","data":[{"b64_json":"' + b"A" * 9000 + b'"}],"inference_time_s":2.5}')
    assert told == []
    lesson.end()
    assert told == [{"id": "i1", "inference_time_s": 2.5}]


def packed_lesson(told: list[Mapping[str, Any]]) -> Lesson:
    response: Any = Head(Headers({"content-type": ["application/msgpack"]}))
    lesson = Lesson.of(response, None, told.append)
    assert lesson is not None
    return lesson


@given(
    st.floats(0, 1e6, allow_nan=False) | st.integers(0, 2**40),
    st.sampled_from([0, 4000, 4200, 100_000]),
    st.integers(1, 70_000),
    st.booleans(),
)
def test_packed_rollouts(seconds: float, size: int, chunk: int, single: bool) -> None:
    """
    The time of a packed rollout is told at its end, whatever stands before and how it is cut.
    """
    rollout = {
        "request_id": "r",
        "prompt": "b0 inference_time_s",
        "generated_output": {
            "__tensor__": True,
            "data": b"\xb0inference_time_s\x07" * (size // 18),
        },
        "inference_time_s": seconds,
        "peak_memory_mb": 46938.0,
    }
    body = msgpack.packb([rollout, rollout], use_single_float=single)
    told: list[Mapping[str, Any]] = []
    lesson = packed_lesson(told)
    for start in range(0, len(body), chunk):
        lesson.feed(body[start : start + chunk])
    assert told == []
    lesson.end()
    [fields] = told
    assert fields.keys() == {"inference_time_s"}
    assert fields["inference_time_s"] == pytest.approx(seconds, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x90",
        msgpack.packb([{"inference_time_s": None, "peak_memory_mb": 1.0}]),
        msgpack.packb([{"inference_time_s": 1.5}, {"inference_time_s": None}]),
        msgpack.packb([{"inference_time_s": "1.5"}]),
        msgpack.packb([{"inference_time_s": float("nan")}]),
        msgpack.packb([{"inference_time_s": float("inf")}]),
        msgpack.packb([{"inference_time_s": -1.5}]),
        msgpack.packb([{"inference_time_s": -1}]),
        msgpack.packb([{"inference_time_s": 1.5}])[:-1],
        b"\xb0inference_time_s",
        msgpack.packb([{"inference_time_s": 1.5, "more": b"x" * 5000}]),
    ],
)
def test_nothing_in_packed_rollouts(body: bytes) -> None:
    """
    What is no number of seconds at the end is not told as one.
    """
    told: list[Mapping[str, Any]] = []
    lesson = packed_lesson(told)
    lesson.feed(body)
    lesson.end()
    assert told == [{}]


def test_who_may_hear_packed_rollouts() -> None:
    """
    Packed answers have no fields to learn early, and are read for their end only.
    """
    assert lesson_of({"content-type": ["application/msgpack"]}) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (2.5, 2.5),
        (3, 3.0),
        (0, 0.0),
        (None, None),
        (True, None),
        ("2.5", None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_inference_time(value: object, seconds: float | None) -> None:
    """
    Only a number of seconds that can have passed is a time.
    """
    assert inference_time({"inference_time_s": value}) == seconds
    assert inference_time({}) is None


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
