"""
WebSockets through the router, between a client and a worker of another make.
"""

from __future__ import annotations

import random
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.integration.commands import free_port
from tests.integration.sockets import eventually, running_router
from tests.integration.websocket_peer import PATIENCE, websocket_worker, with_websocket


@pytest_twisted.ensureDeferred
async def test_messages_of_every_kind_and_size() -> None:
    """
    Text and binary messages, empty ones, and ten megabytes come back as they went.
    """
    messages: list[str | bytes] = ["", b"", "grüße \N{FOX FACE}", bytes(range(256))]
    messages.append(random.Random(1).randbytes(10_000_000))

    def talk(websocket: ClientConnection) -> list[str | bytes]:
        back = []
        for message in messages:
            websocket.send(message)
            back.append(websocket.recv(PATIENCE))
        return back

    async with websocket_worker() as worker, running_router(worker.url) as router:
        for compression in ("deflate", None):
            back = await with_websocket(router.port, "/echo", talk, compression=compression)
            assert back == messages
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_fragments_and_pings() -> None:
    """
    A message in parts arrives in the same parts, and a ping is answered by the worker itself.
    """

    def talk(websocket: ClientConnection) -> Any:
        websocket.send(["one ", "two ", "three"])
        whole = websocket.recv(PATIENCE)
        answered = websocket.ping(b"are you there").wait(PATIENCE)
        return whole, answered

    async with websocket_worker() as worker, running_router(worker.url) as router:
        whole, answered = await with_websocket(router.port, "/echo", talk)
        assert whole == "one two three"
        assert answered
        assert "".join(map(str, worker.fragments[0])) == "one two three"
        assert len(worker.fragments[0]) >= 3


@pytest_twisted.ensureDeferred
async def test_close_codes() -> None:
    """
    Either side's close code and reason reach the other one.
    """

    def closed_by_worker(websocket: ClientConnection) -> Any:
        websocket.send("now")
        with pytest.raises(ConnectionClosed):
            websocket.recv(PATIENCE)
        return websocket.close_code, websocket.close_reason

    async with websocket_worker() as worker, running_router(worker.url) as router:
        await with_websocket(router.port, "/echo", lambda each: each.close(4001, "bye"))
        await eventually(lambda: worker.closings == [(4001, "bye")])
        seen = await with_websocket(router.port, "/close/1008", closed_by_worker)
        assert seen == (1008, "worker says so")
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_what_is_negotiated_is_left_alone() -> None:
    """
    Subprotocols, extensions, key and cookies reach the worker as the client sent them, and its
    choice reaches the client; the worker learns for whom it is.
    """

    def talk(websocket: ClientConnection) -> Any:
        websocket.send("hello")
        websocket.recv(PATIENCE)
        return websocket.subprotocol, websocket.request, websocket.response

    async with (
        websocket_worker(subprotocols=["b", "c"]) as worker,
        running_router(worker.url) as router,
    ):
        subprotocol, request, response = await with_websocket(
            router.port,
            "/echo?session=1&x=%20",
            talk,
            subprotocols=["a", "b"],
            additional_headers={"Cookie": "a=b", "Origin": "http://page", "X-Request-Id": "7"},
        )
        assert subprotocol == "b"
        got = worker.handshakes[0]
        assert got.path == "/echo?session=1&x=%20"
        for name in ("Key", "Version", "Protocol", "Extensions"):
            header = f"Sec-WebSocket-{name}"
            assert got.headers[header] == request.headers[header]
        assert got.headers["Cookie"] == "a=b"
        assert got.headers["Origin"] == "http://page"
        assert got.headers["Host"] == worker.url.partition("://")[2]
        assert got.headers["X-Forwarded-For"] == "127.0.0.1"
        assert got.headers["X-Forwarded-Host"] == f"127.0.0.1:{router.port}"
        assert got.headers["X-Request-Id"] == response.headers["X-Request-Id"] == "7"
        assert response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


@pytest_twisted.ensureDeferred
async def test_a_worker_that_speaks_first() -> None:
    """
    What a worker sends right behind its 101 reaches the client.
    """
    async with websocket_worker() as worker, running_router(worker.url) as router:
        said = await with_websocket(router.port, "/push", lambda each: each.recv(PATIENCE))
        assert said == "unasked"


@pytest_twisted.ensureDeferred
async def test_a_refused_handshake() -> None:
    """
    A worker that refuses is quoted: status, headers and body.
    """
    async with websocket_worker() as worker, running_router(worker.url) as router:
        with pytest.raises(InvalidStatus) as refused:
            await with_websocket(router.port, "/refuse/403", lambda _: None)
        response = refused.value.response
        assert response.status_code == 403
        assert response.headers["X-Why"] == "because"
        assert response.body == b"no..\n"
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_a_client_that_vanishes() -> None:
    """
    A client whose connection breaks is gone for its worker too, and counts no more.
    """

    seen = threading.Event()

    def vanish(websocket: ClientConnection) -> None:
        websocket.send("hello")
        websocket.recv(PATIENCE)
        assert seen.wait(PATIENCE)
        websocket.socket.shutdown(socket.SHUT_RDWR)

    async with websocket_worker() as worker, running_router(worker.url) as router:
        vanishing = with_websocket(router.port, "/echo", vanish)
        await eventually(lambda: router.in_flight == 1)
        seen.set()
        await vanishing
        await eventually(lambda: [code for code, _ in worker.closings] == [1006])
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_over_tls_on_both_sides(identity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A ``wss`` client and a worker behind ``https`` talk through the router, megabytes included.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(identity))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(identity)
    trusting = ssl.create_default_context(cafile=str(identity))
    port = free_port()
    listen = f"ssl:{port}:privateKey={identity}:interface=127.0.0.1"
    message = random.Random(2).randbytes(5_000_000)

    def talk(websocket: ClientConnection) -> Any:
        websocket.send(message)
        return websocket.recv(PATIENCE)

    async with (
        websocket_worker(tls=server) as worker,
        running_router(worker.url, listen=[listen]) as router,
    ):
        back = await with_websocket(port, "/echo", talk, ssl=trusting)
        assert back == message
        assert worker.handshakes[0].headers["X-Forwarded-Proto"] == "https"
        await eventually(lambda: worker.closings == [(1000, "")])
        await router.at_rest()
