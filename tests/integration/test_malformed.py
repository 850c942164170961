"""
Odd and malformed requests over real sockets: what the client is told, and what a worker sees.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.integration.answers import Answer, assert_well_told, parse_answers
from tests.integration.corpus import CASES, MAX_BODY, Case
from tests.integration.sockets import (
    Connection,
    Router,
    connect,
    reactor,
    running_router,
)
from tests.integration.strict_worker import StrictWorker

LIVENESS = b"GET /liveness HTTP/1.1\r\nHost: h\r\n\r\n"


@frozen(eq=False)
class Scene:
    """
    A router between clients and a worker that counts.
    """

    router: Router
    worker: StrictWorker

    async def client(self) -> Connection:
        return await connect(self.router.port)

    @property
    def seen(self) -> list[str]:
        """The requests that the worker got; whatever else came fails."""
        assert self.worker.violations == []
        assert self.worker.unread == b""
        return [str(request) for request in self.worker.requests]


@asynccontextmanager
async def scene(**options: object) -> AsyncIterator[Scene]:
    """
    A running `Scene`; when it ends nothing is in flight.
    """
    worker = StrictWorker()
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await endpoint.listen(worker)
    url = f"http://127.0.0.1:{port.getHost().port}"
    try:
        async with running_router(url, max_body_size=MAX_BODY, **options) as router:
            yield Scene(router, worker)
            await router.at_rest()
    finally:
        await port.stopListening()


async def answers(client: Connection, count: int) -> list[Answer]:
    """
    The first *count* answers; fewer if the router closes before.
    """
    await client.until(
        lambda: client.closed is not None or len(parse_answers(client.received)[0]) >= count
    )
    return parse_answers(client.received)[0]


async def is_over(client: Connection, count: int) -> None:
    """
    Nothing comes behind *count* answers: the connection is closed, or in step for the next request.
    """
    got = await answers(client, count)
    if got and not got[-1].closes:
        client.write(LIVENESS)
        assert (await answers(client, count + 1))[-1].json == {"status": "ok"}
        client.transport.loseConnection()
    await client.until_closed()
    assert parse_answers(client.received)[1] == b""


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
@pytest_twisted.ensureDeferred
async def test_corpus(case: Case) -> None:
    """
    Every odd request has its stated answer, in JSON where it is the router's own, and the worker
    sees exactly what it is meant to.
    """
    async with scene() as the:
        client = await the.client()
        client.write(case.data)
        got = await answers(client, len(case.statuses))
        assert tuple(answer.status for answer in got) == case.statuses, case.reason
        for answer in got:
            if answer.status >= 400:
                assert_well_told(answer)
        await is_over(client, len(case.statuses))
        assert the.seen == list(case.worker), case.reason
        assert sum(answer.from_worker for answer in got) == len(case.worker)
