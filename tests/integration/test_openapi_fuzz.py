"""
A short look at the API by schemathesis; the long one is
``python -m tests.integration.openapi_fuzz --minutes 10``.
"""

from __future__ import annotations

from pathlib import Path

from tests.integration.openapi_fuzz import Plan, fuzzed


def test_all_routes(tmp_path: Path) -> None:
    """
    Whatever is asked of any route, the answer is one that ``/openapi.json`` describes, and never
    the router's own 500; requests get through to what they are for.
    """
    outcome = fuzzed(Plan(scope="all", examples=5), tmp_path)
    assert not outcome.problems, outcome.table()
    assert outcome.statuses()["200"] > 50, outcome.table()


def test_inference_routes_with_healthy_workers(tmp_path: Path) -> None:
    """
    As long as the workers are well nothing that a client for generations asks ends with a 5xx, and
    the answers are as described.
    """
    outcome = fuzzed(Plan(scope="inference", examples=5), tmp_path)
    assert not outcome.problems, outcome.table()
    assert outcome.statuses()["200"] > 50, outcome.table()
    made = ("POST /v1/images/generations", "POST /v1/images/edits", "POST /v1/videos")
    for route in (*made, "POST /v1/meshes", "POST /rollout/generate"):
        assert outcome.tally[route].get("200"), outcome.table()
