"""
Traces on their way out: to a collector, to one that never answers, and to none.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
import pytest_twisted
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from twisted.logger import LogEvent, LogLevel

from sgl_droute.api.telemetry import tracing
from sgl_droute.api.telemetry.account import Account, Accounts
from sgl_droute.api.telemetry.spans import Tracing
from sgl_droute.api.telemetry.tracing import open_tracing
from tests.api.accounts import an_account
from tests.integration.commands import fetch, free_port, once_up, running
from tests.integration.sockets import eventually, reactor
from tests.integration.test_commands import SCRIPT


class Collector:
    """What an OTLP/HTTP collector got; it does not answer while it is stuck."""

    def __init__(self) -> None:
        self.got: list[ResourceSpans] = []
        self.paths: list[str] = []
        self.stuck = Event()
        self.status = 200

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        self.got += ExportTraceServiceRequest.FromString(body).resource_spans

    @property
    def spans(self) -> list[str]:
        return [s.name for r in self.got for scope in r.scope_spans for s in scope.spans]


@contextmanager
def serving(collector: Collector) -> Iterator[str]:
    """The collector's address."""
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            while collector.stuck.is_set() and not over.is_set():
                over.wait(0.01)
            collector.take(self.path, body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def endpoint(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(collector) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
        yield url


def told(traced: Tracing, *some: Account) -> None:
    """Have *some* accounts traced from their beginning to their end."""
    accounts = Accounts(lambda: 101.22)
    accounts.watch_begin(traced.begin)
    accounts.watch(traced.end)
    for each in some:
        accounts.opened(each)
        accounts.close(each)


def service_name(collector: Collector) -> str:
    """The name of the process that the spans came from."""
    attributes = collector.got[0].resource.attributes
    (name,) = [str(pair.value.string_value) for pair in attributes if pair.key == "service.name"]
    return name


@pytest_twisted.ensureDeferred
async def test_export(endpoint: str, collector: Collector) -> None:
    """
    Spans reach the collector that the environment names, the last ones when the router stops.
    """
    traced = open_tracing(os.environ)
    assert traced is not None
    told(traced, an_account(), an_account(kind="", bound=None, worker=None, tries=0))
    await traced.close(reactor)
    assert sorted(collector.spans) == [
        "POST",
        "POST /v1/images/generations",
        "POST /v1/images/generations",
        "queue",
    ]
    assert set(collector.paths) == {"/v1/traces"}
    assert service_name(collector) == "sgl-droute"


@pytest_twisted.ensureDeferred
async def test_while_it_runs(
    endpoint: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Spans are exported while the router runs, without anybody asking.
    """
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    traced = open_tracing(os.environ)
    assert traced is not None
    told(traced, an_account())
    await eventually(lambda: len(collector.spans) == 3)
    await traced.close(reactor)


@pytest_twisted.ensureDeferred
async def test_the_services_name(
    endpoint: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    ``OTEL_SERVICE_NAME`` is the name that spans come under.
    """
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    traced = open_tracing(os.environ)
    assert traced is not None
    told(traced, an_account())
    await traced.close(reactor)
    assert service_name(collector) == "edge"


@pytest_twisted.ensureDeferred
async def test_a_collector_that_is_stuck(
    endpoint: str, collector: Collector, logged: list[LogEvent]
) -> None:
    """
    A collector that never answers holds up neither requests nor, for longer than told, the stop.
    """
    collector.stuck.set()
    traced = open_tracing(os.environ)
    assert traced is not None
    began = time.monotonic()
    told(traced, *(an_account() for _ in range(1000)))
    await traced.close(reactor, limit=0.2)
    assert time.monotonic() - began < 5
    assert [
        event["limit"] for event in logged if "last traces" in str(event.get("log_format"))
    ] == [0.2]


@pytest_twisted.ensureDeferred
async def test_a_collector_that_refuses(
    endpoint: str, collector: Collector, logged: list[LogEvent]
) -> None:
    """
    What the exporter complains of is a warning in the router's log.
    """
    collector.status = 400
    traced = open_tracing(os.environ)
    assert traced is not None
    told(traced, an_account())
    await traced.close(reactor)
    (event,) = [each for each in logged if "code: 400" in str(each.get("problem"))]
    assert event["log_level"] is LogLevel.warn
    assert event["log_format"] == "exporting traces: {problem}"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_no_tracing(environ: dict[str, str]) -> None:
    """
    Without a collector, or when the environment says not to, nothing is traced.
    """
    assert open_tracing(environ) is None


def test_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]) -> None:
    """
    A collector without the packages to reach it is a warning that names what to install.
    """
    monkeypatch.setattr(tracing, "_NEEDED", ("opentelemetry_of_tomorrow.sdk",))
    assert open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}) is None
    (event,) = [each for each in logged if each["log_namespace"] == tracing.__name__]
    assert "sgl-droute[otel]" in event["log_format"]


def test_a_whole_router(endpoint: str, collector: Collector, tmp_path: Path) -> None:
    """
    A router process that is told of a collector exports a request's spans when it stops, and its
    worker got the last of them as the parent of its own.
    """
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    port, worker = free_port(), free_port()
    simulator = ("twistd", "-n", "--pidfile=", "sglang-d-simulator", "--port", str(worker))
    (tmp_path / "worker").mkdir()
    words = ("--port", str(port), "--worker-urls", f"http://127.0.0.1:{worker}")
    with running(*simulator, "--speed", "1000", cwd=tmp_path / "worker"):
        once_up(f"http://127.0.0.1:{worker}/health")
        with running(*SCRIPT, *words, cwd=tmp_path):
            once_up(f"http://127.0.0.1:{port}/liveness")
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/images/generations",
                data=b'{"prompt": "x", "size": "64x64", "num_inference_steps": 1}',
                headers={
                    "Content-Type": "application/json",
                    "traceparent": f"00-{trace}-{parent}-01",
                },
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 200
            log = fetch(f"http://127.0.0.1:{worker}/simulator/log")
    spans = {
        span.name: span
        for resource in collector.got
        for scope in resource.scope_spans
        for span in scope.spans
        if span.trace_id.hex() == trace
    }
    assert f" trace={trace}" in (tmp_path / "log").read_text()
    whole, queue, sent = (spans[name] for name in ("POST /v1/images/generations", "queue", "POST"))
    assert whole.parent_span_id.hex() == parent
    assert queue.parent_span_id == sent.parent_span_id == whole.span_id
    [asked] = [each for each in log["received"] if each["target"] == "/v1/images/generations"]
    headers = {name.lower(): value for name, value in asked["headers"]}
    assert headers["traceparent"] == f"00-{trace}-{sent.span_id.hex()}-01"
