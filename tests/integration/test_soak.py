"""
A short soak; the long one is ``python -m tests.integration.soak --minutes 10``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import pytest_twisted

from tests.integration.soak import Plan, soaked

SEED = int(os.environ.get("SOAK_SEED", "1"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest_twisted.ensureDeferred
async def test_a_storm(tmp_path: Path) -> None:
    """
    After a storm of faults, kills and hang-ups nothing is in flight, open or waiting that was not
    before, no request was sent twice, no answer was torn or wrong, and every request works again.
    """
    await soaked(Plan(seconds=10.0, seed=SEED), tmp_path)
