"""
Realtime sessions: one per worker, and other work elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest_twisted
from attrs import frozen

from tests.integration.answers import parse_answers
from tests.integration.sockets import (
    Connection,
    Router,
    ScriptedWorker,
    connect,
    eventually,
    running_router,
    scripted_worker,
)
from tests.integration.test_tunnel_handshakes import ACCEPTED, HANDSHAKE

SESSION = HANDSHAKE.replace(b"/socket?a=1", b"/v1/realtime_video/generate")
ACTIONS = HANDSHAKE.replace(b"/socket?a=1", b"/v1/actions/realtime")
IMAGE = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\n"
    b'Content-Length: 14\r\n\r\n{"prompt":"a"}'
)


@frozen
class Pair:
    """
    A router in front of two scripted workers.
    """

    router: Router
    workers: tuple[ScriptedWorker, ScriptedWorker]

    @property
    def sessions(self) -> list[int]:
        return [worker.sessions for worker in self.router.service.pool]

    async def asked(self, request: bytes) -> tuple[Connection, Connection, ScriptedWorker]:
        """
        The client that sent *request*, the worker's connection that got it, and that worker.
        """
        before = [len(worker.connections) for worker in self.workers]
        client = await connect(self.router.port)
        client.write(request)

        def reached() -> list[ScriptedWorker]:
            counts = zip(self.workers, before, strict=True)
            return [worker for worker, count in counts if len(worker.connections) > count]

        await eventually(lambda: bool(reached()))
        (worker,) = reached()
        return client, await worker.connection(len(worker.connections) - 1), worker

    async def opened(self, request: bytes) -> tuple[Connection, ScriptedWorker]:
        """
        A client whose *request* for a WebSocket was accepted, and by whom.
        """
        client, at_worker, worker = await self.asked(request)
        at_worker.write(ACCEPTED)
        await client.until_received(b"HTTP/1.1 101 ")
        return client, worker

    async def refused(self, request: bytes) -> tuple[int, str]:
        """
        Status and sentence with which the router itself answers *request*.
        """
        client = await connect(self.router.port)
        client.write(request)
        await client.until_received(b"}\n")
        (answer,), _ = parse_answers(client.received)
        return answer.status, json.loads(answer.body)["error"]


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with (
        scripted_worker() as one,
        scripted_worker() as other,
        running_router(one.url, other.url) as router,
    ):
        await one.connection()
        await other.connection()
        yield Pair(router, (one, other))


@pytest_twisted.ensureDeferred
async def test_one_session_per_worker() -> None:
    """
    Two workers take two realtime sessions; the third is a 503 that says why. When one has ended,
    its worker takes the next.
    """
    async with pair() as fleet:
        first, worker = await fleet.opened(SESSION)
        _, other = await fleet.opened(SESSION)
        assert worker is not other
        assert fleet.sessions == [1, 1]
        status, sentence = await fleet.refused(SESSION)
        assert status == 503
        assert sentence.endswith("workers available in the pool: 2 in a realtime session")
        first.transport.loseConnection()
        await eventually(lambda: sorted(fleet.sessions) == [0, 1])
        _, again = await fleet.opened(SESSION)
        assert again is worker


@pytest_twisted.ensureDeferred
async def test_a_session_that_is_being_opened() -> None:
    """
    It counts from the choice of its worker, and no more when the worker refuses it.
    """
    async with pair() as fleet:
        client, at_worker, _ = await fleet.asked(SESSION)
        assert sorted(fleet.sessions) == [0, 1]
        at_worker.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await client.until_received(b"HTTP/1.1 403 ")
        await eventually(lambda: fleet.sessions == [0, 0])


@pytest_twisted.ensureDeferred
async def test_generations_avoid_a_session() -> None:
    """
    Generations go to the worker without a session as long as it may take them.
    """
    async with pair() as fleet:
        _, worker = await fleet.opened(SESSION)
        for _ in range(3):
            _, _, other = await fleet.asked(IMAGE)
            assert other is not worker
        fleet.router.service.pool.remove(other.url)
        _, _, last = await fleet.asked(IMAGE)
        assert last is worker


@pytest_twisted.ensureDeferred
async def test_other_websockets_have_no_such_limit() -> None:
    """
    They count as requests in flight, and are shared out like these.
    """
    async with pair() as fleet:
        workers = [(await fleet.opened(ACTIONS))[1] for _ in range(4)]
        assert workers.count(workers[0]) == 2
        assert fleet.sessions == [0, 0]
        assert fleet.router.in_flight == 4


@pytest_twisted.ensureDeferred
async def test_an_ordinary_request_there() -> None:
    """
    Without a handshake the same path is a request like any other.
    """
    async with pair() as fleet:
        request = b"GET /v1/realtime_video/generate HTTP/1.1\r\nHost: router\r\n\r\n"
        client, at_worker, _ = await fleet.asked(request)
        assert fleet.sessions == [0, 0]
        at_worker.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        await client.until_received(b"\r\n\r\nno")
