"""
Compares the checksums of workers, and takes note of what that shows.

The questions wait in the workers' queues, and take as long as the sums of all weights.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults

from sgl_droute.errors import Conflict, RouterError
from sgl_droute.fleet.checksums import Comparison, Likeness, Weighed, compared
from sgl_droute.fleet.epochs import Model
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.orders import Orders, reason_of


@frozen(eq=False)
class Weighing:
    """
    Asks workers for their checksums.

    Args:
        refits: Keeps what follows.
        orders: Asks.
    """

    refits: Refits
    orders: Orders

    async def verify(self, models: Iterable[Model]) -> dict[Model, Comparison]:
        """
        What came of comparing the workers of *models* that are not known to be stale, by model.
        Whoever differs from most of them is stale from now on.
        """
        comparisons: dict[Model, Comparison] = {}
        for model in models:
            weighed, problems = await self._weigh(model)
            if not weighed and not problems:
                continue
            comparison = compared(weighed)
            comparison.silent.update(problems)
            self.refits.compared(model, comparison)
            comparisons[model] = comparison
        return comparisons

    async def accept(self, model: Model) -> None:
        """
        Take what most workers of *model* have for what all are to have.

        Raises:
            Conflict: There are no such most.
        """
        weighed, silent = await self._weigh(model, stale=True)
        found = compared(weighed)
        agreeing = [
            each.url
            for each in weighed
            if each.url not in found.differing and each.url not in found.incomparable
        ]
        if not found.agreed or 2 * len(agreeing) <= len(weighed) + len(silent):
            name = model or "unknown models"
            raise Conflict(f"Most workers of {name} do not have the same weights")
        known = self.refits.pool.epochs.desired(model).sums
        likeness = {each.likeness(known) for each in weighed if each.url in agreeing}
        self.refits.accept(model, agreeing, found.known, changed=likeness != {Likeness.SAME})

    async def _weigh(
        self, model: Model, *, stale: bool = False
    ) -> tuple[list[Weighed], dict[str, str]]:
        """
        The checksums of the workers of *model*, and by URL why one has told none.

        Args:
            stale: Whether stale ones are asked too.
        """
        workers = [
            worker
            for worker in self.refits.pool
            if worker.capabilities.model == model
            and not worker.dead
            and (stale or not worker.stale)
        ]
        problems: dict[str, str] = {}

        async def ask(worker: Worker) -> Weighed | None:
            try:
                sums = await self.orders.checksums(worker)
            except RouterError as problem:
                problems[worker.url] = reason_of(problem)
                return None
            if not sums:
                problems[worker.url] = "it tells no checksums"
                return None
            self.refits.sums[worker.serial] = sums
            now = self.refits.pool.still(worker)
            return None if now is None else Weighed(worker.url, sums, now.actual.history)

        asking = [Deferred.fromCoroutine(ask(worker)) for worker in workers]
        found = await gatherResults(asking, consumeErrors=True)
        return [each for each in found if each is not None], problems
