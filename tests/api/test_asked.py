"""
What a request says of itself: found wherever clients put it, and never at the price of a stall.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from io import BytesIO
from tempfile import TemporaryFile
from typing import BinaryIO
from urllib.parse import urlencode

import pytest
from attrs import define, frozen
from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, Cooperator
from twisted.python.failure import Failure

from sgl_droute.api.asked import LARGEST_BODY, LONGEST_NAME, LONGEST_TEXT, NOTHING, Said, asked
from sgl_droute.api.forms import MOST_READ
from sgl_droute.fleet.demand import FIELDS
from sgl_droute.workers.bodies import Spool

# Bytes of a form that are read at once: what is decoded, and what is passed over of a file.
STEP, STRIDE = 1 << 14, 1 << 16
FORM = "multipart/form-data; boundary=limit"


@frozen
class Part:
    name: str
    content: bytes
    filename: str | None = None


def form(parts: Iterable[Part], boundary: bytes = b"limit") -> bytes:
    body = b""
    for part in parts:
        filename = b"" if part.filename is None else b'; filename="%s"' % part.filename.encode()
        body += b"--%s\r\n" % boundary
        body += b'Content-Disposition: form-data; name="%s"' % part.name.encode() + filename
        body += b"\r\nContent-Type: text/plain\r\n\r\n" + part.content + b"\r\n"
    return body + b"--%s--\r\n" % boundary


@define
class Question:
    """
    What a body is asked, answered in steps: one read of the body with each `step`.
    """

    clock: Clock
    pending: Deferred[Said]
    result: Said | Failure | None = None

    @classmethod
    def of(cls, file: BinaryIO, content_type: str | None) -> Question:
        clock = Clock()
        cooperator = Cooperator(
            terminationPredicateFactory=lambda: lambda: True,
            scheduler=lambda step: clock.callLater(1, step),
        )
        asking = asked(Spool.of(file), content_type, cooperator)
        question = cls(clock, Deferred.fromCoroutine(asking))
        question.pending.addBoth(lambda result: setattr(question, "result", result))
        return question

    def step(self) -> None:
        self.clock.advance(1)

    def finish(self) -> Said:
        while not self.pending.called:
            self.step()
        assert isinstance(self.result, Said), self.result
        return self.result


def said(body: bytes, content_type: str | None = None) -> Said:
    return Question.of(BytesIO(body), content_type).finish()


def model(body: bytes, content_type: str | None = None) -> str | None:
    return said(body, content_type).model


@pytest.mark.parametrize("content_type", [None, "", "application/json", "text/plain", "x;;=\"'"])
def test_json(content_type: str | None) -> None:
    """
    Whatever is no form is read as JSON, however its sender calls it.
    """
    assert model(b' {"prompt": "a fox", "model": "org/name"}', content_type) == "org/name"
    assert model(b'{"extra_body": {"model": "inner"}}', content_type) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"model"',
        b"model=x",
        b'{"model": "x"',
        b'{"model": "\xff"}',
        b'{"model": ' + b"[" * 100_000,
        b'{"model": ' + b"9" * 5000 + b"}",
        b'{"model": null}',
        b'{"model": 7}',
        b'{"model": ["x"]}',
        b'{"model": ""}',
        b'{"model": "%s"}' % (b"x" * (LONGEST_NAME + 1)),
        b'{"more": "%s", "model": "x", "last": "%s"}' % (b"y" * LARGEST_BODY, b"y" * 5000),
    ],
)
def test_json_that_names_none(body: bytes) -> None:
    """
    Malformed bodies, impossible names and the middle of large bodies name none.
    """
    assert model(body, "application/json") is None


def test_the_largest_json() -> None:
    """
    A body of 1 MiB is read to its last byte, and one byte more leaves its two ends.
    """
    end = b', "model": "x", "more": "%s"}' % (b"z" * 9000)
    body = b'{"more": "%s"' % (b"y" * (LARGEST_BODY - len(b'{"more": ""') - len(end))) + end
    assert len(body) == LARGEST_BODY
    assert model(body) == "x"
    assert said(b" " + body) == NOTHING


def test_a_picture_in_json() -> None:
    """
    What stands around a large picture is said, and the picture counts as one.
    """
    picture = b"A" * (2 * LARGEST_BODY)
    for name in (b"reference_url", b"input_image"):
        body = b'{"model":"x","%s":"data:%s","n":2,"size":"832x480"}' % (name, picture)
        assert said(body) == Said({"n": 2, "size": "832x480"}, 1, "x")
    assert said(b'{"picture":"%s","n":2}' % picture) == Said({"n": 2})
    assert said(b"[%s]" % picture) == NOTHING


def test_the_fields_of_json() -> None:
    """
    Fields that tell the amount of work are said, numbers as they are, and no others.
    """
    body = {"prompt": "a fox", "n": 2, "guidance_scale": 4.5, "size": "1x2", "user": "me"}
    assert said(json.dumps(body).encode()) == Said({"n": 2, "guidance_scale": 4.5, "size": "1x2"})
    assert said(b"{}") == Said({})
    assert said(b"[]") == NOTHING


def test_fields_within_objects() -> None:
    """
    Objects that hold fields are said with these, also when they are given as text.
    """
    inner = {"n": 3, "prompt": "a fox", "parameters": {"n": 1}}
    small = {"n": 3, "parameters": {}}
    body = {"extra_body": inner, "extra_json": json.dumps(inner), "extra_params": "{", "n": 1}
    assert said(json.dumps(body).encode()).fields == {
        "extra_body": small,
        "extra_json": small,
        "extra_params": {},
        "n": 1,
    }
    body = {"parameters": {"width": 512, "x": 1}, "instances": [{"prompt": "a"}, {"prompt": "b"}]}
    assert said(json.dumps(body).encode()).fields == {"parameters": {"width": 512}, "instances": 2}
    text = json.dumps(inner)
    assert said(form([Part("extra_body", text.encode())]), FORM).fields == {"extra_body": small}


@pytest.mark.parametrize(
    ("body", "references"),
    [
        ({"reference_url": "http://a/b.png"}, 1),
        ({"reference_url": ""}, 0),
        ({"reference_url": None}, 0),
        ({"input_image": "data:image/png;base64,AAAA"}, 1),
        ({"input_reference": "/pictures/a.png"}, 1),
        ({"image_path": ["/a.png", "/b.png"]}, 2),
        ({"image_path": "/a.png"}, 1),
        ({"extra_body": {"reference_url": "http://a/b.png"}}, 1),
        ({"url": "http://a/b.png", "prompt": "input_image"}, 0),
    ],
)
def test_references_in_json(body: dict[str, object], references: int) -> None:
    """
    Images that a body names are counted wherever a worker looks for them.
    """
    assert said(json.dumps(body).encode()).references == references


def test_references_in_forms() -> None:
    """
    Files and addresses of input images are counted; masks, videos and empty fields are none.
    """
    parts = [
        Part("image", b"x", "a.png"),
        Part("image[]", b"x" * 200_000, "b.png"),
        Part("image[]", b"x", "c.png"),
        Part("input_reference", b"x", "d.png"),
        Part("mask", b"x", "e.png"),
        Part("video_reference", b"x", "f.mp4"),
        Part("image", b"", ""),
        Part("image", b"x"),
        Part("url", b"http://a/b.png"),
        Part("url[]", b"data:" + b"x" * 100_000),
        Part("url[]", b""),
        Part("reference_url", b"http://a/b.png"),
    ]
    assert said(form(parts), FORM).references == 7


def test_fields_of_forms() -> None:
    """
    Fields of forms are texts, those behind files included; empty ones are none, as workers see it.
    """
    parts = [
        Part("n", b"1"),
        Part("image", b"x" * 300_000, "a.png"),
        Part("n", b"2"),
        Part("size", b"512x512"),
        Part("negative_prompt", b""),
        Part("fps", b"\xff"),
        Part("prompt", b"a fox"),
    ]
    assert said(form(parts), FORM) == Said({"n": "2", "size": "512x512"}, 1)
    kind = "application/x-www-form-urlencoded"
    assert said(b"n=1&size=512x512&n=%32&prompt=a+fox&negative_prompt=", kind) == Said(
        {"n": "2", "size": "512x512"}
    )


@given(st.data())
def test_what_is_kept_is_small(data: st.DataObject) -> None:
    """
    Whatever a body holds, a few hundred bytes of it are kept for each field.
    """
    large = st.sampled_from(["x" * 1000, [0] * 1000, 10**1000, {"n": "x" * 1000}, "[" * 900])
    nested = st.dictionaries(st.sampled_from(sorted(FIELDS)), large, max_size=3)
    body = data.draw(st.dictionaries(st.sampled_from(sorted(FIELDS)), large | nested, min_size=1))
    fields = said(json.dumps(body).encode()).fields
    assert fields is not None
    assert fields.keys() == body.keys()
    assert len(json.dumps(dict(fields))) < len(body) * (4 * LONGEST_TEXT + 200)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=30)), st.text(min_size=1, max_size=40))
def test_urlencoded(fields: dict[str, str], name: str) -> None:
    """
    The field of a URL-encoded form is found among others, in any script.
    """
    kind = "application/x-www-form-urlencoded"
    fields.pop("model", None)
    assert model(urlencode(fields).encode(), kind) is None
    assert model(urlencode({**fields, "model": name}).encode(), kind) == name
    assert model(b"m%6fdel=" + urlencode({"": name}).encode()[1:], kind) == name


@pytest.mark.parametrize(
    "body", [b"model", b"model=%ff", b"model=" + b"x" * LARGEST_BODY, b"a=1&" * 1000 + b"model=x"]
)
def test_urlencoded_that_names_none(body: bytes) -> None:
    """
    Broken text, large bodies and endless fields name none.
    """
    assert model(body, "application/x-www-form-urlencoded") is None


NAMES = st.sampled_from(["model", "Model", "prompt", "image[]", "größe"])
# No line of a part may be the boundary; pieces of it may.
CONTENTS = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b"--", b"--limi", b"limit", b"x", b"\xff", b"\r\n--"])
).map(b"".join)
SIZES = st.sampled_from([0, 1, STEP - 250, STEP - 150, STEP + STRIDE - 300, 3 * STRIDE - 200])


@st.composite
def parts(draw: st.DrawFn) -> Part:
    filename = draw(st.sampled_from([None, None, "", "fox.png"]))
    padding = b"" if filename is None else b"x" * (draw(SIZES) + draw(st.integers(0, 250)))
    return Part(draw(NAMES), padding + draw(CONTENTS), filename)


def text(content: bytes) -> str | None:
    try:
        return content.decode() if len(content.decode()) <= LONGEST_NAME else None
    except UnicodeDecodeError:
        return None


@given(st.lists(parts(), max_size=6), st.binary(max_size=100))
@example([Part("image", b"", "model"), Part("model", "größe/😀".encode())], b"")
@example([Part("model", b"file", "x"), Part("model", b"a"), Part("model", b"b")], b"")
def test_forms(form_parts: list[Part], junk: bytes) -> None:
    """
    Of any form, its files in whatever pieces they are read, the last text field counts.
    """
    texts = [part.content for part in form_parts if (part.name, part.filename) == ("model", None)]
    expected = text(texts[-1]) or None if texts else None
    assume(all(b"--limit" not in part.content for part in form_parts))
    assert model(form(form_parts) + junk, FORM) == expected


@pytest.mark.parametrize("filler", [b"x", b"\r\n--limi", b"--limit", b"\r\n--limitx"])
def test_a_field_at_every_place_in_a_step(filler: bytes) -> None:
    """
    It does not matter where between two reads a field or its boundary falls.
    """
    for start in (STEP, STEP + STRIDE, STEP + 2 * STRIDE):
        for size in range(start - 140, start - 60):
            content = b"x" + (filler * (size // len(filler) + 1))[: size - 1]
            body = form([Part("image", content, "a.png"), Part("model", b"org/name")])
            assert model(body, FORM) == "org/name"


def test_a_boundary_that_is_none() -> None:
    """
    Pieces of a boundary that stand far apart in a file are none.
    """
    start = len(form([Part("image", b"", "a.png")])) - len(b"\r\n--limit--\r\n")
    for piece in (b"\r\n--lim", b"\r\n--li", b"\r\n--l"):
        rest = b"\r\n--limit"[len(piece) :]
        content = b"x" * (STEP - start - len(piece)) + piece + b"x" * 2 * STRIDE + rest + b"--limit"
        body = form([Part("image", content, "a.png"), Part("model", b"org/name")])
        assert model(body, FORM) == "org/name"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
        f"multipart/form-data; boundary={'x' * 71}",
        "multipart/form-data; boundary*=x''%ff",
        "multipart/mixed; boundary=limit",
    ],
)
def test_no_form(content_type: str) -> None:
    """
    A form without its own boundary, and what is another kind of message, name none.
    """
    assert model(form([Part("model", b"x")]), content_type) is None


@pytest.mark.parametrize(
    "content_type",
    ["Multipart/Form-Data;boundary=limit", 'multipart/form-data; charset=utf-8; boundary="limit"'],
)
def test_spellings_of_a_form(content_type: str) -> None:
    """
    The content type is read as RFC 9110 8.3.1 has it.
    """
    assert model(form([Part("model", b"x")]), content_type) == "x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--limit",
        b"--limit--",
        b"--limit\r\n\r\n\r\nx\r\n--limit--",
        b"--limit\r\nContent-Disposition: form-data\r\n\r\nx\r\n--limit--",
        b"--limit\r\nContent-Disposition: \xff\r\n\r\nx\r\n--limit--",
        b'--limit\r\nContent-Disposition: form-data; name="model"\r\n\r\nx',
        form([Part("model", b"\xff")]),
        form([Part("model", b"x" * (LONGEST_NAME + 1))]),
        form([Part("model", b"x" * 200_000)]),
        form([Part("a", b"1")] * 1001 + [Part("model", b"x")]),
        b"p" * 100_000 + b"\r\n" + form([Part("model", b"x")]),
        form([Part("a" * 200_000, b"1"), Part("model", b"x")]),
    ],
)
def test_broken_forms(body: bytes) -> None:
    """
    A form that ends early, has no usable field or holds too much of anything but files names none.
    """
    assert model(body, FORM) is None


@given(st.binary(max_size=300), st.booleans())
def test_any_form_is_taken(body: bytes, opened: bool) -> None:
    """
    Nothing raises, whatever is sent as a form.
    """
    opening = b"--limit\r\nContent-Disposition: form-data; name" if opened else b""
    model(opening + body, FORM)
    model(opening + body + b"\r\n\r\n\r\n--limit--", FORM)


class Watched(BytesIO):
    """
    A file that notes how much is read from it at a time.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.reads: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.reads.append(len(data))
        return data


