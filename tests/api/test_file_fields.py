"""
Requests that name files on workers: whatever a worker would see in a body, the router sees too.
"""

from __future__ import annotations

import json
from hashlib import sha256
from io import BytesIO
from itertools import count
from typing import Any
from urllib.parse import urlencode

import msgpack  # type: ignore[import-untyped]
import pytest
from attrs import define
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, Cooperator
from twisted.web.http_headers import Headers

from sgl_droute.api.entry.access import Access
from sgl_droute.api.entry.door import ANYBODY, Door
from sgl_droute.api.fields.file_fields import FileFields
from sgl_droute.api.fields.form_scanning import boundary_of, multipart_steps
from sgl_droute.api.fields.msgpack_scanning import msgpack_steps
from sgl_droute.api.fields.scanning import Scan, Steps, names_nothing
from sgl_droute.api.telemetry.account import Account
from sgl_droute.errors import BadRequest, Forbidden
from sgl_droute.fleet.keyring import Key, Keyring, keyring
from tests.api.reading import REFUSED, router_finds, worker_files

JSON = "application/json"
FORM = "multipart/form-data; boundary=bound"
URLENCODED = "application/x-www-form-urlencoded"
MSGPACK = "application/msgpack"


def part(head: str, body: bytes = b"x", disposition: str = "Content-Disposition") -> bytes:
    return b"--bound\r\n%b: form-data%b\r\n\r\n%b\r\n" % (
        disposition.encode(),
        head.encode("latin-1"),
        body,
    )


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--bound--\r\n"


def text(name: str, value: bytes) -> bytes:
    return part(f'; name="{name}"', value)


PLAIN = {"prompt": "a fox", "size": "832x480", "seconds": 4, "seed": [1, 2]}
URL = "https://example.com/a.png"
DATA = "data:image/png;base64," + "A" * 200


@pytest.mark.parametrize(
    ("found", "body"),
    [
        (None, PLAIN),
        (None, {**PLAIN, "input_reference": URL, "reference_url": DATA, "video_path": None}),
        (None, {**PLAIN, "output_path": "", "perf_dump_path": None, "enable_upscaling": False}),
        (None, {"prompt": '{"camera": "/a/b.png", "video": "pan"}', "negative_prompt": "file:x"}),
        (None, {"instances": [{"prompt": "x", "image_url": URL}], "parameters": {"width": 64}}),
        (None, {"input": {"observation": {"images": {"cam": {"b64_json": "/9j/4AAQ"}}}}}),
        (None, {"input": {"observation": {"images": {"cam": [[[1, 2, 3]]]}, "state": [0.5]}}}),
        (None, {"extra_body": '{"num_frames": 8}', "cache_dit_params": '{"a": 1}'}),
        (None, {"diffusers_kwargs": {"eta": 0.5, "images": [URL, DATA]}}),
        ("output_path", {**PLAIN, "output_path": "/tmp"}),
        ("output_path", {**PLAIN, "output_path": URL}),
        ("video_path", {"video_path": "/a.mp4"}),
        ("video_url", {"video_url": "/a.mp4"}),
        ("input_reference", {"input_reference": "a.png"}),
        ("reference_url", {"reference_url": "/etc/passwd.mp4"}),
        ("image_path", {"image_path": [URL, "/a.png"]}),
        ("upscaling_model_path", {"upscaling_model_path": "owner/repo"}),
        ("image", {"instances": [{"prompt": "x", "image": "/a.png"}]}),
        ("uri", {"conditions": [{"type": "image", "uri": "file:///a.png"}]}),
        ("image_path", {"extra_sampling_params": {"image_path": "/a.png"}}),
        ("output_path", {"extra_body": {"extra_params": {"output_path": "x"}}}),
        ("output_path", {"extra_body": json.dumps({"extra_params": '{"output_path": "x"}'})}),
        ("output_path", {"diffusers_kwargs": {"a": [{"b": {"output_path": "x"}}]}}),
        ("images", {"images": {"cam": ["/a.png"]}}),
        ("cam", {"images": {"cam": "/a.png"}}),
        ("control_path", {"lidar": {"control_path": "/a.npz"}}),
        ("action", {"action": "/a.json"}),
        ("adapter", {"adapter": "/a/b.safetensors"}),
        (REFUSED, {"observation": [["image_path", "/a.png"]]}),
        (REFUSED, [["output_path", "/tmp"], ["prompt", "x"]]),
    ],
)
def test_json(found: str | None, body: object) -> None:
    """
    A field is found wherever it is; what names no file is let through.
    """
    for content_type in (JSON, None, "text/plain", "application/json; charset=utf-8"):
        assert router_finds(json.dumps(body).encode(), content_type) == found
        assert router_finds(json.dumps(body, indent=3).encode(), content_type) == found


