"""
Objects that several routes tell or take.
"""

from __future__ import annotations

from sgl_droute.api.openapi.requests import REQUESTS
from sgl_droute.api.openapi.words import (
    COUNT,
    NUMBER,
    OBJECT,
    TEXT,
    TRUTH,
    URLS,
    WHOLE,
    Schema,
    about,
    by,
    either,
    listed,
    one_of,
    or_null,
    record,
    ref,
    whole,
)
from sgl_droute.errors import reasons

_STATES = one_of(
    *("ready", "joining", "suspect", "dead", "draining", "disabled"),
    *("sleeping", "updating", "stale"),
)
_ALL_REASONS = sorted({reason for words in reasons().values() for reason in words})

ERROR = record(
    "Every error of the router. `reason` is a word for programs: see docs/errors.md.",
    {
        "queue_position": or_null(about(WHOLE, "Place in line, from 1; null for nowhere.")),
        "retry_after": or_null(about(WHOLE, "Seconds after which to ask again, as Retry-After.")),
        "field": about(TEXT, "The field of the request that names a file on a worker."),
        "details": listed(record(worker_url=TEXT, error=TEXT)),
    },
    error=about(TEXT, "One sentence, for people."),
    reason=one_of(*_ALL_REASONS),
    request_id=about(TEXT, "As X-Request-Id; the log has it too."),
)

_WORKER_ERROR = {
    "description": "An error of a worker, passed on: FastAPI's, which says `detail`.",
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": either(TEXT, listed(OBJECT))},
}
_WORKER_DEAD = {
    "description": "A worker whose GPU process is gone.",
    "type": "object",
    "required": ["error"],
    "properties": {"error": TEXT, "status": TEXT},
}

# What workers tell, in so far as the router relies on it: their objects have more fields.

_JOB_STATUS = one_of("queued", "in_progress", "completed", "failed", "deleted")


