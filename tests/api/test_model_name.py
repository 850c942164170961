"""
The model that a request names: found wherever clients put it, and never at the price of a stall.
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

from sgl_droute.api.model_name import LARGEST_BODY, LONGEST_NAME, named_model
from sgl_droute.workers.bodies import Spool

# Bytes of a form that are read at once.
STEP = 1 << 14
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
class Asked:
    """
    A question for the model, answered in steps: one read of the body with each `step`.
    """

    file: BinaryIO
    content_type: str | None
    clock: Clock
    pending: Deferred[str | None]
    result: str | Failure | None = None

    @classmethod
    def of(cls, file: BinaryIO, content_type: str | None) -> Asked:
        clock = Clock()
        cooperator = Cooperator(
            terminationPredicateFactory=lambda: lambda: True,
            scheduler=lambda step: clock.callLater(1, step),
        )
        naming = named_model(Spool.of(file), content_type, cooperator)
        asked = cls(file, content_type, clock, Deferred.fromCoroutine(naming))
        asked.pending.addBoth(lambda result: setattr(asked, "result", result))
        return asked

    def step(self) -> None:
        self.clock.advance(1)

    def finish(self) -> str | Failure | None:
        while not self.pending.called:
            self.step()
        return self.result


def model(body: bytes, content_type: str | None = None) -> str | None:
    result = Asked.of(BytesIO(body), content_type).finish()
    assert not isinstance(result, Failure), result
    return result


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
        b'{"model": "x", "more": "%s"}' % (b"y" * LARGEST_BODY),
    ],
)
def test_json_that_names_none(body: bytes) -> None:
    """
    Bodies that are malformed, too large or name no possible model name none.
    """
    assert model(body, "application/json") is None


def test_the_largest_json() -> None:
    """
    A body of 1 MiB is read to its last byte.
    """
    frame = len(b'{"more": "", "model": "x"}')
    body = b'{"more": "%s", "model": "x"}' % (b"y" * (LARGEST_BODY - frame))
    assert len(body) == LARGEST_BODY
    assert model(body) == "x"
    assert model(b" " + body) is None


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
SIZES = st.sampled_from([0, 1, STEP - 250, STEP - 150, 3 * STEP - 200])


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
    Of any form, its files in whatever pieces they are read, the first text field counts.
    """
    texts = [part.content for part in form_parts if (part.name, part.filename) == ("model", None)]
    expected = text(texts[0]) or None if texts else None
    assume(all(b"--limit" not in part.content for part in form_parts))
    assert model(form(form_parts) + junk, FORM) == expected


def test_a_field_at_every_place_in_a_step() -> None:
    """
    It does not matter where between two reads a field or its boundary falls.
    """
    for size in range(4 * STEP - 350, 4 * STEP, 7):
        body = form([Part("image", b"x" * size, "a.png"), Part("model", b"org/name")])
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
    The reactor is given back after each 16 KiB, and others may read the body in between.
    """
    file = Watched(form([Part("image", b"x" * 1_000_000, "a.png"), Part("model", b"org/name")]))
    asked = Asked.of(file, FORM)
    steps = 0
    while not asked.pending.called:
        before = len(file.reads)
        asked.step()
        assert sum(file.reads[before:]) <= STEP
        file.seek(steps * 7919)
        steps += 1
    assert asked.result == "org/name"
    assert steps > 1_000_000 / STEP


def test_the_rest_is_not_read() -> None:
    """
    Once the model is known the files behind it are left alone.
    """
    file = Watched(form([Part("model", b"org/name"), Part("image", b"x" * 1_000_000, "a.png")]))
    assert Asked.of(file, FORM).finish() == "org/name"
    assert sum(file.reads) <= STEP


def test_an_endless_name_is_not_read() -> None:
    """
    A name is given up once it is too long.
    """
    file = Watched(form([Part("model", b"x" * 1_000_000)]))
    assert Asked.of(file, FORM).finish() is None
    assert sum(file.reads) <= STEP


def test_a_large_form_takes_no_memory() -> None:
    """
    A form on disk is not brought into memory.
    """
    with TemporaryFile() as file:
        file.write(form([Part("image", b"x" * (16 << 20), "a.png"), Part("model", b"org/name")]))
        tracemalloc.start()
        try:
            assert Asked.of(file, FORM).finish() == "org/name"
            assert tracemalloc.get_traced_memory()[1] < 2 << 20
        finally:
            tracemalloc.stop()


def test_a_client_that_hangs_up() -> None:
    """
    A cancelled question stops reading at once and leaves nothing to be logged.
    """
    file = Watched(form([Part("image", b"x" * 1_000_000, "a.png")]))
    asked = Asked.of(file, FORM)
    asked.step()
    asked.pending.cancel()
    assert isinstance(asked.result, Failure)
    assert asked.result.check(CancelledError)
    asked.result = None
    before = len(file.reads)
    asked.clock.pump([1] * 10)
    assert len(file.reads) == before
    file.close()
    asked.clock.pump([1] * 40)
    assert asked.clock.getDelayedCalls() == []


def test_a_body_that_is_closed() -> None:
    """
    A body that goes away while it is read names none.
    """
    file = BytesIO(form([Part("image", b"x" * 1_000_000, "a.png"), Part("model", b"x")]))
    asked = Asked.of(file, FORM)
    asked.step()
    file.close()
    assert asked.finish() is None


@given(st.sampled_from([b"{" * 50, json.dumps({"model": "x"}).encode(), form([])]))
def test_a_body_closed_before(body: bytes) -> None:
    """
    A body that was closed before names none.
    """
    file = BytesIO(body)
    spool = Spool.of(file)
    file.close()
    clock = Clock()
    cooperator = Cooperator(scheduler=lambda step: clock.callLater(0, step))
    results: list[str | None] = []
    naming = Deferred.fromCoroutine(named_model(spool, FORM, cooperator))
    naming.addCallback(results.append)
    clock.pump([0, 0])
    assert results == [None]
