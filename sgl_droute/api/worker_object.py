"""
A worker as the API shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

from sgl_droute.fleet.worker import Worker

# Workers whose names are kept (count): lists of workers are asked for again and again.
_URLS_KEPT = 10_000


@lru_cache(_URLS_KEPT)
def worker_id_of(url: str) -> str:
    """
    The id of the worker at *url* in paths: its URL with everything percent-encoded.
    """
    return quote(url, safe="")


def shown(worker: Worker, learned: Mapping[str, object] | None = None) -> dict[str, Any]:
    """
    *worker* as the API shows it.

    Args:
        learned: What was learned of its speed, by kind of work; nothing if None or empty.
    """
    capabilities = worker.capabilities
    abilities = capabilities.abilities
    return {
        "worker_id": worker_id_of(worker.url),
        "display_id": _display_id(worker.url),
        "url": worker.url,
        "state": worker.state,
        "active_requests": worker.in_flight,
        "jobs": worker.jobs,
        "sessions": worker.sessions,
        "is_dead": worker.dead,
        "is_sleeping": worker.asleep,
        "draining": worker.draining,
        "disabled": worker.disabled,
        "consecutive_failures": worker.failures,
        "last_error": worker.last_error or worker.lacks or None,
        "video_support": None if abilities is None else "video" in abilities,
        "capabilities": None if abilities is None else sorted(abilities),
        "model": capabilities.model,
        "weights": worker.actual.source,
        "weights_epoch": worker.epoch,
        "is_stale": worker.stale,
        "replicas": capabilities.replicas,
        "concurrency": worker.concurrency,
        "speed": worker.speed,
        "learned": dict(learned) if learned else None,
    }


@lru_cache(_URLS_KEPT)
def _display_id(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.netloc.rpartition(':')[0] if parts.port else parts.netloc}:{port}"
