"""
Who may use a route.

Which keys give which access, and what is asked of a request that has none, is decided at the door.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Protocol

from twisted.web.server import Request

from sgl_droute.api.telemetry.account import Account


class Access(IntEnum):
    """
    What a request needs for a route; who may more may less.

    Attributes:
        OPEN: Nothing.
        INFERENCE: A key for generations.
        ADMIN: A key for the fleet.
    """

    OPEN = 0
    INFERENCE = 1
    ADMIN = 2


class Caller(Protocol):
    """Who was let in."""


class Doorkeeper(Protocol):
    """Lets requests in."""

    def admit(self, request: Request, access: Access, account: Account) -> Caller:
        """
        Who makes *request*, which may use a route that needs *access*. Keys are taken from it, and
        *account* has the name of its key.

        Raises:
            Unauthorized: It needs a key and has none that is known.
            Forbidden: Its key is not one for this, or nobody may do it.
            TooManyRequests: A limit of its key is reached.
        """

    def leave(self, caller: Caller) -> None:
        """
        Note that the request of *caller* has ended; to be called once.
        """

    def names_files_freely(self, request: Request) -> bool:
        """
        Whether *request*, which was let in, may name files on a worker.
        """


@contextmanager
def entered(door: Doorkeeper, request: Request, access: Access, account: Account) -> Iterator[None]:
    """
    The time for which *request* is let in; arguments and errors as of `Doorkeeper.admit`.
    """
    caller = door.admit(request, access, account)
    try:
        yield
    finally:
        door.leave(caller)
