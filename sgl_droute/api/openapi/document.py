"""
The whole document: the route table and the descriptions of its routes, put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, ClassVar, Protocol

from attrs import frozen
from klein import Klein

from sgl_droute.api.entry.access import Access
from sgl_droute.api.openapi import held, line, orders, router, work, workers
from sgl_droute.api.openapi.schemas import SCHEMAS
from sgl_droute.api.openapi.words import TEXT, Operation, Part, Schema, either, ref
from sgl_droute.errors import reasons

OPERATIONS: Mapping[str, Operation] = {
    **work.OPERATIONS,
    **held.OPERATIONS,
    **orders.OPERATIONS,
    **line.OPERATIONS,
    **workers.OPERATIONS,
    **router.OPERATIONS,
}
_TAGS: Mapping[str, Mapping[str, Operation]] = {
    "Work": work.OPERATIONS,
    "What workers hold": held.OPERATIONS,
    "Orders to the whole fleet": orders.OPERATIONS,
    "The waiting line": line.OPERATIONS,
    "Workers": workers.OPERATIONS,
    "The router": router.OPERATIONS,
}

# What routes take that say no method; HEAD and OPTIONS are told of in words.
_ANY_METHOD = ("DELETE", "GET", "PATCH", "POST", "PUT")
_VARIABLE = re.compile(r"<(?:\w+:)?(\w+)>")
_REMAINDER = "/<any:path>"

# What any request may get, and those that need a key.
_ANYBODY = (400, 408, 413, 414, 431, 500, 503, 507)
_WITH_KEY = (401, 403, 429)
# What may become of a request that is for a worker.
_AT_WORK = (409, 412, 502, 504)
_KEYS: Mapping[Access, list[dict[str, list[str]]]] = {
    Access.OPEN: [],
    Access.INFERENCE: [{"bearer": ["inference"]}, {"apiKey": ["inference"]}],
    Access.ADMIN: [{"bearer": ["admin"]}, {"apiKey": ["admin"]}],
}

_NOTES = """\
The router's own routes. Keys are asked for if the router has any (docs/keys.md); a key with the \
role `admin` does for `inference` too.

