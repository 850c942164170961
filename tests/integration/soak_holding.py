"""
What the routers of a soak hold on to.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import frozen

from tests.integration.sockets import reactor
from tests.integration.wire import open_files


@frozen
class Holding:
    """
    What the routers hold on to.

    Attributes:
        sockets: Of the router process (count).
        files: Deleted files that it, and this process, have open (count).
        calls: Delayed calls of this process by what they call (count).
    """

    sockets: int
    files: int
    calls: Counter[str]

    def total(self) -> int:
        """How much it is (count)."""
        return self.sockets + self.files + self.calls.total()

    def within(self, before: Holding) -> bool:
        """Whether it is no more than *before*."""
        calls = self.calls - before.calls
        return self.sockets <= before.sockets and self.files <= before.files and not calls


def holding(router: int) -> Holding:
    """
    What is held now, *router* being the number of the router process.
    """
    links = _links(router)
    deleted = sum(link.endswith("(deleted)") for link in links)
    calls = Counter(_name(call) for call in reactor.getDelayedCalls())
    sockets = sum(link.startswith("socket:") for link in links)
    return Holding(sockets, deleted + open_files(), calls)


def _links(pid: int) -> list[str]:
    links = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return links


def _name(call: Any) -> str:
    function: Callable[..., object] = call.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__
