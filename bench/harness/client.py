"""
The HTTP side of a benchmark: generations through a router, and questions to workers.

An image is one call. A video is a job: it is submitted through the router and asked for there until
it has ended, so that its latency is the whole generation. Who made it each worker is asked once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from treq.client import HTTPClient
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from bench.harness.counters import generations
from bench.harness.summary import Outcome
from bench.harness.workload import Prompt

T = TypeVar("T")

# Below the 5 s after which a worker closes an idle connection.
_KEEP_IDLE = 4
_PATHS = {"image": "/v1/images/generations", "video": "/v1/videos"}
_MOST_ERROR_TEXT = 200


@frozen
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """
        Its body as a JSON object; an empty one when it is none.
        """
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def complaint(self) -> str:
        """
        Its status and the reason in its body.
        """
        fields = self.json()
        reason = fields.get("error") or fields.get("detail") or self.body.decode("utf-8", "replace")
        return f"HTTP {self.status}: {str(reason).strip()[:_MOST_ERROR_TEXT]}"


def http_client(reactor: Any, connections: int) -> HTTPClient:
    """
    A client that keeps up to *connections* to each host and sends nothing twice.
    """
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = connections
    pool.cachedConnectionTimeout = _KEEP_IDLE
    pool.retryAutomatically = False
    return HTTPClient(Agent(reactor, pool=pool))


@define(eq=False)
class Caller:
    """
    Calls to routers and workers.

    Args:
        timeout: Seconds that a call may take, body included.
    """

    reactor: Any
    http: HTTPClient
    timeout: float

    async def get(self, url: str, timeout: float | None = None) -> Answer:
        """
        The answer to a GET.

        Args:
            timeout: Seconds that it may take; those of all calls if None.
        """
        return await self._limited("GET", url, None, timeout or self.timeout)

    async def post(
        self, url: str, fields: dict[str, object], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """
        The answer to a POST of *fields* as JSON.
        """
        return await self._limited("POST", url, fields, self.timeout, headers)

    async def generations(self, worker: str) -> int | None:
        """
        How many generations the worker at *worker* has finished; None when it does not tell, for
        instance because it was started without ``--enable-metrics``.
        """
        try:
            answer = await self.get(f"{worker}/metrics", 30.0)
        except CancelledError:
            raise
        except Exception:
            return None
        return generations(answer.body.decode()) if answer.status == 200 else None

    async def _limited(
        self,
        method: str,
        url: str,
        fields: dict[str, object] | None,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        calling = Deferred.fromCoroutine(self._call(method, url, fields, headers))
        return await cancellable(calling).addTimeout(timeout, self.reactor)

    async def _call(
        self,
        method: str,
        url: str,
        fields: dict[str, object] | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        body: dict[str, Any] = {} if fields is None else {"json": fields}
        given = Headers({name: [value] for name, value in (headers or {}).items()})
        response = await self.http.request(
            method, url, headers=given, allow_redirects=False, **body
        )
        return Answer(response.code, await response.content())


@define(eq=False)
class Generations:
    """
    Sends the requests of a workload.

    Args:
        url: Base URL that takes them.
        workers: Base URLs of the workers that may hold a video job.
        extra: Fields of every request.
        poll_interval: Seconds between looks at a video job.
        headers: Of every request.
    """

    caller: Caller
    task: str
    url: str
    workers: Sequence[str]
    extra: dict[str, object] = field(factory=dict)
    poll_interval: float = 0.2
    headers: Mapping[str, str] = field(factory=dict)

    async def send(self, prompt: Prompt) -> Outcome:
        """
        How the request ended. Never fails, but for being cancelled.
        """
        try:
            return await self._sent(prompt)
        except defer.TimeoutError:
            return Outcome(error=f"no answer within {self.caller.timeout:g} s")
        except CancelledError:
            raise
        except Exception as error:
            return Outcome(error=described(error))

    async def _sent(self, prompt: Prompt) -> Outcome:
        answer = await self.caller.post(
            self.url + _PATHS[self.task], {**prompt.fields(), **self.extra}, self.headers
        )
        outcome = Outcome(status=answer.status, size=len(answer.body))
        if answer.status != 200:
            return evolve(outcome, error=answer.complaint())
        if self.task == "video":
            return await self._followed(outcome, answer)
        return _image(outcome, answer)

    async def _followed(self, outcome: Outcome, answer: Answer) -> Outcome:
        job = str(answer.json().get("id") or "")
        if not job:
            return evolve(outcome, error="answer without an id")
        owner = await self._owner(job)
        if owner is None:
            return evolve(outcome, error="no worker knows the job that was accepted")
        following = Deferred.fromCoroutine(self._to_its_end(f"{self.url}/v1/videos/{job}"))
        end = await following.addTimeout(self.caller.timeout, self.caller.reactor)
        return _video(evolve(outcome, worker=owner), end)

    async def _owner(self, job: str) -> str | None:
        for worker in self.workers:
            if (await self.caller.get(f"{worker}/v1/videos/{job}")).status == 200:
                return worker
        return None

    async def _to_its_end(self, url: str) -> Answer:
        while True:
            answer = await self.caller.get(url)
            if answer.json().get("status") not in ("queued", "in_progress"):
                return answer
            await deferLater(self.caller.reactor, self.poll_interval)


def _image(outcome: Outcome, answer: Answer) -> Outcome:
    fields = answer.json()
    images = fields.get("data")
    whole = isinstance(images, list) and all(
        isinstance(image, dict) and (image.get("b64_json") or image.get("url")) for image in images
    )
    if not images or not whole:
        return evolve(outcome, error="answer without an image")
    return evolve(outcome, inference_time=fields.get("inference_time_s"))


def _video(outcome: Outcome, end: Answer) -> Outcome:
    fields = end.json()
    if end.status != 200:
        return evolve(outcome, status=end.status, error=end.complaint())
    if fields.get("status") != "completed":
        reason = (fields.get("error") or {}).get("message", fields.get("status"))
        return evolve(outcome, error=f"video job failed: {reason}"[:_MOST_ERROR_TEXT])
    return evolve(outcome, inference_time=fields.get("inference_time_s"))


def cancellable(calling: Deferred[T]) -> Deferred[T]:
    """
    The result of *calling*; when cancelled it fails with `CancelledError` alone. By itself a
    cancelled HTTP call fails with whatever it was at: a refused connection, an unknown host.
    """

    def cancel(outer: Deferred[T]) -> None:
        outer.errback(CancelledError())
        calling.cancel()

    outer: Deferred[T] = Deferred(cancel)

    def pass_on(result: T | Failure) -> None:
        if not outer.called:
            outer.callback(result)

    calling.addBoth(pass_on)
    return outer


def described(error: Exception) -> str:
    """
    The kind and the text of *error*, or of what treq has wrapped in it.
    """
    reasons: Sequence[Failure] = getattr(error, "reasons", None) or ()
    inner = reasons[0].value if reasons else error
    return f"{type(inner).__name__}: {inner}"[:_MOST_ERROR_TEXT]
