"""
What survives a restart, as plain records.

Where and when they are written is the business of `sgl_droute.state.store`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.fleet.worker import Concurrency


@frozen(kw_only=True)
class SavedWorker:
    """
    A registered worker, and what it keeps of all that was decided about it.

    Attributes:
        url: Normalised base URL; the key.
        dead: Quarantined.
        barred: An operator did that, and only an operator brings it back.
        draining: Takes nothing new.
        leaving: To be removed as soon as it is idle.
        disabled: Taken out of service by the operator.
        asleep: Its memory is released.
        concurrency: As an operator set it; None for the fleet's.
        speed: As an operator set it; None for the learned one.
    """

    url: str
    dead: bool = False
    barred: bool = False
    draining: bool = False
    leaving: bool = False
    disabled: bool = False
    asleep: bool = False
    concurrency: Concurrency | None = None
    speed: float | None = None


@frozen(kw_only=True)
class SavedOwner:
    """
    Which worker holds an image, video or mesh.

    Attributes:
        kind: ``image``, ``video`` or ``mesh``; with *id* the key.
        id: The id as the worker gave it.
        worker: The worker's URL.
        used: Wall clock of its last use (seconds since 1970).
        open: Its job was still running when last heard of.
        epoch: The weights epoch that it was made at, as ``X-Weights-Epoch`` tells it; empty when
            not known.
    """

    kind: str
    id: str
    worker: str
    used: float
    open: bool = False
    epoch: str = ""


@frozen
class Saved:
    """
    All that was known when last written.

    Attributes:
        workers: In order of registration.
        owners: Least recently used first.
        loras: The calls, as JSON objects, that gave the fleet's LoRA set, where a version that kept
            no *weights* wrote them.
        speeds: By the URL of each worker, what was learned of its speed, as a text of its own.
        weights: What the fleet knew of its weights, as a text of its own; empty when nothing.
        webhooks: The calls that were still to be made, by kind and id of their jobs.
    """

    workers: tuple[SavedWorker, ...] = ()
    owners: tuple[SavedOwner, ...] = ()
    loras: tuple[Mapping[str, Any], ...] = ()
    speeds: tuple[tuple[str, str], ...] = ()
    weights: str = ""
    webhooks: tuple[Webhook, ...] = ()
