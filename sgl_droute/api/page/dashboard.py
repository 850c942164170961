"""
The live page: its files, and the stream of what it shows.
"""

from __future__ import annotations

import json
from importlib.metadata import version

from attrs import define, field
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.server import Request

from sgl_droute.api.page.measuring import Measuring
from sgl_droute.api.page.page_files import page_file
from sgl_droute.api.page.recent import Recent
from sgl_droute.api.page.view import View
from sgl_droute.api.replies import empty_reply
from sgl_droute.api.sse import Stream, Streams, message
from sgl_droute.api.telemetry.account import Accounts
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.trends import Trends
from sgl_droute.workers.turns import Turns

log = Logger()

INTERVAL = 1.0
"""Seconds between two looks at the fleet while anybody looks on."""


@define(eq=False)
class Dashboard:
    """
    Shows the page, and sends all who look at it the same once a second. While nobody does, only
    the trends are measured.

    Args:
        view: Makes what is sent.
        measuring: Measures the trends; a service, which somebody has to start.
        turns: Asked to have done what is due before a look.
        streams: Where those are who look.
    """

    view: View
    measuring: Measuring
    turns: Turns
    streams: Streams
    _started: float = field(init=False)
    _viewers: dict[Stream, None] = field(factory=dict, init=False)
    _looks: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._started = self.turns.now()
        self._looks = LoopingCall(self._send_changes)
        self._looks.clock = self.turns.clock

    def page(self, request: Request) -> bytes:
        """
        The page itself.
        """
        return page_file("index.html").answer(request)

    def file(self, request: Request, name: str) -> bytes:
        """
        A file that the page consists of.

        Raises:
            NotFound: There is none of that name.
        """
        return page_file(name).answer(request)

    def elsewhere(self, request: Request) -> bytes:
        """
        Send who asked for a folder to the page, below whatever path that is.
        """
        body = empty_reply(request)
        request.setResponseCode(308)
        request.setHeader(b"Location", b"../dashboard")
        request.setHeader(b"Content-Length", b"0")
        return body

    async def stream(self, request: Request) -> None:
        """
        Answer *request* with all that the page shows, and then with what changes.

        Raises:
            NoWorker: The router is stopping.
        """
        stream = self.streams.open(request)
        if not self._viewers:
            self._look()
        stream.send(self._hello(), event="hello")
        stream.send(self.view.whole(), event="state")
        self._viewers[stream] = None
        if not self._looks.running:
            self._looks.start(INTERVAL, now=False)
        try:
            await stream.closed
        finally:
            del self._viewers[stream]
            if not self._viewers:
                self._looks.stop()

    def _hello(self) -> str:
        told = {
            "version": version("sgl-droute"),
            "now": round(self.turns.now(), 3),
            "started": round(self._started, 3),
            "interval": INTERVAL,
        }
        return json.dumps(told)

    def _look(self) -> str:
        self.turns.look()
        return self.view.look(self.turns.now())

    def _send_changes(self) -> None:
        try:
            event = message(self._look(), event="state")
        except Exception:  # a loop whose function fails once stops for good
            log.failure("looking at the fleet for the live page broke")
            return
        for stream in list(self._viewers):
            stream.write(event)


def open_dashboard(accounts: Accounts, turns: Turns, jobs: OpenJobs, streams: Streams) -> Dashboard:
    """
    The live page of a fleet; its `Dashboard.measuring` is to be started.

    Args:
        accounts: The requests of the router.
        turns: The workers, their jobs and who waits; the time.
        jobs: The video and mesh jobs.
        streams: Where event streams are opened.
    """
    trends, recent = Trends(turns.now()), Recent()
    accounts.watch(recent.note)
    view = View(turns.scheduler, jobs, accounts, trends, recent)
    return Dashboard(view, Measuring(trends, turns, accounts), turns, streams)
