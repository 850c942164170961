"""
One worker after the other, until one is reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.logger import Logger

from sgl_droute.errors import NotConnected, NoWorker
from sgl_droute.fleet.capabilities import Want
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker

log = Logger()

T = TypeVar("T")


async def with_worker(pool: Pool, want: Want, attempt: Callable[[Worker], Awaitable[T]]) -> T:
    """
    What *attempt* gives with the first worker that it can connect to: that one alone may see the
    request. The worker is leased until the attempt ends.

    Args:
        attempt: Fails with `NotConnected` as long as its worker has seen nothing.

    Raises:
        NotConnected: Nobody was reached.
        NoWorker: Nobody can take the request now.
        BadRequest: No worker is able to serve it.
        NotFound: It names a model that nobody serves, and that matters.
    """
    tried: set[str] = set()
    unreached: NotConnected | None = None
    while True:
        try:
            with pool.lease(want, tried) as worker:
                return await attempt(worker)
        except NotConnected as failed:
            pool.record_unreached(worker)
            log.info("{failed}; trying the next worker", failed=failed)
            tried.add(failed.worker)
            unreached = failed
        except NoWorker as nobody:
            raise unreached or nobody from None
