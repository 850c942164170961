"""
Requests that wait: opened through a proxy, held by the backend until it is told.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from bench.harness.overhead.programs import Program, ProgramFailed

_BATCH = 200
_WITHIN = 120.0
_REQUEST = b"GET /slow HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_PART = 1 << 16


@define(eq=False)
class Waiting:
    """
    Requests held open.

    Args:
        proxy: They go through it.
        holder: The backend that holds them.
    """

    proxy: Program
    holder: Program
    _clients: list[socket.socket] = field(factory=list, init=False)

    def open(self, count: int) -> None:
        """
        Send *count* requests; returns when the backend has them all.

        Raises:
            ProgramFailed: It does not get them.
        """
        for start in range(0, count, _BATCH):
            # No more at once than wait to be accepted: a connection beyond would be tried again
            # after a second.
            for _ in range(min(_BATCH, count - start)):
                self._clients.append(self._sent())
            self._wait_until_held(len(self._clients))

    def finish(self) -> int:
        """
        Tell the backend to answer; returns how many clients had an answer to its end (count).
        """
        self.holder.ask("/release")
        return sum(_complete(answer) for answer in _answers(self._clients, _WITHIN))

    def close(self) -> None:
        """
        Hang up.
        """
        for client in self._clients:
            client.close()

    def _sent(self) -> socket.socket:
        try:
            client = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=_WITHIN)
            client.sendall(_REQUEST)
        except OSError as problem:
            self.proxy.check_running()
            raise ProgramFailed(f"{self.proxy.name}: {problem}") from problem
        client.setblocking(False)
        return client

    def _wait_until_held(self, count: int) -> None:
        deadline = time.monotonic() + _WITHIN
        held = 0
        while time.monotonic() < deadline:
            held = int(self.holder.ask("/held")[1])
            if held >= count:
                return
            self.proxy.check_running()
            time.sleep(0.02)
        raise ProgramFailed(
            f"{self.proxy.name}: of {count} waiting requests {held} came to the backend"
        )


@contextmanager
def waiting(proxy: Program, holder: Program, count: int) -> Iterator[Waiting]:
    """
    *count* requests held open, until the end of the context.

    Raises:
        ProgramFailed: They cannot be opened.
    """
    held = Waiting(proxy, holder)
    try:
        held.open(count)
        yield held
    finally:
        if count:
            held.holder.ask("/release")
        held.close()


def _answers(clients: list[socket.socket], within: float) -> list[bytes]:
    """
    What came to each of *clients* until it was complete or cut, or time was over.
    """
    answers = dict.fromkeys(clients, b"")
    deadline = time.monotonic() + within
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ, client)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(1.0):
                ready: socket.socket = key.data
                part = _received(ready)
                answers[ready] += part
                if not part or _complete(answers[ready]):
                    selector.unregister(ready)
    return list(answers.values())


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(_PART)
    except OSError:
        return b""


def _complete(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200 ") and b"\r\n\r\nheld" in answer