def test_a_large_form_is_read_in_steps() -> None:
    """
    The reactor is given back after each 64 KiB, and others may read the body in between.
    """
    file = Watched(form([Part("image", b"x" * 1_000_000, "a.png"), Part("model", b"org/name")]))
    question = Question.of(file, FORM)
    steps = 0
    while not question.pending.called:
        before = len(file.reads)
        question.step()
        assert sum(file.reads[before:]) <= STEP + STRIDE
        file.seek(steps * 7919)
        steps += 1
    assert question.finish().model == "org/name"
    assert steps > 1_000_000 / STRIDE


@pytest.mark.parametrize(("behind", "name"), [(-(1 << 20), "org/name"), (0, None)])
def test_how_far_a_form_is_read(behind: int, name: str | None) -> None:
    """
    What stands behind the first 64 MiB is as if it were not there, and what was seen counts.
    """
    start = form([Part("n", b"2"), Part("image", b"", "a.png")])
    end = form([Part("model", b"org/name")])
    with TemporaryFile() as file:
        file.write(start[: -len(b"\r\n--limit--\r\n")])
        file.seek(MOST_READ + behind)
        file.write(b"\r\n" + end)
        assert Question.of(file, FORM).finish() == Said({"n": "2"}, 1, name)


def test_an_endless_name() -> None:
    """
    A name that is too long is none, and what follows it is read.
    """
    body = form([Part("model", b"x" * 1_000_000), Part("n", b"2")])
    assert said(body, FORM) == Said({"n": "2"})


