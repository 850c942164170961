"""
The metrics of one router: what is watched for them, and the registry that has them all.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from sgl_droute.api.telemetry.account import Accounts
from sgl_droute.api.telemetry.fleet_metrics import FleetNow
from sgl_droute.api.telemetry.traffic_metrics import Traffic
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.workers.health import HealthMonitor
from sgl_droute.workers.lag import ReactorLag
from sgl_droute.workers.turns import Turns


class Metrics(MultiService):
    """
    Watches a router from its creation on, and how late the reactor is while it runs.

    Args:
        turns: The fleet and who waits for it.
        jobs: The video and mesh jobs of the workers.
        accounts: What becomes of requests.
        monitor: Checks the workers' health.
        connections: How many connections clients have open (count).
        clock: Provides the time.

    Attributes:
        registry: This router's own, not that of the process: there may be several routers in it.
    """

    def __init__(
        self,
        turns: Turns,
        jobs: OpenJobs,
        accounts: Accounts,
        monitor: HealthMonitor,
        connections: Callable[[], int],
        clock: IReactorTime,
    ) -> None:
        super().__init__()
        traffic = Traffic(turns.pool)
        ReactorLag(clock, traffic.late).setServiceParent(self)
        accounts.watch(traffic.request_ended)
        jobs.watch(traffic.job_ended)
        monitor.watch(traffic.probed)
        turns.scheduler.watch(traffic.job_happened)
        self.registry = CollectorRegistry()
        self.registry.register(FleetNow(turns, accounts, jobs, connections))
        self.registry.register(traffic)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
