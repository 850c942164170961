"""
A worker that speaks WebSocket through a package that knows nothing of the router.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from threading import Thread
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket
from websockets.sync.server import ServerConnection, serve

# Seconds for anything that a peer waits for.
PATIENCE = 20.0


@define(eq=False)
class WebSocketWorker:
    """
    A worker that echoes messages, and does as the path of a handshake says:

    - ``/close/4001``: closes with that code after the first message;
    - ``/push``: sends a message without being asked;
    - ``/refuse/403``: refuses the handshake with that status;
    - ``/health`` and all else that is no handshake: 200.

    Attributes:
        handshakes: The requests for a WebSocket, in order.
        fragments: The parts of messages that came in parts.
        closings: Code and reason of each closing as the worker saw it.
    """

    url: str = ""
    handshakes: list[Request] = field(factory=list)
    fragments: list[list[str | bytes]] = field(factory=list)
    closings: list[tuple[int | None, str]] = field(factory=list)

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" not in request.headers:
            return connection.respond(200, "{}")
        self.handshakes.append(request)
        _, word, argument = (*request.path.split("/"), "")[:3]
        if word == "refuse":
            return Response(
                int(argument), "No", Headers({"Content-Length": "5", "X-Why": "because"}), b"no..\n"
            )
        return None

    def serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        _, word, argument = (*connection.request.path.split("/"), "")[:3]
        try:
            if word == "push":
                connection.send("unasked")
            while True:
                parts = list(connection.recv_streaming())
                if len(parts) > 1:
                    self.fragments.append(list(parts))
                whole: Any = parts[0][:0].join(parts)  # type: ignore[arg-type]
                if word == "close":
                    connection.close(int(argument), "worker says so")
                else:
                    connection.send(whole)
        except ConnectionClosed:
            self.closings.append((connection.close_code, connection.close_reason or ""))


@asynccontextmanager
async def websocket_worker(
    tls: ssl.SSLContext | None = None, subprotocols: Sequence[str] | None = None
) -> AsyncIterator[WebSocketWorker]:
    """
    A `WebSocketWorker` on a free port of 127.0.0.1, in threads.
    """
    worker = WebSocketWorker()
    server = serve(
        worker.serve,
        "127.0.0.1",
        0,
        ssl=tls,
        process_request=worker.answer,
        subprotocols=subprotocols,  # type: ignore[arg-type]
        max_size=None,
        open_timeout=PATIENCE,
    )
    worker.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.socket.getsockname()[1]}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield worker
    finally:
        # It waits for its connections, which end in this thread.
        await deferToThread(server.shutdown)
        thread.join(PATIENCE)


def with_websocket(
    port: int, path: str, act: Callable[[ClientConnection], Any], **options: Any
) -> Deferred[Any]:
    """
    What *act* returns of a client's WebSocket to a port of 127.0.0.1; it runs in a thread.
    """

    def run() -> Any:
        scheme = "wss" if options.get("ssl") else "ws"
        with connect_websocket(
            f"{scheme}://127.0.0.1:{port}{path}",
            max_size=None,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            **options,
        ) as websocket:
            return act(websocket)

    return deferToThread(run)
