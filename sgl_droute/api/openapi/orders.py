"""
Routes for the whole fleet: weights, adapters, memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgl_droute.api.openapi.words import (
    NUMBER,
    TEXT,
    TRUTH,
    URLS,
    Operation,
    Part,
    answer,
    body,
    listed,
    one_of,
    query,
    record,
    ref,
    whole,
)

_RESULTS = {200: answer(ref("Results"), "What each worker answered; look at every `status_code`.")}
_REPORT = answer(ref("UpdateReport"), "What came of it.")
_OPTIONS: tuple[Part, ...] = (
    query("mode", one_of("broadcast", "fenced", "rolling"), "How: `broadcast` without it."),
    query(
        "drain_timeout",
        {**NUMBER, "minimum": 0, "maximum": 999_999_999},
        "With `fenced`: seconds that running work may take; 600 without it.",
    ),
    query("max_unavailable", whole(1, 999_999_999), "With `rolling`: workers at a time."),
    query("verify", TRUTH, "Compare checksums at the end."),
    query("strict", TRUTH, "Have the status tell how it went."),
    query("model", TEXT, "Only workers that serve it."),
)


def _update(summary: str, order: Part) -> Operation:
    return Operation(
        summary=summary,
        answers={
            200: _REPORT,
            207: {**_REPORT, "description": "`strict`: some took it, or the fleet differs."},
            502: {**_REPORT, "description": "`strict`: nobody took it."},
        },
        parameters=_OPTIONS,
        body=order,
        errors=(404, 409, 504),
        notes="An update of all workers: docs/update_weights_from_disk.md.",
    )


def _to_all(summary: str, order: Part | None = None) -> Operation:
    return Operation(summary=summary, answers=_RESULTS, body=order)


OPERATIONS: Mapping[str, Operation] = {
    "POST /update_weights_from_disk": _update(
        "Have all workers load weights", body(json=ref("DiskUpdate"))
    ),
    "POST /update_weights_from_tensor": _update(
        "Give all workers tensors", body(json=ref("TensorUpdate"))
    ),
    "POST /update_weights_from_tensor_checker": _to_all(
        "Have all workers check tensors", body(json={"type": "object"})
    ),
    "POST /get_weights_checksum": _to_all(
        "Checksums of all workers", body(json=ref("ChecksumRequest"))
    ),
    "POST /v1/set_lora": _update("Set adapters", body(json=ref("LoraRequest"))),
    "POST /v1/merge_lora_weights": _update("Merge adapters", body(json=ref("LoraChange"))),
    "POST /v1/unmerge_lora_weights": _update("Unmerge adapters", body(json=ref("LoraChange"))),
    "POST /release_memory_occupation": _to_all("Put the fleet to sleep"),
    "POST /resume_memory_occupation": _to_all("Wake the fleet"),
    "GET /weights": Operation(
        summary="What weights everybody has",
        answers={200: answer(ref("Weights"), "By model and by worker, and the updates so far.")},
    ),
    "POST /weights/verify": Operation(
        summary="Compare checksums now",
        answers={
            200: answer(
                record(consistent=TRUTH, models=listed(ref("Comparison")), stale=URLS),
                "What came of it.",
            )
        },
    ),
    "POST /weights/resolve": Operation(
        summary="End an update that a crash interrupted",
        answers={
            200: answer(
                {"anyOf": [ref("Weights"), ref("UpdateReport")]},
                "As `GET /weights`; for `retry` what came of it.",
            )
        },
        body=body(
            json={
                "type": "object",
                "required": ["action"],
                "properties": {"action": one_of("retry", "accept", "abandon")},
                "additionalProperties": False,
            }
        ),
        errors=(409,),
    ),
}
