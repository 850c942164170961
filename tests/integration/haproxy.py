"""
A real HAProxy in front of a counting worker: what it makes of a connection's bytes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.integration.commands import free_port
from tests.integration.sockets import Connection, connect, reactor

# Every connection ends by itself, soon after its last byte: by a 408 or, when idle, silently.
_CONFIGURATION = """
global
    maxconn 4000
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout server 3s
    timeout client 2s
    timeout http-request 2s
    timeout http-keep-alive 2s
frontend clients
    bind 127.0.0.1:{port}
    http-request set-header X-Source-Port %[src_port]
    default_backend workers
backend workers
    server worker 127.0.0.1:{worker}
"""
_SOURCE = re.compile(rb"\r\nx-source-port: (\d+)\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_CODED = re.compile(rb"\r\ntransfer-encoding: *chunked[, ]*\r\n", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-fA-F]+)(?:;[^\r\n]*)?\r\n")
_ANSWER = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d) [^\r]*\r\n")


@frozen
class Verdict:
    """
    What a proxy made of a connection.

    Attributes:
        passed: Requests that it took for sound (count).
        refused: Whether it ended in a refusal: a 4xx, a 5xx, or a reset.
    """

    passed: int
    refused: bool


def program_version(program: str) -> str:
    """
    The two first numbers of the version of *program*, such as ``2.6``.
    """
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True, timeout=30)
    found = re.search(r"ersion (\d+\.\d+)", told.stdout)
    assert found is not None, told.stdout
    return found[1]


@define(eq=False)
class CountingWorker(Factory):
    """
    Answers every request with 200; counts them by the port that their client has at the proxy.
    """

    noisy = False
    counts: dict[int, int] = field(factory=dict)
    unreadable: list[bytes] = field(factory=list)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _CountingConnection(self)


class _CountingConnection(Protocol):
    transport: Any

    def __init__(self, worker: CountingWorker) -> None:
        self._worker = worker
        self._pending = b""

    def dataReceived(self, data: bytes) -> None:
        self._pending += data
        while (size := self._request()) is not None:
            head, self._pending = self._pending[:size], self._pending[size:]
            source = _SOURCE.search(head)
            if source is None:
                self._worker.unreadable.append(head)
                self.transport.abortConnection()
                return
            port = int(source[1])
            self._worker.counts[port] = self._worker.counts.get(port, 0) + 1
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def _request(self) -> int | None:
        """The size of the first whole request; None if there is none yet."""
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._pending[: end + 2]
        if _CODED.search(head):
            return self._chunks(end + 4)
        length = _LENGTH.search(head)
        size = end + 4 + (int(length[1]) if length else 0)
        return size if len(self._pending) >= size else None

    def _chunks(self, at: int) -> int | None:
        while (chunk := _CHUNK.match(self._pending, at)) is not None:
            at = chunk.end() + int(chunk[1], 16)
            if int(chunk[1], 16) == 0:
                # Trailers, if any, and an empty line.
                end = self._pending.find(b"\r\n\r\n", at - 2)
                return None if end < 0 else end + 4
            at += 2
        return None


@define(eq=False)
class HAProxy:
    """
    A running HAProxy and the worker behind it.
    """

    port: int
    worker: CountingWorker

    async def verdicts(self, cases: dict[str, bytes]) -> dict[str, Verdict]:
        """
        What it makes of each of *cases*, each sent on a connection of its own, all at once.
        """
        names = list(cases)
        judged = await gatherResults(
            [Deferred.fromCoroutine(self.verdict(cases[name])) for name in names]
        )
        return dict(zip(names, judged, strict=True))

    async def verdict(self, data: bytes) -> Verdict:
        """
        What it makes of a connection that sends *data* and waits.
        """
        client = await connect(self.port)
        source = client.transport.getHost().port
        client.write(data)
        received = await client.until_closed(30)
        passed = self.worker.counts.get(source, 0)
        return Verdict(passed, len(_ANSWER.findall(received)) > passed or client.reset)


@asynccontextmanager
async def running_haproxy(program: str, folder: Path) -> AsyncIterator[HAProxy]:
    """
    HAProxy on a free port of 127.0.0.1 with its files in *folder*, until the block ends.
    """
    worker, port = CountingWorker(), free_port()
    listening = await TCP4ServerEndpoint(reactor, 0, 2048, "127.0.0.1").listen(worker)
    configuration = folder / "haproxy.cfg"
    behind = listening.getHost().port
    configuration.write_text(_CONFIGURATION.format(port=port, worker=behind))
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen(
            [program, "-db", "-f", str(configuration)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        await _accepts(port, process)
        yield HAProxy(port, worker)
    finally:
        process.kill()
        process.wait(30)
        await listening.stopListening()


async def _accepts(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1000):
        assert process.poll() is None, "haproxy ended"
        try:
            client: Connection = await connect(port)
        except ConnectError:
            await deferLater(reactor, 0.02)
        else:
            client.transport.abortConnection()
            await client.until_closed()
            return
    raise AssertionError("haproxy does not listen")
