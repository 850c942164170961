"""
Routes of the router itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgl_droute.api.openapi.words import (
    OBJECT,
    TEXT,
    Operation,
    answer,
    file,
    header,
    nothing,
    one_of,
    query,
    record,
    ref,
)

_HEALTH = Operation(
    summary="Whether a worker may get work",
    answers={
        200: answer(ref("Health"), "One may."),
        503: answer(ref("Health"), "None may."),
    },
)

OPERATIONS: Mapping[str, Operation] = {
    "GET /liveness": Operation(
        summary="Whether the router runs",
        answers={200: answer(record(status=one_of("ok")), "It does.")},
    ),
    "GET /health": _HEALTH,
    "GET /health_generate": _HEALTH,
    "GET /metrics": Operation(
        summary="Metrics of the router",
        answers={200: file("As `Accept` prefers.", "text/plain", "application/openmetrics-text")},
    ),
    "GET /engine_metrics": Operation(
        summary="Metrics of all workers, with a label for each",
        answers={200: file("Prometheus's text format.", "text/plain")},
    ),
    "GET /events": Operation(
        summary="What happens in the fleet, as it happens",
        answers={200: file("Server-sent events, without an end.", "text/event-stream")},
        parameters=(
            query("types", TEXT, "Types of events, or their first words, between commas."),
            query("last_event_id", TEXT, "As the header, which comes first."),
            header("Last-Event-ID", TEXT, "Up to where the client has read."),
        ),
        notes="docs/events.md has the events.",
    ),
    "GET /config": Operation(
        summary="The configuration in force, without secrets",
        answers={200: answer(ref("Configuration"), "Every option, and who said it.")},
    ),
    "POST /reload": Operation(
        summary="Read the configuration again",
        answers={200: answer(ref("Reloaded"), "What has changed, and what needs a restart.")},
    ),
    "GET /openapi.json": Operation(
        summary="This description", answers={200: answer(OBJECT, "OpenAPI 3.1.")}
    ),
    "GET /dashboard": Operation(
        summary="The live page",
        answers={200: file("A page.", "text/html"), 304: nothing("The page that is known.")},
    ),
    "GET /dashboard/": Operation(
        summary="The live page, asked for as a folder",
        answers={308: nothing("It is at `/dashboard`.")},
    ),
    "GET /dashboard/{name}": Operation(
        summary="A file of the live page",
        answers={
            200: file(
                "The file.",
                *("text/html", "text/css", "text/javascript", "image/svg+xml"),
            ),
            304: nothing("The file that is known."),
        },
        errors=(404,),
    ),
    "GET /dashboard/stream": Operation(
        summary="What the live page shows",
        answers={200: file("Server-sent events, without an end.", "text/event-stream")},
        notes="Made for the page, and changes with it.",
    ),
}
