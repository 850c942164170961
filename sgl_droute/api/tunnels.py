"""
WebSockets: a client's connection and a worker's joined, after a handshake that the worker accepts.

What is said in them is not looked at. `sgl_droute.workers.handshake` and
`sgl_droute.workers.tunnel` know how.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from sgl_droute.api.admission import Admission, named
from sgl_droute.api.carrier import Carrier
from sgl_droute.api.fields.file_fields import FileFields
from sgl_droute.api.forwarded import client_headers, worker_headers
from sgl_droute.api.stamps import Stamps, stamps_of
from sgl_droute.api.telemetry.account import account_of
from sgl_droute.errors import BadRequest, NoTunnel, WorkerFailed
from sgl_droute.fleet.capabilities import ANYTHING, Want
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.attempts import Turn, with_worker
from sgl_droute.workers.client import Call
from sgl_droute.workers.handshake import Handshake, Handshakes, spelled
from sgl_droute.workers.headers import connection_tokens, head_of, tokens
from sgl_droute.workers.tunnel import Tunnel
from sgl_droute.workers.turns import Turns


def asks_for_tunnel(request: Request) -> bool:
    """
    Whether *request* is a WebSocket handshake (RFC 6455 4.1); other upgrades are ignored.
    """
    return (
        request.method == b"GET"
        and request.requestHeaders.hasHeader(b"upgrade")
        and request.clientproto == b"HTTP/1.1"
        and b"websocket" in tokens(request.requestHeaders, b"upgrade")
        and b"upgrade" in connection_tokens(request.requestHeaders)
    )


@define(eq=False)
class Tunnels:
    """
    Opens WebSockets to workers.

    Args:
        turns: Gives each its worker.
        admission: Makes jobs of them.
        handshakes: Sends handshakes to workers.
        carrier: Carries answers that open no tunnel.
        file_fields: Keeps out those who may not name files on workers.
        clock: Provides the time.
        idle_timeout: Seconds after which a peer is cut that takes no byte while some wait for it.
    """

    turns: Turns
    admission: Admission
    handshakes: Handshakes
    carrier: Carrier
    file_fields: FileFields
    clock: IReactorTime
    idle_timeout: float
    _open: set[Tunnel] = field(factory=set, init=False)

    async def open(self, request: Request, want: Want = ANYTHING) -> None:
        """
        Join the client of *request*, a WebSocket handshake, with a worker; returns when both
        connections are closed. A worker that does not accept has its answer relayed.

        Args:
            want: What the worker must be able to do. It has the job until its connection is closed.

        Raises:
            BadRequest: The handshake has a body, or no worker is able to serve it.
            Forbidden: A WebSocket may name files on a worker, and its key may not.
            NoTunnel: The request came through the channel of another program's site.
            NoWorker: Nobody can take it now.
            WorkerFailed: The worker gave no usable answer, or its answer was cut.
        """
        _check(request)
        channel: Any = request.channel
        # Who was refused a WebSocket waits for the connection to be closed, as servers of them do.
        channel.end()
        self.file_fields.check_tunnel(request)
        account = account_of(request)

        async def attempt(turn: Turn) -> Tunnel | None:
            account.sent(turn.worker.url, turn.since)
            handshake = await self._answered(request, turn.worker)
            turn.seen()
            account.answered = turn.turns.now()
            account.epoch = turn.epoch if want.slot else ""
            stamps = stamps_of(turn, turn.turns.now() - turn.since)
            if not handshake.accepted:
                await self.carrier.answer(request, turn.worker, handshake.answer, None, stamps)
                return None
            turn.well = True
            tunnel = self._begun(request, turn.worker, handshake, stamps)
            await tunnel.left
            return tunnel

        job = await self.admission.job(request, want)
        account.of_job(job)
        with named(job):
            tunnel = await with_worker(self.turns, job, attempt)
        if tunnel is not None:
            await tunnel.closed
            account.tunnelled(tunnel.client.received, tunnel.client.sent, tunnel.broken)

    def cut(self) -> None:
        """
        Reset the connections of all tunnels.
        """
        for tunnel in self:
            tunnel.cut()

    def __iter__(self) -> Iterator[Tunnel]:
        """Those that are open."""
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    async def _answered(self, request: Request, worker: Worker) -> Handshake:
        call = Call(b"GET", worker.url, request.uri, worker_headers(request))
        try:
            handshake = await self.handshakes.send(call)
        except WorkerFailed as failed:
            self.carrier.note(worker, failed)
            raise
        self.turns.pool.record_answer(worker)
        return handshake

    def _begun(
        self, request: Request, worker: Worker, handshake: Handshake, stamps: Stamps
    ) -> Tunnel:
        tunnel = Tunnel(worker.url, self.clock, self.idle_timeout)
        self._open.add(tunnel)
        tunnel.closed.addBoth(lambda _: self._open.discard(tunnel))
        answer = handshake.answer
        headers = client_headers(request, answer.headers, worker.url)
        for name, value in stamps.items():
            headers.addRawHeader(name, value)
        accepted = _accepted(answer.phrase, headers)
        channel: Any = request.channel
        behind = handshake.hand_over(tunnel.worker)
        channel.hand_over(tunnel.client)
        tunnel.client.send(accepted + behind)
        tunnel.begin()
        return tunnel


def _check(request: Request) -> None:
    headers = request.requestHeaders
    length = request.getHeader(b"content-length")
    if not hasattr(request.channel, "hand_over"):
        raise NoTunnel("WebSockets are not served through this site")
    if headers.hasHeader(b"transfer-encoding") or (length is not None and length.strip(b"0")):
        raise BadRequest("A WebSocket handshake must not have a body")


def _accepted(phrase: bytes, headers: Headers) -> bytes:
    """
    The head of a 101 as bytes.
    """
    headers.setRawHeaders(b"Connection", [b"Upgrade"])
    headers.setRawHeaders(b"Upgrade", [b"websocket"])
    return spelled(head_of(b"HTTP/1.1 101 " + phrase, headers))
