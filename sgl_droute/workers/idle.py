"""
Connections to workers that wait for their next request.

When a connection may serve another one is for the connection to say.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults

from sgl_droute.workers.connection import WorkerConnection
from sgl_droute.workers.deadlines import Deadline, Deadlines

# Workers close a connection after 5 s without a request (uvicorn's keep-alive): ours goes first, so
# that no request is written to a connection that is being closed.
KEEP_ALIVE = 4.0
IDLE_CONNECTIONS_PER_WORKER = 256


@define(eq=False)
class IdleConnections:
    """
    Idle connections by their worker's base URL, each for `KEEP_ALIVE` seconds at most.

    Args:
        clock: Provides the time.
        deadlines: Closes them; it may be late, which costs no request.
    """

    clock: Any
    deadlines: Deadlines
    _shelves: dict[bytes, dict[WorkerConnection, Deadline]] = field(factory=dict, init=False)
    _closed: bool = field(default=False, init=False)

    def take(self, base: bytes) -> WorkerConnection | None:
        """
        The connection to a worker that was used last, if one is still good.
        """
        shelf = self._shelves.get(base)
        while shelf:
            connection, deadline = shelf.popitem()
            deadline.cancel()
            if self.clock.seconds() < deadline.when and connection.is_silent():
                return connection
            connection.close()
        return None

    def keep(self, connection: WorkerConnection) -> None:
        """
        Keep *connection* for the next request, or close it if there are enough.
        """
        shelf = self._shelves.setdefault(connection.base, {})
        if self._closed or len(shelf) >= IDLE_CONNECTIONS_PER_WORKER:
            connection.close()
        else:
            shelf[connection] = self.deadlines.set(KEEP_ALIVE, connection.close)

    def drop(self, connection: WorkerConnection) -> None:
        """
        Forget *connection*, which may not be here.
        """
        shelf = self._shelves.get(connection.base)
        if shelf is None:
            return
        deadline = shelf.pop(connection, None)
        if deadline is not None:
            deadline.cancel()
        if not shelf:
            del self._shelves[connection.base]

    def close(self) -> Deferred[Any]:
        """
        Close them all, and keep no more; the result comes when they are closed.
        """
        self._closed = True
        shelves, self._shelves = self._shelves, {}
        ending = []
        for shelf in shelves.values():
            for connection, deadline in shelf.items():
                deadline.cancel()
                ending.append(connection.end())
        return gatherResults(ending)