@pytest.mark.parametrize(
    "body",
    [
        rb'{"output\u005fpath": "x"}',
        rb'{"\u006f\u0075tput_path": "x"}',
        b'{"output_path": "", "output_path": "x"}',
        b'{"output_path": "x", "output_path": ""}',
        b'{"output_path"\n\t :\r "x"}',
        rb'{"input_reference": "\/a.png"}',
        rb'{"input_reference": "\u002fa.png"}',
        rb'{"extra_body": "\u007b\u0022output_path\u0022: 1, \"output_path\": \"x\"}"}',
        b'\xef\xbb\xbf{"output_path": "x"}',
        b'  \r\n{"output_path": "x"}',
        '{"output_path": "x"}'.encode("utf-16"),
        '{"output_path": "x"}'.encode("utf-16-le"),
        '{"output_path": "x"}'.encode("utf-32-be"),
        b'{"a": "\\\\", "output_path": "x"}',
        b'{"a": "\\\\\\"", "output_path": "x"}',
        b'{"a": "' + b"\\\\" * 40_000 + b'", "output_path": "x"}',
        b'{"a": "x' + b'\\"' * 50_000 + b'", "output_path": "x"}',
        b'{"a": "' + b"A" * (1 << 20) + b'", "output_path": "x"}',
        b'{"a": [' + b"1," * (1 << 20) + b'1], "output_path": "x"}',
        b'{"a": [' + b'"x",' * (1 << 16) + b'1], "output_path": "x"}',
        b'{"output_path"' + b" " * (1 << 18) + b':"x"}',
        b'{"image_path": [' + b"[]," * (1 << 16) + b'["x"]]}',
        b'{"image_path": [' + b"[" * 900 + b'"x"' + b"]" * 900 + b"]}",
        b'{"extra_body": "' + b" " * (1 << 20) + b'{\\"output_path\\": \\"x\\"}"}',
    ],
)
def test_json_in_disguise(body: bytes) -> None:
    """
    Neither escapes nor encodings, neither repetition nor size hide a field that a worker sees.
    """
    assert worker_files(body, JSON)
    assert router_finds(body, JSON) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"a": [' + b"1," * (1 << 20) + b"1]}",
        b'{"prompt": "x", "input_reference": "data:image/png;base64,' + b"A" * (1 << 20) + b'"}',
        b'{"image": {"values": [' + b"[255, 0, 128]," * 20_000 + b'[1]], "dtype": "uint8"}}',
    ],
)
def test_large_and_harmless(body: bytes) -> None:
    """
    Data in a request, and numbers of any number, are no names of files.
    """
    assert router_finds(body, JSON) is None


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"hello",
        b'"{}"',
        b"12",
        b'{"a": "b',
        b'{"a": ["' + b'","' * (1 << 20) + b'"]}',
        b'{"a": "{' + b" " * (1 << 22) + b'"}',
        json.dumps({"a": "[" + "1," * (1 << 21) + "1]"}).encode(),
    ],
)
def test_not_to_be_read(body: bytes) -> None:
    """
    What is no JSON object, or more than any request, is refused.
    """
    assert router_finds(body, JSON) == REFUSED


