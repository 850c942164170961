"""
The clients' connections of one listening router: how many, with which limits, until when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from sgl_droute.api.http.channel import KEEP_ALIVE, RouterChannel
from sgl_droute.api.http.request import RouterRequest
from sgl_droute.api.telemetry.account import Accounts
from sgl_droute.errors import NoWorker, RouterError
from sgl_droute.workers.deadlines import Deadlines

__all__ = ["RouterRequest", "RouterSite"]

# Clients beyond the limit that are being told so at once; those beyond these are just closed.
_TOLD = 100


class RouterSite(Site):
    """
    Serves *resource* with the router's limits.

    Args:
        reactor: Provides the time.
        resource: What answers.
        max_body_size: Largest request body (bytes).
        read_timeout: Seconds for headers to arrive, and of silence inside a body.
        idle_timeout: Seconds a closing connection waits for a client that takes nothing.
        max_clients: Open connections (count); 0 for no limit.
        deadlines: Where limits of time are kept; its own if None.
        accounts: Told of requests that reach no route; its own if None.
        early: Tells why a request of which only the head is there is let in nowhere, so that its
            body is not read; all may come in if None.
    """

    requestFactory = RouterRequest

    def __init__(
        self,
        reactor: IReactorTime,
        resource: IResource,
        *,
        max_body_size: int,
        read_timeout: float,
        idle_timeout: float,
        max_clients: int = 0,
        deadlines: Deadlines | None = None,
        accounts: Accounts | None = None,
        early: Callable[[Request], RouterError | None] | None = None,
    ) -> None:
        super().__init__(resource, reactor=reactor, timeout=KEEP_ALIVE)
        self.noisy = False
        self.reactor: Any = reactor
        self.max_body_size = max_body_size
        self.read_timeout = read_timeout
        self.idle_timeout = idle_timeout
        self.max_clients = max_clients
        self.deadlines = deadlines or Deadlines(reactor)
        # One without requests is false.
        self.accounts = Accounts(reactor.seconds) if accounts is None else accounts
        self.early = early
        self.keeps_connections = True
        self._clients: dict[RouterChannel, None] = {}
        self._beyond: dict[RouterChannel, None] = {}
        self._waiting: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> RouterChannel:  # type: ignore[override]
        return RouterChannel(self)

    def opened(self, channel: RouterChannel) -> None:
        """
        Take note of a new connection.
        """
        if not self.max_clients or len(self._clients) < self.max_clients:
            self._clients[channel] = None
            return
        self._beyond[channel] = None
        if len(self._beyond) > _TOLD:
            channel.abortConnection()
        else:
            most = f"The router serves {self.max_clients} connections at once"
            channel.refuse(NoWorker(most, reason="too_many_clients", headers={"Retry-After": "1"}))

    def closed(self, channel: RouterChannel) -> None:
        """
        Take note of a connection that is gone.
        """
        self._clients.pop(channel, None)
        self._beyond.pop(channel, None)
        if not (self._clients or self._beyond):
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    @property
    def connections(self) -> int:
        """Open connections (count)."""
        return len(self._clients) + len(self._beyond)

    @property
    def running(self) -> int:
        """Connections with a request under way, or a tunnel (count)."""
        return sum(not channel.idle for channel in self._clients)

    def drain(self) -> Deferred[None]:
        """
        Close idle connections, and the others when their request is answered; fires when the last
        one is gone.
        """
        self.keeps_connections = False
        for channel in list(self._clients):
            channel.end()
        return self._none_left()

    def cut(self) -> Deferred[None]:
        """
        Reset all connections; fires when they are gone.
        """
        for channel in [*self._clients, *self._beyond]:
            channel.abortConnection()
        return self._none_left()

    def _none_left(self) -> Deferred[None]:
        if not (self._clients or self._beyond):
            return succeed(None)
        gone: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(gone)
        return gone

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only: `RouterChannel` speaks nothing else."""
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """No access log in the combined format."""
