"""
How workers tell of a thing by its id: where to ask, and what their answers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from twisted.web.http_headers import Headers

from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.bodies import fields_of
from sgl_droute.workers.client import Call, WorkerClient

_COLLECTIONS = {"video": "/v1/videos", "mesh": "/v1/meshes", "image": "/v1/images"}

_LARGEST_RECORD = 1 << 20
_ENOUGH = 1 << 12
_JSON = Headers({b"Accept": [b"application/json"]})
# An image has no record besides its file: one byte of that shows that it is there.
_FIRST_BYTE = Headers({b"Range": [b"bytes=0-0"]})


def record_target(kind: str, id: str) -> bytes:
    """
    The path of a job's record, or of an image.
    """
    return f"{_COLLECTIONS[kind]}/{quote(id, safe='')}".encode()


async def ask_for(
    client: WorkerClient, worker: Worker, kind: str, id: str
) -> tuple[int, Mapping[str, Any]]:
    """
    Status and JSON fields (empty where there are none) of what *worker* says of an id.

    Raises:
        WorkerFailed: It did not answer.
    """
    target = record_target(kind, id)
    if kind == "image":
        call = Call(b"GET", worker.url, target + b"/content", _FIRST_BYTE.copy())
        answer = await client.fetch(call, limit=_ENOUGH, whole=False)
    else:
        call = Call(b"GET", worker.url, target, _JSON.copy())
        answer = await client.fetch(call, limit=_LARGEST_RECORD)
    return answer.status, fields_of(answer.body)


def says_held(kind: str, id: str, status: int, fields: Mapping[str, Any]) -> bool:
    """
    Whether a worker's answer to a GET of *id* shows that it holds it.

    The record of a job names it. An image has only its file, or is told to be elsewhere (400, with
    cloud storage) or to lack the output asked for.
    """
    if kind != "image":
        return status == 200 and fields.get("id") == id
    lacks_output = status == 404 and "variant" in str(fields.get("detail"))
    return status in (200, 206, 400, 416) or lacks_output


def says_unknown(kind: str, status: int, fields: Mapping[str, Any]) -> bool:
    """
    Whether a worker's answer to a GET of an id says that it never heard of it, or forgot it.

    ``404`` is also the answer for a job that is not finished, and for an output that it has not.
    """
    if status != 404:
        return False
    detail = fields.get("detail")
    return not isinstance(detail, str) or detail in (f"{kind.capitalize()} not found", "Not Found")
