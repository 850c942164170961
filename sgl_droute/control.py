"""
The fleet's side of a router: its workers, what is known of them, and all that is done with them
without a client who waits for it.

It knows no requests and no answers; those are in `sgl_droute.service`, which has one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.task import Cooperator
from twisted.web.iweb import IAgent

from sgl_droute.configuration_file import WorkerEntry
from sgl_droute.errors import WorkerFailed
from sgl_droute.fleet.epochs import Epochs
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.jobs import OpenJob, OpenJobs
from sgl_droute.fleet.networks import Networks
from sgl_droute.fleet.owners import Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.webhook_hosts import Hosts
from sgl_droute.fleet.webhooks import PendingWebhooks
from sgl_droute.reloading import Following, Wanted, register, wanted
from sgl_droute.roads import Roads
from sgl_droute.settings import RouterSettings
from sgl_droute.state.keeper import Keeper
from sgl_droute.state.opening import open_store
from sgl_droute.state.store import Store
from sgl_droute.workers.broadcast import Broadcasts
from sgl_droute.workers.catchup import CatchUp
from sgl_droute.workers.client import WorkerClient
from sgl_droute.workers.connecting import Terms
from sgl_droute.workers.deadlines import Deadlines
from sgl_droute.workers.finder import Finder
from sgl_droute.workers.health import HealthMonitor
from sgl_droute.workers.jobs import JobWatch
from sgl_droute.workers.orders import Orders
from sgl_droute.workers.outstanding import Outstanding
from sgl_droute.workers.readiness import Readiness
from sgl_droute.workers.recorder import open_recorder
from sgl_droute.workers.refitting import Refitting
from sgl_droute.workers.tls import WorkerTLS
from sgl_droute.workers.turns import Turns
from sgl_droute.workers.webhooks import Webhooks, open_webhooks, read_secret
from sgl_droute.workers.weighing import Weighing

# Ids whose worker is remembered; the least recently used go first.
MOST_OWNERS = 250_000


class FleetControl(MultiService):
    """
    Keeps a fleet: its health, its weights, its jobs, its line, and the memory of it.

    Args:
        reactor: Provides TCP, time and a name resolver.
        following: The settings, which its parts follow.
        entries: Workers to register.
        roads: What carries requests to workers; real connections if None.
        store: Where the state is kept; what the settings name if None.

    Attributes:
        deadlines: Where limits of time are kept.
        networks: Where workers may be.
        terms: On which terms they are connected to.
        pool: Them.
        turns: Their line.
        holdings: What they made.
        outstanding: The requests that they have.
        broadcasts, orders, refitting: What all of them are told.
        readiness, monitor, jobs: Who looks after them.
        finder: Finds who has an id.
        webhooks: Who is to be called when a job ends.

    Raises:
        ValueError: A file that the settings name does not hold what it must; one sentence says why.
    """

    def __init__(
        self,
        reactor: Any,
        following: Following,
        entries: Iterable[WorkerEntry],
        roads: Roads | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._following = following
        settings = following.settings
        self.deadlines = Deadlines(reactor)
        self.networks = Networks(settings.add_worker_allow, settings.worker_urls)
        tls = WorkerTLS.read(settings.worker_ca, settings.worker_certificate)
        self.terms = Terms(self.networks, tls)
        self.roads = roads or Roads.over_tcp(
            reactor, settings.connect_timeout, self.deadlines, self.terms
        )
        self.pool = Pool(Epochs(tolerant=settings.stale_weights == "serve"))
        self.refits = Refits(self.pool)
        self.speeds = Speeds()
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
        self._ask_after_workers()
        self._ask_after_jobs()
        self.webhooks = self._open_webhooks()
        self.store = store or open_store(
            settings.state, reactor, job_ttl=settings.job_ttl, max_owners=MOST_OWNERS
        )
        memory = (self.pool, self.holdings, self.speeds, self.refits, self.webhooks.pending)
        Keeper(self.store, *memory).begin()
        register(self.pool, entries)
        self.refitting = Refitting(
            self.refits,
            self.turns,
            self.broadcasts,
            self.orders,
            Weighing(self.refits, self.orders),
            self.readiness,
            self.outstanding,
            self.store.written,
            reactor,
        )
        # Services stop in reverse order: what begins replays before what does them.
        services = (self.webhooks, self.readiness, self.finder, self.broadcasts, self.jobs)
        for service in (*services, self.monitor):
            service.setServiceParent(self)
        self._follow()

    def client(self, agent: IAgent, timeout: Wanted) -> WorkerClient:
        """
        A client with connections of *agent*, whose time-out follows the settings.
        """
        seconds = wanted(timeout, self._following.settings)
        client = WorkerClient(agent, self._reactor, seconds, self.deadlines)
        return self._following.keep(client, timeout=timeout)

    def asking(self, agent: IAgent, timeout: Wanted) -> WorkerClient:
        """
        A client that tells the monitor of workers that were not reached; health checks tell it
        themselves, and so does whoever carries traffic.
        """

        def failed(problem: WorkerFailed) -> None:
            self._reactor.callLater(0, self._not_reached, problem)  # who asked notes it first

        client = self.client(agent, timeout)
        client.failed = failed
        return client

    def questions(self) -> WorkerClient:
        """
        A client for quick questions that a worker answers at once.
        """
        return self.asking(self.roads.control, "health_check_timeout")

    def cooperator(self) -> Cooperator:
        """
        What does large work in steps.
        """
        return Cooperator(scheduler=_scheduled_on(self._reactor))

    async def close(self) -> None:
        """
        Close idle connections to workers; to be called when all else has stopped.
        """
        await self.roads.close()
        self.deadlines.stop()

    def _ask_after_workers(self) -> None:
        settings, reactor = self._following.settings, self._reactor
        self.outstanding = Outstanding()
        self.broadcasts = Broadcasts(self.asking(self.roads.control, "timeout"))
        self.orders = Orders(self.broadcasts, self.cooperator())
        self.readiness = Readiness(
            self.pool,
            self.asking(self.roads.probes, "health_check_timeout"),
            CatchUp(self.refits, self.orders, self.outstanding, lambda: self.store.written()),
            reactor,
        )
        self.monitor = HealthMonitor(
            self.pool,
            self.client(self.roads.probes, "health_check_timeout"),
            reactor,
            interval=settings.health_check_interval,
            threshold=settings.health_check_failure_threshold,
            readmit=settings.readmit_after,
            well=self.readiness.answered_well,
        )
        self.holdings.on_restart = partial(self.monitor.not_reached, restarted=True)

    def _ask_after_jobs(self) -> None:
        questions = self.questions()
        self.finder = Finder(self.pool, self.holdings, questions)
        self.jobs = JobWatch(
            self.pool,
            self.holdings,
            questions,
            self.turns,
            self._reactor,
            interval=self._following.settings.job_poll_interval,
        )

    def _record(self) -> None:
        """
        Have a flight recorder run if the settings say so.
        """
        settings = self._following.settings
        if not settings.record:
            return
        recorder = open_recorder(Path(settings.record), self._reactor, _rules_of(settings))
        recorder.follow(self.pool)
        self.turns.scheduler.watch(recorder.note)
        recorder.setServiceParent(self)
        self._following.call(lambda settings: recorder.adopt(_rules_of(settings)))

    def _open_webhooks(self) -> Webhooks:
        settings = self._following.settings
        return open_webhooks(
            PendingWebhooks(),
            self.holdings.jobs,
            self._reactor,
            self.deadlines,
            hosts=settings.webhook_hosts,
            secret_file=settings.webhook_secret,
        )

    def _follow(self) -> None:
        """
        Have all parts follow the settings.
        """
        following, monitor, jobs = self._following, self.monitor, self.jobs
        following.check(lambda settings: read_secret(settings.webhook_secret))
        following.keep(self.networks, networks="add_worker_allow", named="worker_urls")
        following.keep(
            self.webhooks,
            hosts=lambda settings: Hosts.of(settings.webhook_hosts),
            secret=lambda settings: read_secret(settings.webhook_secret),
        )
        following.keep(monitor, threshold="health_check_failure_threshold", readmit="readmit_after")
        for agent in self.roads.agents:
            following.keep(agent, connect_timeout="connect_timeout")
        following.call(lambda settings: monitor.retime(settings.health_check_interval))
        following.call(lambda settings: jobs.retime(settings.job_poll_interval))
        following.call(lambda settings: self.turns.adopt(_rules_of(settings)))
        following.call(self._tolerate_stale_weights)

    def _tolerate_stale_weights(self, settings: RouterSettings) -> None:
        tolerant = settings.stale_weights == "serve"
        if tolerant != self.pool.epochs.tolerant:
            self.pool.epochs.tolerant = tolerant
            self.pool.judge()

    def _job_opened(self, job: OpenJob) -> None:
        worker = self.pool.holder(job.worker)
        if worker is not None and worker.serial == job.serial:
            self.turns.opened(job.kind, job.id, worker)

    def _not_reached(self, failed: WorkerFailed) -> None:
        if failed.gone and failed.worker in self.pool:
            self.monitor.not_reached(self.pool[failed.worker], restarted=failed.refused)


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
