"""
Routes for what workers hold: jobs, files, and lists of them over the whole fleet.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgl_droute.api.openapi.words import (
    TEXT,
    Operation,
    Part,
    about,
    answer,
    either,
    file,
    header,
    in_path,
    links,
    one_of,
    query,
    record,
    ref,
    whole,
)
from sgl_droute.api.openapi.worker_answers import FILE, READING

_MISSING = {
    "headers": {
        "X-Workers-Missing": {
            "description": "URLs of workers that did not answer; what they have is missing.",
            "schema": TEXT,
        }
    }
}
_PAGE = (
    query("limit", whole(1, 100, default=20), "Jobs at most."),
    query("order", one_of("asc", "desc"), "`desc` without it: the latest first."),
    query("after", TEXT, "The id behind which the page begins."),
)
_RANGE = header(
    "Range", {"type": "string", "pattern": "^bytes=[0-9]{1,9}-[0-9]{0,9}$"}, "A part of the file."
)


def _id(kind: str) -> Part:
    return in_path("id", {"type": "string", "minLength": 1}, f"Of the {kind}.")


def _record(summary: str, kind: str, schema: str) -> Operation:
    return Operation(
        summary=summary,
        answers={200: answer(ref(schema), "The worker's."), **READING},
        parameters=(_id(kind),),
        errors=(404,),
    )


def _content(kind: str, *media: str, variant: bool = True) -> Operation:
    numbers = (query("variant", whole(0, 9), "Which of several files."),) if variant else ()
    return Operation(
        summary=f"The file of a {kind}",
        answers={200: file("The file.", *media), **FILE},
        parameters=(_id(kind), *numbers, _RANGE),
        errors=(404,),
    )


def _list(kind: str, kinds: str, schema: str, page: str) -> Operation:
    names = (
        query(name, TEXT, f"Answer with this {kind} instead, as `GET /v1/{kinds}/{{id}}` does.")
        for name in (f"{kind}_id", "id", "job_id")
    )
    return Operation(
        summary=f"The {kinds} of all workers",
        answers={
            200: answer(
                either(ref(page), ref(schema)), f"A page of them, or one {kind}.", **_MISSING
            ),
            **READING,
        },
        parameters=(*_PAGE, *names),
        errors=(404, 422),
    )


OPERATIONS: Mapping[str, Operation] = {
    "GET /v1/images/{id}/content": _content("image", "image/jpeg", "image/png", "image/webp"),
    "GET /v1/videos": _list("video", "videos", "Video", "Videos"),
    "GET /v1/videos/{id}": _record("The state of a video", "video", "Video"),
    "DELETE /v1/videos/{id}": _record("Forget a video; its worker works on", "video", "Video"),
    "GET /v1/videos/{id}/content": _content("video", "video/mp4"),
    "GET /v1/meshes": _list("mesh", "meshes", "Mesh", "Meshes"),
    "GET /v1/meshes/{id}": _record("The state of a mesh", "mesh", "Mesh"),
    "DELETE /v1/meshes/{id}": _record("Forget a mesh; its worker works on", "mesh", "Mesh"),
    "GET /v1/meshes/{id}/content": _content(
        "mesh", "model/gltf-binary", "text/plain", variant=False
    ),
    "GET /v1/models": Operation(
        summary="The models of all workers",
        answers={
            200: answer(
                record(object=one_of("list"), data={"type": "array", "items": ref("ModelCard")}),
                "One card of each id.",
                **_MISSING,
                links=links("model", name="data/0/id"),
            )
        },
        errors=(502,),
    ),
    "GET /v1/models/{name}": Operation(
        summary="One model",
        answers={200: answer(ref("ModelCard"), "Its card.")},
        parameters=(in_path("name", about(TEXT, "May hold slashes."), "Its id."),),
        errors=(404,),
    ),
    "GET /v1/list_loras": Operation(
        summary="The adapters of all workers",
        answers={
            200: answer(
                record(
                    loaded_adapters={"type": "array"},
                    active={"type": "object", "additionalProperties": {"type": "array"}},
                    results={"type": "array", "items": ref("Result")},
                ),
                "Together, and each worker's answer.",
                **_MISSING,
            )
        },
        errors=(502,),
        notes="Waits in the workers' queues.",
    ),
}
