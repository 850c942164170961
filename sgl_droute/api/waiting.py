"""
The waiting line as clients see it: who waits, for what, how long, and the way out of it.
"""

from __future__ import annotations

from attrs import define
from twisted.web.server import Request

from sgl_droute.api.reading import parameter
from sgl_droute.api.replies import reply
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.forecast import Prospect, batch_end, prospects, running
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.rollouts import Rollouts
from sgl_droute.fleet.station import Running
from sgl_droute.workers.turns import Turns

# Jobs shown where the request does not say how many. To tell of one costs about 20 us.
_USUALLY = 1000
_MOST = 100_000


@define(eq=False)
class Waiting:
    """
    Answers questions about the line, and cancels what waits. All times are seconds from now.

    Args:
        turns: The line.
        rollouts: What became of rollout batches.
    """

    turns: Turns
    rollouts: Rollouts

    def queue(self, request: Request) -> bytes:
        """
        The jobs that wait, in the order in which they will be served, and those at workers; of
        each list at most ``limit`` (1000), and how many there are.

        Raises:
            BadRequest: The limit makes no sense.
        """
        scheduler, now, most = self.turns.scheduler, self.turns.now(), _limit(request)
        self.turns.look()
        answer = {
            "waiting": [_waiting(each, now) for each in prospects(scheduler, now, most)],
            "running": [_running(*each, now) for each in running(scheduler, most)],
            "waiting_count": len(scheduler.line),
            "running_count": len(scheduler.floor.running),
        }
        return reply(request, answer)

    def cancel(self, request: Request, id: str) -> bytes:
        """
        Take a job out of the line; its client is told 409.

        Raises:
            NotFound: No such job waits or runs.
            NotWaiting: It is at a worker already.
        """
        self.turns.cancel(id)
        return reply(request, {"status": "success", "id": id, "state": "cancelled"})

    def rollout(self, request: Request, id: str) -> bytes:
        """
        How far a rollout batch is.

        Raises:
            NotFound: The batch is not known, or no longer.
        """
        shown = self.rollouts.shown(id)
        now = self.turns.now()
        self.turns.look()
        end = batch_end(self.turns.scheduler, id, now)
        return reply(request, {**shown, "predicted_end": _from(now, end)})

    def cancel_rollout(self, request: Request, id: str) -> bytes:
        """
        Cancel the jobs of a rollout batch that wait.

        Raises:
            NotFound: The batch is not known, or no longer.
        """
        self.rollouts.shown(id)
        jobs = self.turns.scheduler.line.of_batch(id)
        for job in jobs:
            if job.id in self.turns.scheduler.line:
                self.turns.cancel(job.id)
        return reply(request, {"status": "success", "cancelled": len(jobs)})


def _waiting(prospect: Prospect, now: float) -> dict[str, object]:
    job = prospect.job
    return {
        "id": job.id,
        "kind": job.kind,
        "position": prospect.position,
        "waited": round(now - job.submitted, 3),
        "predicted_start": _from(now, prospect.start),
        "predicted_end": _from(now, prospect.end),
        **_whose(job),
        "why": prospect.why,
    }


def _running(
    each: Running, start: float | None, end: float | None, now: float
) -> dict[str, object]:
    job = each.job
    return {
        "id": job.id,
        "kind": job.kind,
        "worker": each.station.worker.url,
        "state": _state(each, start, now),
        "waited": round(each.bound - job.submitted, 3),
        "predicted_start": _from(now, start),
        "predicted_end": _from(now, end),
        **_whose(job),
    }


def _whose(job: Job) -> dict[str, object]:
    return {
        "priority": job.priority,
        "client": job.client,
        "batch": job.batch,
        "group": job.group,
    }


def _state(each: Running, start: float | None, now: float) -> str:
    if each.abandoned:
        return "abandoned"
    if start is None:
        return "answering" if each.job.want.slot else "open"
    return "running" if start <= now else "queued at its worker"


def _from(now: float, when: float | None) -> float | None:
    return None if when is None else round(when - now, 3)


def _limit(request: Request) -> int:
    given = parameter(request, "limit")
    if given is None:
        return _USUALLY
    if not given.isascii() or not given.isdecimal() or not 0 <= int(given[:10]) <= _MOST:
        raise BadRequest(f"limit must be a whole number from 0 to {_MOST}, not {given[:100]!r}")
    return int(given)
