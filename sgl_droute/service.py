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

from attrs import frozen
from twisted.application.service import MultiService
from twisted.application.strports import service as strports_service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.web.iweb import IAgent
from twisted.web.resource import IResource

from sgl_droute.api.account import Accounts
from sgl_droute.api.admission import Admission
from sgl_droute.api.carrier import Carrier
from sgl_droute.api.configuration_api import ConfigurationAPI
from sgl_droute.api.cors import Cors
from sgl_droute.api.dashboard import open_dashboard
from sgl_droute.api.dispatch import RouterResource
from sgl_droute.api.door import Door
from sgl_droute.api.drain import drain
from sgl_droute.api.exposition import Exposition
from sgl_droute.api.file_fields import FileFields
from sgl_droute.api.fleetwide import FleetWide
from sgl_droute.api.inference import Inference
from sgl_droute.api.keyfiles import KeyFiles, KeySources
from sgl_droute.api.lists import Lists
from sgl_droute.api.management import Management
from sgl_droute.api.metrics import Metrics
from sgl_droute.api.observe import Observe
from sgl_droute.api.owned import Owned
from sgl_droute.api.routes import RouterAPI
from sgl_droute.api.site import RouterSite
from sgl_droute.api.tunnels import Tunnels
from sgl_droute.api.updates import Updates
from sgl_droute.api.waiting import Waiting
from sgl_droute.configuration import Configuration
from sgl_droute.errors import WorkerFailed
from sgl_droute.fleet.epochs import Epochs
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.jobs import OpenJob, OpenJobs
from sgl_droute.fleet.keyring import Keyring
from sgl_droute.fleet.networks import Networks
from sgl_droute.fleet.owners import Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.reporter import Alarm
from sgl_droute.fleet.rollouts import Rollouts
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.webhook_hosts import Hosts
from sgl_droute.fleet.webhooks import PendingWebhooks
from sgl_droute.open_files import clients_that_fit, open_files_limit
from sgl_droute.reloading import Following, Reloading, Wanted, register, wanted
from sgl_droute.settings import RouterSettings
from sgl_droute.state.keeper import Keeper
from sgl_droute.state.opening import open_store
from sgl_droute.state.store import Store
from sgl_droute.telemetry import Telemetry
from sgl_droute.workers.agent import WorkerAgent
from sgl_droute.workers.broadcast import Broadcasts
from sgl_droute.workers.catchup import CatchUp
from sgl_droute.workers.client import WorkerClient
from sgl_droute.workers.connecting import Terms
from sgl_droute.workers.deadlines import Deadlines
from sgl_droute.workers.engine_metrics import EngineMetrics
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
from sgl_droute.workers.tls import WorkerTLS
from sgl_droute.workers.turns import Turns
from sgl_droute.workers.vetting import Vetting
from sgl_droute.workers.webhooks import Webhooks, open_webhooks, read_secret
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
    def over_tcp(
        cls, reactor: Any, connect_timeout: float, deadlines: Deadlines, terms: Terms
    ) -> Roads:
        """
        Three agents with connections of their own.
        """
        agents = (WorkerAgent(reactor, connect_timeout, deadlines, terms) for _ in range(3))
        return cls(*agents)

    def close(self) -> Deferred[Any]:
        """
        Close idle connections; the result comes when they are closed.
        """
        return gatherResults([each.close() for each in self.agents])

    @property
    def agents(self) -> list[WorkerAgent]:
        """Those that have connections of their own."""
        roads = (self.traffic, self.probes, self.control)
        return [each for each in roads if isinstance(each, WorkerAgent)]


