"""
Idle connections that their worker closes: they cost no request, whatever the moment.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.integration.commands import free_port, once_up, running
from tests.integration.counting_worker import CountingWorker, counting_worker
from tests.integration.outcomes import outcome
from tests.integration.sockets import (
    GET,
    OK,
    Connection,
    connect,
    eventually,
    exchange,
    reactor,
    running_router,
)

# A worker's keep-alive (seconds).
SHORT = 0.3


async def ask(client: Connection, id: bytes) -> str:
    """
    What the client sees of the answer to one more request.
    """
    client.received = b""
    client.write(b"POST /small HTTP/1.1\r\nHost: r\r\nX-Request-Id: %s\r\n" % id)
    client.write(b"Content-Length: 2\r\n\r\nhi")
    await client.until(lambda: client.closed is not None or outcome(client.received).whole)
    return str(outcome(client.received))


async def paced(worker: CountingWorker, pause: float) -> list[str]:
    """
    What went wrong with requests that begin *pause* seconds after the answer before.
    """
    wrong = []
    async with running_router(f"http://127.0.0.1:{worker.port_number}") as router:
        client = await connect(router.port)
        before = b""
        for number in range(4):
            id = b"%g-%d" % (pause, number)
            asked = reactor.seconds()
            seen, done = await ask(client, id), worker.executed[id]
            left = worker.left.get(before)
            met = left is not None and left >= asked
            # One that met the closing may have been seen; the router cannot know that it was not.
            if (seen, done) != ("200", 1) and not (met and (seen, done) == ("502", 0)):
                wrong.append(f"{seen}, done {done}; asked at {asked}, the worker left at {left}")
            before = id
            await deferLater(reactor, pause)
    return wrong


@pytest_twisted.ensureDeferred
async def test_requests_around_the_end_of_a_keep_alive() -> None:
    """
    Requests before and after a worker closes its idle connection all work. One that meets the
    closing is done once, or is a 502 and was not done.
    """
    pauses = [0.2, 0.26, 0.28, 0.29, 0.295, 0.3, 0.305, 0.31, 0.32, 0.34, 0.4]
    async with counting_worker(keep_alive=SHORT) as worker:
        trying = [Deferred.fromCoroutine(paced(worker, pause)) for pause in pauses]
        assert await gatherResults(trying) == [[]] * len(pauses)
        assert set(worker.executed.values()) == {1}


def _sent(connection: Connection) -> None:
    connection.transport.socket.send(GET)


def _closed(connection: Connection) -> None:
    connection.transport.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("asked_first", [False, True], ids=["closed first", "asked first"])
@pytest_twisted.ensureDeferred
async def test_a_farewell_that_is_there_already(asked_first: bool) -> None:
    """
    A request is not written to a connection whose end has arrived, even if nobody has looked yet.
    """
    async with exchange() as (router, worker, client, at_worker):
        at_worker.write(OK)
        await client.until_received(b"ok")
        # Straight to the kernel, one behind the other: the router finds both when it looks next.
        steps: list[tuple[Callable[[Connection], None], Connection]] = [
            (_closed, at_worker),
            (_sent, client),
        ]
        for step, connection in reversed(steps) if asked_first else steps:
            step(connection)
        await eventually(lambda: len(worker.connections) == 3 or b"502" in client.received)
        assert b"502" not in client.received
        (await worker.connection(2)).write(OK)
        await client.until(lambda: client.received.count(b"HTTP/1.1 200 OK") == 2)
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_requests_around_the_keep_alive_of_a_real_worker(tmp_path: Path) -> None:
    """
    None of the requests fails that come just before, while and after a worker closes connections
    that were idle for its 5 s: the router's own limit ends them first.
    """
    port = free_port()
    with running(
        "twistd", "-n", "--pidfile=", "sglang-d-simulator", "--port", str(port), cwd=tmp_path
    ):
        once_up(f"http://127.0.0.1:{port}/health")

        async def spaced(pause: float) -> list[str]:
            url = f"http://127.0.0.1:{port}"
            # All connect at once, and the promise is about those that are there.
            async with running_router(url, connect_timeout=60.0) as router:
                clients = [await connect(router.port) for _ in range(4)]
                return [*await burst(clients), *await later(pause, clients)]

        async def later(pause: float, clients: list[Connection]) -> list[str]:
            await deferLater(reactor, pause)
            return await burst(clients)

        async def burst(clients: list[Connection]) -> list[str]:
            asking = [Deferred.fromCoroutine(read(client)) for client in clients]
            statuses: list[str] = await gatherResults(asking)
            return statuses

        async def read(client: Connection) -> str:
            client.received = b""
            client.write(b"GET /simulator/bytes?size=10 HTTP/1.1\r\nHost: r\r\n\r\n")
            await client.until(lambda: client.closed is not None or outcome(client.received).whole)
            return str(outcome(client.received))

        pauses = [3.9, 3.95, 4.0, 4.05, 4.5, 4.9, 4.95, 4.98, 5.0, 5.02, 5.05, 5.1]
        spacing = [Deferred.fromCoroutine(spaced(pause)) for pause in pauses]
        assert await gatherResults(spacing) == [["200"] * 8] * len(pauses)
