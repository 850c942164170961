"""
The benchmark of the live page.
"""

from __future__ import annotations

import re

import pytest

from bench.bench_dashboard import BusyFleet, main


def test_a_busy_fleet_stays_busy() -> None:
    """
    Every second as many requests end as asked for, and all workers have work all the time.
    """
    fleet = BusyFleet(10, 3)
    for _ in range(20):
        fleet.second()
    view = fleet.service.dashboard.view
    view.look(fleet.clock.seconds())
    assert view.recent.number == 60
    assert '"workers":10,"usable":10,"busy":10,' in view.whole()


def test_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """
    It prints what a look costs, and what of it is sent.
    """
    main(["--workers", "5", "--rate", "1", "--looks", "5"])
    printed = capsys.readouterr().out
    assert "5 workers, 1 requests a second" in printed
    for name in ("a look", "sent", "the whole", "a point"):
        assert re.search(rf"{name} +[0-9.]+ (ms|kB)", printed)
