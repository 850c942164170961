"""
What ``docs/`` has for Prometheus and Grafana, against the scrape of a router that has served
traffic: every metric and label that is asked for exists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.scraping import Scrape
from tests.memory import MemoryRouter

DOCS = Path(__file__).parent.parent / "docs"

# What Prometheus adds to every series.
_ADDED = {"instance", "job"}
_WORDS = {"and", "by", "group_left", "ignoring", "on", "or", "unless", "without"}

_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_BRACES = re.compile(r"([a-zA-Z_:][\w:]*)?\{([^{}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left)\s*\(([^()]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"(?<![\w:$.])([a-zA-Z_:][\w:]*)(?!\s*[\w:(])")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def metrics_in(expr: str) -> set[str]:
    """The names of all metrics in a query."""
    bare = _RANGE.sub("", _GROUPING.sub("", _STRING.sub("", expr)))
    return set(_NAME.findall(_BRACES.sub(r"\1", bare))) - _WORDS


def labels_in(expr: str) -> set[str]:
    """The names of all labels that a query chooses or groups by."""
    bare = _STRING.sub("", expr)
    chosen = {label for _, inner in _BRACES.findall(bare) for label in _LABEL.findall(inner)}
    grouped = {each.strip() for inner in _GROUPING.findall(bare) for each in inner.split(",")}
    return chosen | grouped


def dashboard() -> Any:
    return json.loads((DOCS / "grafana.json").read_text())


def of_dashboard() -> Iterator[str]:
    """The queries of the dashboard, its variables included."""
    board = dashboard()
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert asked is not None
            yield f"sum by ({asked[2]}) ({asked[1]})"


def of_alerts() -> list[str]:
    """The queries of the alerts."""
    text = (DOCS / "alerts.yml").read_text()
    return re.findall(r"expr: (?:\|\n)?((?:.+\n)+?)(?=\s+(?:for|labels):)", text)


def of_page() -> list[str]:
    """The queries in the page about metrics."""
    blocks = re.findall(r"```promql\n(.*?)```", (DOCS / "metrics.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """
    The labels of every series that a router and its workers exposed, by the name of the metric.
    """
    router = MemoryRouter("a", simulator=SimulatorSettings(model="fastwan"))
    router.service.startService()
    router.settle()
    jobs = router.service.holdings.jobs
    for _ in range(2):
        router.ask("POST", "/v1/videos", json={"prompt": "x", "size": "64x64", "num_frames": 5})
        router.until(lambda: not len(jobs))
    found: dict[str, set[str]] = {}
    for path in ("/metrics", "/engine_metrics"):
        for sample in Scrape.parsed(router.ask("GET", path).body).samples():
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expr", [*of_dashboard(), *of_alerts(), *of_page()])
def test_queries(expr: str, known: dict[str, set[str]]) -> None:
    """
    A query asks for metrics that a router has, with labels that they have.
    """
    metrics = metrics_in(expr)
    assert metrics
    assert metrics <= known.keys()
    labels = set().union(*(known[metric] for metric in metrics))
    assert labels_in(expr) <= labels | _ADDED


def test_all_queries_are_found() -> None:
    """
    The files are read to their end: each has as many queries as it has places for one.
    """
    assert len(list(of_dashboard())) == (DOCS / "grafana.json").read_text().count('"expr"') + 2
    assert len(of_alerts()) == (DOCS / "alerts.yml").read_text().count("alert: ")
    assert len(of_page()) > 5


def test_names_in_queries() -> None:
    """
    Names are told from functions, labels and words, so that a wrong one would be seen.
    """
    expr = 'sum by (le, x) (rate(a_b{y="c_d", z=~"$e"}[5m])) / on (v) f:g > 0 and h * 1e3'
    assert metrics_in(expr) == {"a_b", "f:g", "h"}
    assert labels_in(expr) == {"le", "x", "y", "z", "v"}


def test_the_dashboard_can_be_imported() -> None:
    """
    Panels have ids of their own, do not overlap, and take their data source from the variable.
    """
    board = dashboard()
    assert board["uid"] == "sgl-droute"
    assert board["templating"]["list"][0]["type"] == "datasource"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def documented() -> dict[str, tuple[str, set[str]]]:
    """The metrics in the tables of the page: type and labels by name."""
    row = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
    rows = row.findall((DOCS / "metrics.md").read_text())
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_all_metrics_are_documented(known: dict[str, set[str]]) -> None:
    """
    The page has every metric of the router with its labels, and no other.
    """
    base = re.compile(r"_(bucket|count|sum)$")
    own: dict[str, set[str]] = {}
    for name, labels in known.items():
        histogram = base.sub("", name)
        if f"{histogram}_bucket" in known:
            name = histogram
        if name.startswith("sgl_droute_"):
            own.setdefault(name, set()).update(labels - {"le"})
    assert {name: labels for name, (_, labels) in documented().items()} == own
