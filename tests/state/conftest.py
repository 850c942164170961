"""
Closes the files that a test left open.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.state.hands import MADE


@pytest.fixture(autouse=True)
def files_are_closed() -> Iterator[None]:
    """Close what a test left behind: Python complains of open databases from 3.13 on."""
    yield
    for database in list(MADE):
        database.close()
