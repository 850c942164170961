"""
Carries out updates of the fleet's weights and adapters: who is called when, and what is waited for
before and after.

What an update does to epochs and workers is decided by `sgl_droute.fleet.refits`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from sgl_droute.errors import BadRequest, Conflict, NoStorage, NotDrained, NoWorker
from sgl_droute.fleet.checksums import Comparison
from sgl_droute.fleet.epochs import Model
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.weights import Change, Update
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.broadcast import Broadcasts, Result
from sgl_droute.workers.client import Call
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.orders import Orders, told
from sgl_droute.workers.outstanding import Outstanding
from sgl_droute.workers.readiness import Readiness
from sgl_droute.workers.turns import Turns
from sgl_droute.workers.weighing import Weighing

log = Logger()

Mode = Literal["broadcast", "fenced", "rolling"]
MODES: tuple[Mode, ...] = ("broadcast", "fenced", "rolling")

_WELL = (Verdict.TOOK, Verdict.EXEMPT)

# Seconds between looks at whether all work has ended.
_LOOK = 0.1


@frozen(kw_only=True)
class Manner:
    """
    How an update is to be made.

    Attributes:
        mode: ``broadcast``: all workers at once. ``fenced``: when no worker has anything to do any
            more. ``rolling``: some at a time, and the others work on.
        max_unavailable: How many at a time (count).
        drain_timeout: Seconds that ``fenced`` waits for running work.
        verify: Whether checksums are compared at the end.
        strict: Whether it is refused while another one is under way.
        model: The name of the model that it is for; None for all workers.
    """

    mode: Mode = "broadcast"
    max_unavailable: int = 1
    drain_timeout: float = 600.0
    verify: bool = False
    strict: bool = False
    model: str | None = None

    @property
    def compares(self) -> bool:
        """Whether checksums are compared."""
        return self.verify or self.mode == "fenced"

    @property
    def closes(self) -> bool:
        """Whether nobody gets work before all is done."""
        return self.compares and self.mode != "rolling"


@frozen
class Told:
    """
    One call as a client sent it.

    Attributes:
        path: Its path.
        body: What is kept of its body.
        change: Makes a change of its number.
        call: Makes the call for one worker.
    """

    path: str
    body: bytes
    change: Callable[[int], Change]
    call: Callable[[Worker], Call]


@frozen
class Report:
    """
    What came of an update.

    Attributes:
        results: Of the workers that were called, in order of registration.
        epochs: By model, the epoch that it is at now.
        consistent: Whether all of them, and all others that could get work, have the same weights.
        stale: URLs of the workers that do not have them.
        took: How many workers took it (count).
        whole: Whether all of them did, and the fleet is consistent.
        compared: By model, what came of comparing checksums; empty if that was not asked for.
    """

    results: Sequence[Result]
    epochs: dict[Model, int]
    consistent: bool
    stale: list[str]
    took: int
    whole: bool
    compared: dict[Model, Comparison]


@define(eq=False)
class Refitting:
    """
    Updates workers, one update after the other.

    Args:
        refits: Keeps what follows.
        turns: Knows what workers are at.
        broadcasts: Sends calls.
        orders: Sends calls of the router's own.
        weighing: Compares checksums.
        readiness: Keeps from bringing workers up to date meanwhile.
        outstanding: Tells when a worker has answered what it was sent.
        written: Fires when what was noted so far is safe from a crash.
        clock: Provides the time.

    Attributes:
        turn: Calls that change all workers go one after the other, so that all get them in the
            same order.
    """

    refits: Refits
    turns: Turns
    broadcasts: Broadcasts
    orders: Orders
    weighing: Weighing
    readiness: Readiness
    outstanding: Outstanding
    written: Callable[[], Deferred[None]]
    clock: IReactorTime
    turn: Gate = field(factory=lambda: Gate(1))

    @property
    def pool(self) -> Pool:
        """The fleet."""
        return self.refits.pool

    async def update(self, told: Told, manner: Manner) -> Report:
        """
        Tell the workers, and return what came of that.

        Raises:
            Conflict: Another update is under way, and that matters.
            NoWorker: There is nobody to tell.
            NotFound: Nobody serves that model.
            NotDrained: Work went on for too long; nothing was changed.
            NoStorage: It could not be noted for the case of a crash; nothing was changed.
        """
        if manner.strict and not self.turn.free:
            raise Conflict("Another update, LoRA or sleep call is under way")
        async with self.turn.turn():
            workers = self.pool.updatable(manner.model)
            with self.readiness.hold(workers):
                return await self._update(told, manner, workers)

    async def retry(self) -> Report:
        """
        As `update`: send an update that was interrupted once more to the workers of which nobody
        knows what they made of it.

        Raises:
            Conflict: None was interrupted.
            BadRequest: It cannot be sent again.
        """
        async with self.turn.turn():
            refit = self._interrupted()
            change = refit.change
            if isinstance(change, Update) and not change.replayable:
                raise BadRequest("An update from tensors cannot be sent again: make the next one")
            path, body = told(change if isinstance(change, Update) else change.call)
            again = Told(
                path,
                body,
                lambda number: evolve(change, number=number),
                lambda worker: self.orders.call(worker, path, body),
            )
            workers = [each for each in self.pool.updatable() if each.url in refit.unfinished]
            if not workers:
                raise NoWorker("None of the workers that were called can be called now")
            with self.readiness.hold(workers):
                report = await self._update(again, Manner(), workers)
            if report.took:
                self.refits.retried()
            return report

    async def accept(self) -> None:
        """
        Take the weights that most workers of each model have for those that all are to have.

        Raises:
            Conflict: Of some model no such majority told the same checksums.
            NoStorage: It could not be noted.
        """
        async with self.turn.turn():
            # Which numbers are used is to be known before another one is.
            await self._noted()
            workers = list(self.pool)
            with self.readiness.hold(workers):
                for worker in workers:  # nobody is given other weights than are weighed
                    await self.readiness.settled(worker)
                for model in {worker.capabilities.model for worker in self.pool if worker.stale}:
                    await self.weighing.accept(model)

    def abandon(self) -> None:
        """
        Take an update that was interrupted as never made; see `Refits.abandon`.

        Raises:
            Conflict: None was interrupted.
        """
        self._interrupted()
        self.refits.abandon()

    async def verify(self, models: Iterable[Model] = ()) -> dict[Model, Comparison]:
        """
        Compare the checksums of the workers of *models*, of all if none are named; by model.
        Whoever differs from most of them is stale from now on.
        """
        async with self.turn.turn():
            return await self.weighing.verify(models or {w.capabilities.model for w in self.pool})

    async def _update(self, told: Told, manner: Manner, workers: Sequence[Worker]) -> Report:
        refits, began = self.refits, self.clock.seconds()
        change = told.change(self.pool.epochs.next_number())
        refit = refits.begin(change, told.path, told.body, manner.mode, workers, began)
        comparisons: dict[Model, Comparison] = {}
        try:
            if manner.closes:
                refits.close(refit)
            if manner.mode == "fenced":
                await self._drained(refit.models, manner.drain_timeout)
            await self._noted()
            results = await self._call_all(told, manner, refit, workers)
            if manner.compares:
                comparisons = await self.weighing.verify(refit.models)
        except CancelledError:
            raise  # the router stops: the next run finds it as it would after a crash
        except BaseException:
            refits.end(refit, self.clock.seconds() - began)
            raise
        refits.end(refit, self.clock.seconds() - began)
        await self._end_noted()
        return self._report(refit, workers, results, comparisons)

    async def _call_all(
        self, told: Told, manner: Manner, refit: Refit, workers: Sequence[Worker]
    ) -> list[Result]:
        rolling = manner.mode == "rolling"
        places = Gate(manner.max_unavailable if rolling else len(workers))

        async def ask(worker: Worker) -> Result:
            async with places.turn():
                return await self._call(told, refit, worker)

        return await self.broadcasts.send(told.path, workers, ask)

    async def _call(self, told: Told, refit: Refit, worker: Worker) -> Result:
        refits = self.refits
        refits.hold(worker)
        # Two connections have no order: what the worker was sent before is to be answered first.
        await self.readiness.settled(worker)
        await self.outstanding.none(worker)
        then = self.pool.still(worker)
        if then is None or not then.takes_orders:
            state = "removed" if then is None else then.state
            self.pool.epochs.forget(worker.serial)
            self.pool.judge_one(worker)
            return Result(worker.url, 503, {"error": f"{worker.url}: {state}"}, answered=False)
        refits.calling(refit, then)
        verdict = Verdict.LOST
        try:
            await self._noted()
            result = await self.broadcasts.ask(told.call(then))
            verdict = result.verdict
        except NoStorage as problem:
            verdict = Verdict.REFUSED
            result = Result(worker.url, problem.status, {"error": str(problem)}, answered=False)
        finally:
            refits.ended_at(refit, then, verdict)
        return result

    async def _noted(self) -> None:
        try:
            await self.written()
        except ValueError as problem:
            raise NoStorage(f"It could not be noted, and nothing was done: {problem}") from None

    def _interrupted(self) -> Refit:
        if self.refits.interrupted is None:
            raise Conflict("No update was interrupted")
        return self.refits.interrupted

    async def _end_noted(self) -> None:
        # Whoever is told that an update was made finds it made after a crash too.
        try:
            await self.written()
        except ValueError as problem:
            log.warn("The end of an update could not be noted: {problem}", problem=problem)

    async def _drained(self, models: Collection[Model], timeout: float) -> None:
        """
        Return when no worker of *models* has any work.
        """
        end = self.clock.seconds() + timeout
        while busy := self._at_work(models):
            if self.clock.seconds() >= end:
                urls = ", ".join(worker.url for worker in busy)
                raise NotDrained(
                    f"Nothing was updated: after {timeout:g} s there is still work at {urls}"
                )
            await deferLater(self.clock, _LOOK)
        # Of what its client left nobody knows when it ends: this comes behind it.
        asking = [Deferred.fromCoroutine(self._at_rest(worker)) for worker in self._of(models)]
        waiting = gatherResults(asking, consumeErrors=True)
        await self._in_time(waiting, end, timeout)

    async def _at_rest(self, worker: Worker) -> None:
        while not await self.orders.reaches_gpu(worker):
            now = self.pool.still(worker)
            if now is None or now.dead:
                return

    async def _in_time(self, waiting: Deferred[list[None]], end: float, timeout: float) -> None:
        def too_late(_: object, __: float) -> None:
            raise NotDrained(f"Nothing was updated: after {timeout:g} s there is still work")

        left = max(0.0, end - self.clock.seconds())
        try:
            await waiting.addTimeout(left, self.clock, onTimeoutCancel=too_late)
        except FirstError as first:  # who cancels this, at the router's stop, is to see just that
            first.subFailure.raiseException()

    def _at_work(self, models: Collection[Model]) -> list[Worker]:
        self.turns.look()  # nobody else does while no job waits, and what clients left ends by that
        return [worker for worker in self._of(models) if self._busy(worker)]

    def _of(self, models: Collection[Model]) -> list[Worker]:
        return [w for w in self.pool if not w.dead and w.capabilities.model in models]

    def _busy(self, worker: Worker) -> bool:
        return bool(worker.jobs) or self.turns.at_work(worker) or self.outstanding.any(worker)

    def _report(
        self,
        refit: Refit,
        workers: Sequence[Worker],
        results: Sequence[Result],
        comparisons: dict[Model, Comparison],
    ) -> Report:
        epochs = self.pool.epochs
        concerned = [w for w in self.pool if w.capabilities.model in refit.models]
        stale = [worker for worker in concerned if worker.stale]
        called = {worker.serial for worker in workers}
        held = [worker for worker in stale if worker.serial in called or worker.in_rotation]
        agreed = all(each.agreed and not each.silent for each in comparisons.values())
        models = refit.models - {None} or refit.models
        consistent = agreed and not held
        return Report(
            results=results,
            epochs={model: epochs.desired(model).epoch for model in models},
            consistent=consistent,
            stale=[worker.url for worker in stale],
            took=sum(result.took for result in results),
            whole=consistent and all(result.verdict in _WELL for result in results),
            compared=comparisons,
        )
