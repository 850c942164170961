"""
Lines of log: what they look like, that each is one, and that no secret is in them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

from sgl_droute.log_lines import bare_line, escaped, json_line, masked, masked_target, text_line

FORMS = (text_line, json_line, bare_line)
SECRETS = [
    "Authorization: Bearer s3cretvalue",
    "authorization: Basic dXNlcjpzM2NyZXR2YWx1ZQ== s3cretvalue",
    "{'Authorization': 'Bearer s3cretvalue'}",
    '{"x-api-key": "s3cretvalue"}',
    "(b'Authorization', [b'Bearer s3cretvalue'])",
    "X-API-KEY=s3cretvalue",
    "Cookie: session=s3cretvalue",
    "got Bearer s3cretvalue from a client",
    "https://user:s3cretvalue@host:1/path",
    "GET /x?token=s3cretvalue&a=1",
    "api_key=s3cretvalue",
]


class Hostile(Exception):
    """Something that nobody can show."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def event(text: str, **fields: Any) -> LogEvent:
    return {
        "log_format": text,
        "log_level": LogLevel.info,
        "log_namespace": "sgl_droute.service",
        "log_time": 1_700_000_000.25,
        **fields,
    }


def failed(text: str) -> Failure:
    try:
        raise ValueError(text)
    except ValueError:
        return Failure()


def strictly(line: str) -> Any:
    """What a reader of JSON gets that takes nothing but JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_text() -> None:
    """
    A line of text has the local time, the logger with the level, and the message.
    """
    line = text_line(event("worker {url} registered", url="http://w1:1"))
    when, rest = line.split(" ", 1)
    assert when.startswith("2023-11-1")
    assert rest == "[sgl_droute.service#info] worker http://w1:1 registered"
    assert bare_line(event("hello")) == "[sgl_droute.service#info] hello"


def test_json() -> None:
    """
    A line of JSON has time, level, logger, message and the event's plain fields.
    """
    line = json_line(event("{n} workers", n=3, ratio=0.5, urls=("a", "b"), more={"deep": None}))
    assert strictly(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "sgl_droute.service",
        "message": "3 workers",
        "n": 3,
        "ratio": 0.5,
        "urls": ["a", "b"],
        "more": {"deep": None},
    }


def test_fields_do_not_take_the_place_of_the_lines_own() -> None:
    """
    A field called level, or message, does not change what the line says of itself.
    """
    told = strictly(json_line(event("{message}", message="yes", level="x", logger="y", time=1)))
    assert told["message"] == "yes"
    assert told["level"] == "info"
    assert told["logger"] == "sgl_droute.service"
    assert told["time"].startswith("2023")


def test_a_traceback_in_text() -> None:
    """
    A failure's traceback follows in lines that begin with a tab, whatever its message holds.
    """
    broke = event(
        "it broke", log_failure=failed("one\n2023-11-14T00:00:00+0000 [x#info] two\r\x1b[2J")
    )
    first, *rest = text_line(broke).splitlines()
    assert first.endswith("[sgl_droute.service#info] it broke")
    assert any("ValueError: one" in line for line in rest)
    assert all(line.startswith("\t") for line in rest)
    assert "\x1b" not in "".join(rest)


def test_a_traceback_in_json() -> None:
    """
    A failure's traceback is one text.
    """
    told = strictly(json_line(event("it broke", log_failure=failed("one"))))
    assert told["message"] == "it broke"
    assert told["traceback"].splitlines()[-1] == "builtins.ValueError: one"


def test_an_event_that_says_nothing() -> None:
    """
    An event without a text makes no line.
    """
    assert text_line({"log_level": LogLevel.info}) == ""
    assert json_line({"log_level": LogLevel.info}) == ""


def test_events_of_the_older_logging() -> None:
    """
    An event of `twisted.python.log` tells its text, and nothing of its own machinery.
    """
    old = event("{log_text}", log_text="Starting factory", log_namespace="log_legacy")
    old.update(message=("Starting factory",), time=1.0, system="-", isError=0, log_system="-")
    assert text_line(old).endswith(" [-] Starting factory")
    assert set(strictly(json_line(old))) == {"time", "level", "logger", "message"}


@given(st.text(), st.text(), st.sampled_from(FORMS))
def test_one_line(message: str, system: str, form: Any) -> None:
    """
    Whatever a message or a field holds, its event is one line of printable UTF-8.
    """
    line = form(event("{said}", said=message or "-", log_system=system))
    assert line.splitlines() == [line]
    assert escaped(line) == line
    assert line.encode()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.builds(object)
        | st.builds(Hostile)
        | st.builds(pow, st.just(10), st.just(5000))
        | st.just(LogLevel.info)
        | st.just(Path("/x")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=10,
    )
)
def test_odd_values(value: object) -> None:
    """
    No value of a field breaks a line, and JSON stays JSON.
    """
    assert strictly(json_line(event("odd", value=value)))["message"] == "odd"
    assert text_line(event("odd {value}", value=value))


def test_values_that_hold_themselves() -> None:
    """
    A list in itself is told as far down as makes sense.
    """
    ring: list[object] = [1]
    ring.append(ring)
    told = strictly(json_line(event("ring", ring=ring)))
    assert told["ring"][0] == 1
    assert len(json.dumps(told)) < 1000


def test_long_messages_are_cut() -> None:
    """
    What a worker answers at length is cut, and it is told how long it was.
    """
    line = text_line(event("{answer}", answer="x" * 1_000_000))
    assert len(line) < 10_000
    assert line.endswith("... (1000000 characters)")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", SECRETS)
def test_secrets(text: str, form: Any) -> None:
    """
    Credentials get neither into messages and fields nor into tracebacks.
    """
    fields = {"said": text, "nested": [{"deep": text}], "failed": ValueError(text)}
    line = form(event("{said}", log_failure=failed(text), **fields))
    assert "s3cretvalue" not in line
    assert "***" in line


@pytest.mark.parametrize("name", ["authorization", "X-Api-Key", "api_key", "password", "hf_token"])
def test_secret_fields(name: str) -> None:
    """
    A field that is named as a credential is not told.
    """
    line = json_line(event("x", **{name: "s3cretvalue"}, headers={name: ["s3cretvalue"]}))
    assert "s3cretvalue" not in line
    assert strictly(line)[name] == "***"


@pytest.mark.parametrize(
    "text",
    [
        "worker http://10.0.0.7:30000 registered",
        "the basic rules of a bearer of news",
        "cookies are the worker's business",
        "tokens: 5",
        "mail to a@b",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    """
    Ordinary sentences stay as they are.
    """
    assert masked(text) == text


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/images/a@b", "/v1/images/a@b"),
        ("http://user:pw@host/x", "***@host/x"),
        ("user:pw@host:443", "***@host:443"),
        ("*", "*"),
    ],
)
def test_targets(target: str, shown: str) -> None:
    """
    A request target that is no path shows no user and password.
    """
    assert masked_target(target) == shown
