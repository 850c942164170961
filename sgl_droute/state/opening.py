"""
From the option's text to the store.
"""

from __future__ import annotations

from typing import Any

from sgl_droute.state.address import state_path
from sgl_droute.state.database import Database
from sgl_droute.state.sqlite import OneThread, SqliteStore
from sgl_droute.state.store import MemoryStore, Store


def open_store(state: str, reactor: Any, *, job_ttl: float, max_owners: int) -> Store:
    """
    The store that *state* names; its file is not touched before `Store.load`.

    Args:
        state: As `sgl_droute.state.address.state_path` reads it.
        reactor: Provides time and takes results from threads.
        job_ttl: Seconds after its last use that an owner is forgotten.
        max_owners: Most owners that are kept (count).

    Raises:
        ValueError: The text names no store.
    """
    path = state_path(state)
    if path is None:
        return MemoryStore()
    return SqliteStore(
        Database(path), reactor, OneThread(reactor), job_ttl=job_ttl, max_owners=max_owners
    )
