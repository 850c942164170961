"""
Spans of requests: which there are, how they hang together, what they tell.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sgl_droute.api.telemetry.account import Account, Accounts
from sgl_droute.api.telemetry.spans import Tracing
from sgl_droute.errors import AnswerCut, NoWorker, RouterError, Unauthorized
from tests.api.accounts import PARENT, TRACE, TRACEPARENT, an_account


def spans_of(account: Account, *, routed: bool = True) -> dict[str, ReadableSpan]:
    """The spans of *account*, from its route to its end at 101.22 s, by name."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    accounts = Accounts(lambda: 101.22)
    accounts.watch_begin(tracing.begin)
    accounts.watch(tracing.end)
    if routed:
        accounts.opened(account)
    accounts.close(account)
    return {span.name: span for span in exporter.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def test_a_generation() -> None:
    """
    A request is a span with two below it: its time in line, and that with its worker.
    """
    account = an_account(traceparent=TRACEPARENT)
    spans = spans_of(account)
    server, queue, worker = (
        spans["POST /v1/images/generations"],
        spans["queue"],
        spans["POST"],
    )
    trace, own, parent = ids(server)
    assert (trace, parent) == (TRACE, PARENT)
    assert ids(queue)[::2] == ids(worker)[::2] == (TRACE, own)
    assert [server.kind, queue.kind, worker.kind] == [
        SpanKind.SERVER,
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
    ]
    assert seconds(server) == pytest.approx((100.0, 101.22))
    assert seconds(queue) == pytest.approx((100.001, 100.0134))
    assert seconds(worker) == pytest.approx((100.0134, 101.22))
    (answer,) = worker.events
    assert answer.timestamp / 1e9 == pytest.approx(101.2171)
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}


def test_attributes() -> None:
    """
    Spans tell what the semantic conventions of HTTP have words for, and the rest in our own.
    """
    spans = spans_of(an_account(tries=2))
    assert spans["POST /v1/images/generations"].attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/images/generations",
        "url.path": "/v1/images/generations",
        "client.address": "10.0.0.7",
        "http.response.status_code": 200,
        "http.request.body.size": 812,
        "http.response.body.size": 81204,
        "sgl_droute.request_id": "8f14e45f",
        "sgl_droute.code": "done",
        "sgl_droute.client": "key:alice",
        "sgl_droute.kind": "image",
        "sgl_droute.job": "6512bd43",
        "sgl_droute.worker": "http://w1:30000",
        "sgl_droute.tries": 2,
        "sgl_droute.epoch": "3",
    }
    assert spans["POST"].attributes == {
        "http.request.method": "POST",
        "server.address": "w1",
        "server.port": 30000,
        "url.full": "http://w1:30000/v1/images/generations",
        "http.request.resend_count": 1,
        "http.response.status_code": 200,
        "sgl_droute.epoch": "3",
    }


def test_the_worker_is_told_its_parent() -> None:
    """
    The ``traceparent`` for the worker names the span of its work, so that its own are below that.
    """
    account = an_account(traceparent=TRACEPARENT)
    spans = spans_of(account)
    assert account.traceparent == f"00-{TRACE}-{ids(spans['POST'])[1]}-01"


def test_no_trace_yet() -> None:
    """
    A request that belongs to no trace begins one, which its worker is told of.
    """
    account = an_account()
    spans = spans_of(account)
    trace, _, parent = ids(spans["POST /v1/images/generations"])
    assert parent == ""
    assert account.traceparent is not None
    assert account.traceparent.startswith(f"00-{trace}-{ids(spans['POST'])[1]}-")
    assert int(account.traceparent[-2:], 16) & 1


@given(st.text(st.characters(codec="latin-1")))
def test_a_traceparent_that_is_none(given: str) -> None:
    """
    A header that is no ``traceparent`` breaks nothing: the request begins a trace.
    """
    account = an_account(traceparent=given)
    assert ids(spans_of(account)["POST /v1/images/generations"])[2] == ""


def test_who_does_not_sample() -> None:
    """
    A request that its caller does not sample is not recorded, and its worker is told so.
    """
    account = an_account(traceparent=f"00-{TRACE}-{PARENT}-00")
    assert spans_of(account) == {}
    assert account.traceparent is not None
    version, trace, parent, flags = account.traceparent.split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert int(parent, 16)


def test_sampling_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    ``OTEL_TRACES_SAMPLER`` decides for requests that begin a trace, and not for the others.
    """
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    assert spans_of(an_account()) == {}
    assert len(spans_of(an_account(traceparent=TRACEPARENT))) == 3


def test_refused_in_line() -> None:
    """
    A generation that got no worker has the span of its wait, until its end.
    """
    account = an_account(bound=None, answered=None, worker=None, tries=0, status=503)
    account.failed(NoWorker("nobody is there"))
    spans = spans_of(account)
    assert set(spans) == {"POST /v1/images/generations", "queue"}
    assert seconds(spans["queue"]) == pytest.approx((100.001, 101.22))
    server = spans["POST /v1/images/generations"]
    assert server.attributes is not None
    assert server.attributes["error.type"] == "no_worker"
    assert server.status.status_code is StatusCode.ERROR
    assert server.status.description == "nobody is there"


def test_a_cut_answer() -> None:
    """
    An answer that its worker cut is an error of both, whatever its status was.
    """
    account = an_account()
    account.failed(AnswerCut("http://w1:30000", "reset"))
    spans = spans_of(account)
    assert {spans[name].status.status_code for name in spans if name != "queue"} == {
        StatusCode.ERROR
    }


@pytest.mark.parametrize("error", [Unauthorized("no key"), RouterError("broke")])
def test_who_is_to_blame(error: RouterError) -> None:
    """
    What the client did wrong is no error of the server, what the router did is.
    """
    account = an_account(status=error.status, bound=None, answered=None, worker=None, kind="")
    account.failed(error)
    (server,) = spans_of(account).values()
    assert (server.status.status_code is StatusCode.ERROR) is (error.status >= 500)


def test_a_client_that_hangs_up() -> None:
    """
    A client that hangs up is no error, and its word is told.
    """
    account = an_account(answered=None, status=0)
    account.client_left()
    spans = spans_of(account)
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}
    attributes = spans["POST /v1/images/generations"].attributes
    assert attributes is not None
    assert attributes["sgl_droute.code"] == "client_gone_running"


def test_a_tunnel() -> None:
    """
    The worker's span of a tunnel is as long as its life.
    """
    account = an_account(method="GET", route="/v1/realtime", path="/v1/realtime", status=101)
    spans = spans_of(account)
    assert seconds(spans["GET"]) == pytest.approx((100.0134, 101.22))


@pytest.mark.parametrize("route", ["/health", "/metrics", "/dashboard/<name>"])
def test_probes(route: str) -> None:
    """
    Who only watches the router has no span, and its ``traceparent`` stays.
    """
    account = an_account(route=route, traceparent=TRACEPARENT)
    assert spans_of(account) == {}
    assert account.traceparent == TRACEPARENT


def test_what_reached_no_route() -> None:
    """
    A request that is refused before it has a route has a span of its own, without a user's
    password and with methods that nobody knows under one name.
    """
    account = Account(id="1", method="BREW", path="http://a:s3cret@h/x", began=101.0, status=400)
    account.failed(RouterError("Authorization: Bearer s3cret", reason="bad_request"))
    (span,) = spans_of(account, routed=False).values()
    assert span.name == "HTTP"
    assert span.attributes is not None
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"
    assert "s3cret" not in span.to_json()
