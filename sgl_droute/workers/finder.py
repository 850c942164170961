"""
Finds the worker that holds an id.

Ids that passed through the router are in `sgl_droute.fleet.holdings`; for others all workers are
asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from sgl_droute.errors import NotFound, NoWorker, RouterError
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.owners import keepable
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import WorkerClient
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.once import Once
from sgl_droute.workers.records import ask_for, says_held, says_unknown

log = Logger()

_SEARCHES_AT_ONCE = 20
# Each takes a connection: in a large fleet twenty searches are thousands.
_QUESTIONS_AT_ONCE = 200


class _NotHere(Exception):
    """The worker says that it does not know the id."""


@define(eq=False)
class Finder(Service):
    """
    Tells who holds an id.

    Args:
        pool: Whom to ask.
        holdings: What is known, and told what is found.
        client: A client for quick questions.
    """

    pool: Pool
    holdings: Holdings
    client: WorkerClient
    _searches: Once[tuple[str, str], Worker] = field(factory=lambda: Once(abandon=True), init=False)
    _gate: Gate = field(factory=lambda: Gate(_SEARCHES_AT_ONCE), init=False)
    _questions: Gate = field(factory=lambda: Gate(_QUESTIONS_AT_ONCE), init=False)

    def stopService(self) -> Deferred[Any]:
        """
        Give up all searches; the result comes when they have ended.
        """
        super().stopService()
        return self._searches.stop()

    async def holder(self, kind: str, id: str) -> Worker:
        """
        The worker that holds the *kind* of thing with that *id*, after a search on all workers if
        that is not known. It need not be eligible.

        Raises:
            NotFound: Every registered worker said that it does not know the id.
            NoWorker: None said that it does, and not all answered.
        """
        now = self.holdings.now()
        url = self.holdings.owners.owner(kind, id, now)
        worker = None if url is None else self.pool.holder(url)
        if worker is not None:
            return worker
        if not keepable(id) or self.holdings.owners.is_unknown(kind, id, now):
            raise _unknown(kind)
        return await self._searches.run((kind, id), lambda: self._search(kind, id))

    async def _search(self, kind: str, id: str) -> Worker:
        async with self._gate.turn():
            return await self._ask_all(kind, id)

    async def _ask_all(self, kind: str, id: str) -> Worker:
        workers = list(self.pool)
        if not workers:
            raise _unknown(kind)
        asking = [Deferred.fromCoroutine(self._ask(worker, kind, id)) for worker in workers]
        outcome: Any = await DeferredList(asking, fireOnOneCallback=True, consumeErrors=True)
        if isinstance(outcome, tuple):
            fields, place = outcome
            for each in asking:
                each.cancel()
            self.holdings.seen(kind, id, workers[place], fields)
            return workers[place]
        reasons = [failure.value for _, failure in outcome]
        if any(isinstance(reason, CancelledError) for reason in reasons):
            raise CancelledError
        silent = [str(reason) for reason in reasons if not isinstance(reason, _NotHere)]
        if silent:
            problems = "; ".join(silent)
            raise NoWorker(f"{kind}_id {id} was not found, and not all answered: {problems}")
        if [worker.serial for worker in workers] == [worker.serial for worker in self.pool]:
            self.holdings.owners.forget(kind, id)  # it was held by a worker that has left
            self.holdings.owners.unknown(kind, id, self.holdings.now())
        raise _unknown(kind)

    async def _ask(self, worker: Worker, kind: str, id: str) -> Mapping[str, Any]:
        async with self._questions.turn():
            status, fields = await ask_for(self.client, worker, kind, id)
        if says_held(kind, id, status, fields):
            return fields
        if says_unknown(kind, status, fields) or status in (405, 422):
            raise _NotHere
        raise RouterError(f"{worker.url}: answered {status}")


def _unknown(kind: str) -> NotFound:
    return NotFound(f"Unknown {kind}_id")
