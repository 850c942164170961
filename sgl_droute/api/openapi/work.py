"""
Routes that one worker works for.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgl_droute.api.openapi.words import (
    TEXT,
    Operation,
    Part,
    answer,
    body,
    file,
    header,
    in_path,
    links,
    nothing,
    ref,
    whole,
)
from sgl_droute.api.openapi.worker_answers import GENERATION, NOT_ALLOWED, UNKNOWN, UPSTREAM

_IMAGES = answer(
    ref("Images"),
    "The images, or where they are.",
    links=links("image_content", id="id"),
)
_VIDEO = answer(
    ref("Video"),
    "The job; it has only begun.",
    links={
        **links("get_video", id="id"),
        **links("delete_video", id="id"),
        **links("video_content", id="id"),
    },
)
_MESH = answer(
    ref("Mesh"),
    "The job; it has only begun.",
    links={
        **links("get_mesh", id="id"),
        **links("delete_mesh", id="id"),
        **links("mesh_content", id="id"),
    },
)
_WEBHOOK = header(
    "X-Webhook-Url",
    {"type": "string", "pattern": "^https?://[a-z0-9.]+(:[0-9]{1,4})?/[a-z]*$"},
    "Called when the job ends, if the operator allows that host: docs/events.md.",
)
_ACTION_PATH = in_path("path", TEXT, "May hold slashes.")


def _generation(
    summary: str, done: Part, order: Part, *parameters: Part, notes: str = ""
) -> Operation:
    answers = {200: done, **GENERATION, **UPSTREAM}
    return Operation(
        summary=summary,
        answers=answers,
        parameters=parameters,
        body=order,
        errors=(404,),
        notes=notes,
        work=True,
    )


_IMAGE = _generation("Make images from text", _IMAGES, body(json=ref("ImageRequest")))
_FILM = _generation(
    "Begin a video",
    _VIDEO,
    body(json=ref("VideoRequest"), form=ref("VideoForm")),
    _WEBHOOK,
)

OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/images/generations": _IMAGE,
    "POST /generate": _IMAGE,
    "POST /v1/images/edits": _generation(
        "Make images from images", _IMAGES, body(form=ref("EditRequest"))
    ),
    "POST /v1/videos": _FILM,
    "POST /generate_video": _FILM,
    "POST /v1/meshes": _generation(
        "Begin a mesh", _MESH, body(json=ref("MeshRequest"), form=ref("MeshForm")), _WEBHOOK
    ),
    "POST /rollout/generate": _generation(
        "Make samples with tensors",
        file("An array of samples in msgpack.", "application/msgpack"),
        body(json=ref("RolloutRequest")),
    ),
    "POST /v1/diffusion/generate": Operation(
        summary="Make samples, with workers of a fork that has this route",
        answers={200: answer({}, "The worker's."), **GENERATION, 404: UNKNOWN},
        body=body(json={"type": "object"}),
        errors=(404,),
        work=True,
    ),
    "POST /vertex_generate": _generation(
        "Make images in the manner of Vertex AI",
        answer(ref("Predictions"), "One for each instance, with `output` or `error`."),
        body(json=ref("VertexRequest")),
    ),
    "* /v1/actions/{path}": Operation(
        summary="Any call about actions; a WebSocket too",
        answers={
            101: nothing("A WebSocket, if that was asked for."),
            200: file("The worker's.", "*/*"),
            **GENERATION,
            404: UNKNOWN,
            405: NOT_ALLOWED,
        },
        parameters=(_ACTION_PATH,),
        errors=(404, 501),
        work=True,
    ),
    "* /v1/realtime_video/generate": Operation(
        summary="A realtime session, by WebSocket",
        answers={
            101: nothing("A WebSocket."),
            **GENERATION,
            404: UNKNOWN,
            405: NOT_ALLOWED,
        },
        errors=(404, 501),
        notes="One session per worker at a time. Workers take nothing but a WebSocket's GET here.",
        work=True,
    ),
}

# What any request that is for a worker may carry (docs/scheduling.md).
WISHES: tuple[Part, ...] = (
    header("X-Priority", {"type": "integer"}, "Higher first; 0 is usual."),
    header(
        "X-Deadline-Ms",
        {"type": "number", "minimum": 1, "maximum": 1_000_000_000},
        "Milliseconds within which the answer must be there.",
    ),
    header(
        "X-Rollout-Batch",
        {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,200}$"},
        "The batch of rollouts that it belongs to.",
    ),
    header(
        "X-Rollout-Size", whole(1, 1_000_000), "Requests that its batch will have; with it only."
    ),
    header(
        "X-Rollout-Group",
        {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,200}$"},
        "Requests of one group are best served by one worker.",
    ),
    header("X-Router-Why", {"enum": ["1"]}, "Have the answer tell how its worker was chosen."),
    header(
        "X-Require-Epoch",
        {"type": "string", "pattern": "^>?=[0-9]{1,15}$"},
        "Weights epochs that its worker may have.",
    ),
)
