"""
Headers that tell how the router dealt with a request.
"""

from __future__ import annotations

import json

from sgl_droute.fleet.decisions import Bound
from sgl_droute.workers.attempts import Turn

Stamps = dict[bytes, bytes]

EPOCH = b"X-Weights-Epoch"


def stamps_of(turn: Turn, worker_seconds: float) -> Stamps:
    """
    ``X-Router-Job``, ``X-Router-Worker`` and ``Server-Timing`` (W3C; milliseconds) for the answer
    in *turn*; with ``X-Weights-Epoch`` if it took GPU time, and ``X-Router-Why`` if its job asks
    for that.
    """
    job = turn.job
    queued = turn.since - job.submitted
    timing = b"queue;dur=%.1f, worker;dur=%.1f" % (queued * 1000, worker_seconds * 1000)
    stamps = {
        b"X-Router-Job": job.id.encode("ascii"),
        b"X-Router-Worker": turn.worker.url.encode("ascii"),
        b"Server-Timing": timing,
    }
    if job.want.slot:
        stamps[EPOCH] = turn.epoch.encode("ascii")
    if job.why:
        stamps[b"X-Router-Why"] = json.dumps(
            _why(turn.bound, turn.since, turn.turns.algorithm), separators=(",", ":")
        ).encode("ascii")
    return stamps


def _why(bound: Bound, now: float, algorithm: str) -> dict[str, object]:
    """
    Who was chosen among whom; times in seconds from the decision.
    """
    return {
        "algorithm": algorithm,
        "chosen": bound.worker.url,
        "predicted_start": _from(now, bound.start),
        "predicted_end": _from(now, bound.end),
        "candidates": [
            {
                "worker": each.url,
                "jobs": each.jobs,
                "room": each.room,
                "predicted_start": _from(now, each.start),
                "predicted_end": _from(now, each.end),
            }
            for each in bound.candidates
        ],
    }


def _from(now: float, when: float) -> float:
    return round(max(0.0, when - now), 3)
