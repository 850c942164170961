"""
What a generation request says of itself, read from its body.

Only what its model and its amount of work depend on is kept: thousands of requests may wait. What
it all means is known to `sgl_droute.fleet.demand`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen
from twisted.internet.task import Cooperator
from werkzeug.http import parse_options_header

from sgl_droute.api.forms import Parts, multipart_parts, urlencoded_parts
from sgl_droute.fleet.demand import FIELDS, as_object
from sgl_droute.fleet.excerpt import Excerpt
from sgl_droute.workers.bodies import Spool

# Bytes of a JSON or URL-encoded body that is read whole: to parse the worst takes 25 ms.
LARGEST_BODY = 1 << 17
LONGEST_NAME = 1024
# Characters kept of a text: no number or size needs more.
LONGEST_TEXT = 64

# Objects with fields of the request within; forms give them as JSON.
_NESTED = ("extra_body", "extra_json", "extra_params")
_IMAGE_FILES = frozenset({"image", "image[]", "input_reference"})
_IMAGE_TEXTS = frozenset({"url", "url[]"})
_IMAGE_FIELDS = frozenset({"reference_url", "input_reference", "input_image", "image_path"})
_WANTED = FIELDS | _IMAGE_FIELDS | _IMAGE_TEXTS | {"model"}


@frozen
class Said:
    """
    What a request says of itself.

    Attributes:
        fields: What its cost depends on, by name: numbers; texts, cut; the lengths of lists;
            objects, reduced as this is. None when its body tells nothing.
        references: Input images (count).
        model: The model that it names.
    """

    fields: Mapping[str, object] | None = None
    references: int = 0
    model: str | None = None


NOTHING = Said()


async def asked(spool: Spool, content_type: str | None, cooperator: Cooperator) -> Said:
    """
    What the request with this body says of itself; a malformed body says nothing.

    JSON and URL-encoded forms are read whole up to 128 KiB, of larger JSON both ends, and of forms
    with files the first 64 MiB, in steps. Of fields with the same name the last one counts.

    Args:
        content_type: The request's header; what is no form is taken for JSON.
    """
    kind = "" if content_type is None else content_type.partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            boundary = parse_options_header(content_type)[1].get("boundary", "")
            return _of_form(await multipart_parts(spool, boundary, _WANTED, cooperator))
        if kind == "application/x-www-form-urlencoded":
            if spool.length > LARGEST_BODY:
                return NOTHING
            return _of_form(urlencoded_parts(spool.read(), _WANTED))
        if spool.length <= LARGEST_BODY:
            return _of_json(spool.read())
        return _of_large_json(spool)
    except (ValueError, RecursionError):
        return NOTHING  # malformed, or the client left and its body is closed


def _of_json(body: bytes) -> Said:
    if body.lstrip()[:1] != b"{":
        return NOTHING
    return _of_object(json.loads(body))


def _of_large_json(spool: Spool) -> Said:
    excerpt, cursor = Excerpt(), spool.cursor()
    head = cursor.read(excerpt.limit)
    excerpt.feed(head)
    excerpt.skip(spool.length - 2 * excerpt.limit)
    cursor.seek(spool.length - excerpt.limit)
    excerpt.feed(cursor.read(excerpt.limit))
    excerpt.end()
    fields = excerpt.fields()
    if not fields:
        return NOTHING
    # An image within the body is what made it large: its name is seen, its end is not.
    cut = {name: "..." for name in _IMAGE_FIELDS if f'"{name}"'.encode() in head}
    return _of_object({**cut, **fields})


def _of_object(body: dict[str, Any]) -> Said:
    fields = {name: _small(body[name]) for name in FIELDS & body.keys()}
    references = 0 if _IMAGE_FIELDS.isdisjoint(body) else _references(body)
    for name in _NESTED:
        if name in body:
            nested = as_object(body[name])
            fields[name] = _small(nested)
            references += _references(nested)
    return Said(fields, references, _model(body.get("model")))


def _of_form(parts: Parts) -> Said:
    images = sum(
        name in _IMAGE_FILES if text is None else bool(text) and name in _IMAGE_TEXTS
        for name, text in parts
    )
    last = {name: text for name, text in parts if text is not None}
    # To a worker an empty field of a form is none.
    said = _of_object({name: text for name, text in last.items() if text})
    return evolve(said, references=said.references + images)


def _model(name: object) -> str | None:
    return name if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME else None


def _references(body: Mapping[str, Any]) -> int:
    given = [body[name] for name in _IMAGE_FIELDS & body.keys()]
    return sum(len(each) if isinstance(each, list) else bool(each) for each in given)


def _small(value: object, depth: int = 0) -> object:
    if isinstance(value, str):
        return value[:LONGEST_TEXT]
    if isinstance(value, list):
        return len(value)
    if isinstance(value, dict):
        inner = FIELDS & value.keys()
        return {} if depth else {name: _small(value[name], depth + 1) for name in inner}
    if isinstance(value, int) and value.bit_length() > 64:
        return None  # no count that a worker could take
    return value