def test_a_large_form_takes_no_memory() -> None:
    """
    A form on disk is not brought into memory.
    """
    with TemporaryFile() as file:
        file.write(form([Part("image", b"x" * (6 << 20), "a.png"), Part("model", b"org/name")]))
        tracemalloc.start()
        try:
            assert Question.of(file, FORM).finish().model == "org/name"
            assert tracemalloc.get_traced_memory()[1] < 2 << 20
        finally:
            tracemalloc.stop()


def test_a_client_that_hangs_up() -> None:
    """
    A cancelled question stops reading at once and leaves nothing to be logged.
    """
    file = Watched(form([Part("image", b"x" * 1_000_000, "a.png")]))
    question = Question.of(file, FORM)
    question.step()
    question.pending.cancel()
    assert isinstance(question.result, Failure)
    assert question.result.check(CancelledError)
    question.result = None
    before = len(file.reads)
    question.clock.pump([1] * 10)
    assert len(file.reads) == before
    file.close()
    question.clock.pump([1] * 40)
    assert question.clock.getDelayedCalls() == []


def test_a_body_that_is_closed() -> None:
    """
    A body that goes away while it is read says nothing.
    """
    file = BytesIO(form([Part("image", b"x" * 1_000_000, "a.png"), Part("model", b"x")]))
    question = Question.of(file, FORM)
    question.step()
    file.close()
    assert question.finish() == NOTHING


@given(st.sampled_from([b"{" * 50, json.dumps({"model": "x"}).encode(), form([])]))
def test_a_body_closed_before(body: bytes) -> None:
    """
    A body that was closed before says nothing.
    """
    file = BytesIO(body)
    spool = Spool.of(file)
    file.close()
    clock = Clock()
    cooperator = Cooperator(scheduler=lambda step: clock.callLater(0, step))
    results: list[Said] = []
    Deferred.fromCoroutine(asked(spool, FORM, cooperator)).addCallback(results.append)
    clock.pump([0, 0])
    assert results == [NOTHING]


def test_json_needs_no_second_turn() -> None:
    """
    JSON is read at once, whatever its size.
    """
    for padding in (0, 2 * LARGEST_BODY):
        question = Question.of(BytesIO(b'{"n":1,"x":"%s"}' % (b"x" * padding)), None)
        assert question.pending.called
        assert question.clock.getDelayedCalls() == []
