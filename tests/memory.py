"""
A whole router in memory: a client in front, simulated workers behind, one clock for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from sgl_droute.errors import NotConnected
from sgl_droute.service import Roads, RouterService
from sgl_droute.settings import RouterSettings
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.worker import SimulatedWorker
from sgl_droute.workers.agent import split_target


@implementer(IAgent)
@define(eq=False)
class MemoryNetwork:
    """
    Carries requests to workers in memory by their base URL; whoever is not in it refuses.
    """

    agents: dict[bytes, RequestTraversalAgent] = field(factory=dict)
    unreached: list[bytes] = field(factory=list)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        base, _ = split_target(uri)
        if base not in self.agents:
            self.unreached.append(uri)
            return fail(NotConnected(base.decode(), "connection refused"))
        answer: Deferred[IResponse] = self.agents[base].request(method, uri, headers, bodyProducer)
        return answer

    def flush(self) -> None:
        for agent in list(self.agents.values()):
            agent.flush()


@frozen
class Reply:
    """An answer as a client sees it."""

    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@define(eq=False)
class Client:
    """
    The client side of one request; `reply` is None until it is answered.
    """

    pending: Deferred[Any]
    reply: Reply | None = None
    failure: Failure | None = None

    def hang_up(self) -> None:
        self.pending.cancel()


class MemoryRouter:
    """
    A router on a `Clock` whose workers are simulated ones.

    Args:
        workers: Names of the workers that exist, reachable at ``http://name:1``.
        registered: Names registered at start; *workers* if None.
        simulator: Options of every simulated worker.
        options: Fields of `RouterSettings`.
    """

    def __init__(
        self,
        *workers: str,
        registered: tuple[str, ...] | None = None,
        simulator: SimulatorSettings | None = None,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork()
        self.workers: dict[str, SimulatedWorker] = {}
        self._simulator = simulator or SimulatorSettings(speed=1.0)
        for name in workers:
            self.start_worker(name)
        names = workers if registered is None else registered
        urls = tuple(f"http://{name}:1" for name in names)
        self.service = RouterService(
            self.clock,
            RouterSettings(worker_urls=urls, **options),
            roads=Roads(self.network, self.network, self.network),
        )
        self._front: Any = StubTreq(self.service.resource())

    def start_worker(self, name: str) -> SimulatedWorker:
        worker = SimulatedWorker(self.clock, self._simulator)
        self.workers[name] = worker
        self.network.agents[f"http://{name}:1".encode()] = RequestTraversalAgent(worker.resource())
        return worker

    def stop_worker(self, name: str) -> None:
        del self.network.agents[f"http://{name}:1".encode()]

    @property
    def loads(self) -> dict[str, int]:
        return {worker.url: worker.in_flight for worker in self.service.pool}

    def begin(self, method: str, path: str, **kwargs: Any) -> Client:
        """
        Send a request and let everything happen that needs no time.
        """
        client = Client(Deferred())
        sending = self._front.request(method, f"http://router{path}", **kwargs)
        client.pending = sending

        def answered(response: Any) -> Deferred[None]:
            body: Deferred[bytes] = response.content()
            return body.addCallback(
                lambda data: setattr(client, "reply", Reply(response.code, response.headers, data))
            )

        sending.addCallback(answered)
        sending.addErrback(lambda failure: setattr(client, "failure", failure))
        self.settle()
        return client

    def ask(self, method: str, path: str, **kwargs: Any) -> Reply:
        """
        The answer to a request that needs no time.
        """
        client = self.begin(method, path, **kwargs)
        assert client.reply is not None, client.failure
        return client.reply

    def settle(self) -> None:
        """
        Carry all bytes that are on their way, and what they cause.
        """
        for _ in range(20):
            self._front.flush()
            self.network.flush()
            self.clock.advance(0)

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """
        Let time pass.
        """
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            self.settle()

    def until(self, happened: Callable[[], bool], limit: float = 3600.0) -> None:
        """
        Let time pass until *happened*.
        """
        while not happened():
            assert limit > 0
            self.wait(1.0)
            limit -= 1.0
