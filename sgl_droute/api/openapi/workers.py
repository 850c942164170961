"""
Routes for the workers of the fleet.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgl_droute.api.openapi.schemas import CONCURRENCY, SPEED
from sgl_droute.api.openapi.words import (
    TEXT,
    TRUTH,
    URLS,
    Operation,
    Part,
    about,
    answer,
    body,
    in_path,
    links,
    listed,
    one_of,
    query,
    record,
    ref,
)

_URL = {
    "type": "string",
    "pattern": r"^https?://[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?(:[1-9][0-9]{0,4})?$",
}
_NAMED = (
    query("url", _URL, "The worker."),
    query("worker_url", _URL, "The same."),
)
_NAMING = body(
    required=False,
    json={
        "type": "object",
        "properties": {"url": _URL, "worker_url": _URL},
        "additionalProperties": False,
        "minProperties": 1,
    },
)
_ID = in_path("worker_id", {"type": "string", "minLength": 1}, "Its URL, percent-encoded.")
_DONE = answer(record(status=one_of("success"), worker=ref("Worker")), "Done.")
_ONE = {
    "worker": {
        "operationId": "worker",
        "parameters": {"worker_id": "$response.body#/worker/url"},
    },
    "delete_worker": {
        "operationId": "delete_worker",
        "parameters": {"worker_id": "$response.body#/worker/url"},
    },
    "change_worker": {
        "operationId": "change_worker",
        "parameters": {"worker_id": "$response.body#/worker/url"},
    },
}
_WISHES: Part = body(
    json={
        "type": "object",
        "minProperties": 1,
        "properties": {
            "is_dead": about(TRUTH, "True quarantines it; false has it checked now."),
            "draining": about(TRUTH, "True gives it nothing new."),
            "disabled": about(TRUTH, "The same; updates pass it by."),
            "refresh_video_support": about(TRUTH, "True asks it now what it serves."),
            "concurrency": CONCURRENCY,
            "speed": SPEED,
        },
        "additionalProperties": False,
    }
)


def _early(summary: str, *errors: int) -> Operation:
    return Operation(
        summary=summary,
        answers={200: answer(ref("WorkerUrls"), "All that are registered now.")},
        parameters=_NAMED,
        body=_NAMING,
        errors=errors,
        notes="The worker is named in the query or the body.",
    )


OPERATIONS: Mapping[str, Operation] = {
    "POST /add_worker": _early("Register a worker"),
    "POST /remove_worker": _early("Remove a worker", 404),
    "GET /list_workers": Operation(
        summary="URLs of all workers", answers={200: answer(record(urls=URLS), "In order.")}
    ),
    "GET /health_workers": Operation(
        summary="Load and health of all workers",
        answers={200: answer(record(workers=listed(ref("WorkerHealth"))), "In order.")},
    ),
    "POST /workers": Operation(
        summary="Register a worker, which may be known already",
        answers={200: {**_DONE, "links": _ONE}},
        parameters=_NAMED,
        body=_NAMING,
        notes="The worker is named in the query or the body.",
    ),
    "GET /workers": Operation(
        summary="All workers",
        answers={
            200: answer(
                record(workers=listed(ref("Worker"))),
                "In order of registration.",
                links=links("worker", worker_id="workers/0/url"),
            )
        },
    ),
    "GET /workers/{worker_id}": Operation(
        summary="One worker",
        answers={200: answer(record(worker=ref("Worker")), "As it is now.")},
        parameters=(_ID,),
        errors=(404,),
    ),
    "PUT /workers/{worker_id}": Operation(
        summary="Quarantine, recover, drain or disable a worker, or set its speed",
        answers={
            200: _DONE,
            202: answer(
                record(status=one_of("pending"), reason=TEXT, worker=ref("Worker")),
                "Not in force yet.",
            ),
        },
        parameters=(_ID,),
        body=_WISHES,
        errors=(404,),
    ),
    "DELETE /workers/{worker_id}": Operation(
        summary="Remove a worker",
        answers={
            200: answer(
                record(
                    status=one_of("success"),
                    worker_id=TEXT,
                    state=one_of("removed", "draining"),
                ),
                "It is gone, or leaves when it has finished.",
            )
        },
        parameters=(_ID, query("drain", TRUTH, "Let it finish what it has.")),
        errors=(404,),
    ),
}
