"""
What a worker's answer about an id means.
"""

from __future__ import annotations

from typing import Any

import pytest

from sgl_droute.workers.records import says_held, says_unknown


@pytest.mark.parametrize(
    ("kind", "status", "fields", "unknown"),
    [
        ("video", 404, {"detail": "Video not found"}, True),
        ("mesh", 404, {"detail": "Mesh not found"}, True),
        ("image", 404, {"detail": "Image not found"}, True),
        ("video", 404, {"detail": "Not Found"}, True),
        ("video", 404, {}, True),
        ("video", 404, {"detail": "Generation is still in-progress"}, False),
        ("video", 404, {"detail": "Video variant 3 not found"}, False),
        ("image", 404, {"detail": "Image variant 3 not found"}, False),
        ("video", 200, {"detail": "Video not found"}, False),
        ("video", 503, {"detail": "Video not found"}, False),
        ("video", 500, {}, False),
    ],
)
def test_says_unknown(kind: str, status: int, fields: dict[str, Any], unknown: bool) -> None:
    """
    Only a 404 for the thing itself says that a worker has it not.
    """
    assert says_unknown(kind, status, fields) is unknown


@pytest.mark.parametrize(
    ("kind", "status", "fields", "held"),
    [
        ("video", 200, {"id": "x", "status": "queued"}, True),
        ("video", 200, {"id": "y"}, False),
        ("video", 200, {}, False),
        ("mesh", 206, {"id": "x"}, False),
        ("video", 403, {"id": "x"}, False),
        ("video", 404, {"detail": "Generation is still in-progress"}, False),
        ("image", 200, {}, True),
        ("image", 206, {}, True),
        ("image", 416, {}, True),
        ("image", 400, {"detail": "stored at https://bucket/x.png"}, True),
        ("image", 404, {"detail": "Image variant None not found"}, True),
        ("image", 404, {"detail": "Image not found"}, False),
        ("image", 429, {}, False),
        ("image", 500, {}, False),
    ],
)
def test_says_held(kind: str, status: int, fields: dict[str, Any], held: bool) -> None:
    """
    A worker holds what it names, or what it has the file of; nothing else binds an id to it.
    """
    assert says_held(kind, "x", status, fields) is held
