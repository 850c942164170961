"""
The end of serving: running answers may end, and what does not in time is cut.

When to begin, and that no new connections come, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from sgl_droute.api.http.site import RouterSite

log = Logger()

# Seconds between two lines about what is left.
_NEWS = 10.0


async def drain(sites: Collection[RouterSite], clock: IReactorTime, timeout: float) -> None:
    """
    End all client connections of *sites*; returns when the last one is gone.

    Idle ones are closed at once, the others behind their running answer. What is left after
    *timeout* seconds is reset, so that no torn answer passes for a whole one.
    """
    begun = _running(sites)
    if begun:
        log.info(
            "stopping: answers running: {count}; they have {timeout:g} s to end",
            count=begun,
            timeout=timeout,
        )
    gone: Deferred[Any] = gatherResults([site.drain() for site in sites])
    if not gone.called:
        await _wait(gone, clock, timeout, sites)
    left = _running(sites)
    if not gone.called:
        await gatherResults([site.cut() for site in sites])
    if left:
        log.warn("stopping: answers cut: {count}", count=left)
    elif begun:
        log.info("stopping: all answers have ended")


async def _wait(
    gone: Deferred[Any], clock: IReactorTime, timeout: float, sites: Collection[RouterSite]
) -> None:
    news = LoopingCall(_tell, sites)
    news.clock = clock
    news.start(_NEWS, now=False)
    late: Deferred[Any] = deferLater(clock, timeout)
    await DeferredList([gone, late], fireOnOneCallback=True, consumeErrors=True)
    late.cancel()
    news.stop()


def _running(sites: Collection[RouterSite]) -> int:
    return sum(site.running for site in sites)


def _tell(sites: Collection[RouterSite]) -> None:
    log.info("stopping: answers still running: {count}", count=_running(sites))