def test_too_deep() -> None:
    """
    Texts in texts are looked at as deep as anybody would put them, and refused beyond.
    """
    body: object = {"output_path": "x"}
    depths = []
    for _ in range(12):
        depths.append(router_finds(json.dumps(body).encode(), JSON))
        body = {"extra_body": json.dumps(body)}
    assert depths == ["output_path"] * 9 + [REFUSED] * 3


@pytest.mark.parametrize(
    ("found", "body"),
    [
        (None, form(text("prompt", b"a fox"), text("seconds", b"4"), text("video_path", b""))),
        (None, form(text("reference_url", URL.encode()), text("url[]", DATA.encode()))),
        (None, form(part('; name="image[]"; filename="a b.png"', b"\x89PNG\r\n--boun"))),
        (None, form(part('; filename="a.png"; name="input_reference"', b"\r\n" * 9))),
        (None, form(text("prompt", b'{"path": "x"}'), text("num_images", b"2"))),
        ("output_path", form(text("prompt", b"x"), text("output_path", b"/tmp"))),
        ("video_url", form(text("video_url", b"/a.mp4"))),
        ("url[]", form(text("url[]", URL.encode()), text("url[]", b"/a.png"))),
        ("output_path", form(text("output_path", b""), text("output_path", b"x"))),
        ("output_path", form(text("extra_params", b'{"output_path": "x"}'))),
        (
            "output_path",
            form(
                text(
                    "extra_body",
                    b'{"extra_params": "{\\"output_path\\": 1, \\"output_path\\": \\"x\\"}"}',
                )
            ),
        ),
        ("perf_dump_path", form(text("diffusers_kwargs", b'[{"perf_dump_path": "x"}]'))),
        ("output_path", form(part('; name="output_path"; filename="x"'))),
        ("output_path", form(part("; name=\"output_path\"; filename*=utf-8''x"))),
        ("output_path", form(part('; NAME="output_path"'))),
        ("output_path", form(part("; name=output_path"))),
        ("output_path", form(part(';name="output_path"', b"x", "content-DISPOSITION"))),
        ("filename", form(part('; name="image"; filename="../a.png"'))),
        ("filename", form(part('; name="image"; filename="a"; filename*=utf-8\'\'..%2Fa'))),
        ("request_id", form(text("request_id", b"../../tmp/x"))),
        (REFUSED, form(part('; name="output\\_path"'))),
        (REFUSED, form(part('; name="a"; name="output_path"'))),
        (REFUSED, form(part("; name*=utf-8''output_path"))),
        (REFUSED, form(part("; name='output_path'; x=\"1"))),
        (REFUSED, form(part('; name="output_path'))),
        (REFUSED, form(part('; name="a;b"; filename="x\\"; name=output_path'))),
        (REFUSED, form(part('; filename="x"'))),
        (REFUSED, form(part('; name="a"\r\nContent-Disposition: form-data; name="output_path"'))),
        (REFUSED, form(part('; name="a"\n; name="output_path"'))),
        (REFUSED, form(part('; name="a"\r\n ; name="output_path"'))),
        (REFUSED, form(b"--bound\r\n\r\nx\r\n")),
        (REFUSED, b"\r\n" + form(text("output_path", b"x"))),
        (REFUSED, b"preamble\r\n" + form(text("output_path", b"x"))),
        (REFUSED, form(b"--bound \r\n" + text("output_path", b"x")[9:])),
        (REFUSED, form(text("a", b"x"), b"--bound  \r\n" + text("output_path", b"x")[9:])),
        (REFUSED, form(text("a", b"x")) + form(text("output_path", b"x"))),
        (REFUSED, form(text("a", b"x")).replace(b"\r\n", b"\n")),
        (REFUSED, form(text("a", b"--bound"))),
        (REFUSED, form(text("a", b"x\n--bound\r\n"))),
        (REFUSED, form(text("a", b"x"))[:-8]),
        (REFUSED, form(text("a", b"x" * ((1 << 20) + 1)))),
        (REFUSED, form(*[text("a", b"x")] * 2001)),
        (REFUSED, form(part('; name="a"\r\nX: ' + "x" * 9000))),
        (REFUSED, b"--bound--\r\n"),
    ],
)
def test_forms(found: str | None, body: bytes) -> None:
    """
    In a form a field is found however it is written, or the form is refused.
    """
    assert router_finds(body, FORM) == found


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=bound; boundary=other",
        "multipart/form-data; boundary=other; BOUNDARY=bound",
        "multipart/form-data; boundary=bound; charset=utf-16",
        "multipart/form-data; charset=utf-7; boundary=bound",
        "multipart/form-data; boundary*=utf-8''bound",
        'multipart/form-data; boundary="bo\\und"',
        'multipart/form-data; x="; boundary=other"; boundary=bound',
        "text/plain; x=multipart/form-data; boundary=bound",
        "application/x-www-form-urlencoded; x=multipart/form-data",
        "multipart/form-data, multipart/form-data; boundary=bound",
    ],
)
def test_odd_content_types(content_type: str) -> None:
    """
    A form whose header can be taken in two ways is refused.
    """
    body = form(text("prompt", b"x"), text("size", b"x"))
    assert router_finds(body, content_type) == REFUSED


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=bound",
        "Multipart/Form-Data;boundary=bound",
        ' multipart/form-data;  Boundary="bound" ; charset=UTF-8',
    ],
)
def test_usual_content_types(content_type: str) -> None:
    """
    A form is read with each spelling of its header that clients use.
    """
    assert router_finds(form(text("prompt", b"x")), content_type) is None
    assert router_finds(form(text("output_path", b"x")), content_type) == "output_path"
    assert boundary_of('multipart/form-data; boundary="=_a b:c"') == b"=_a b:c"


