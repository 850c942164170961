"""
A router that runs as its users run it, and what is asked of it beside its page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.integration.commands import fetch, free_port, once_up, running


@frozen
class LiveRouter:
    """
    A router that runs.

    Attributes:
        key: What it is asked with, none if it is empty.
    """

    url: str
    key: str = ""

    @property
    def page(self) -> str:
        return f"{self.url}/dashboard"

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """
        The JSON that it answers, with a good status.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return fetch(self.url + path, data=data, method=method, headers=headers)

    def state(self, position: int = 0) -> Any:
        """
        The worker that was registered as that one.
        """
        return self.send("GET", "/workers")["workers"][position]


@contextmanager
def live_router(
    folder: Path, *options: str, key: str = "", up: str = "/health"
) -> Iterator[LiveRouter]:
    """
    A router with *options*, once it answers *up*.
    """
    port = free_port()
    words = ("sglang-d-router", "--host", "127.0.0.1", "--port", str(port))
    with running(*words, *options, cwd=folder):
        found = LiveRouter(f"http://127.0.0.1:{port}", key)
        once_up(found.url + up)
        yield found