def _told(required: tuple[str, ...], **fields: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": fields}


def _page(items: str) -> Schema:
    return record(
        data=listed(ref(items)),
        object=one_of("list"),
        first_id=or_null(TEXT),
        last_id=or_null(TEXT),
        has_more=TRUTH,
    )


_JOB = {"id": TEXT, "model": TEXT, "status": _JOB_STATUS, "created_at": NUMBER}
_RESULT = record(
    "What one worker answered: its status and JSON, or `raw` text; 502 and `error` without one.",
    worker_url=TEXT,
    status_code=WHOLE,
    body={},
)

WORKER_OBJECTS: dict[str, Schema] = {
    "Images": _told(
        ("id", "data"),
        id=TEXT,
        created=NUMBER,
        data=listed(_told((), b64_json=or_null(TEXT), url=or_null(TEXT))),
        inference_time_s=or_null(NUMBER),
    ),
    "Video": _told(
        ("id", "object", "status"),
        **_JOB,
        object=one_of("video"),
        progress=NUMBER,
        size=or_null(TEXT),
        seconds=or_null(TEXT),
        error=or_null(OBJECT),
    ),
    "Mesh": _told(
        ("id", "object", "status"),
        **_JOB,
        object=one_of("mesh"),
        format=TEXT,
        error=or_null(OBJECT),
    ),
    "Predictions": _told(("predictions",), predictions=listed(OBJECT)),
    "ModelCard": _told(("id",), id=TEXT, object=TEXT, created=NUMBER, owned_by=TEXT),
    "Videos": _page("Video"),
    "Meshes": _page("Mesh"),
    "Result": _RESULT,
    "Results": record("", {"message": TEXT}, results=listed(ref("Result"))),
}

# What the router tells of itself.

_LEARNED = record(
    samples=COUNT,
    seconds_per_unit=NUMBER,
    fixed_seconds=NUMBER,
    relative_speed=NUMBER,
    error=or_null(NUMBER),
)
CONCURRENCY = about(
    either(whole(0, 1_000_000), one_of("auto", None)),
    "Generations at once; 0 for any number, `auto` for one per replica, null for the fleet's.",
)
SPEED = about(
    {"type": ["number", "null"], "minimum": 0.001, "maximum": 1000},
    "1 is usual for its model; null to have it learned.",
)
_SUMS = or_null(by(TEXT, "By module."))
_JOB_SHOWN = {
    "id": about(TEXT, "As X-Router-Job."),
    "kind": TEXT,
    "waited": NUMBER,
    "predicted_start": or_null(NUMBER),
    "predicted_end": or_null(NUMBER),
    "priority": WHOLE,
    "client": TEXT,
    "batch": or_null(TEXT),
    "group": or_null(TEXT),
}

ROUTER_OBJECTS: dict[str, Schema] = {
    "Worker": record(
        worker_id=about(TEXT, "Its URL, percent-encoded."),
        display_id=TEXT,
        url=TEXT,
        state=_STATES,
        active_requests=COUNT,
        jobs=COUNT,
        sessions=COUNT,
        is_dead=TRUTH,
        is_sleeping=TRUTH,
        draining=TRUTH,
        disabled=TRUTH,
        consecutive_failures=COUNT,
        last_error=or_null(TEXT),
        video_support=or_null(TRUTH),
        capabilities=or_null(listed(one_of("image", "edit", "video", "mesh", "action"))),
        model=or_null(TEXT),
        weights=or_null(TEXT),
        weights_epoch=or_null(COUNT),
        is_stale=TRUTH,
        replicas=COUNT,
        concurrency=CONCURRENCY,
        speed=SPEED,
        learned=or_null(by(_LEARNED, "By kind of work.")),
    ),
    "WorkerHealth": record(
        url=TEXT,
        active_requests=COUNT,
        is_dead=TRUTH,
        consecutive_failures=COUNT,
        weights_epoch=or_null(COUNT),
        is_stale=TRUTH,
    ),
    "WorkerUrls": record(status=one_of("success"), worker_urls=URLS),
    "Health": record(
        status=one_of("healthy", "unhealthy"),
        healthy_workers=COUNT,
        dead_workers=COUNT,
        sleeping_workers=COUNT,
        stale_workers=COUNT,
        total_workers=COUNT,
        weights_epoch=COUNT,
    ),
    "WaitingJob": record(**_JOB_SHOWN, position=whole(1), why=TEXT),
    "RunningJob": record(
        **_JOB_SHOWN,
        worker=TEXT,
        state=one_of("abandoned", "answering", "open", "running", "queued at its worker"),
    ),
    "Batch": record(
        id=TEXT,
        expected=or_null(COUNT),
        waiting=COUNT,
        running=COUNT,
        done=COUNT,
        failed=COUNT,
        cancelled=COUNT,
        predicted_end=or_null(NUMBER),
    ),
    "Comparison": record(
        model=or_null(TEXT),
        majority=TRUTH,
        checksum=by(TEXT),
        differing=by(listed(TEXT), "By URL, modules."),
        not_comparable=by(listed(TEXT), "By URL, modules."),
        silent=by(TEXT, "By URL, why it told nothing."),
    ),
    "UpdateReport": record(
        "What came of an update of weights or adapters.",
        {
            "epochs": about(by(COUNT), "By model, if several were updated."),
            "verified": listed(ref("Comparison")),
        },
        results=listed(ref("Result")),
        epoch=COUNT,
        consistent=TRUTH,
        stale=URLS,
    ),
    "UpdateNote": record(
        when=NUMBER,
        path=TEXT,
        body=TEXT,
        mode=TEXT,
        models=listed(TEXT),
        epochs=by(COUNT),
        results=by(one_of("took", "exempt", "refused", "failed", "lost", None)),
        seconds=or_null(NUMBER),
        note=or_null(TEXT),
    ),
    "Weights": record(
        epoch=COUNT,
        durable=TRUTH,
        updating=or_null(ref("UpdateNote")),
        interrupted=or_null(ref("UpdateNote")),
        models=listed(
            record(
                model=or_null(TEXT),
                epoch=COUNT,
                updates=listed(record(path=TEXT, body=TEXT, replayable=TRUTH)),
                loras=listed(record(path=TEXT, body=OBJECT)),
                checksum=_SUMS,
            )
        ),
        workers=listed(
            record(
                url=TEXT,
                model=or_null(TEXT),
                epoch=or_null(COUNT),
                state=one_of("current", "stale", "updating", "pending"),
                reason=or_null(TEXT),
                checksum=_SUMS,
            )
        ),
        history=listed(ref("UpdateNote")),
    ),
    "Option": record(
        "",
        {"after_restart": {}},
        value={},
        source=one_of("default", "file", "environment", "command line", "program"),
        changeable=about(TRUTH, "Without a restart."),
    ),
    "Configuration": record(
        file=or_null(TEXT),
        options=by(ref("Option")),
        workers=listed(
            record(
                "",
                {"concurrency": CONCURRENCY, "speed": SPEED, "disabled": TRUTH},
                url=TEXT,
            )
        ),
        needs_restart=listed(TEXT),
    ),
    "Reloaded": record(
        status=one_of("success"),
        changed=listed(TEXT),
        needs_restart=listed(TEXT),
        workers=record(added=URLS, removed=URLS, changed=URLS),
    ),
}

SCHEMAS: dict[str, Schema] = {
    "Error": ERROR,
    "WorkerError": _WORKER_ERROR,
    "WorkerDead": _WORKER_DEAD,
    **REQUESTS,
    **WORKER_OBJECTS,
    **ROUTER_OBJECTS,
}