- Every error of the router is an `Error`; its `reason` is a word for programs (docs/errors.md).
- Answers of workers pass on as they are; their errors are `WorkerError`.
- HEAD works wherever the router itself answers a GET; workers say 405 to it.
- OPTIONS works on every path and is 204, with `Allow`.
- A path that is here, with a method that is not, is 405 with `Allow` \
(`#/components/responses/Error405`).
"""
_ELSEWHERE = """\
Any other path, with any method, goes as it came to a worker that may take work, and the worker's \
answer comes back as it is; a WebSocket's handshake too. Requests with a slash at the end of a \
path of the router are among these."""


class Routed(Protocol):
    """What has routes, and tells by their endpoints who may use them."""

    routes: ClassVar[Klein]
    access: ClassVar[dict[str, Access]]


@frozen
class Route:
    """
    One method of one path.

    Attributes:
        path: In OpenAPI's manner.
        any: Whether its path takes any method.
        id: The name of the operation.
    """

    path: str
    method: str
    any: bool
    id: str
    access: Access

    @property
    def key(self) -> str:
        """Under which it is described."""
        return f"{'*' if self.any else self.method} {self.path}"


def routes_of(api: type[Routed]) -> Iterator[Route]:
    """
    All routes of *api*, but for HEAD and OPTIONS, 405, and what goes to workers as it came.
    """
    for rule in api.routes.url_map.iter_rules():
        path = _VARIABLE.sub(r"{\1}", rule.rule)
        endpoint = str(rule.endpoint)
        if rule.rule == _REMAINDER or endpoint.partition(" ")[0] in ("405", "OPTIONS"):
            continue
        methods = sorted((rule.methods or set(_ANY_METHOD)) - {"HEAD", "OPTIONS"})
        for method in methods:
            id = endpoint if len(methods) == 1 else f"{method.lower()}_{endpoint}"
            yield Route(path, method, rule.methods is None, id, api.access[endpoint])


def document(api: type[Routed]) -> dict[str, Any]:
    """
    The OpenAPI document of *api*.

    Raises:
        KeyError: A route has no description.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes_of(api):
        operation = _operation(route, OPERATIONS[route.key])
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sgl-droute",
            "version": version("sgl-droute"),
            "description": _NOTES,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "./"}],
        "tags": [{"name": name} for name in _TAGS],
        "paths": dict(sorted(paths.items())),
        "x-elsewhere": {"description": _ELSEWHERE, "security": _KEYS[Access.ADMIN]},
        "components": {
            "schemas": SCHEMAS,
            "responses": {_name(status): _refusal(status) for status in reasons()},
            "parameters": {each["name"]: each for each in work.WISHES},
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _operation(route: Route, told: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": route.id,
        "tags": [next(name for name, those in _TAGS.items() if route.key in those)],
        "summary": told.summary,
        "security": _KEYS[route.access],
        "responses": _responses(route, told),
    }
    if told.notes:
        made["description"] = told.notes
    wishes = [{"$ref": f"#/components/parameters/{each['name']}"} for each in work.WISHES]
    parameters = [*_path_parameters(route, told), *told.parameters, *(wishes if told.work else ())]
    if parameters:
        made["parameters"] = parameters
    if told.body is not None:
        made["requestBody"] = told.body
    return made


def _path_parameters(route: Route, told: Operation) -> list[Part]:
    known = {each["name"] for each in told.parameters if each["in"] == "path"}
    return [
        {"name": name, "in": "path", "required": True, "schema": TEXT}
        for name in re.findall(r"{(\w+)}", route.path)
        if name not in known
    ]


def _responses(route: Route, told: Operation) -> dict[str, Part]:
    errors = {*_ANYBODY, *told.errors}
    if route.access is not Access.OPEN:
        errors.update(_WITH_KEY)
    if told.work:
        errors.update(_AT_WORK)
    made: dict[str, Part] = {}
    for status in sorted({*errors, *told.answers}):
        if status not in told.answers:
            made[str(status)] = {"$ref": f"#/components/responses/{_name(status)}"}
            continue
        part = told.answers[status]
        content = part.get("content", {})
        if status in errors:
            content = _with_error(content, status)
        headers = {
            **_refer(_ALWAYS),
            **_refer(_OF_WORK if told.work else ()),
            **part.get("headers", {}),
        }
        made[str(status)] = {**part, "headers": headers}
        if content:
            made[str(status)]["content"] = content
    return made


def _with_error(content: Mapping[str, Any], status: int) -> dict[str, Any]:
    own = _error(status)
    others = content.get("application/json")
    schema = own if others is None else either(own, others["schema"])
    return {**content, "application/json": {"schema": schema}}


def _refusal(status: int) -> Part:
    phrase = HTTPStatus(status).phrase
    return {
        "description": f"{phrase}: an error of the router.",
        "headers": _refer((*_ALWAYS, *_OF_REFUSALS.get(status, ()), *_OF_WORK[:1])),
        "content": {"application/json": {"schema": _error(status)}},
    }


def _error(status: int) -> Schema:
    return {**ref("Error"), "properties": {"reason": {"enum": reasons()[status]}}}


def _name(status: int) -> str:
    return f"Error{status}"


def _header(description: str, schema: Schema, *, required: bool = False) -> Part:
    return {"description": description, "schema": schema, "required": required}


_ALWAYS = ("X-Request-Id",)
_OF_WORK = ("X-Router-Job", "X-Router-Worker", "X-Router-Why", "X-Weights-Epoch", "Server-Timing")
_OF_REFUSALS: Mapping[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After", "X-Workers-Missing"),
}
_HEADERS = {
    "X-Request-Id": _header(
        "The request's own, if it brought a good one; the log has it.", TEXT, required=True
    ),
    "X-Router-Job": _header("Its name in the waiting line.", TEXT),
    "X-Router-Worker": _header("Which worker answered.", TEXT),
    "X-Router-Why": _header("How it was chosen, as JSON, for X-Router-Why: 1.", TEXT),
    "X-Weights-Epoch": _header("The weights that made it.", TEXT),
    "Server-Timing": _header("Time in line and at the worker.", TEXT),
    "X-Workers-Missing": _header("URLs of workers that did not answer.", TEXT),
    "WWW-Authenticate": _header("How to bring a key.", TEXT, required=True),
    "Allow": _header("The methods of the path.", TEXT, required=True),
    "Retry-After": _header("Seconds.", {"type": "integer", "minimum": 1}),
}


def _refer(names: tuple[str, ...]) -> dict[str, Part]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
