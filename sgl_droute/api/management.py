"""
Calls that change the fleet: workers come, go and are taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from sgl_droute.api.forwarded import spooled_body
from sgl_droute.api.reading import flag, json_fields, parameter
from sgl_droute.api.replies import reply
from sgl_droute.api.worker_object import shown, worker_id_of
from sgl_droute.errors import BadRequest, NotFound
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.fleet.worker import Worker, quarantined, tried_again
from sgl_droute.workers.health import HealthMonitor
from sgl_droute.workers.readiness import Readiness
from sgl_droute.workers.vetting import Vetting

log = Logger()

_URL_FIELDS = ("url", "worker_url")
_FLAGS = ("is_dead", "refresh_video_support", "draining", "disabled")
_SETTINGS = ("concurrency", "speed")
_WISHES = (*_FLAGS, *_SETTINGS)
_MOST_AT_ONCE = 1_000_000
_SLOWEST, _FASTEST = 0.001, 1000
# Seconds that a change waits for a worker to come up to date; behind long videos it takes longer.
_PATIENCE = 30.0


@define(eq=False)
class Management:
    """
    Registers, changes and removes workers.

    Args:
        pool: The fleet.
        monitor: Asked to check a worker at once when it is registered or recovered.
        readiness: Asked to look after a changed worker.
        speeds: What was learned of workers.
        vetting: Knows which workers may be registered.
        clock: Provides the time.
    """

    pool: Pool
    monitor: HealthMonitor
    readiness: Readiness
    speeds: Speeds
    vetting: Vetting
    clock: IReactorTime

    def __attrs_post_init__(self) -> None:
        self.pool.watch(_log_leaving)

    # The early API: workers named by URL, answers that list URLs.

    async def add_worker(self, request: Request) -> bytes:
        """
        Register the worker that the request names; a new or quarantined one is checked at once.

        Raises:
            BadRequest: It names none, or one that is never a worker.
            Forbidden: It is not where workers may be.
        """
        await self._register(_named_url(request))
        return self._worker_urls(request)

    def remove_worker(self, request: Request) -> bytes:
        """
        Forget the worker that the request names; answers under way end in peace.
        """
        self._remove(normalise_worker_url(_named_url(request)))
        return self._worker_urls(request)

    # The REST API: workers as objects.

    async def create(self, request: Request) -> bytes:
        """
        As `add_worker`, answering with the worker.
        """
        worker = await self._register(_named_url(request))
        return reply(request, {"status": "success", "worker": self._shown(worker)})

    def workers(self, request: Request) -> bytes:
        """
        All workers, in order of registration.
        """
        return reply(request, {"workers": [self._shown(worker) for worker in self.pool]})

    def worker(self, request: Request, worker_id: str) -> bytes:
        """
        One worker.

        Raises:
            NotFound: There is none of that id.
        """
        return reply(request, {"worker": self._shown(self._named(worker_id))})

    async def change(self, request: Request, worker_id: str) -> bytes:
        """
        Do to a worker what the request's fields say, and answer when that is in force. Where it
        does not come into force, 202 with ``status`` ``pending`` and the ``reason``.

        Raises:
            NotFound: There is no such worker, or it was removed meanwhile.
            BadRequest: A field is unknown or has a wrong value, or there is none; nothing is
                changed.
        """
        worker = self._named(worker_id)
        wishes = _wishes(json_fields(request, _WISHES))
        self._note(worker, wishes)
        await self._bring_about(worker, wishes)
        now = self.pool.still(worker)
        if now is None:
            raise NotFound(f"Worker {worker.url} was removed")
        reason = self._missing(now, wishes)
        told = ", ".join(f"{name}={value}".lower() for name, value in wishes.items())
        log.info("worker {url}: {told}: {reason}", url=now.url, told=told, reason=reason or "done")
        if reason:
            pending = {"status": "pending", "reason": reason, "worker": self._shown(now)}
            return reply(request, pending, 202)
        return reply(request, {"status": "success", "worker": self._shown(now)})

    def delete(self, request: Request, worker_id: str) -> bytes:
        """
        Remove a worker: at once, or with ``drain=true`` when it has finished what it has.

        Raises:
            NotFound: There is none of that id.
        """
        worker = self._named(worker_id)
        if flag(request, "drain"):
            log.info("worker {url} drains and leaves", url=worker.url)
            self.pool.change(worker, lambda now: evolve(now, draining=True, leaving=True))
        else:
            self._remove(worker.url)
        state = "removed" if self.pool.still(worker) is None else "draining"
        answer = {"status": "success", "worker_id": worker_id_of(worker.url), "state": state}
        return reply(request, answer)

    def _shown(self, worker: Worker) -> dict[str, Any]:
        return shown(worker, self.speeds.shown(worker))

    async def _register(self, named: str) -> Worker:
        url = normalise_worker_url(named)
        await self.vetting.check(url)
        known = len(self.pool)
        worker = self.pool.add(url)
        if len(self.pool) > known:
            log.info("worker {url} registered", url=worker.url)
            self.monitor.check(worker)
        elif worker.dead or worker.proven:  # any other is about to be checked anyway
            log.info("worker {url} registered again", url=worker.url)
            self.monitor.check_anew(worker)
        return worker

    def _remove(self, url: str) -> None:
        worker = self.pool.remove(url)
        log.info("worker {url} removed", url=worker.url)

    def _named(self, worker_id: str) -> Worker:
        try:
            return self.pool.worker(normalise_worker_url(worker_id))
        except BadRequest:
            raise NotFound(f"Worker {worker_id} is not registered") from None

    def _note(self, worker: Worker, wishes: Mapping[str, Any]) -> None:
        settings = {name: wishes[name] for name in _SETTINGS if name in wishes}
        if settings:
            self.pool.change(worker, lambda now: evolve(now, **settings))
        if "draining" in wishes:
            draining = wishes["draining"]
            self.pool.change(
                worker,
                lambda now: evolve(now, draining=draining, leaving=now.leaving and draining),
            )
        if "disabled" in wishes:
            self.pool.change(worker, lambda now: evolve(now, disabled=wishes["disabled"]))
        if wishes.get("is_dead"):
            reason = "quarantined by an operator"
            self.pool.change(worker, lambda now: quarantined(now, reason))

    async def _bring_about(self, worker: Worker, wishes: Mapping[str, Any]) -> None:
        now = self.pool.still(worker)
        if wishes.get("is_dead") is False and now is not None and now.dead:
            self.pool.change(now, tried_again)
            await self.monitor.check_anew(now)
        if wishes.get("refresh_video_support"):
            await self._for_a_while(self.readiness.ask_again(worker))
        elif wishes.get("is_dead") is False:
            await self._for_a_while(self.readiness.look_after(worker))

    def _missing(self, worker: Worker, wishes: Mapping[str, Any]) -> str:
        """
        Why *wishes* are not in force, or a recovered worker is not used; empty when all is well.
        """
        recovered = wishes.get("is_dead") is False
        if recovered and worker.dead:
            return f"still dead: {worker.last_error}; it joins when it answers a health check"
        if recovered and worker.stale:
            return "it does not have the fleet's LoRA set yet; it gets work when it does"
        if recovered and not worker.eligible:
            return f"it gets no work: {worker.state}"
        if wishes.get("refresh_video_support") and not self.readiness.asked(worker):
            return "it did not tell what it serves"
        return ""

    async def _for_a_while(self, waiting: Deferred[None]) -> None:
        waiting.addTimeout(_PATIENCE, self.clock)
        waiting.addErrback(lambda failure: failure.trap(DeferredTimeout) and None)
        await waiting

    def _worker_urls(self, request: Request) -> bytes:
        urls = [worker.url for worker in self.pool]
        return reply(request, {"status": "success", "worker_urls": urls})


def _log_leaving(before: Worker | None, now: Worker | None) -> None:
    if before is not None and before.leaving and now is None:
        log.info("worker {url} has finished and left", url=before.url)


def _wishes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """
    *fields*, once it is sure that all have values of their kind and there is one.

    Raises:
        BadRequest: Otherwise.
    """
    if not fields:
        raise BadRequest(f"Name at least one of {', '.join(_WISHES)}")
    for name, value in fields.items():
        if name in _FLAGS and not isinstance(value, bool):
            raise BadRequest(f"{name} must be true or false")
        if name == "concurrency" and not _is_concurrency(value):
            raise BadRequest(
                f'concurrency must be a count from 0 to {_MOST_AT_ONCE}, "auto",'
                " or null for that of the fleet"
            )
        if name == "speed" and not _is_speed(value):
            raise BadRequest(
                f"speed must be a number from {_SLOWEST} to {_FASTEST}, or null for the learned one"
            )
    return dict(fields)


def _is_concurrency(value: Any) -> bool:
    if value is None or value == "auto":
        return True
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_AT_ONCE


def _is_speed(value: Any) -> bool:
    if value is None:
        return True
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and _SLOWEST <= value <= _FASTEST


def _named_url(request: Request) -> str:
    """
    The worker URL in the query (``url`` or ``worker_url``), else in the JSON body.

    Raises:
        BadRequest: None is there, or the body is not such an object.
        BodyTooLarge: The body is larger than any such object.
    """
    named = parameter(request, *_URL_FIELDS)
    if named is not None:
        return named
    if not spooled_body(request).length:
        raise BadRequest("Name the worker: ?url=, ?worker_url=, or a JSON body with one of these")
    body = json_fields(request, _URL_FIELDS)
    for name in _URL_FIELDS:
        if name in body:
            if not isinstance(body[name], str):
                raise BadRequest(f"{name} must be a string")
            return str(body[name])
    raise BadRequest("url is missing")
