"""
Whether there is anybody to wait for: what becomes of jobs that no worker can take now.

Such a job waits while an update keeps workers from it, or while the weights that it requires may
come. Who waits, and for how long, is known to `sgl_droute.fleet.scheduler`.
"""

from __future__ import annotations

from sgl_droute.errors import RouterError
from sgl_droute.fleet.capabilities import RequiredEpoch, Want
from sgl_droute.fleet.desks import of_any_epoch
from sgl_droute.fleet.floor import Floor
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refusals import epoch_passed
from sgl_droute.fleet.worker import Worker


def hopeless(
    floor: Floor, want: Want, without: frozenset[str], *, waiting: bool = False
) -> RouterError | None:
    """
    Why a job would wait for nobody; None if a worker can take it, or will be able to.

    Args:
        without: URLs of workers that are out of the question.
        waiting: Whether it is in line already: then it waits for stale workers too.
    """
    if floor.tier(want, without) is not None:
        return None
    anyhow = of_any_epoch(want)
    if not (
        floor.awaits(anyhow, without, unable=True)
        or (want.epoch is not None and floor.tier(anyhow, without) is not None)
        or (waiting and floor.pool.catches_up(anyhow, without))
    ):
        return floor.pool.nobody(anyhow)
    if want.epoch is not None and _out_of_reach(floor.pool, want, want.epoch):
        return epoch_passed(want.epoch, epochs_for(floor.pool, want))
    return None


def lacks_epoch(pool: Pool, want: Want) -> bool:
    """
    Whether nobody for *want* has weights that it requires, those apart who are taken out for more
    than their weights.
    """
    required = want.epoch
    return required is not None and not any(
        each.in_rotation and required.met_by(each.epoch) for each in _serving(pool, want)
    )


def epochs_for(pool: Pool, want: Want) -> list[int]:
    """
    The epochs of the models that serve *want*, each once, the lowest first.
    """
    models = {worker.capabilities.model for worker in _serving(pool, want)}
    return sorted({pool.epochs.desired(model).epoch for model in models})


def _out_of_reach(pool: Pool, want: Want, required: RequiredEpoch) -> bool:
    """
    Whether nobody for *want* will be given work with such weights any more.
    """
    if not required.exact:
        return False  # there is always a later one
    return not any(_may_have(pool, worker, required) for worker in _serving(pool, want))


def _may_have(pool: Pool, worker: Worker, required: RequiredEpoch) -> bool:
    if not required.out_of_reach(pool.epochs.desired(worker.capabilities.model).epoch):
        return True
    return required.met_by(worker.epoch) and (worker.tolerated or not worker.stale)


def _serving(pool: Pool, want: Want) -> list[Worker]:
    """
    The workers for *want*, whatever state they are in; the unable only if there are no others.
    """
    allowed = [worker for worker in pool if want.allows(worker.capabilities)]
    return [each for each in allowed if not want.unable(each.capabilities)] or allowed