class RouterService(MultiService):
    """
    A router, as a service for any Twisted application.

    It listens where the settings say; without ``listen`` it serves through `resource` only.

    Args:
        reactor: Provides TCP, time and a name resolver.
        settings: Every option; those of *configuration* if that is given.
        roads: What carries requests to workers; real connections if None.
        store: Where the state is kept; what the settings name if None.
        configuration: Where the settings come from, if they can be read again.

    Attributes:
        reloading: Reads the configuration again.

    Raises:
        ValueError: A file that the settings name does not hold what it must; one sentence says why.
    """

    def __init__(
        self,
        reactor: Any,
        settings: RouterSettings | None = None,
        *,
        roads: Roads | None = None,
        store: Store | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._sites: WeakSet[RouterSite] = WeakSet()
        self._stopping: Once[str, None] = Once()
        configuration = configuration or Configuration.of(settings or RouterSettings())
        settings = configuration.settings
        self.following = Following(settings)
        self._deadlines = Deadlines(reactor)
        self.networks = Networks(settings.add_worker_allow, settings.worker_urls)
        self._terms = Terms(
            self.networks, WorkerTLS.read(settings.worker_ca, settings.worker_certificate)
        )
        self._roads = roads or Roads.over_tcp(
            reactor, settings.connect_timeout, self._deadlines, self._terms
        )
        self.pool = Pool(Epochs())
        self.refits = Refits(self.pool)
        self.speeds = Speeds()
        self.accounts = Accounts(reactor.seconds)
        # The scheduler hears first of what becomes of workers: when the jobs of one that left end,
        # it must not be given others.
        self.turns = Turns(Scheduler(self.pool, self.speeds, _rules_of(settings)), reactor)
        self.holdings = Holdings(
            self.pool, Owners(settings.job_ttl, MOST_OWNERS), OpenJobs(), reactor.seconds
        )
        self._record()
        self.holdings.jobs.on_open = self._job_opened
        self.holdings.jobs.on_end = self.turns.ended
        self.holdings.jobs.expected = self.turns.expected
        self._outstanding = Outstanding()
        self._broadcasts = Broadcasts(self._asking(self._roads.control, "timeout"))
        self._orders = Orders(self._broadcasts, self._cooperator())
        self._readiness = Readiness(
            self.pool,
            self._asking(self._roads.probes, "health_check_timeout"),
            CatchUp(self.refits, self._orders, self._outstanding, lambda: self._store.written()),
            reactor,
        )
        self._monitor = HealthMonitor(
            self.pool,
            self._client(self._roads.probes, "health_check_timeout"),
            reactor,
            interval=settings.health_check_interval,
            threshold=settings.health_check_failure_threshold,
            readmit=settings.readmit_after,
            well=self._readiness.answered_well,
        )
        self.holdings.on_restart = partial(self._monitor.not_reached, restarted=True)
        self._webhooks = self._open_webhooks(settings)
        self._store = store or open_store(
            settings.state, reactor, job_ttl=settings.job_ttl, max_owners=MOST_OWNERS
        )
        Keeper(
            self._store,
            self.pool,
            self.holdings,
            self.speeds,
            self.refits,
            self._webhooks.pending,
        ).begin()
        register(self.pool, configuration.workers)
        self.telemetry = Telemetry(
            self.accounts,
            self.refits,
            self.holdings.jobs,
            lambda: len(self.turns.scheduler.line),
            reactor,
        )
        self.dashboard = open_dashboard(
            self.accounts, self.turns, self.holdings.jobs, self.telemetry.streams
        )
        self.dashboard.measuring.setServiceParent(self)
        self.reloading = Reloading(configuration, self.following, self.pool, self._monitor.check)
        self._door = Door(reactor.seconds, Keyring(b""))
        self._key_files = KeyFiles(self._door, _key_sources_of(settings), reactor)
        self._cors = Cors(settings.cors_origins)
        # Services stop in reverse order: what begins replays before what does them.
        for service in (self.telemetry, self._webhooks, self._key_files, self._readiness):
            service.setServiceParent(self)
        self._resource = RouterResource(self._api(), self.accounts, self._door, self._cors)
        self._monitor.setServiceParent(self)
        self._follow()
        self._ports = MultiService()
        self._ports.setServiceParent(self)
        site = self.site()
        for description in settings.listen:
            strports_service(description, site, reactor).setServiceParent(self._ports)

    @property
    def settings(self) -> RouterSettings:
        """Every option, as it is in force."""
        return self.following.settings

    def trace(self, tracing: Any) -> None:
        """
        Have requests traced; to be called before the service starts.

        Args:
            tracing: What `sgl_droute.api.tracing.open_tracing` gives.
        """
        self.telemetry.trace(tracing)

    def _api(self) -> RouterAPI:
        settings, pool, holdings, roads = self.settings, self.pool, self.holdings, self._roads
        keep = self.following.keep
        traffic = self._client(roads.traffic, "timeout")
        control = self._asking(roads.control, "timeout")
        broadcasts, outstanding = self._broadcasts, self._outstanding
        questions = self._asking(roads.control, "health_check_timeout")
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
        self.following.call(lambda settings: jobs.retime(settings.job_poll_interval))
        metrics = Metrics(
            self.turns,
            holdings.jobs,
            self.accounts,
            self._monitor,
            lambda: sum(site.connections for site in self._sites),
            self._reactor,
        )
        for service in (finder, broadcasts, jobs, metrics):
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
        admission = keep(
            Admission(self.turns, rollouts, settings, cooperator),
            settings=lambda settings: settings,
        )
        carrier, records = (
            keep(
                Carrier(client, self._monitor.not_reached, cooperator, settings.idle_timeout),
                idle_timeout="idle_timeout",
            )
            for client in (traffic, self._client(roads.traffic, _within(_RECORD_TIMEOUT)))
        )
        handshake_timeout = _within(_HANDSHAKE_TIMEOUT)
        handshakes = keep(
            Handshakes(
                self._reactor, settings.connect_timeout, handshake_timeout(settings), self._terms
            ),
            connect_timeout="connect_timeout",
            timeout=handshake_timeout,
        )
        file_fields = FileFields(self._door, cooperator)
        self.tunnels = keep(
            Tunnels(
                self.turns,
                admission,
                handshakes,
                carrier,
                file_fields,
                self._reactor,
                settings.idle_timeout,
            ),
            idle_timeout="idle_timeout",
        )
        gate = Gate(settings.max_connections)
        self.following.call(lambda settings: gate.resize(settings.max_connections))
        return RouterAPI(
            Inference(
                self.turns, admission, holdings, outstanding, carrier, self._webhooks, file_fields
            ),
            Owned(pool, holdings, finder, records, carrier, gate, self._reactor.seconds),
            Lists(pool, questions, control, holdings.row),
            fleet,
            Updates(refitting, fleet, self._store.durable),
            Management(
                pool,
                self._monitor,
                self._readiness,
                self.speeds,
                keep(
                    Vetting(self.networks, self._reactor, settings.connect_timeout),
                    timeout="connect_timeout",
                ),
                self._reactor,
            ),
            Observe(pool),
            self.tunnels,
            Waiting(self.turns, rollouts),
            self._cors,
            self.telemetry.events,
            ConfigurationAPI(self.reloading),
            Exposition(metrics.registry, EngineMetrics(pool, questions, cooperator), cooperator),
            self.dashboard,
        )

    def _record(self) -> None:
        """
        Have a flight recorder run if the settings say so.
        """
        settings = self.settings
        if not settings.record:
            return
        recorder = open_recorder(Path(settings.record), self._reactor, _rules_of(settings))
        recorder.follow(self.pool)
        self.turns.scheduler.watch(recorder.note)
        recorder.setServiceParent(self)
        self.following.call(lambda settings: recorder.adopt(_rules_of(settings)))

    def _open_webhooks(self, settings: RouterSettings) -> Webhooks:
        webhooks = open_webhooks(
            PendingWebhooks(),
            self.holdings.jobs,
            self._reactor,
            self._deadlines,
            hosts=settings.webhook_hosts,
            secret_file=settings.webhook_secret,
        )
        return self.following.keep(
            webhooks,
            hosts=lambda settings: Hosts.of(settings.webhook_hosts),
            secret=lambda settings: read_secret(settings.webhook_secret),
        )

    def _follow(self) -> None:
        """
        Have what is there by now follow the settings, from this moment on.
        """
        following, monitor = self.following, self._monitor
        following.check(lambda settings: _key_sources_of(settings).read(b""))
        following.check(lambda settings: Hosts.of(settings.webhook_hosts))
        following.check(lambda settings: read_secret(settings.webhook_secret))
        following.keep(self.networks, networks="add_worker_allow", named="worker_urls")
        following.keep(self._cors, origins="cors_origins")
        following.keep(self._door, file_fields="allow_file_fields")
        following.keep(
            self._monitor, threshold="health_check_failure_threshold", readmit="readmit_after"
        )
        following.keep(self.telemetry.reporter, alarm=lambda settings: Alarm(settings.queue_alert))
        for agent in self._roads.agents:
            following.keep(agent, connect_timeout="connect_timeout")
        following.call(lambda settings: monitor.retime(settings.health_check_interval))
        following.call(lambda settings: self._key_files.reload(_key_sources_of(settings)))
        following.call(lambda settings: self.turns.adopt(_rules_of(settings)))
        following.call(self._tolerate_stale_weights)
        following.call(self._limit_sites)
        following.adopt(following.settings)

    def _tolerate_stale_weights(self, settings: RouterSettings) -> None:
        tolerant = settings.stale_weights == "serve"
        if tolerant != self.pool.epochs.tolerant:
            self.pool.epochs.tolerant = tolerant
            self.pool.judge()

    def _limit_sites(self, settings: RouterSettings) -> None:
        for site in self._sites:
            for name, limit in _limits_of(settings).items():
                setattr(site, name, limit)

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
        site = RouterSite(
            self._reactor,
            root or self._resource,
            **_limits_of(self.settings),
            deadlines=self._deadlines,
            accounts=self.accounts,
            # Other pages of *root* are not the door's.
            early=self._door.early if root is None else None,
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
        self.telemetry.streams.close()
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

    def _asking(self, agent: IAgent, timeout: Wanted) -> WorkerClient:
        """
        A client that tells the monitor of workers that were not reached; health checks tell it
        themselves, and so does whoever carries traffic.
        """

        def failed(problem: WorkerFailed) -> None:
            self._reactor.callLater(0, self._not_reached, problem)  # who asked notes it first

        client = self._client(agent, timeout)
        client.failed = failed
        return client

    def _not_reached(self, failed: WorkerFailed) -> None:
        if failed.gone and failed.worker in self.pool:
            self._monitor.not_reached(self.pool[failed.worker], restarted=failed.refused)

    def _client(self, agent: IAgent, timeout: Wanted) -> WorkerClient:
        """
        A client with connections of *agent*, whose time-out follows the settings.
        """
        seconds = wanted(timeout, self.settings)
        client = WorkerClient(agent, self._reactor, seconds, self._deadlines)
        return self.following.keep(client, timeout=timeout)

    def _cooperator(self) -> Cooperator:
        return Cooperator(scheduler=_scheduled_on(self._reactor))


def _within(most: float) -> Callable[[RouterSettings], float]:
    """
    Seconds that a worker may take for something quick: `RouterSettings.timeout`, *most* at most.
    """
    return lambda settings: min(settings.timeout, most)


def _key_sources_of(settings: RouterSettings) -> KeySources:
    return KeySources(settings.api_keys, settings.admin_keys)


def _limits_of(settings: RouterSettings) -> dict[str, Any]:
    """
    The limits of a site.
    """
    fit = clients_that_fit(open_files_limit(), settings.max_connections)
    return {
        "max_body_size": settings.max_body_size,
        "read_timeout": settings.read_timeout,
        "idle_timeout": settings.idle_timeout,
        "max_clients": settings.max_clients or fit,
    }


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
