"""
What is measured of a page in the browser: contrast, overflow, names of controls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_CONTRAST = (_HERE / "contrast.js").read_text()
_STRUCTURE = (_HERE / "structure.js").read_text()


def low_contrast(page: Any, limit: float = 4.5) -> dict[str, float]:
    """
    Text whose contrast is below *limit*, with the contrast that it has.
    """
    measured = page.evaluate(_CONTRAST, limit)
    assert measured["read"] > 20
    found: dict[str, float] = measured["found"]
    return found


def structure(page: Any) -> dict[str, Any]:
    """
    What a screen reader needs and does not find, and the landmarks that it does.
    """
    found: dict[str, Any] = page.evaluate(_STRUCTURE)
    return found


def overflow(page: Any) -> int:
    """
    Pixels by which the page is wider than its window.
    """
    wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return int(wider)


def picture(page: Any, path: Any) -> None:
    """
    Keep a picture of the whole page.
    """
    # In a window as high as the page: what lies outside of it is not laid out.
    size = page.viewport_size
    for _ in range(2):
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": size["width"], "height": min(height, 12000)})
    page.screenshot(path=path)
    page.set_viewport_size(size)
