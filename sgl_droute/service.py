"""
The router as a Twisted service: puts the rooms together, starts and stops them.

It decides nothing: options are in `sgl_droute.settings`, the command line in `sgl_droute.tap`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakSet

from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.application.strports import service as strports_service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.web.iweb import IAgent
from twisted.web.resource import IResource

from sgl_droute.api.admission import Admission
from sgl_droute.api.carrier import Carrier
from sgl_droute.api.dispatch import RouterResource
from sgl_droute.api.drain import drain
from sgl_droute.api.fleetwide import FleetWide
from sgl_droute.api.inference import Inference
from sgl_droute.api.lists import Lists
from sgl_droute.api.management import Management
from sgl_droute.api.observe import Observe
from sgl_droute.api.owned import Owned
from sgl_droute.api.routes import RouterAPI
from sgl_droute.api.site import RouterSite
from sgl_droute.api.tunnels import Tunnels
from sgl_droute.api.updates import Updates
from sgl_droute.api.waiting import Waiting
from sgl_droute.errors import WorkerFailed
from sgl_droute.fleet.epochs import Epochs
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.jobs import OpenJob, OpenJobs
from sgl_droute.fleet.owners import Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.rollouts import Rollouts
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.open_files import clients_that_fit, open_files_limit
from sgl_droute.settings import RouterSettings
from sgl_droute.state.keeper import Keeper
from sgl_droute.state.opening import open_store
from sgl_droute.state.store import Store
from sgl_droute.workers.agent import WorkerAgent
from sgl_droute.workers.broadcast import Broadcasts
from sgl_droute.workers.catchup import CatchUp
from sgl_droute.workers.client import WorkerClient
from sgl_droute.workers.deadlines import Deadlines
from sgl_droute.workers.finder import Finder
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.handshake import Handshakes
from sgl_droute.workers.health import HealthMonitor
from sgl_droute.workers.jobs import JobWatch
from sgl_droute.workers.once import Once
from sgl_droute.workers.orders import Orders
from sgl_droute.workers.outstanding import Outstanding
from sgl_droute.workers.readiness import Readiness
from sgl_droute.workers.recorder import open_recorder
from sgl_droute.workers.refitting import Refitting
from sgl_droute.workers.turns import Turns
from sgl_droute.workers.weighing import Weighing

log = Logger()

# Ids whose worker is remembered; the least recently used go first.
MOST_OWNERS = 250_000

# Seconds that a worker may take to tell of a job: it does so at once, if it is not stuck.
_RECORD_TIMEOUT = 30.0
_HANDSHAKE_TIMEOUT = 30.0


@frozen(eq=False)
class Roads:
    """
    The three separate ways to the workers.

    Attributes:
        traffic: Carries client requests.
        probes: Carries health checks.
        control: Carries calls to the whole fleet.
    """

    traffic: IAgent
    probes: IAgent
    control: IAgent

    @classmethod
    def over_tcp(cls, reactor: Any, connect_timeout: float, deadlines: Deadlines) -> Roads:
        """
        Three agents with connections of their own.
        """
        return cls(*(WorkerAgent(reactor, connect_timeout, deadlines) for _ in range(3)))

    def close(self) -> Deferred[Any]:
        """
        Close idle connections; the result comes when they are closed.
        """
        agents = (self.traffic, self.probes, self.control)
        return gatherResults([each.close() for each in agents if isinstance(each, WorkerAgent)])


class RouterService(MultiService):
    """
    A router, as a service for any Twisted application.

    It listens where the settings say; without ``listen`` it serves through `resource` only.

    Args:
        reactor: Provides TCP, time and a name resolver.
        settings: Every option.
        roads: What carries requests to workers; real connections if None.
        store: Where the state is kept; what the settings name if None.
    """

    def __init__(
        self,
        reactor: Any,
        settings: RouterSettings | None = None,
        *,
        roads: Roads | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._sites: WeakSet[RouterSite] = WeakSet()
        self._stopping: Once[str, None] = Once()
        self.settings = settings = settings or RouterSettings()
        self._deadlines = Deadlines(reactor)
        self._roads = roads or Roads.over_tcp(reactor, settings.connect_timeout, self._deadlines)
        self.pool = Pool(Epochs(tolerant=settings.stale_weights == "serve"))
        self.refits = Refits(self.pool)
        self.speeds = Speeds()
        rules = _rules_of(settings)
        # The scheduler hears first of what becomes of workers: when the jobs of one that left end,
        # it must not be given others.
        self.turns = Turns(Scheduler(self.pool, self.speeds, rules), reactor)
        self.holdings = Holdings(
            self.pool, Owners(settings.job_ttl, MOST_OWNERS), OpenJobs(), reactor.seconds
        )
        if settings.record:
            recorder = open_recorder(Path(settings.record), reactor, rules)
            recorder.follow(self.pool)
            self.turns.scheduler.watch(recorder.note)
            recorder.setServiceParent(self)
        self.holdings.jobs.on_open = self._job_opened
        self.holdings.jobs.on_end = self.turns.ended
        self.holdings.jobs.expected = self.turns.expected
        self._outstanding = Outstanding()
        self._broadcasts = Broadcasts(self._asking(self._roads.control, settings.timeout))
        self._orders = Orders(self._broadcasts, self._cooperator())
        self._readiness = Readiness(
            self.pool,
            self._asking(self._roads.probes, settings.health_check_timeout),
            CatchUp(self.refits, self._orders, self._outstanding, lambda: self._store.written()),
            reactor,
        )
        self._monitor = HealthMonitor(
            self.pool,
            self._client(self._roads.probes, settings.health_check_timeout),
            reactor,
            interval=settings.health_check_interval,
            threshold=settings.health_check_failure_threshold,
            readmit=settings.readmit_after,
            well=self._readiness.answered_well,
        )
        self.holdings.on_restart = partial(self._monitor.not_reached, restarted=True)
        self._store = store or open_store(
            settings.state, reactor, job_ttl=settings.job_ttl, max_owners=MOST_OWNERS
        )
        Keeper(self._store, self.pool, self.holdings, self.speeds, self.refits).begin()
        for url in settings.worker_urls:
            if url not in self.pool:  # to add it once more would end a quarantine
                self.pool.add(url)
        # Services stop in reverse order: what begins replays before what does them.
        self._readiness.setServiceParent(self)
        self._resource = RouterResource(self._api())
        self._monitor.setServiceParent(self)
        self._ports = MultiService()
        self._ports.setServiceParent(self)
        site = self.site()
        for description in settings.listen:
            strports_service(description, site, reactor).setServiceParent(self._ports)

    def _api(self) -> RouterAPI:
        settings, pool, holdings, roads = self.settings, self.pool, self.holdings, self._roads
        traffic = self._client(roads.traffic, settings.timeout)
        control = self._asking(roads.control, settings.timeout)
        broadcasts, outstanding = self._broadcasts, self._outstanding
        questions = self._asking(roads.control, settings.health_check_timeout)
        cooperator = self._cooperator()
        finder = Finder(pool, holdings, questions)
        jobs = JobWatch(
            pool,
            holdings,
            questions,
            self.turns,
            self._reactor,
            interval=settings.job_poll_interval,
        )
        for service in (finder, broadcasts, jobs):
            service.setServiceParent(self)
        refitting = Refitting(
            self.refits,
            self.turns,
            broadcasts,
            self._orders,
            Weighing(self.refits, self._orders),
            self._readiness,
            outstanding,
            self._store.written,
            self._reactor,
        )
        fleet = FleetWide(
            pool, broadcasts, self._readiness, outstanding, cooperator, refitting.turn
        )
        rollouts = Rollouts()
        self.turns.scheduler.watch(rollouts.note)
        admission = Admission(self.turns, rollouts, settings, cooperator)
        carrier = Carrier(
            traffic,
            self._monitor.not_reached,
            cooperator,
            settings.idle_timeout,
        )
        quick = self._client(roads.traffic, min(settings.timeout, _RECORD_TIMEOUT))
        records = evolve(carrier, client=quick)
        handshakes = Handshakes(
            self._reactor, settings.connect_timeout, min(settings.timeout, _HANDSHAKE_TIMEOUT)
        )
        self.tunnels = Tunnels(
            self.turns, admission, handshakes, carrier, self._reactor, settings.idle_timeout
        )
        return RouterAPI(
            Inference(self.turns, admission, holdings, outstanding, carrier),
            Owned(pool, holdings, finder, records, carrier, Gate(settings.max_connections)),
            Lists(pool, questions, control, holdings.row),
            fleet,
            Updates(refitting, fleet, self._store.durable),
            Management(pool, self._monitor, self._readiness, self.speeds, self._reactor),
            Observe(pool),
            self.tunnels,
            Waiting(self.turns, rollouts),
        )

    def resource(self) -> RouterResource:
        """
        The whole API, to be put at the root of a site or at any path below it.

        A site other than `site` should have `sgl_droute.RouterRequest` as its ``requestFactory``:
        the stock class has no limit for bodies, and reads and parses forms in memory before the
        router sees them.
        """
        return self._resource

    def site(self, root: IResource | None = None) -> RouterSite:
        """
        A site with all the router's limits.

        When the router stops, it ends the connections of this site as those of its own ports.

        Args:
            root: What it serves, with `resource` somewhere below; `resource` itself if None.
        """
        settings = self.settings
        site = RouterSite(
            self._reactor,
            root or self._resource,
            max_body_size=settings.max_body_size,
            read_timeout=settings.read_timeout,
            idle_timeout=settings.idle_timeout,
            max_clients=settings.max_clients
            or clients_that_fit(open_files_limit(), settings.max_connections),
            deadlines=self._deadlines,
        )
        self._sites.add(site)
        return site

    def startService(self) -> None:
        """
        Start listening and checking the workers' health.
        """
        self._store.startService()
        super().startService()
        log.info(
            "sgl-droute {version}: {workers} workers, {algorithm}, listening on {listen}",
            version=version("sgl-droute"),
            workers=len(self.pool),
            algorithm=self.settings.routing_algorithm,
            listen=", ".join(self.settings.listen) or "no port of its own",
        )

    def stopService(self) -> Deferred[Any]:
        """
        Stop listening, give running answers `RouterSettings.drain_timeout` to end, then stop all
        else and write the state; the result comes when that is done.

        Until the last answer has ended, health checks and fleet-wide calls go on. Requests that
        came through a site that is not `site` are not waited for.
        """
        return self._stopping.run("stop", self._stop)

    async def _stop(self) -> None:
        await self._ports.stopService()
        await drain(self._sites, self._reactor, self.settings.drain_timeout)
        self.tunnels.cut()
        await maybeDeferred(super().stopService)
        await maybeDeferred(self._store.stopService)
        await self._roads.close()
        self._deadlines.stop()

    def _job_opened(self, job: OpenJob) -> None:
        worker = self.pool.holder(job.worker)
        if worker is not None and worker.serial == job.serial:
            self.turns.opened(job.kind, job.id, worker)

    def _asking(self, agent: IAgent, timeout: float) -> WorkerClient:
        """
        A client that tells the monitor of workers that were not reached; health checks tell it
        themselves, and so does whoever carries traffic.
        """

        def failed(problem: WorkerFailed) -> None:
            self._reactor.callLater(0, self._not_reached, problem)  # who asked notes it first

        return evolve(self._client(agent, timeout), failed=failed)

    def _not_reached(self, failed: WorkerFailed) -> None:
        if failed.gone and failed.worker in self.pool:
            self._monitor.not_reached(self.pool[failed.worker], restarted=failed.refused)

    def _client(self, agent: IAgent, timeout: float) -> WorkerClient:
        return WorkerClient(agent, self._reactor, timeout, self._deadlines)

    def _cooperator(self) -> Cooperator:
        return Cooperator(scheduler=_scheduled_on(self._reactor))


def _rules_of(settings: RouterSettings) -> Rules:
    return Rules(
        algorithm=settings.routing_algorithm,
        strict_model=settings.strict_model,
        concurrency=settings.worker_concurrency,
        bind_ahead=settings.bind_ahead,
        max_running=settings.max_connections,
        queue_size=settings.queue_size,
        fair=settings.fair,
        group_margin=settings.group_margin,
        longest=settings.timeout,
    )


def _scheduled_on(reactor: Any) -> Callable[[Callable[[], None]], Any]:
    def schedule(step: Callable[[], None]) -> Any:
        return reactor.callLater(0, step)

    return schedule
