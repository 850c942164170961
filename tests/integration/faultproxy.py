"""
A TCP proxy between a router and one worker that breaks connections at a chosen moment.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory

from tests.integration.commands import free_port
from tests.integration.faultlink import Front, Link
from tests.integration.faults import CONNECT, Fault, Moment
from tests.integration.sockets import eventually, reactor

_BACKLOG = 1024
_RECEIVE_BUFFER = 1 << 17


@define(eq=False)
class FaultProxy:
    """
    Carries connections to a worker, and does to them what it is told.

    Attributes:
        target: Port of the worker on 127.0.0.1.
        port: Its own.
        links: The connections that are open.
        accepted: How many there were (count).
        ids: ``X-Request-Id`` of every request that came from a client, in order.
        struck: How many faults have happened (count).
    """

    target: int
    port: int = field(factory=free_port)
    links: set[Link] = field(factory=set)
    accepted: int = 0
    ids: list[bytes] = field(factory=list)
    struck: int = 0
    _armed: tuple[Fault, Moment] | None = None
    _listening: Any = None
    _fillers: list[socket.socket] = field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """
        Open the port.
        """
        factory = Factory.forProtocol(lambda: Front(Link(self)))
        factory.noisy = False
        endpoint = TCP4ServerEndpoint(reactor, self.port, _BACKLOG, "127.0.0.1")
        self._listening = await endpoint.listen(factory)
        # Small enough that a few megabytes to a proxy that reads nothing do not find a place.
        self._listening.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)

    async def arm(self, fault: Fault, moment: Moment) -> None:
        """
        Let *fault* happen once: to the next connection if *moment* is `CONNECT`, else to the next
        request of a client. A closed port and an unreachable one last until `heal`.
        """
        if fault is Fault.REFUSED:
            listening, self._listening = self._listening, None
            await listening.stopListening()
            self.struck += 1
        elif fault is Fault.UNREACHABLE:
            self._fill()
            self.struck += 1
        else:
            self._armed = (fault, moment)

    def strike(self, fault: Fault) -> None:
        """
        Let *fault* happen now to every open connection that clients' requests go over.
        """
        for link in [each for each in self.links if each.traffic and not each.broken]:
            link.strike(fault)

    async def heal(self) -> None:
        """
        Let no more faults happen, and let go on what is slow or stalled. Connections that were
        broken are not mended.
        """
        self._armed = None
        for each in self._fillers:
            each.close()
        if self._fillers:
            self._fillers.clear()
            self._listening.socket.listen(_BACKLOG)
            self._listening.startReading()
        if self._listening is None:
            await self.listen()
        for link in list(self.links):
            link.go_on()

    async def close(self) -> None:
        """
        Close the port and cut every connection; returns when all are gone.
        """
        await self.heal()
        await self._listening.stopListening()
        for link in list(self.links):
            link.tell("abortConnection")
        await eventually(lambda: not self.links)

    def due(self, *, connecting: bool) -> tuple[Fault, Moment] | None:
        """
        What is armed for a new connection, or for a new request; it is armed no more.
        """
        armed = self._armed
        if armed is None or (armed[1] == CONNECT) != connecting:
            return None
        self._armed = None
        return armed

    def _fill(self) -> None:
        # The kernel drops every SYN when the line of connections to be accepted is full.
        self._listening.stopReading()
        self._listening.socket.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)


@asynccontextmanager
async def faulty(target: int) -> AsyncIterator[FaultProxy]:
    """
    A proxy to that port of 127.0.0.1.
    """
    proxy = FaultProxy(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
