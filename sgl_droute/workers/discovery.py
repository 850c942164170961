"""
Asks a worker what it serves.

What its answers mean is decided in `sgl_droute.fleet.capabilities`.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve

from sgl_droute.errors import RouterError
from sgl_droute.fleet.capabilities import Capabilities, reported
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import Call, WorkerClient

_LARGEST_ANSWER = 1 << 20


async def discover(client: WorkerClient, worker: Worker) -> Capabilities | None:
    """
    What *worker* serves; None if it did not say.

    A worker that warms up answers ``/model_info``, and holds ``/v1/models`` until it is done.
    """
    info = await _json(client, worker, b"/model_info")
    cards = await _json(client, worker, b"/v1/models")
    if info is None and cards is None:
        return None
    server = await _json(client, worker, b"/server_info")
    found, known = reported(info, cards, server), worker.capabilities
    if cards is None and found.model == known.model:
        found = evolve(found, names=found.names | known.names)
    if server is None and found.model == known.model:
        found = evolve(found, replicas=known.replicas)
    return found


async def _json(client: WorkerClient, worker: Worker, target: bytes) -> Any:
    try:
        answer = await client.fetch(Call(b"GET", worker.url, target), limit=_LARGEST_ANSWER)
        return json.loads(answer.body) if answer.status == 200 else None
    except (RouterError, ValueError, RecursionError):
        return None
