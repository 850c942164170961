"""
One line per request: what it says, when it is quiet, and what others make of its event.
"""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    jsonFileLogObserver,
    textFileLogObserver,
)

from sgl_droute.api.http.site import RouterSite
from sgl_droute.api.telemetry.account import Account, Accounts
from sgl_droute.api.telemetry.request_log import RequestLog
from sgl_droute.errors import NoWorker
from sgl_droute.log_lines import json_line, text_line
from tests.api.accounts import TRACE, TRACEPARENT, an_account
from tests.api.streaming import Stage

_FIELD = re.compile(r'(\w+)=("(?:\\.|[^"\\])*"|[^\s"=]+)')


def event_of(account: Account) -> LogEvent:
    """What is logged of *account* when it closes."""
    events: list[LogEvent] = []
    accounts = Accounts(lambda: 101.22)
    accounts.watch(RequestLog(cast(ILogObserver, events.append)).note)
    accounts.close(account)
    (event,) = events
    return event


def text_of(account: Account) -> str:
    """The line of *account* in text, without its time and logger."""
    return text_line(event_of(account)).split("] ", 1)[1]


def json_of(account: Account) -> dict[str, Any]:
    """The line of *account* in JSON."""
    told: dict[str, Any] = json.loads(json_line(event_of(account)))
    return told


def test_text() -> None:
    """
    A line of text has the code, the status and the request, and all else by name.
    """
    assert text_of(an_account(traceparent=TRACEPARENT)) == (
        "done 200 POST /v1/images/generations bytes_in=812 bytes_out=81204"
        " queue=0.012 work=1.204 transfer=0.003 total=1.220 worker=http://w1:30000 tries=1 epoch=3"
        " client=key:alice address=10.0.0.7 key=alice kind=image job=6512bd43 id=8f14e45f"
        f" trace={TRACE}"
    )


def test_json() -> None:
    """
    A line of JSON has the same, a field for each.
    """
    told = json_of(an_account(traceparent=TRACEPARENT))
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "info",
        "logger": "sgl_droute.request",
        "message": "done 200 POST /v1/images/generations",
        "code": "done",
        "status": 200,
        "method": "POST",
        "path": "/v1/images/generations",
        "bytes_in": 812,
        "bytes_out": 81204,
        "queue": 0.012,
        "work": 1.204,
        "transfer": 0.003,
        "total": 1.22,
        "worker": "http://w1:30000",
        "tries": 1,
        "epoch": "3",
        "client": "key:alice",
        "address": "10.0.0.7",
        "key": "alice",
        "kind": "image",
        "job": "6512bd43",
        "id": "8f14e45f",
        "trace": TRACE,
    }


def test_what_there_is_not() -> None:
    """
    What a request did not come to is left out.
    """
    account = Account(id="1", method="", path="", began=101.0)
    account.client_left()
    assert text_of(account) == (
        "client_gone_sending - - - bytes_in=0 bytes_out=0 total=0.220 id=1"
        ' error="Client closed the connection"'
    )
    assert json_of(account)["message"] == "client_gone_sending - - -"


def test_errors() -> None:
    """
    A refused request tells the word and the sentence, at info as any other.
    """
    account = an_account(bound=None, answered=None, worker=None, tries=0, status=503)
    account.failed(NoWorker('No worker "w" is there\nnow'))
    told = text_of(account)
    assert told.startswith("no_worker 503 POST /v1/images/generations ")
    assert told.endswith(' error="No worker \\"w\\" is there\\nnow"')
    assert event_of(an_account())["log_level"] is LogLevel.info


@pytest.mark.parametrize(
    "route",
    ["/health", "/health_generate", "/liveness", "/metrics", "/dashboard", "/dashboard/<name>"],
)
def test_probes(route: str) -> None:
    """
    Who only watches the router is logged at debug, and at info when it goes wrong.
    """
    assert event_of(an_account(route=route))["log_level"] is LogLevel.debug
    assert event_of(an_account(route=route, status=503))["log_level"] is LogLevel.info
    gone = an_account(route=route, code="client_gone_reading")
    assert event_of(gone)["log_level"] is LogLevel.info
    assert event_of(an_account(route="/v1/models"))["log_level"] is LogLevel.info


@pytest.mark.parametrize("value", ["", "00", f"00-{TRACE}", f"00-{TRACE.upper()}-{'0' * 16}-01"])
def test_a_trace_that_is_none(value: str) -> None:
    """
    What is no ``traceparent`` of W3C Trace Context names no trace.
    """
    assert "trace" not in json_of(an_account(traceparent=value))


@given(st.text(), st.text(), st.text(min_size=1), st.text())
def test_nothing_is_forged(id: str, client: str, path: str, error: str) -> None:
    """
    Whatever a client sends, its line is one line, and each field in it is the one that it seems.
    """
    account = an_account(id=id, client=client, path=f"/{path}", error=error, code="forbidden")
    line = text_of(account)
    assert line.splitlines() == [line]
    assert line.startswith("forbidden 200 POST ")
    names = [name for name, _ in _FIELD.findall(_without_head(line))]
    expected = json_of(account)
    assert names == [name for name in expected if name not in _HEAD]


_HEAD = ("time", "level", "logger", "message", "code", "status", "method", "path")


def _without_head(line: str) -> str:
    rest = line.removeprefix("forbidden 200 POST ")
    quoted = re.match(r'"(?:\\.|[^"\\])*"', rest)
    return rest[quoted.end() :] if quoted else rest.partition(" ")[2]


@pytest.mark.parametrize(
    "account",
    [
        an_account(path="http://alice:s3cret@host/x", code="bad_request"),
        an_account(error="bad Authorization: Bearer s3cret", code="bad_request"),
        an_account(error="no https://alice:s3cret@host", code="bad_request"),
    ],
)
def test_secrets(account: Account) -> None:
    """
    Credentials in a target or a sentence are not logged.
    """
    event = event_of(account)
    assert "s3cret" not in text_line(event) + json_line(event) + repr(event)


def test_observers_of_other_programs() -> None:
    """
    To an observer of Twisted's own, or another program's, a request is an event as any other: its
    text is the line, its fields are there by name.
    """
    event = event_of(an_account())
    assert event["worker"] == "http://w1:30000"
    assert event["work"] == 1.204
    assert event["key"] == "alice"
    text, as_json = StringIO(), StringIO()
    textFileLogObserver(text)(dict(event))
    jsonFileLogObserver(as_json, "")(dict(event))
    assert " [sgl_droute.request#info] done 200 POST /v1/images/generations " in text.getvalue()
    assert json.loads(as_json.getvalue())["bytes_out"] == 81204


def test_a_question_about_the_whole_router() -> None:
    """
    ``OPTIONS *`` reaches no route, and is a request as any other to those who watch.
    """

    async def never(request: Any) -> None:
        raise AssertionError(request)

    stage = Stage(never, Clock())
    assert isinstance(stage.site, RouterSite)
    closed: list[Account] = []
    stage.site.accounts.watch(closed.append)
    assert stage.ask("*", method="OPTIONS").status == 204
    (account,) = closed
    assert (account.code, account.status) == ("done", 204)
    assert (account.method, account.path, account.route) == ("OPTIONS", "*", "")
