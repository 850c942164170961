"""
Simulated workers as child processes of a router.

Each child serves on a socket that its parent opened, so that no port is guessed and none is refused
while the child starts, and ends when its standard input does, so that it never outlives its parent.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgl_droute.fleet.networks import Networks
from sgl_droute.fleet.pool import Pool

log = Logger()

# What the child finds its listening socket under: the first descriptor behind the standard three.
_SOCKET = 3
# One that makes images and videos, fast enough to be watched.
_ARGUMENTS = ("--model", "cosmos3", "--speed", "50", "--exit-with-stdin")


@define(eq=False)
class SimulatedFleet(Service):
    """
    Starts *count* simulated workers on loopback and registers them.

    Args:
        reactor: Starts processes.
        count: How many.
        pool: Where they are registered.
        networks: Told that these are no strangers.
    """

    reactor: Any
    count: int
    pool: Pool
    networks: Networks
    _children: list[_Child] = field(factory=list, init=False)

    def startService(self) -> None:
        super().startService()
        for _ in range(self.count):
            with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
                url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                child = _Child(url)
                self.reactor.spawnProcess(
                    child,
                    sys.executable,
                    _command(),
                    env=dict(os.environ),
                    childFDs={0: "w", 1: "r", 2: "r", _SOCKET: listening.fileno()},
                )
            self._children.append(child)
            self.networks.trust(url)
            self.pool.add(url, lasting=False)
            log.info("simulated worker {url} started", url=url)

    def stopService(self) -> Deferred[Any]:
        """
        End the children; the result comes when all are gone.
        """
        super().stopService()
        return DeferredList([child.end() for child in self._children])


def _command() -> list[str]:
    arguments = ["sglang-d-simulator", "--listen-fd", str(_SOCKET), *_ARGUMENTS]
    return [sys.executable, "-m", "twisted", "--log-format=text", *arguments]


class _Child(ProcessProtocol):
    transport: IProcessTransport

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended: Deferred[None] = Deferred()
        self._ending = False

    def end(self) -> Deferred[None]:
        if not self._ended.called:
            self._ending = True
            self.transport.closeStdin()
        return self._ended

    def errReceived(self, data: bytes) -> None:
        for line in filter(None, data.decode("utf-8", "replace").splitlines()):
            log.debug("simulated worker {url}: {line}", url=self._url, line=line)

    outReceived = errReceived

    def processEnded(self, reason: Failure) -> None:
        if not self._ending:
            why = "ended" if reason.check(ProcessDone) else reason.getErrorMessage()
            log.warn("simulated worker {url}: {why}", url=self._url, why=why)
        self._ended.callback(None)