@pytest.mark.parametrize(
    ("found", "body"),
    [
        (None, urlencode({**PLAIN, "input_reference": DATA}).encode()),
        ("output_path", b"prompt=x&output_path=%2Ftmp"),
        ("output_path", b"prompt=x&output%5Fpath=x"),
        ("output_path", b"&&output_path=x=y"),
        ("output_path", b"extra_body=%7B%22output_path%22:%22x%22}"),
        ("output_path", b'{"output_path": "x"}'),
        (None, b'{"prompt": "x"}'),
        (REFUSED, b"prompt=x;output_path=x"),
        (REFUSED, b"a=b&" * 1001),
        (REFUSED, b"a=" + b"b" * (1 << 22)),
    ],
)
def test_urlencoded(found: str | None, body: bytes) -> None:
    """
    A URL-encoded form is read too, and as JSON besides: a worker that finds no form may do that.
    """
    assert router_finds(body, URLENCODED) == found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"])
def test_json_that_is_called_a_form(encoding: str) -> None:
    """
    Workers take a body for JSON that is no form with parts, whatever its type says and in any
    Unicode encoding.
    """
    body = '{"prompt": "x", "output_path": "/tmp/x"}'.encode(encoding)
    assert json.loads(body)["output_path"] == "/tmp/x"
    expected = "output_path" if encoding == "utf-8-sig" else REFUSED
    assert router_finds(body, URLENCODED) == expected


