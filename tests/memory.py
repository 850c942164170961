"""
A whole router in memory: a client in front, simulated workers behind, one clock for all. Its
process may be killed, and started again on what the one before it had written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from sgl_droute.errors import ConnectRefused
from sgl_droute.roads import Roads
from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.worker import SimulatedWorker
from sgl_droute.workers.agent import split_target
from tests.disk import Disk, DiskStore
from tests.errors import told
from tests.run import Run

# What was killed is kept: its end would be told to what waits in it, as no kill does.
_BURIED: list[object] = []


@implementer(IReactorTime)
@define(eq=False)
class RunClock:
    """
    The clock of one run: what was to happen later does not once it is killed.
    """

    clock: Clock
    run: Run

    def seconds(self) -> float:
        return self.clock.seconds()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        def call() -> None:
            if self.run.alive:
                callable(*args, **kwargs)

        later: IDelayedCall = self.clock.callLater(delay, call)
        return later

    def getDelayedCalls(self) -> Any:
        return self.clock.getDelayedCalls()


@implementer(IAgent)
@define(eq=False)
class MemoryNetwork:
    """
    Carries requests to workers in memory by their base URL; whoever is not in it refuses.

    Attributes:
        run: What ends when the router is killed; each request and each answer is a step of it.
    """

    agents: dict[bytes, RequestTraversalAgent] = field(factory=dict)
    unreached: list[bytes] = field(factory=list)
    run: Run = field(factory=Run)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        base, target = split_target(uri)
        path = target.decode("ascii").partition("?")[0]
        if not self.run.step("before", path):
            return Deferred()
        if base not in self.agents:
            self.unreached.append(uri)
            return fail(ConnectRefused(base.decode(), "connection refused"))
        answer: Deferred[IResponse] = self.agents[base].request(method, uri, headers, bodyProducer)
        return answer.addCallback(self._answered, path)

    def _answered(self, response: IResponse, path: str) -> IResponse | Deferred[IResponse]:
        return response if self.run.step("answered", path) else Deferred()

    def flush(self) -> None:
        for agent in list(self.agents.values()):
            if self.run.alive:
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

    @property
    def error(self) -> dict[str, Any]:
        """What it says of an error, as `told` has it."""
        return told(self.body, self.headers.getRawHeaders("x-request-id", []))


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
        durable: Whether its state outlives it.
        options: Fields of `RouterSettings`.

    Attributes:
        processes: All workers that there ever were.
        run: The present run of the router.
    """

    def __init__(
        self,
        *workers: str,
        registered: tuple[str, ...] | None = None,
        simulator: SimulatorSettings | None = None,
        durable: bool = False,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.disk = Disk() if durable else None
        self.run = Run()
        self.network = MemoryNetwork(run=self.run)
        self.workers: dict[str, SimulatedWorker] = {}
        self.processes: list[SimulatedWorker] = []
        self._simulator = simulator or SimulatorSettings(speed=1.0)
        for name in workers:
            self.start_worker(name)
        names = workers if registered is None else registered
        urls = tuple(f"http://{name}:1" for name in names)
        self._settings = RouterSettings(worker_urls=urls, **options)
        self._begin()

    def _begin(self) -> None:
        clock = RunClock(self.clock, self.run)
        self.service = RouterService(
            clock,
            self._settings,
            roads=Roads(self.network, self.network, self.network),
            store=None if self.disk is None else DiskStore(self.disk, clock, self.run),
        )
        self._front: Any = StubTreq(self.service.resource())

    def kill(self) -> None:
        """
        End the router at once; the workers and what it has written stay.
        """
        self.run.alive = False

    def start_again(self) -> None:
        """
        Start a router in the place of one that was killed, with the same options.
        """
        assert not self.run.alive
        _BURIED.append((self.service, self._front, self.network))
        self.run = Run()
        self.network = MemoryNetwork(run=self.run)
        for name, worker in self.workers.items():
            self._connect(name, worker)
        self._begin()
        self.service.startService()
        self.settle()

    def start_worker(self, name: str) -> SimulatedWorker:
        worker = SimulatedWorker(self.clock, self._simulator)
        self.workers[name] = worker
        self.processes.append(worker)
        self._connect(name, worker)
        return worker

    def _connect(self, name: str, worker: SimulatedWorker) -> None:
        self.network.agents[f"http://{name}:1".encode()] = RequestTraversalAgent(worker.resource())

    def stop_worker(self, name: str) -> None:
        del self.network.agents[f"http://{name}:1".encode()]

    def kill_worker(self, name: str) -> None:
        """
        End a worker: who waits for it learns so at once, and nobody reaches it any more.
        """
        self.workers[name].exit()
        self.settle()
        self.stop_worker(name)
        del self.workers[name]

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
            if self.run.alive:
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
