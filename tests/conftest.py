"""
What every test gets: no failure may be logged behind its back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

settings.register_profile(
    "router",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize="CI" in os.environ,
)
settings.load_profile("router")


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """The events logged while the test runs."""
    events: list[LogEvent] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


@pytest.fixture(autouse=True)
def no_failures_logged(logged: list[LogEvent], request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a ``log_failure`` event, unless it is marked ``logs_failures``."""
    yield
    if request.node.get_closest_marker("logs_failures") is None:
        assert [event["log_failure"] for event in logged if "log_failure" in event] == []
