"""
Starts and stops one simulated worker: its port, its drawing threads, its folder.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.site import WorkerSite
from sgl_droute.simulator.worker import SimulatedWorker

DRAWING_THREADS = 2

log = Logger()


def bound_socket(host: str, port: int) -> socket.socket:
    """
    A TCP socket that holds *port* without listening: connections to it are refused.

    Raises:
        OSError: the address is taken or none of this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held


@implementer(IReadDescriptor)
@define(eq=False)
class EndOfInput:
    """
    Calls *act* when standard input ends.
    """

    act: Callable[[], object]
    descriptor: int = 0

    def fileno(self) -> int:
        return self.descriptor

    def logPrefix(self) -> str:
        return "standard input"

    def doRead(self) -> Failure | None:
        try:
            ended = not os.read(self.descriptor, 4096)
        except OSError:
            ended = True
        if ended:
            self.act()
        return None

    def connectionLost(self, reason: Failure) -> None:
        """
        A pipe whose other end is closed may be told of this way.
        """
        self.act()


@define(eq=False)
class WorkerService(Service):
    """
    One simulated worker on a real port.

    Attributes:
        worker: The worker, once it has loaded.
        exit: Ends the process when a fault tells so; where it is None, only this service ends.
        port_number: The port that it holds, once started.
    """

    reactor: Any
    settings: SimulatorSettings
    exit: Callable[[], object] | None = None
    worker: SimulatedWorker | None = None
    port_number: int = 0
    _held: socket.socket | None = None
    _port: IListeningPort | None = None
    _site: WorkerSite | None = None
    _pool: ThreadPool = field(factory=lambda: ThreadPool(0, DRAWING_THREADS, "drawing"))
    _opening: IDelayedCall | None = None
    _input: EndOfInput | None = None

    def privilegedStartService(self) -> None:
        settings = self.settings
        try:
            if settings.listen_fd is None:
                self._held = bound_socket(settings.host, settings.port)
            else:
                self._held = socket.socket(fileno=settings.listen_fd)
            self.port_number = self._held.getsockname()[1]
        except OSError as error:
            inherited = settings.listen_fd is not None
            interface = f"descriptor {settings.listen_fd}" if inherited else settings.host
            raise CannotListenError(interface, settings.port, error) from error
        super().privilegedStartService()

    def startService(self) -> None:
        if self._held is None:
            self.privilegedStartService()
        super().startService()
        self._pool.start()
        if self.settings.exit_with_stdin:
            self._input = EndOfInput(self._stop)
            self.reactor.addReader(self._input)
        loading = 0.0 if self.settings.listen_fd is not None else self.settings.load_time
        if loading:
            self._opening = self.reactor.callLater(loading, self._load)
        else:
            self._load()

    async def _closed(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        if self._held is not None:
            self._held.close()
        if self._site is not None:
            self._site.drop_all()
        self._pool.stop()
        if self.worker is not None:
            self.worker.close()

    def stopService(self) -> Deferred[None]:
        if not self.running:  # a fault has ended it
            return succeed(None)
        super().stopService()
        if self._opening is not None and self._opening.active():
            self._opening.cancel()
        if self._input is not None:
            self.reactor.removeReader(self._input)
            self._input = None
        return Deferred.fromCoroutine(self._closed())

    def _stop(self) -> None:
        if self._input is not None:
            self.reactor.removeReader(self._input)
            self._input = None
            self.reactor.stop()

    def _load(self) -> None:
        run_in_thread = partial(deferToThreadPool, self.reactor, self._pool)
        self.worker = SimulatedWorker(self.reactor, self.settings, run_in_thread)
        self.worker.backstage.refuse_for = self._refuse_for
        self.worker.on_exit = self.exit or self.stopService
        self._site = self.worker.site()
        self._open()
        log.info(
            "Simulating {model} at http://{host}:{port}",
            model=self.settings.served.path,
            host=self.settings.host,
            port=self.port_number,
        )

    def _open(self) -> None:
        held, self._held = self._held, None
        assert held is not None
        held.listen(1024)
        held.setblocking(False)
        self._port = self.reactor.adoptStreamPort(held.fileno(), held.family, self._site)
        held.close()

    def _refuse_for(self, seconds: float) -> None:
        if self._port is None or self._site is None:
            return
        if self.settings.listen_fd is not None:
            self._site.refusing = True
            self.reactor.callLater(seconds, setattr, self._site, "refusing", False)
            return
        port, self._port = self._port, None
        Deferred.fromCoroutine(self._refuse(port, seconds)).addErrback(
            lambda failure: log.failure("Closing the port broke", failure=failure)
        )

    async def _refuse(self, port: IListeningPort, seconds: float) -> None:
        await maybeDeferred(port.stopListening)
        assert self._site is not None
        self._site.drop_idle()
        self._held = bound_socket(self.settings.host, self.port_number)
        self._opening = self.reactor.callLater(seconds, self._open)
