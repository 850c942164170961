"""
A whole simulated worker: what it is made of, and its resource and site.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import execute
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from sgl_droute.simulator.backstage import Backstage
from sgl_droute.simulator.control import Control
from sgl_droute.simulator.discovery import Discovery
from sgl_droute.simulator.engine import Engine, RunInThread
from sgl_droute.simulator.exchange import Exchanges
from sgl_droute.simulator.faults import Faults, parse_orders
from sgl_droute.simulator.gpu import GPU
from sgl_droute.simulator.images import Images
from sgl_droute.simulator.journal import Journal
from sgl_droute.simulator.meshes import Meshes
from sgl_droute.simulator.rollout import Rollout, Vertex
from sgl_droute.simulator.routes import Root, Routes
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.site import WorkerSite
from sgl_droute.simulator.videos import Videos
from sgl_droute.simulator.weights import Weights


@define(eq=False)
class SimulatedWorker:
    """
    One worker, alive from its construction on. It is ready after ``settings.warmup_time``.

    With a ``Clock`` and a synchronous *run_in_thread* it works in memory.

    Attributes:
        clock: Tells the time and wakes the worker.
        run_in_thread: Called with a function and its arguments to call elsewhere.
        on_exit: Called when the worker has ended, by a fault or by `exit`.
        backstage: Where a service hooks in to close its port on demand.
    """

    clock: IReactorTime
    settings: SimulatorSettings = field(factory=SimulatorSettings)
    run_in_thread: RunInThread = execute
    on_exit: Callable[[], object] = lambda: None
    engine: Engine = field(init=False)
    backstage: Backstage = field(init=False)
    routes: Routes = field(init=False)
    _exchanges: Exchanges = field(init=False)

    def __attrs_post_init__(self) -> None:
        engine = self.engine = Engine(self.clock, self.settings, self.run_in_thread)
        warmup = self.settings.warmup_time
        discovery = Discovery(engine, warming=warmup > 0)
        self.backstage = Backstage(engine)
        self._exchanges = Exchanges(engine, discovery, lambda: self.on_exit())
        self.routes = Routes(
            self._exchanges,
            discovery,
            Images(engine),
            Videos(engine),
            Meshes(engine),
            Rollout(engine),
            Vertex(engine),
            Control(engine),
            self.backstage,
        )
        if warmup > 0:
            self.clock.callLater(warmup, self._exchanges.warmed_up)
        for document in self.settings.faults:
            self.backstage.obey(parse_orders(document))

    def close(self) -> None:
        """
        Remove the temporary folder of results, if there is one.
        """
        self.engine.close()

    def exit(self) -> None:
        """
        End as a killed process does: open requests are cut off, and so are later ones.
        """
        self._exchanges.exit()

    @property
    def faults(self) -> Faults:
        return self.engine.faults

    @property
    def journal(self) -> Journal:
        return self.engine.journal

    @property
    def gpu(self) -> GPU:
        return self.engine.gpu

    @property
    def weights(self) -> Weights:
        return self.engine.weights

    def resource(self) -> IResource:
        """
        The root resource, for a site or an in-memory agent.
        """
        return Root(self.routes)

    def site(self) -> WorkerSite:
        """
        A factory for connections that behave as a worker's do.
        """
        return WorkerSite(self.resource(), self.clock, verbose=self.settings.verbose)
