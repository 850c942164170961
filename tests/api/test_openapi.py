"""
``/openapi.json`` against the route table and the errors.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from sgl_droute import errors
from sgl_droute.api.entry.access import Access
from sgl_droute.api.openapi.document import OPERATIONS, document, routes_of
from sgl_droute.api.routes import RouterAPI
from sgl_droute.errors import NoWorker, Refused, RouterError, WorkerFailed, reasons
from tests.memory import MemoryRouter
from tests.test_log_codes import documented, kinds

ROOT = Path(__file__).parents[2]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
_ROW = re.compile(r"^\| (\d{3}) \| (.+?) \|", re.MULTILINE)


@pytest.fixture
def told() -> dict[str, Any]:
    """What the router tells of itself."""
    return document(RouterAPI)


def operations(told: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of all that is told."""
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def table() -> dict[tuple[str, str], Access]:
    """The route table, read without the help of what is tested: who may use which route."""
    found = {}
    for rule in RouterAPI.routes.url_map.iter_rules():
        endpoint = str(rule.endpoint)
        if endpoint.startswith(("405 ", "OPTIONS ")) or endpoint in ("elsewhere", "options"):
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in METHODS if rule.methods is None else rule.methods & METHODS:
            found[path, method] = RouterAPI.access[endpoint]
    return found


def roles(operation: dict[str, Any]) -> set[str]:
    """The roles of keys that it asks for, in either way to bring one."""
    bearer = {role for each in operation["security"] for role in each.get("bearer", [])}
    plain = {role for each in operation["security"] for role in each.get("apiKey", [])}
    assert bearer == plain
    return bearer


def test_every_route_is_told(told: dict[str, Any]) -> None:
    """
    All routes with all their methods are described, and nothing else is.
    """
    assert {(path, method) for path, method, _ in operations(told)} == set(table())


def test_no_description_is_left_over() -> None:
    """
    A description whose route is gone is gone too.
    """
    assert set(OPERATIONS) == {route.key for route in routes_of(RouterAPI)}


def test_who_may_use_it(told: dict[str, Any]) -> None:
    """
    The keys that are told are those that are asked for at the door.
    """
    expected = {Access.OPEN: set(), Access.INFERENCE: {"inference"}, Access.ADMIN: {"admin"}}
    shown = {(path, method): roles(each) for path, method, each in operations(told)}
    assert shown == {route: expected[access] for route, access in table().items()}


def test_names_are_unique(told: dict[str, Any]) -> None:
    """
    Each operation has a name of its own, and links name operations that there are.
    """
    names = [each["operationId"] for _, _, each in operations(told)]
    assert len(set(names)) == len(names)
    linked = {
        link["operationId"]
        for _, _, each in operations(told)
        for answer in each["responses"].values()
        for link in answer.get("links", {}).values()
    }
    assert linked
    assert linked <= set(names)


def test_it_is_openapi(told: dict[str, Any]) -> None:
    """
    It is a valid OpenAPI document, and no schema, answer or header in it is never used.
    """
    validate(told)
    used = set(re.findall(r"#/components/(\w+)/([\w-]+)", str(told)))
    for kind in ("schemas", "responses", "headers", "parameters"):
        assert {name for of, name in used if of == kind} == set(told["components"][kind])


def test_errors_have_one_shape(told: dict[str, Any]) -> None:
    """
    Every error of the router has ``error``, ``reason`` and ``request_id``, and a reason of those
    that its status may have.
    """
    shape = told["components"]["schemas"]["Error"]
    assert shape["required"] == ["error", "reason", "request_id"]
    assert shape["properties"]["reason"]["enum"] == sorted(
        {reason for words in reasons().values() for reason in words}
    )
    for status, words in reasons().items():
        answer = told["components"]["responses"][f"Error{status}"]
        schema = answer["content"]["application/json"]["schema"]
        assert schema == {**schema, "$ref": "#/components/schemas/Error"}
        assert schema["properties"]["reason"]["enum"] == words


def test_everything_else_is_told_of(told: dict[str, Any]) -> None:
    """
    That other paths go to workers is told in words, with who may ask for them; it is no path.
    """
    assert "worker" in told["x-elsewhere"]["description"]
    assert roles(told["x-elsewhere"]) == {"admin"}
    assert not any("any" in path for path in told["paths"])


def test_the_route() -> None:
    """
    ``GET /openapi.json`` answers with the document.
    """
    reply = MemoryRouter().ask("GET", "/openapi.json")
    assert reply.status == 200
    assert reply.headers.getRawHeaders("content-type") == ["application/json"]
    assert reply.json == document(RouterAPI)


# Reasons.


def given() -> Iterator[tuple[str, str]]:
    """Kinds of errors and the reasons that single ones are given, read from the source."""
    for path in (ROOT / "sgl_droute").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                name = "TooManyRequests" if call.func.id == "_refused" else call.func.id
                kind = vars(errors).get(name)
                if isinstance(kind, type) and issubclass(kind, RouterError):
                    values = [each.value for each in call.keywords if each.arg == "reason"]
                    if issubclass(kind, Refused) or call.func.id == "_refused":
                        values += call.args[1:2]
                    for value in values:
                        if isinstance(value, ast.Constant) and isinstance(value.value, str):
                            yield name, value.value


def test_kinds_tell_their_reasons() -> None:
    """
    Each reason that an error is given is one that its kind says it may have, and is documented.
    """
    found = set(given())
    assert ("Refused", "queue_full") in found
    assert ("TooManyRequests", "too_many_in_flight") in found
    for name, reason in found:
        kind = vars(errors)[name]
        assert reason in (kind.reason, *kind.also), (name, reason)
    # Of a holder that fails clients are told so with a reason of the worker's.
    failures = {kind.reason for kind in kinds() if issubclass(kind, WorkerFailed)}
    assert failures - {"answer_cut"} <= set(NoWorker.also)
    everything = {reason for words in reasons().values() for reason in words}
    assert everything <= set(documented())


def test_statuses_are_documented() -> None:
    """
    ``docs/errors.md`` has every status with the reasons that it may have, and no other.
    """
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = _ROW.findall(text.partition("## Errors of workers")[0])
    shown = {int(status): re.findall(r"`(\w+)`", words) for status, words in rows}
    assert {status: sorted(words) for status, words in shown.items()} == reasons()
