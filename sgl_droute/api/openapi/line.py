"""
Routes for the waiting line.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgl_droute.api.openapi.words import (
    COUNT,
    TEXT,
    Operation,
    answer,
    in_path,
    links,
    listed,
    one_of,
    query,
    record,
    ref,
    whole,
)

_JOB = in_path("id", {"type": "string", "minLength": 1}, "As in X-Router-Job.")
_BATCH = in_path("id", TEXT, "As in X-Rollout-Batch; may hold slashes.")

OPERATIONS: Mapping[str, Operation] = {
    "GET /queue": Operation(
        summary="Who waits, and who is served",
        answers={
            200: answer(
                record(
                    waiting=listed(ref("WaitingJob")),
                    running=listed(ref("RunningJob")),
                    waiting_count=COUNT,
                    running_count=COUNT,
                ),
                "Times are seconds from now.",
                links=links("cancel", id="waiting/0/id"),
            )
        },
        parameters=(query("limit", whole(0, 100_000), "Of each list; 1000 without it."),),
    ),
    "DELETE /queue/{id}": Operation(
        summary="Take a request out of the line",
        answers={
            200: answer(
                record(status=one_of("success"), id=TEXT, state=one_of("cancelled")),
                "Its client is told 409.",
            )
        },
        parameters=(_JOB,),
        errors=(404, 409),
    ),
    "GET /rollouts/{id}": Operation(
        summary="How far a batch of rollouts is",
        answers={200: answer(ref("Batch"), "Counts of its requests.")},
        parameters=(_BATCH,),
        errors=(404,),
    ),
    "DELETE /rollouts/{id}": Operation(
        summary="Cancel what of a batch waits",
        answers={
            200: answer(record(status=one_of("success"), cancelled=COUNT), "How many waited.")
        },
        parameters=(_BATCH,),
        errors=(404,),
    ),
}
