"""
Measures the trends that the live page shows, whether or not anybody looks.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from sgl_droute.api.telemetry.account import DONE, Account, Accounts
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.trends import STEP, Trends
from sgl_droute.workers.turns import Turns

# Of these it is not known how long their client waits for what is generated.
_NO_GENERATIONS = ("session", "other")


@define(eq=False)
class Measuring(Service):
    """
    Tells *trends* of requests for work, and how busy the workers are.

    Args:
        trends: Told.
        turns: The workers' jobs; the time.
        accounts: The requests.
    """

    trends: Trends
    turns: Turns
    accounts: Accounts
    _loop: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self.measure)
        self._loop.clock = self.turns.clock
        self.accounts.watch(self._request_ended)
        self.turns.scheduler.watch(self._job_ended)

    def startService(self) -> None:
        super().startService()
        self._loop.start(STEP, now=False)

    def stopService(self) -> Deferred[Any] | None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return None

    def measure(self) -> None:
        """
        Add a point to the trends.
        """
        self.turns.look()
        scheduler, now = self.turns.scheduler, self.turns.now()
        stations = scheduler.floor.stations.values()
        worked: dict[Hashable, float] = {
            station.worker.serial: station.worked(now) for station in stations
        }
        self.trends.step(now, worked, len(scheduler.line))

    def _request_ended(self, account: Account) -> None:
        if account.kind:
            good = account.code == DONE and account.status < 400
            self.trends.ended(self.accounts.now(), good=good)

    def _job_ended(self, event: Event) -> None:
        """
        A video has ended when it is made, long after the answer to the request for it.
        """
        job = event.job
        if event.name != "ended" or event.reason != "well" or job.kind in _NO_GENERATIONS:
            return
        if job.number > 0:  # what was found at a worker may be older than it seems
            self.trends.lasted(event.time - job.submitted)
