"""
The shape of messages: which keys there are, and what kind of value each has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

# Their keys are names of what there is, not of what is told of it.
_BY_NAME = (
    "/workers",
    "/sparks/points",
    "/fleet/epochs",
    "/workers/*/learned",
)

Shape = dict[str, set[str]]


def shape_of(messages: Iterable[Any]) -> Shape:
    """
    By path, the kinds of all values that the *messages* have there.
    """
    found: Shape = defaultdict(set)
    for each in messages:
        _note(each, "", found)
    return dict(found)


def _note(value: Any, path: str, found: Shape) -> None:
    found[path].add(_kind(value))
    if isinstance(value, dict):
        for key, each in value.items():
            _note(each, f"{path}/{'*' if path in _BY_NAME else key}", found)
    elif isinstance(value, list):
        is_row = path == "/charts/points/[]"
        for number, each in enumerate(value):
            _note(each, f"{path}/{number if is_row else '[]'}", found)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "number"
    names = {str: "text", dict: "object", list: "list", type(None): "nothing"}
    return names[type(value)]
