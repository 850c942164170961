"""
Thousands of connections of clients that behave badly, from one thread beside the test.
"""

from __future__ import annotations

import re
import resource
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from attrs import define, field, frozen

_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@frozen(kw_only=True)
class Manner:
    """
    How each client of a swarm behaves.

    Attributes:
        first: What it sends when it is connected.
        drip: What it sends every *pause* seconds from then on.
        half_closes: Whether it says that it will send no more.
        reads: Whether it takes what it is sent.
    """

    first: bytes = b""
    drip: bytes = b""
    pause: float = 0.5
    half_closes: bool = False
    reads: bool = True


@define(eq=False)
class Swarm:
    """
    Clients of one manner.

    Attributes:
        opened: Connections so far (count).
        ended: What became of those that the router has ended: the status that it told them, or
            ``closed`` or ``reset``.
    """

    port: int
    manner: Manner
    size: int
    opened: int = 0
    ended: Counter[int | str] = field(factory=Counter)
    _open: dict[int, socket.socket] = field(factory=dict)
    _told: dict[int, bytes] = field(factory=dict)
    _stop: Event = field(factory=Event)

    def run(self) -> None:
        """
        Connect all, then go on as they do until `stop`.
        """
        epoll = select.epoll()
        for _ in range(self.size):
            if self._stop.is_set():
                break
            self.opened += 1
            client = socket.socket()
            try:
                self._connect(client)
            except ConnectionError:  # refused at once, before it had said anything
                client.close()
                self.ended["reset"] += 1
                continue
            self._open[client.fileno()] = client
            epoll.register(client, _ENDED | (select.EPOLLIN if self.manner.reads else 0))
        while not self._stop.is_set():
            self._send(self.manner.drip)
            end = time.monotonic() + self.manner.pause
            while (left := end - time.monotonic()) > 0 and not self._stop.is_set():
                for descriptor, _ in epoll.poll(min(left, 0.1)):
                    self._look(descriptor)
        for client in self._open.values():
            client.close()
        epoll.close()

    def stop(self) -> None:
        """
        Have all connections closed.
        """
        self._stop.set()

    def _connect(self, client: socket.socket) -> None:
        if not self.manner.reads:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        client.sendall(self.manner.first)
        if self.manner.half_closes:
            client.shutdown(socket.SHUT_WR)
        client.setblocking(False)

    def _send(self, data: bytes) -> None:
        for client in list(self._open.values()) if data else ():
            try:
                client.send(data)
            except BlockingIOError:
                continue
            except OSError:
                self._look(client.fileno())

    def _look(self, descriptor: int) -> None:
        client = self._open.get(descriptor)
        if client is None:
            return
        how = "closed"
        if self.manner.reads:
            try:
                data = client.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data, how = b"", "reset"
            if data:
                self._told[descriptor] = self._told.get(descriptor, b"") + data[:100]
                return
        elif client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            how = "reset"
        del self._open[descriptor]
        client.close()
        told = _STATUS.match(self._told.pop(descriptor, b""))
        self.ended[int(told[1]) if told else how] += 1


@contextmanager
def swarm(port: int, manner: Manner, size: int) -> Iterator[Swarm]:
    """
    *size* clients of the router on *port*, there until the block ends.
    """
    clients = Swarm(port, manner, size)
    thread = Thread(target=clients.run)
    thread.start()
    try:
        yield clients
    finally:
        clients.stop()
        thread.join(60)
    assert not thread.is_alive()


@contextmanager
def many_files(need: int) -> Iterator[bool]:
    """
    Whether this process, and those it starts in the block, may open *need* files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = need if hard == resource.RLIM_INFINITY else min(need, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    try:
        yield enough == need
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
