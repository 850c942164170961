"""
The vocabulary of descriptions: short ways to say what JSON Schema and OpenAPI say in many words.

It knows no route; what is common to all is added by `sgl_droute.api.openapi.document`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

Schema = dict[str, Any]
Part = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
URLS: Schema = {"type": "array", "items": TEXT}


@frozen(kw_only=True)
class Operation:
    """
    What one method of one path does.

    Attributes:
        summary: In a few words.
        answers: By status, but for errors of the router; made by `answer` and those like it.
        parameters: In path, query and headers; those in the path that are not described are texts.
        body: What the request's body may be.
        errors: Statuses of the router's errors beside those that any request may get.
        notes: What else is to be known; Markdown.
        work: Whether it may wait in line for its worker, with the headers that are for that.
    """

    summary: str
    answers: Mapping[int, Part]
    parameters: tuple[Part, ...] = ()
    body: Part | None = None
    errors: tuple[int, ...] = ()
    notes: str = ""
    work: bool = field(default=False)


# Schemas.


def ref(name: str) -> Schema:
    """
    The schema of that name, of `sgl_droute.api.openapi.schemas`.
    """
    return {"$ref": f"#/components/schemas/{name}"}


def record(
    description: str = "", optional: Mapping[str, Schema] | None = None, /, **has: Schema
) -> Schema:
    """
    An object that has all of these fields, may have the *optional* ones, and no others.
    """
    made = {
        "type": "object",
        "required": list(has),
        "properties": {**has, **(optional or {})},
        "additionalProperties": False,
    }
    return {"description": description, **made} if description else made


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def by(values: Schema, description: str = "") -> Schema:
    """
    An object whose fields are named by what it is about.
    """
    made = {"type": "object", "additionalProperties": values}
    return {"description": description, **made} if description else made


def or_null(schema: Schema) -> Schema:
    if "type" in schema and isinstance(schema["type"], str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def one_of(*values: object) -> Schema:
    return {"enum": list(values)}


def about(schema: Schema, description: str, **more: Any) -> Schema:
    """
    *schema*, with a sentence.
    """
    return {**schema, "description": description, **more}


def whole(least: int, most: int | None = None, **more: Any) -> Schema:
    most_of_all = {} if most is None else {"maximum": most}
    return {"type": "integer", "minimum": least, **most_of_all, **more}


# Parameters.


def query(name: str, schema: Schema, description: str) -> Part:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def header(name: str, schema: Schema, description: str) -> Part:
    return {"name": name, "in": "header", "schema": schema, "description": description}


def in_path(name: str, schema: Schema, description: str) -> Part:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema,
        "description": description,
    }


# Bodies and answers.


def body(*, required: bool = True, **content: Schema) -> Part:
    """
    A request's body: ``json`` and ``form`` (multipart) with their schemas.
    """
    kinds = {"json": "application/json", "form": "multipart/form-data"}
    return {
        "required": required,
        "content": {kinds[kind]: {"schema": schema} for kind, schema in content.items()},
    }


def answer(schema: Schema, description: str, **more: Any) -> Part:
    """
    An answer in JSON.
    """
    return {
        "description": description,
        "content": {"application/json": {"schema": schema}},
        **more,
    }


def file(description: str, *kinds: str) -> Part:
    """
    An answer that is no JSON, of one of these media types.
    """
    return {"description": description, "content": {kind: {} for kind in kinds}}


def nothing(description: str) -> Part:
    """
    An answer without a body.
    """
    return {"description": description}


def links(operation: str, **parameters: str) -> Part:
    """
    Where the answer tells what another *operation* is given: by its parameter, the field.
    """
    return {
        operation: {
            "operationId": operation,
            "parameters": {
                name: f"$response.body#/{pointer}" for name, pointer in parameters.items()
            },
        }
    }
