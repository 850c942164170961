"""
One worker's record and its transitions.

A record knows nothing of its neighbours, of sockets or of time: `sgl_droute.fleet.pool` keeps the
records, `sgl_droute.workers.health` learns how the probes went.
"""

from __future__ import annotations

from attrs import evolve, field, frozen
from attrs.validators import ge


@frozen(kw_only=True)
class Worker:
    """
    What the router knows of one worker.

    Attributes:
        url: Normalised base URL without a trailing slash; the pool's key.
        serial: Registration number; tells a re-registered URL from its predecessor.
        in_flight: Requests sent and not yet finished (count).
        failures: Health checks failed in a row (count); one success resets it.
        dead: Quarantined: no traffic.
        proven: In service once: a health check went well since it was registered. Quarantine of a
            proven worker is for good; any other is probed on and joins at its first good answer.
        answered: Sent an answer on the traffic road since its last health check.
        last_error: Why the last failed health check failed; empty when none did.
    """

    url: str
    serial: int
    in_flight: int = field(default=0, validator=ge(0))
    failures: int = field(default=0, validator=ge(0))
    dead: bool = False
    proven: bool = False
    answered: bool = False
    last_error: str = ""

    @property
    def doubtful(self) -> bool:
        """Registered, asked for its health and not yet well: used only if nobody else is left."""
        return not self.proven and self.failures > 0

    @property
    def probed(self) -> bool:
        """Whether health checks go to it: to all but those quarantined for good."""
        return not (self.dead and self.proven)


@frozen
class Probe:
    """
    How one health check went.

    Attributes:
        healthy: The worker answered 200.
        silent: No answer came in time or no connection was had, so an answer on another road is
            better evidence; a worker that answers its health check badly is believed.
        reason: What went wrong; empty when healthy.
    """

    healthy: bool
    silent: bool = False
    reason: str = ""


def checked(worker: Worker, probe: Probe, *, threshold: int) -> Worker:
    """
    *worker* after one health check; *threshold* failures in a row quarantine it.
    """
    if probe.healthy or (probe.silent and worker.answered and not worker.dead):
        # A probe goes to a dead worker only until it first answers one well.
        return evolve(worker, failures=0, dead=False, proven=True, answered=False, last_error="")
    failures = worker.failures + 1
    return evolve(
        worker,
        failures=failures,
        dead=worker.dead or failures >= threshold,
        answered=False,
        last_error=probe.reason,
    )


def answered(worker: Worker) -> Worker:
    """
    *worker* after an answer on the traffic road.
    """
    return worker if worker.answered else evolve(worker, answered=True)


def registered_again(worker: Worker) -> Worker:
    """
    *worker* after its URL was registered once more: a quarantined one has to prove itself anew.
    """
    return evolve(worker, proven=False) if worker.dead else worker
