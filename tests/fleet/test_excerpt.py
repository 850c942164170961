"""
Excerpts: what is read from both ends of a JSON object is true, and nothing certain is missed.
"""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sgl_droute.fleet.excerpt import Excerpt

TRICKY = st.text(alphabet='"\\{}[]:,id 0é€😀\n', max_size=60)
NAMES = TRICKY | st.sampled_from(["id", "status", "data", 'x"id'])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TRICKY
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=8)
# Bodies up to three times what is kept, whatever their spacing.
LIMITS = st.integers(1, 200)


@st.composite
def dumped(draw: st.DrawFn, value: Any) -> bytes:
    text = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", " : ")])),
    )
    space = st.text(alphabet=" \t\r\n", max_size=3)
    return (draw(space) + text + draw(space)).encode()


def excerpt_of(body: bytes, limit: int = 4096, chunk: int = 1 << 16) -> Excerpt:
    excerpt = Excerpt(limit)
    for start in range(0, len(body), chunk):
        excerpt.feed(body[start : start + chunk])
    excerpt.end()
    return excerpt


@given(st.data(), OBJECTS, LIMITS, st.integers(1, 300))
def test_what_is_read_is_true(data: st.DataObject, value: Any, limit: int, chunk: int) -> None:
    """
    Every field is a top-level member with its value, at the end and at every moment before.
    """
    body = data.draw(dumped(value))
    excerpt = Excerpt(limit)
    truth = json.loads(body).items()
    for start in range(0, len(body), chunk):
        excerpt.feed(body[start : start + chunk])
        assert all(item in truth for item in excerpt.fields().items())
    excerpt.end()
    assert all(item in truth for item in excerpt.fields().items())
    if len(body) <= 2 * limit:
        assert excerpt.fields() == dict(truth)


@given(st.data(), OBJECTS, OBJECTS, st.integers(1, 300))
def test_both_ends_are_read(data: st.DataObject, first: Any, last: Any, chunk: int) -> None:
    """
    Members that lie wholly in the first or the last bytes are found, whatever is between.
    """
    gap = data.draw(st.sampled_from(['"' * 9000, "\\" * 9001, ["{"] * 4000, {"id": "}" * 9000}]))
    members = {f"a{name}": value for name, value in first.items()}
    members |= {"gap": gap} | {f"z{name}": value for name, value in last.items()}
    body = data.draw(dumped(members))
    ends = {name: value for name, value in members.items() if name != "gap"}
    whole = all(len(json.dumps(each, indent=2)) < 600 for each in (first, last))
    fields = excerpt_of(body, chunk=chunk).fields()
    assert not whole or fields == ends


@given(st.data(), OBJECTS, st.integers(1, 40))
def test_a_middle_that_nobody_shows(data: st.DataObject, value: Any, limit: int) -> None:
    """
    To pass over the middle makes no difference to what both ends tell.
    """
    body = data.draw(dumped({"first": 1, **value, "gap": "x" * 80, "last": 2}))
    excerpt = Excerpt(limit)
    excerpt.feed(body[:limit])
    excerpt.skip(len(body) - 2 * limit)
    excerpt.feed(body[-limit:])
    excerpt.end()
    assert excerpt.fields() == excerpt_of(body, limit).fields()


@given(st.binary(max_size=400), LIMITS)
@example(b"[" * 400, 200)
@example(b'{"a":' * 80, 200)
@example(b'{"a":1}{"b":2}', 7)
@example(b'\xff{"a":1}', 4)
@example(b'{"a":' + b"9" * 9000 + b"}", 5000)
def test_any_bytes_are_taken(body: bytes, limit: int) -> None:
    """
    Nothing raises, whatever the body is.
    """
    assert isinstance(excerpt_of(body, limit).fields(), dict)


def test_deep_nesting_is_no_object() -> None:
    """
    Values nested deeper than Python reads are not read, and hurt nobody; how deep that is differs
    between its versions.
    """
    assert excerpt_of(b'{"id":"x","a":' + b"[" * 5000 + b"]" * 5000 + b"}").fields() == {"id": "x"}
    assert excerpt_of(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}").fields().keys() <= {"a"}


@given(st.sampled_from([b"[1,2]", b'"id"', b"7", b"", b"\x89PNG" + b'"id":1}' * 9, b'x{"id":1}']))
def test_no_object(body: bytes) -> None:
    """
    A body that is no JSON object has no fields, held whole or not.
    """
    assert excerpt_of(body).fields() == {}
    assert excerpt_of(body, limit=4).fields() == {}


def test_an_id_before_the_picture() -> None:
    """
    The id of an answer is known before its picture has come.
    """
    excerpt = Excerpt()
    excerpt.feed(b'{"id":"x","created":1,"data":[{"b64_json":"')
    assert not excerpt.head_complete
    assert excerpt.fields() == {"id": "x", "created": 1}
    for _ in range(64):
        excerpt.feed(b"A" * (1 << 16))
    assert excerpt.head_complete
    excerpt.feed(b'","url":null}],"inference_time_s":0.5,"usage":null}\n')
    assert excerpt.fields() == {"id": "x", "created": 1}
    excerpt.end()
    assert excerpt.fields() == {"id": "x", "created": 1, "inference_time_s": 0.5, "usage": None}


def test_an_id_behind_the_picture() -> None:
    """
    An id that comes last is found, and an id inside of something else is not taken for it.
    """
    picture = b'{"b64_json":"%s","id":"inner"}' % (b"A" * 9000)
    body = b'{"data":[%s],"more":{"id":"other"},"id":"outer"}' % picture
    assert excerpt_of(body).fields() == {"more": {"id": "other"}, "id": "outer"}


def test_the_end_of_a_torn_body_is_not_believed() -> None:
    """
    While the body goes on, what looks like its end is part of something else.
    """
    excerpt = Excerpt(limit=64)
    excerpt.feed(b'{"data":[{"b64_json":"' + b"A" * 500 + b'","id":"inner"}')
    assert excerpt.fields() == {}


def test_wherever_it_is_cut() -> None:
    """
    However little of a body is kept, no value is cut short and no piece of a name is a name.
    """
    ends = rb'"n":1234,"f":-1.5e10,"o":{"id":12}', rb'"x\"y":"a\"b\\","l":[1,{"id":2}],"id":77'
    body = b'{%s,"p":"%s",%s}' % (ends[0], b"A" * 200, ends[1])
    truth = json.loads(body)
    for cut in range(1, len(body)):
        started = Excerpt()
        started.feed(body[:cut])
        assert started.fields().items() <= truth.items()
        assert excerpt_of(body, limit=cut).fields().items() <= truth.items()


def test_the_last_of_two_counts() -> None:
    """
    A name that comes twice has its last value, as `json.loads` has it.
    """
    body = b'{"id":"first","data":"%s","id":"last"}' % (b"A" * 9000)
    assert excerpt_of(body).fields() == {"id": "last"}


@given(
    st.sampled_from(
        [b'"a":', b'"a":{', b"{", b'"', b'\\"', b'"a":1,', b'{"a":1,"a":1},', b'":"', b"\\", b"[}"]
    ),
    st.sampled_from([b"}", b"1}", b'"}', b"]}", b"1" + b"}" * 2000, b""]),
)
def test_hostile_ends_are_cheap(unit: bytes, end: bytes) -> None:
    """
    What a body costs to read grows with what is kept of it, and not with the square of that.
    """
    excerpt = excerpt_of(b'{"x":[' + unit * (200_000 // len(unit)) + end, limit=1 << 16)
    began = time.process_time()
    excerpt.fields()
    assert time.process_time() - began < 1.0
