"""
Calls that change the fleet: workers come and go, weights are updated.
"""

from __future__ import annotations

import json
from contextlib import closing
from io import BytesIO
from typing import Any

import attrs
from attrs import define
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.web.server import Request

from sgl_droute.api.forwarded import spooled_body, worker_headers
from sgl_droute.api.replies import reply
from sgl_droute.errors import BadRequest, BodyTooLarge
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.bodies import Spool
from sgl_droute.workers.broadcast import Broadcasts, Result
from sgl_droute.workers.client import Call
from sgl_droute.workers.health import HealthMonitor

log = Logger()

_URL_FIELDS = ("url", "worker_url")
_LARGEST_BODY = 1 << 16


@define(eq=False)
class Management:
    """
    Registers workers and sends what goes to all of them.

    Args:
        pool: The fleet.
        monitor: Asked to check a worker at once when it is registered.
        broadcasts: Sends to all workers.
        cooperator: Reads large request bodies in steps.
    """

    pool: Pool
    monitor: HealthMonitor
    broadcasts: Broadcasts
    cooperator: Cooperator

    def add_worker(self, request: Request) -> bytes:
        """
        Register the worker that the request names; a new or quarantined one is checked at once.
        """
        known = len(self.pool)
        worker = self.pool.add(_named_url(request))
        if len(self.pool) > known:
            log.info("worker {url} registered", url=worker.url)
            self.monitor.check(worker)
        elif worker.dead:
            log.info("worker {url} registered again", url=worker.url)
            self.monitor.check_anew(worker)
        return self._worker_urls(request)

    def remove_worker(self, request: Request) -> bytes:
        """
        Forget the worker that the request names; answers under way end in peace.
        """
        worker = self.pool.remove(_named_url(request))
        log.info("worker {url} removed", url=worker.url)
        return self._worker_urls(request)

    async def to_all_workers(self, request: Request) -> bytes:
        """
        Send the request to every worker that is not quarantined, and answer with all results.

        Once begun it runs to its end, also when its client hangs up.

        Raises:
            NoWorker: There is none.
        """
        results = await self.broadcasts.to_the_end(self._broadcast(request, self.pool.reachable()))
        return reply(request, {"results": [attrs.asdict(result) for result in results]})

    async def _broadcast(self, request: Request, workers: list[Worker]) -> list[Result]:
        # A request closes its file when its client hangs up; this one is still to be read then.
        spool = spooled_body(request)
        request.content = BytesIO()
        with closing(spool.file):
            name = request.path.decode("ascii", "replace")
            return await self.broadcasts.send(
                name, workers, lambda worker: self._control_call(request, worker, spool)
            )

    def _control_call(self, request: Request, worker: Worker, spool: Spool) -> Call:
        headers = worker_headers(request)
        return Call(
            request.method, worker.url, request.uri, headers, spool.producer(self.cooperator)
        )

    def _worker_urls(self, request: Request) -> bytes:
        urls = [worker.url for worker in self.pool]
        return reply(request, {"status": "success", "worker_urls": urls})


def _named_url(request: Request) -> str:
    """
    The worker URL in the query (``url`` or ``worker_url``), else in the JSON body.

    Raises:
        BadRequest: None is there, or the body is not such an object.
        BodyTooLarge: The body is larger than any such object.
    """
    for name in _URL_FIELDS:
        values = request.args.get(name.encode("ascii"))
        if values:
            return _text(values[0])
    spool = spooled_body(request)
    if spool.length > _LARGEST_BODY:
        raise BodyTooLarge(f"The request body is larger than {_LARGEST_BODY} bytes")
    if not spool.length:
        raise BadRequest("Name the worker: ?url=, ?worker_url=, or a JSON body with one of these")
    return _url_in(_parsed(spool.read()))


def _url_in(body: Any) -> str:
    if not isinstance(body, dict):
        raise BadRequest("The request body must be a JSON object")
    unknown = sorted(set(body) - set(_URL_FIELDS))
    if unknown:
        raise BadRequest(f"Unknown fields: {', '.join(unknown)}; known: {', '.join(_URL_FIELDS)}")
    for name in _URL_FIELDS:
        if name in body:
            if not isinstance(body[name], str):
                raise BadRequest(f"{name} must be a string")
            return str(body[name])
    raise BadRequest("url is missing")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise BadRequest(f"The request body is not JSON: {problem}") from problem


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("url is not UTF-8") from None
