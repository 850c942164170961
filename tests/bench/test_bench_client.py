"""
What the bench makes of answers, against a worker in memory.
"""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from klein import Klein
from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.web.server import Request

from bench.harness.client import Answer, Caller, Generations, cancellable
from bench.harness.counters import generations
from bench.harness.summary import Outcome
from bench.harness.workload import Plan, Shape, workload

(PROMPT,) = workload(Plan(count=1, mix=(Shape(size=(64, 64)),)))


class Scripted:
    """
    A worker that answers with what the test put into it.
    """

    app = Klein()

    def __init__(self, status: int, body: bytes, job: dict[str, object] | None = None) -> None:
        self.batches: list[str | None] = []
        self.answer = (status, body)
        self.job = job

    @app.route("/v1/images/generations", methods=["POST"])
    @app.route("/v1/videos", methods=["POST"])
    def generate(self, request: Request) -> bytes:
        self.batches.append(request.getHeader("X-Rollout-Batch"))
        request.setResponseCode(self.answer[0])
        return self.answer[1]

    @app.route("/v1/videos/<job>", methods=["GET"])
    def video(self, request: Request, job: str) -> bytes:
        if self.job is None:
            request.setResponseCode(404)
            return b'{"detail":"Video not found"}'
        return json.dumps({"id": job, **self.job}).encode()

    @app.route("/silent", methods=["GET"])
    def silent(self, request: Request) -> Deferred[bytes]:
        return Deferred()


def sent(task: str, worker: Scripted, headers: dict[str, str] | None = None) -> Outcome:
    clock = Clock()
    http = StubTreq(worker.app.resource())
    caller = Caller(clock, cast(HTTPClient, http), 5.0)
    client = Generations(caller, task, "http://router", ["http://worker"], headers=headers or {})
    done: list[Outcome] = []
    Deferred.fromCoroutine(client.send(PROMPT)).addCallback(done.append)
    http.flush()
    return done[0]


def test_image() -> None:
    """
    An image in the answer is a success, with the time that the GPU took.
    """
    body = {"data": [{"b64_json": "AA==", "url": None}], "inference_time_s": 1.5}
    outcome = sent("image", Scripted(200, json.dumps(body).encode()))
    assert (outcome.status, outcome.error, outcome.inference_time) == (200, "", 1.5)


def test_headers_go_with_each_request() -> None:
    """
    The router hears which batch a request belongs to, and of none unless there is one.
    """
    worker = Scripted(500, b"")
    sent("image", worker, {"X-Rollout-Batch": "step-7"})
    sent("video", worker)
    assert worker.batches == ["step-7", None]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, b'{"error": "No healthy workers"}', "HTTP 503: No healthy workers"),
        (400, b'{"detail": "bad size"}', "HTTP 400: bad size"),
        (500, b"Internal Server Error", "HTTP 500: Internal Server Error"),
        (200, b'{"data": []}', "answer without an image"),
        (200, b'{"data": [{"b64_json": null, "url": null}]}', "answer without an image"),
        (200, b"not JSON", "answer without an image"),
    ],
)
def test_bad_answers_are_errors(status: int, body: bytes, error: str) -> None:
    """
    Whatever is not an image is a failed request, with its status and the reason.
    """
    outcome = sent("image", Scripted(status, body))
    assert (outcome.status, outcome.error) == (status, error)


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({"status": "completed", "inference_time_s": 2.0}, ""),
        ({"status": "failed", "error": {"message": "no memory"}}, "video job failed: no memory"),
        (None, "no worker knows the job that was accepted"),
    ],
)
def test_video_is_followed_to_its_end(job: dict[str, object] | None, error: str) -> None:
    """
    A video counts when its job ends, and with how it ends.
    """
    assert sent("video", Scripted(200, b'{"id": "v1"}', job)).error == error


def test_slow_answer_times_out() -> None:
    """
    A call that takes too long fails as a time-out.
    """
    clock = Clock()
    http = StubTreq(Scripted(200, b"").app.resource())
    caller = Caller(clock, cast(HTTPClient, http), 5.0)
    failures: list[Any] = []
    Deferred.fromCoroutine(caller.get("http://worker/silent")).addErrback(failures.append)
    clock.advance(5.1)
    assert "TimeoutError" in failures[0].type.__name__


def test_interruption_is_no_failed_call() -> None:
    """
    A cancelled call fails as cancelled, whatever the connection makes of it.
    """
    call: Deferred[None] = Deferred(lambda call: call.errback(DNSLookupError()))
    failures: list[Any] = []
    waiting = cancellable(call).addErrback(failures.append)
    waiting.cancel()
    assert failures[0].type is CancelledError


def test_cancellable_changes_no_result() -> None:
    """
    A call that is not cancelled ends as it would.
    """
    good: list[int] = []
    cancellable(succeed(3)).addCallback(good.append)
    bad: list[Any] = []
    cancellable(fail(DNSLookupError())).addErrback(bad.append)
    assert good == [3]
    assert bad[0].type is DNSLookupError


def test_long_reasons_are_cut() -> None:
    """
    A page of HTML does not fill the table of errors.
    """
    assert len(Answer(500, b"x" * 10_000).complaint()) < 300


def test_generations_are_counted() -> None:
    """
    Successes and failures count, the worker's own warm-up does not; no sample is none yet.
    """
    metrics = """
# TYPE sglang:diffusion_requests_total counter
sglang:diffusion_requests_total{is_warmup="false",status="success"} 12.0
sglang:diffusion_requests_total{is_warmup="false",status="error"} 1.0
sglang:diffusion_requests_total{is_warmup="True",status="success"} 3.0
sglang:diffusion_requests_created{is_warmup="false",status="success"} 1.7e+09
"""
    assert generations(metrics) == 13
    assert generations("# nothing yet\n") == 0
