"""
What tells others what happens in a router: lines of the log, traces, and the stream of events.

It only watches. What is worth telling is written in `sgl_droute.fleet.reporter` and
`sgl_droute.api.telemetry.request_log`.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall

from sgl_droute.api.events import Events
from sgl_droute.api.sse import Streams
from sgl_droute.api.telemetry.account import Accounts
from sgl_droute.api.telemetry.request_log import RequestLog
from sgl_droute.fleet.happenings import Happenings
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.reporter import Alarm, Reporter

if TYPE_CHECKING:
    from sgl_droute.api.telemetry.spans import Tracing

# Seconds between two looks at the waiting line.
_LOOK = 1.0


class Telemetry(Service):
    """
    Watches a router from its creation on.

    Args:
        accounts: What becomes of its requests.
        refits: Updates of its workers' weights, and in ``pool`` the workers.
        jobs: Their video and mesh jobs.
        waiting: How many requests wait in line (count).
        alarm: Tells what is a long line.
        reactor: Provides the time.

    Attributes:
        streams: Answers that go on for as long as their clients listen.
        events: Serves ``GET /events``.
        reporter: Tells of the fleet.
    """

    def __init__(
        self,
        accounts: Accounts,
        refits: Refits,
        jobs: OpenJobs,
        waiting: Callable[[], int],
        alarm: Alarm,
        reactor: Any,
    ) -> None:
        self._reactor = reactor
        self._accounts = accounts
        self._tracing: Tracing | None = None
        happenings = Happenings(token_hex(4), reactor.seconds)
        self.streams = Streams(reactor)
        self.events = Events(happenings, self.streams)
        self.reporter = Reporter(happenings, refits.pool, refits, jobs, waiting, alarm)
        accounts.watch(RequestLog().note)
        self._looks = LoopingCall(self.reporter.look)
        self._looks.clock = reactor

    def trace(self, tracing: Tracing) -> None:
        """
        Have requests traced from now on; the last spans are exported when this service stops.
        """
        self._tracing = tracing
        self._accounts.watch_begin(tracing.begin)
        self._accounts.watch(tracing.end)

    def startService(self) -> None:
        """
        Look at the line now and then.
        """
        super().startService()
        self._looks.start(_LOOK)

    def stopService(self) -> Deferred[None]:
        """
        End all streams; the result comes when the last spans are exported.
        """
        super().stopService()
        if self._looks.running:
            self._looks.stop()
        self.streams.close()
        return succeed(None) if self._tracing is None else self._tracing.close(self._reactor)
