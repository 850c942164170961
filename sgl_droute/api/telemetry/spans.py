"""
Spans of OpenTelemetry for requests: one for each, below it one for its time in line, and one for
its worker's, which is the parent of the worker's own.

Names and attributes follow the semantic conventions for HTTP spans; what they have no word for is
called ``sgl_droute.*``. Needs the ``otel`` extra.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from attrs import define
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sgl_droute.api.telemetry.account import DONE, Account
from sgl_droute.api.telemetry.request_log import is_probe
from sgl_droute.log_lines import masked, masked_target

log = Logger()

# Seconds that the last spans may take to be exported when the router stops.
_LAST_EXPORT = 5.0

_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
_W3C = TraceContextTextMapPropagator()

Attributes = dict[str, str | int | float | bool]


class _Ids(RandomIdGenerator):
    """
    Random ids, and a given one for the next span: that of a worker is told to the worker before
    it is known when it began.
    """

    next_span: int | None = None

    def generate_span_id(self) -> int:
        given, self.next_span = self.next_span, None
        return super().generate_span_id() if given is None else given


@define(eq=False)
class _Traced:
    """A request under way: its span, and the id that its worker's span will have."""

    span: Span
    worker: int


class Tracing:
    """
    Makes the spans of requests; those who only ask how the router is have none.

    `begin` and `end` are observers for `Accounts.watch_begin` and `Accounts.watch`.

    Args:
        processor: Takes spans that have ended, without blocking.
        resource: What the spans tell of this process.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource | None = None) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=resource, shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(processor)
        self._tracer: Tracer = self._provider.get_tracer("sgl_droute", version("sgl-droute"))
        self._under_way: dict[Account, _Traced] = {}

    def begin(self, account: Account) -> None:
        """
        Begin the span of a request, as a child of the span that its ``traceparent`` names, if it
        has one; its worker gets a ``traceparent`` of its own.
        """
        if is_probe(account):
            return
        span = self._server_span(account)
        worker = self._ids.generate_span_id()
        self._under_way[account] = _Traced(span, worker)
        context = span.get_span_context()
        # Where nothing is recorded the request's own span stands for the one that is not made.
        parent = worker if span.is_recording() else context.span_id
        account.traceparent = f"00-{context.trace_id:032x}-{parent:016x}-{context.trace_flags:02x}"

    def end(self, account: Account) -> None:
        """
        End the spans of a request, which is closed. One that never reached a route has one too.
        """
        traced = self._under_way.pop(account, None)
        if traced is None:
            if account.route:
                return
            traced = _Traced(self._server_span(account), 0)
        span = traced.span
        if span.is_recording():
            self._tell_children(account, traced)
            span.set_attributes(_outcome(account))
            if _is_error(account):
                span.set_status(Status(StatusCode.ERROR, _why(account)))
        span.end(_ns(account.ended))

    def close(self, reactor: Any, limit: float = _LAST_EXPORT) -> Deferred[None]:
        """
        Export what is not exported yet; the result comes when that is done, or after *limit*
        seconds.
        """
        done: Deferred[None] = Deferred()

        def export() -> None:
            try:
                self._provider.shutdown()
            finally:
                reactor.callFromThread(finished)

        def finished() -> None:
            if not done.called:
                done.callback(None)

        def late(result: object, timeout: float) -> None:
            log.warn("the last traces were not exported within {limit:g} s", limit=timeout)

        done.addTimeout(limit, reactor, onTimeoutCancel=late)
        Thread(target=export, name="last-traces", daemon=True).start()
        return done

    def _server_span(self, account: Account) -> Span:
        method = account.method if account.method in _METHODS else "_OTHER"
        shown = method if method != "_OTHER" else "HTTP"
        attributes: Attributes = {
            "http.request.method": method,
            "url.path": masked_target(account.path),
            "client.address": account.address,
            "sgl_droute.request_id": account.id,
        }
        if method == "_OTHER":
            attributes["http.request.method_original"] = account.method
        if account.route:
            attributes["http.route"] = account.route
        return self._tracer.start_span(
            f"{shown} {account.route}".rstrip(),
            _parent_of(account),
            SpanKind.SERVER,
            attributes,
            start_time=_ns(account.began),
        )

    def _tell_children(self, account: Account, traced: _Traced) -> None:
        context = set_span_in_context(traced.span, Context())
        if account.ready is not None and (account.kind or account.bound is not None):
            queue = self._tracer.start_span(
                "queue",
                context,
                attributes={"sgl_droute.kind": account.kind},
                start_time=_ns(account.ready),
            )
            queue.end(_ns(account.ended if account.bound is None else account.bound))
        if account.bound is None:
            return
        self._ids.next_span = traced.worker
        worker = self._tracer.start_span(
            account.method if account.method in _METHODS else "HTTP",
            context,
            SpanKind.CLIENT,
            _of_worker(account),
            start_time=_ns(account.bound),
        )
        if account.answered is not None:
            worker.add_event("answer", timestamp=_ns(account.answered))
        if account.code != DONE and account.code not in _CLIENTS_DOING:
            worker.set_status(Status(StatusCode.ERROR, _why(account)))
        elif account.status >= 400:
            worker.set_status(Status(StatusCode.ERROR))
        worker.end(_ns(account.ended))


_CLIENTS_DOING = frozenset(
    f"client_gone_{stage}" for stage in ("sending", "waiting", "running", "reading")
)


def open_exporting(environ: Mapping[str, str]) -> Tracing:
    """
    A `Tracing` whose spans go, from a thread of its own, where *environ* says.
    """
    attributes: dict[str, Any] = {"service.version": version("sgl-droute")}
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    if not named:
        attributes["service.name"] = "sgl-droute"
    _hear_of_problems()
    processor = BatchSpanProcessor(OTLPSpanExporter())
    return Tracing(processor, Resource.create(attributes))


def _ns(seconds: float | None) -> int | None:
    # The reactor's clock is the system's.
    return None if seconds is None else int(seconds * 1e9)


def _parent_of(account: Account) -> Context:
    if account.traceparent is None:
        return Context()
    return _W3C.extract({"traceparent": account.traceparent}, Context())


def _outcome(account: Account) -> Attributes:
    told: dict[str, str | int | float | None] = {
        "http.response.status_code": account.status or None,
        "http.request.body.size": account.bytes_in,
        "http.response.body.size": account.bytes_out,
        "error.type": None if account.code == DONE else account.code,
        "sgl_droute.code": account.code,
        "sgl_droute.client": account.client,
        "sgl_droute.kind": account.kind,
        "sgl_droute.job": account.job,
        "sgl_droute.worker": account.worker,
        "sgl_droute.tries": account.tries or None,
        "sgl_droute.epoch": account.epoch,
        "sgl_droute.expected": account.expected,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def _of_worker(account: Account) -> Attributes:
    url = urlsplit(account.worker or "")
    told: dict[str, str | int | None] = {
        "http.request.method": account.method if account.method in _METHODS else "_OTHER",
        "server.address": url.hostname,
        "server.port": url.port or (443 if url.scheme == "https" else 80),
        "url.full": f"{account.worker}{account.path}",
        "http.request.resend_count": account.tries - 1 if account.tries > 1 else None,
        "http.response.status_code": None if account.answered is None else account.status or None,
        "error.type": None if account.code in (DONE, *_CLIENTS_DOING) else account.code,
        "sgl_droute.epoch": account.epoch,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def _is_error(account: Account) -> bool:
    """
    Whether the router or a worker is to blame: an answer below 500, and a client that hung up, are
    no errors of a server.
    """
    if account.code == DONE or account.status >= 400:
        return account.status >= 500
    return account.code not in _CLIENTS_DOING


def _why(account: Account) -> str:
    return masked(account.error or account.code)


class _Bridge(logging.Handler):
    """What the exporter complains of, in the router's log."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warn("exporting traces: {problem}", problem=record.getMessage())


def _hear_of_problems() -> None:
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(each, _Bridge) for each in logger.handlers):
        logger.addHandler(_Bridge(logging.WARNING))
        logger.propagate = False
