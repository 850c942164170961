"""
The weights of the fleet as the API shows them.
"""

from __future__ import annotations

from typing import Any

from sgl_droute.fleet.checksums import Comparison
from sgl_droute.fleet.epochs import Model
from sgl_droute.fleet.refit import Refit
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.weights import Desired, Update
from sgl_droute.fleet.worker import Worker


def weights_shown(refits: Refits, *, durable: bool) -> dict[str, Any]:
    """
    All of it; times in seconds since 1970.

    Args:
        durable: Whether it survives a crash of the router.
    """
    epochs = refits.pool.epochs
    unnamed = any(worker.capabilities.model is None for worker in refits.pool)
    models = [model for model in epochs.models() if model is not None or unnamed]
    return {
        "epoch": epochs.highest,
        "durable": durable,
        "updating": refits.under_way and _refit_shown(refits.under_way),
        "interrupted": refits.interrupted and _refit_shown(refits.interrupted),
        "models": [_model_shown(model, epochs.desired(model)) for model in models],
        "workers": [_worker_shown(refits, worker) for worker in refits.pool],
        "history": [_refit_shown(refit) for refit in reversed(refits.history)],
    }


def comparison_shown(model: Model, comparison: Comparison) -> dict[str, Any]:
    """
    What came of comparing the checksums of the workers of *model*.
    """
    return {
        "model": model,
        "majority": comparison.agreed,
        "checksum": {name: value for name, (value, _) in comparison.known.items()},
        "differing": comparison.differing,
        "not_comparable": comparison.incomparable,
        "silent": comparison.silent,
    }


def _model_shown(model: Model, desired: Desired) -> dict[str, Any]:
    return {
        "model": model,
        "epoch": desired.epoch,
        "updates": [_update_shown(update) for update in desired.updates],
        "loras": [{"path": call.path, "body": dict(call.body)} for call in desired.loras.calls],
        "checksum": {name: value for name, (value, _) in desired.sums.items()} or None,
    }


def _update_shown(update: Update) -> dict[str, Any]:
    return {
        "path": update.path,
        "body": update.body.decode("utf-8", "replace"),
        "replayable": update.replayable,
    }


def _worker_shown(refits: Refits, worker: Worker) -> dict[str, Any]:
    told = refits.sums.get(worker.serial)
    return {
        "url": worker.url,
        "model": worker.capabilities.model,
        "epoch": worker.epoch,
        "state": _state(refits, worker),
        "reason": worker.lacks or None,
        "checksum": None if told is None else dict(told),
    }


def _state(refits: Refits, worker: Worker) -> str:
    if worker.updating:
        return "updating"
    if worker.serial in refits.pool.epochs.pending:
        return "pending"
    return "stale" if worker.stale else "current"


def _refit_shown(refit: Refit) -> dict[str, Any]:
    return {
        "when": round(refit.when, 3),
        "path": refit.path,
        "body": refit.body,
        "mode": refit.mode,
        "models": sorted(model for model in refit.models if model is not None),
        "epochs": {model: epoch for model, epoch in refit.reached.items() if model is not None},
        "results": {url: each and each.value for url, each in refit.outcomes.items()},
        "seconds": None if refit.seconds is None else round(refit.seconds, 3),
        "note": refit.note or None,
    }
