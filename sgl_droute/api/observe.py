"""
What the router tells of its fleet.
"""

from __future__ import annotations

from attrs import define
from twisted.web.server import Request

from sgl_droute.api.replies import reply
from sgl_droute.fleet.pool import Pool


@define(eq=False)
class Observe:
    """
    Answers questions about the fleet from what is known now; nothing is asked of workers.
    """

    pool: Pool

    def liveness(self, request: Request) -> bytes:
        """
        200 as long as the router runs.
        """
        return reply(request, {"status": "ok"})

    def health(self, request: Request) -> bytes:
        """
        200 when at least one worker may get work, else 503; with the counts, where a worker that
        is neither quarantined nor asleep is healthy.
        """
        usable = any(worker.eligible for worker in self.pool)
        epochs = self.pool.epochs
        answer = {
            "status": "healthy" if usable else "unhealthy",
            "healthy_workers": sum(worker.takes_orders for worker in self.pool),
            "dead_workers": sum(worker.dead for worker in self.pool),
            "sleeping_workers": sum(worker.asleep for worker in self.pool),
            "stale_workers": sum(worker.stale for worker in self.pool),
            "total_workers": len(self.pool),
            "weights_epoch": epochs.highest,
        }
        return reply(request, answer, 200 if usable else 503)

    def list_workers(self, request: Request) -> bytes:
        """
        The URLs of all registered workers, in order of registration.
        """
        return reply(request, {"urls": [worker.url for worker in self.pool]})

    def health_workers(self, request: Request) -> bytes:
        """
        Load and health of every registered worker.
        """
        workers = [
            {
                "url": worker.url,
                "active_requests": worker.in_flight,
                "is_dead": worker.dead,
                "consecutive_failures": worker.failures,
                "weights_epoch": worker.epoch,
                "is_stale": worker.stale,
            }
            for worker in self.pool
        ]
        return reply(request, {"workers": workers})