def test_msgpack() -> None:
    """
    The fields of a msgpack map are found as those of JSON.
    """
    observation = {"images": {"cam": {b"__ndarray__": True, b"data": b"\0" * 90, b"dtype": "|u1"}}}
    outcomes = {
        None: {"input": {"observation": observation}, "n": 1.5, "state": [0.5] * 9, "a": None},
        "image_path": {"input": {"observation": {"image_path": "/a.png"}}},
        "video": {"observation": {b"video": b"/a.mp4"}},
        "output_path": {"extra_body": '{"output_path": "x"}'},
        "cam": {"images": {"cam": "/a.png"}},
        REFUSED: {"observation": [["image_path", "/a.png"]]},
    }
    for found, fields in outcomes.items():
        assert router_finds(msgpack.packb(fields), MSGPACK) == found
    for wrong in (b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1a\xdb\xff\xff\xff\xff", b"\x81\x81\x01"):
        assert router_finds(wrong, MSGPACK) == REFUSED
    assert router_finds(b'{"output_path": "x"}', "application/x-msgpack") == "output_path"


# Laws: what the worker sees the router sees.

NAMES = ["output_path", "video_path", "input_reference", "image", "url[]", "images", "id"]
NAMES += ["prompt", "size", "extra_body", "extra_params", "observation", "parameters", "b64_json"]
VALUES = ["", "x", "/a.png", "../b", URL, DATA, "4", '{"output_path":"x"}', '[{"image":"/a"}]', "{"]
names = st.sampled_from(NAMES)
values = st.recursive(
    st.one_of(st.sampled_from(VALUES), st.none(), st.booleans(), st.integers(-9, 9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(names, inner, max_size=3),
        st.lists(st.tuples(names, inner), max_size=2),
        st.dictionaries(names, inner, max_size=2).map(json.dumps),
    ),
    max_leaves=8,
)


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> str:
    """
    JSON for *value*, with odd spaces, escapes and repeated names.
    """
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    if isinstance(value, str):
        letters = [
            f"\\u{ord(each):04x}" if draw(st.integers(0, 9)) == 0 else json.dumps(each)[1:-1]
            for each in value[:30]
        ]
        return f'"{"".join(letters)}{json.dumps(value[30:])[1:-1]}"'
    if isinstance(value, dict):
        pairs = list(value.items())
        pairs += draw(st.lists(st.tuples(names, st.sampled_from(VALUES)), max_size=1))
        inner = [f"{draw(spelled(n))}{space}:{space}{draw(spelled(v))}" for n, v in pairs]
        return f"{{{space}{f'{space},'.join(inner)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{space}{f',{space}'.join(draw(spelled(each)) for each in value)}]"
    return json.dumps(value)


objects = st.dictionaries(names, values, max_size=4)
bodies = objects.flatmap(spelled).map(str.encode)
content_types = st.sampled_from([JSON, None, "text/plain", URLENCODED, MSGPACK, "a/b; c=d"])


@given(st.one_of(bodies, values.flatmap(spelled).map(str.encode)), content_types)
@example(b'{"observation": [["image", "/a"]]}', JSON)
def test_no_json_hides_a_field(body: bytes, content_type: str | None) -> None:
    """
    Where a worker sees a file named in JSON, however that is written, the router sees one too.
    """
    if worker_files(body, content_type):
        assert router_finds(body, content_type) is not None


@given(bodies, st.integers(1, 9))
def test_the_same_in_pieces(body: bytes, size: int) -> None:
    """
    What is found does not depend on the pieces in which a body is read.
    """
    assert _outcome(Scan(_reading(body, size)).steps()) == _outcome(
        Scan(BytesIO(body).read).steps()
    )


@given(bodies)
def test_plainly_harmless(body: bytes) -> None:
    """
    What is let through at first sight would be let through by a closer look.
    """
    if names_nothing(body):
        assert _outcome(Scan(BytesIO(body).read).steps()) is None


dispositions = st.builds(
    lambda *pieces: "".join(pieces),
    st.sampled_from(["; ", ";", " ; "]),
    st.sampled_from(["name=", "Name=", "name*=", "name ="]),
    st.sampled_from(
        ['"output_path"', "output_path", '"out\\put_path"', '"image"', '"a"', '"prompt"']
    ),
    st.sampled_from(["", '; filename="a"', '; filename="/a"', '; name="output_path"', '; x="'])
    | st.sampled_from(["; filename=", "; filename*=utf-8''a", ";", '; filename="a\\"', "\r\nX: y"]),
)
parts = st.builds(
    part, dispositions, st.sampled_from([b"", b"x", b"/a.png", b"--bound\r\n", b"\r\n", b"{}"])
)
PIECES = [b"\r\n", b"\n", b"\r", b"--bound", b"--bound--", b"--", b" ", b'"', b"\\", b";"]
PIECES += [b"\r\n\r\n", text("output_path", b"x")]
PIECES += [b"Content-Disposition: form-data; name=output_path\r\n", b""]
pieces = st.sampled_from(PIECES)


@st.composite
def broken_forms(draw: st.DrawFn) -> bytes:
    """
    Forms, some with odd parts, some with pieces put in or taken out anywhere.
    """
    body = form(*draw(st.lists(parts, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        gone = draw(st.integers(0, 3))
        body = body[:at] + draw(pieces) + body[at + gone :]
    return body


form_types = st.builds(
    lambda *pieces: "".join(pieces),
    st.sampled_from(["multipart/form-data", "Multipart/form-data", "text/plain", URLENCODED]),
    st.sampled_from(["; boundary=bound", ';boundary="bound"', "; boundary=x; boundary=bound", ""]),
    st.sampled_from(["", "; charset=utf-8", "; charset=utf-16", "; x=multipart/form-data", ";"]),
)


@given(broken_forms(), st.one_of(st.just(FORM), form_types))
def test_no_form_hides_a_field(body: bytes, content_type: str) -> None:
    """
    Where a worker's parser sees a field that names a file, in a form that is odd or broken in any
    way, the router sees one or refuses the form.
    """
    if worker_files(body, content_type):
        assert router_finds(body, content_type) is not None


@given(broken_forms(), st.integers(1, 9))
def test_forms_in_pieces(body: bytes, size: int) -> None:
    """
    What is found in a form does not depend on the pieces in which it is read.
    """
    read_whole = _outcome(multipart_steps(BytesIO(body).read, b"bound"))
    assert _outcome(multipart_steps(_reading(body, size), b"bound")) == read_whole


@given(st.lists(st.tuples(names, st.sampled_from(VALUES)), max_size=4), st.data())
def test_no_urlencoded_form_hides_a_field(
    fields: list[tuple[str, str]], data: st.DataObject
) -> None:
    """
    The same of URL-encoded forms.
    """
    body = urlencode(fields).encode()
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.sampled_from([b"&", b";", b"=", b"%", b"+"])) + body[at:]
    if worker_files(body, URLENCODED):
        assert router_finds(body, URLENCODED) is not None


@given(st.dictionaries(names | names.map(str.encode), values, max_size=4), st.integers(1, 9))
def test_no_msgpack_hides_a_field(fields: dict[Any, Any], size: int) -> None:
    """
    The same of msgpack, in whatever pieces it is read.
    """
    body = msgpack.packb(fields)
    found = router_finds(body, MSGPACK)
    if worker_files(body, MSGPACK):
        assert found is not None
    in_pieces = _outcome(msgpack_steps(_reading(body, size)))
    assert (in_pieces or REFUSED) == (found or REFUSED) or in_pieces == found


@given(st.binary(max_size=60), st.sampled_from([JSON, FORM, URLENCODED, MSGPACK, None]))
def test_any_bytes(body: bytes, content_type: str | None) -> None:
    """
    Whatever a body is, it is read or refused.
    """
    found = router_finds(body, content_type)
    if worker_files(body, content_type):
        assert found is not None


def _reading(body: bytes, size: int) -> Any:
    file = BytesIO(body)
    return lambda count: file.read(min(size, count))


def _outcome(steps: Steps[str | None]) -> str | None:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        found: str | None = end.value
        return found
    except ValueError:
        return REFUSED


# Requests.


@define(eq=False)
class Asking:
    """
    As much of a request as is looked at.
    """

    requestHeaders: Headers
    content: BytesIO
    caller: Any = ANYBODY


KEYS = [
    Key(name="web", digest=sha256(b"web-key").digest()),
    Key(name="files", digest=sha256(b"files-key").digest(), files=True),
]
RING = keyring(b"x", KEYS, None)


def asking(body: bytes, key: str, *types: str, ring: Keyring = RING, free: bool = False) -> Any:
    """
    A request that was let in, and what looks at it.
    """
    clock = Clock()
    door = Door(clock.seconds, ring, free)
    request: Any = Asking(Headers({"X-Api-Key": [key], "Content-Type": list(types)}), BytesIO(body))
    door.admit(request, Access.INFERENCE, Account(id="", method="", path="", began=0.0))
    cooperator = Cooperator(scheduler=lambda step: clock.callLater(0, step))
    return request, FileFields(door, cooperator), clock


def check(body: bytes, key: str, *types: str, **fields: Any) -> Any:
    request, file_fields, clock = asking(body, key, *types, **fields)
    checking = Deferred.fromCoroutine(file_fields.check(request))
    outcome: list[Any] = []
    checking.addBoth(outcome.append)
    while not outcome:
        clock.advance(0)
    return outcome[0]


BODY = b'{"prompt": "x", "output_path": "/tmp"}'


def test_who_is_refused() -> None:
    """
    A key without the right to files is refused with the name of the field; others are not.
    """
    failure = check(BODY, "web-key", JSON)
    failure.trap(Forbidden)
    told = failure.value
    assert str(told) == "output_path names a file on a worker, which key web may not"
    assert (told.status, told.reason, told.fields) == (403, "forbidden", {"field": "output_path"})
    assert check(BODY, "files-key", JSON) is None
    assert check(BODY, "web-key", JSON, free=True) is None
    assert check(BODY, "", JSON, ring=Keyring(b"x")) is None
    assert check(b'{"prompt": "x"}', "web-key", JSON) is None


def test_what_cannot_be_read() -> None:
    """
    A body that the router cannot read is refused for such keys, and only for them.
    """
    failure = check(b"hello", "web-key", JSON)
    failure.trap(BadRequest)
    assert str(failure.value) == (
        "The request body cannot be searched for names of files, as its key asks for: it is no JSON"
        " object, and no form"
    )
    assert check(b"hello", "files-key", JSON) is None


def test_two_content_types() -> None:
    """
    A worker takes one of two headers, and nobody knows which.
    """
    check(b"{}", "web-key", JSON, FORM).trap(BadRequest)


def test_large_bodies_in_steps() -> None:
    """
    A large body is read over many turns of the reactor, and found out all the same.
    """
    body = b'{"a": [' + b'"x",' * 500_000 + b'"x"], "output_path": "x"}'
    request, file_fields, clock = asking(body, "web-key", JSON)
    turns = count(1)
    scheduled = Cooperator(scheduler=lambda step: (next(turns), clock.callLater(0, step))[1])
    outcome: list[Any] = []
    checking = FileFields(file_fields.door, scheduled).check(request)
    Deferred.fromCoroutine(checking).addBoth(outcome.append)
    assert not outcome
    clock.advance(0)
    outcome[0].trap(Forbidden)
    assert next(turns) > 5


def test_web_sockets() -> None:
    """
    What is said in a WebSocket is not looked at, so it needs a key that may name files.
    """
    for key, may in (("web-key", False), ("files-key", True)):
        request, file_fields, _ = asking(b"", key)
        if may:
            file_fields.check_tunnel(request)
        else:
            with pytest.raises(Forbidden, match="which key web may not"):
                file_fields.check_tunnel(request)
