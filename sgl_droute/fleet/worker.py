"""
One worker's record and its transitions.

A record knows nothing of its neighbours, of sockets or of time: `sgl_droute.fleet.pool` keeps the
records, `sgl_droute.workers.health` learns how the probes went.
"""

from __future__ import annotations

from typing import Literal

from attrs import evolve, field, frozen
from attrs.validators import ge

from sgl_droute.fleet.capabilities import Capabilities, Want
from sgl_droute.fleet.weights import Actual

Concurrency = int | Literal["auto"]


@frozen(kw_only=True, slots=False)
class Worker:
    """
    What the router knows of one worker.

    Attributes:
        url: Normalised base URL without a trailing slash; the pool's key.
        serial: Registration number; tells a re-registered URL from its predecessor.
        lasting: It is still there after a restart of the router; not so those started for one run.
        in_flight: Requests sent and not yet finished (count).
        sessions: Those of them that are realtime sessions, open or being opened (count).
        jobs: Video and mesh jobs that it has not finished (count).
        failures: Health checks failed in a row (count); one success resets it.
        dead: Quarantined: no traffic.
        barred: An operator quarantined it, and only an operator brings it back.
        recovered: Good health checks in a row while it is quarantined (count).
        proven: In service once: it answered a health check well, or traffic beside one, since it
            was registered. Quarantine of a proven worker is for good; any other is probed on and
            joins at its first good answer.
        answered: Sent an answer on the traffic road since its last health check.
        unreached: A request could not be brought to it since it last answered anything.
        lapsed: It may have been restarted since its last good health check, and then has forgotten
            its jobs, adapters and weights.
        restarted: It surely was.
        incarnation: How many processes have been met at this URL (count), as far as can be told.
        last_error: Why the last failed health check failed; empty when none did.
        draining: Told by an operator to finish what it has.
        leaving: Removed as soon as it has finished; implies *draining*.
        disabled: Taken out by an operator.
        asleep: Its memory is released.
        sleep_known: A release or resume was answered since it was registered or restarted. Until
            then its health checks do not show whether it sleeps.
        actual: Which weights and adapters it has.
        stale: These are not, or not surely, those that its model is to have.
        lacks: Why it could not be brought up to date; empty when it is, or was not tried.
        updating: A call that changes them is on its way to it, or its model is closed until such
            calls have ended.
        tolerated: It may get work even if it is stale.
        capabilities: What it serves.
        concurrency: Generations it may be given at once: a count, 0 for any number, ``auto`` for
            one per replica; None for what the whole fleet has.
        speed: How fast an operator says it is, where 1 is the usual speed of its model; None to
            have that learned.
    """

    url: str
    serial: int
    lasting: bool = True
    in_flight: int = field(default=0, validator=ge(0))
    sessions: int = field(default=0, validator=ge(0))
    jobs: int = field(default=0, validator=ge(0))
    failures: int = field(default=0, validator=ge(0))
    dead: bool = False
    barred: bool = False
    recovered: int = field(default=0, validator=ge(0))
    proven: bool = False
    answered: bool = False
    unreached: bool = False
    lapsed: bool = True
    restarted: bool = False
    incarnation: int = field(default=0, validator=ge(0))
    last_error: str = ""
    draining: bool = False
    leaving: bool = False
    disabled: bool = False
    asleep: bool = False
    sleep_known: bool = False
    actual: Actual = field(factory=Actual)
    stale: bool = False
    lacks: str = ""
    updating: bool = False
    tolerated: bool = False
    capabilities: Capabilities = field(factory=Capabilities)
    concurrency: Concurrency | None = None
    speed: float | None = None

    @property
    def doubtful(self) -> bool:
        """
        Registered, asked for its health and not yet well, or not reached by the last request that
        was to go there: used only if nobody else is left.
        """
        return self.unreached or (not self.proven and self.failures > 0)

    @property
    def probed(self) -> bool:
        """Whether health checks go to it: to all but those quarantined for good."""
        return not (self.dead and self.proven)

    @property
    def recoverable(self) -> bool:
        """Whether good health checks could bring it back from a quarantine that is for good."""
        return self.dead and not self.barred

    @property
    def eligible(self) -> bool:
        """Whether it may be given new work."""
        return self.in_rotation and not (self.updating or (self.stale and not self.tolerated))

    @property
    def in_rotation(self) -> bool:
        """Whether it would be given new work if only its weights were right."""
        return not (self.dead or self.draining or self.disabled or self.asleep)

    @property
    def catching_up(self) -> bool:
        """Whether it gets new work again by itself: only its weights are not right yet."""
        return self.in_rotation and (self.updating or self.stale)

    @property
    def epoch(self) -> int | None:
        """The weights epoch that it has; None if it has something else, or may have."""
        return None if self.stale and self.lapsed else self.actual.epoch

    @property
    def in_session(self) -> bool:
        """Whether it has its one realtime session, which shares the GPU with all other work."""
        return self.sessions > 0

    @property
    def takes_orders(self) -> bool:
        """Whether fleet-wide calls go to it, an operator's wishes for traffic aside."""
        return not (self.dead or self.asleep)

    @property
    def idle(self) -> bool:
        """Whether it has nothing to finish."""
        return not self.in_flight and not self.jobs

    @property
    def state(self) -> str:
        """All facets in one word, the gravest first."""
        words = {
            "dead": self.dead,
            "disabled": self.disabled,
            "draining": self.draining,
            "sleeping": self.asleep,
            "updating": self.updating,
            "stale": self.stale,
            "joining": not self.proven,
            "suspect": self.failures > 0 or self.unreached,
        }
        return next((word for word, holds in words.items() if holds), "ready")

    def may_take(self, want: Want) -> bool:
        """
        Whether it may be given new work of the kind that *want* is.
        """
        allowed = self.eligible and want.allows(self.capabilities)
        fresh = want.epoch is None or want.epoch.met_by(self.epoch)
        return allowed and fresh and not (want.session and self.in_session)


def counted(worker: Worker, by: int, *, sessions: int = 0) -> Worker:
    """
    *worker* with *by* more requests in flight, each of them so many *sessions*.

    Raises:
        ValueError: More have ended than had begun.
    """
    # Twice a request, and `attrs.evolve` looks at every field: it costs as much as the choice.
    now = object.__new__(Worker)
    fields = now.__dict__
    fields.update(worker.__dict__)
    fields["in_flight"] += by
    fields["sessions"] += by * sessions
    if now.in_flight < 0 or now.sessions < 0:
        raise ValueError(f"{worker.url}: more requests ended than began")
    return now


@frozen
class Probe:
    """
    How one health check went.

    Attributes:
        healthy: The worker answered 200.
        silent: No answer came in time or no connection was had, so an answer on another road is
            better evidence; a worker that answers its health check badly is believed.
        gone: It refused, broke off, or said that it is not up: what answers next may be a new
            process. A worker that is merely late is not gone.
        refused: Nobody listened there: what answers next is a new process.
        reason: What went wrong; empty when healthy.
    """

    healthy: bool
    silent: bool = False
    gone: bool = False
    refused: bool = False
    reason: str = ""


def checked(worker: Worker, probe: Probe, *, threshold: int, readmit: int = 0) -> Worker:
    """
    *worker* after one health check; *threshold* failures in a row quarantine it, unless it sleeps.

    Args:
        readmit: Good checks in a row that bring it back from there; 0 for never.
    """
    if probe.refused:
        worker = evolve(worker, restarted=True)
    if not worker.probed:
        return _checked_in_quarantine(worker, probe, readmit)
    in_doubt = not probe.healthy and (worker.lapsed or probe.gone)
    if worker.lapsed and not in_doubt:
        worker = _met_anew(worker)
    if probe.healthy or (probe.silent and worker.answered and not worker.dead):
        return evolve(
            worker,
            failures=0,
            dead=False,
            proven=True,
            answered=False,
            unreached=False,
            lapsed=in_doubt,
            last_error="",
        )
    if worker.asleep:
        return evolve(worker, answered=False, lapsed=in_doubt, last_error=probe.reason)
    failures = worker.failures + 1
    dead = worker.dead or failures >= threshold
    return evolve(
        worker,
        failures=failures,
        dead=dead,
        answered=False,
        lapsed=in_doubt or dead,  # whatever comes back from there comes as if it had joined
        last_error=probe.reason,
    )


def _checked_in_quarantine(worker: Worker, probe: Probe, readmit: int) -> Worker:
    if not readmit or not worker.recoverable:
        return worker
    if not probe.healthy:
        return evolve(worker, recovered=0, last_error=probe.reason)
    if worker.recovered + 1 < readmit:
        return evolve(worker, recovered=worker.recovered + 1)
    return evolve(
        _met_anew(worker),
        failures=0,
        dead=False,
        recovered=0,
        answered=False,
        unreached=False,
        lapsed=False,
        last_error="",
    )


def _met_anew(worker: Worker) -> Worker:
    """
    *worker* when another process may answer at its URL: that one has its first weights. Where its
    predecessor slept it is awake in truth, gets no work until a resume all the same, and is to be
    released anew.
    """
    if worker.restarted:
        actual = Actual()
    elif worker.incarnation == 0 and not worker.actual.sure:
        actual = worker.actual  # to a router that was itself restarted it may be the one it knew
    else:
        actual = worker.actual.begun_anew()
    return evolve(
        worker,
        incarnation=worker.incarnation + 1,
        sleep_known=False,
        restarted=False,
        actual=actual,
    )


def answered(worker: Worker) -> Worker:
    """
    *worker* after an answer on the traffic road.
    """
    if worker.answered and not worker.unreached:
        return worker
    return evolve(worker, answered=True, unreached=False)


def lapsed(worker: Worker, *, restarted: bool) -> Worker:
    """
    *worker* when another process may be there, or must be.
    """
    return evolve(worker, lapsed=True, restarted=worker.restarted or restarted)


def tried_again(worker: Worker) -> Worker:
    """
    *worker* when it may come back from quarantine: it has to prove itself anew.
    """
    if not worker.dead:
        return worker
    return evolve(worker, proven=False, lapsed=True, barred=False, recovered=0)


def registered_again(worker: Worker) -> Worker:
    """
    *worker* after its URL was registered once more: as `tried_again`, and if it was about to leave
    it stays. Workers register when they start, so this may be a new process; but nothing shows that
    it is one.
    """
    if worker.leaving:
        worker = evolve(worker, leaving=False, draining=False)
    actual = evolve(worker.actual, stranded=False)
    return evolve(tried_again(worker), lapsed=True, actual=actual)


def same_process(now: Worker, then: Worker) -> bool:
    """
    Whether *now* is the process that it was *then*, as far as can be told.
    """
    return now.serial == then.serial and now.incarnation == then.incarnation and not now.lapsed


def released(now: Worker, then: Worker, *, answered: bool, asleep: bool) -> Worker:
    """
    *now* after the end of a release that was sent to it *then*.

    Args:
        answered: The worker said what it did; otherwise a worker that slept sleeps on.
        asleep: It took the call, or may have.
    """
    asleep = asleep or (then.asleep and not answered)
    return evolve(now, asleep=asleep, sleep_known=answered and same_process(now, then))


def resumed(now: Worker, then: Worker) -> Worker:
    """
    *now* after it took a resume that was sent to it *then*.
    """
    return evolve(now, asleep=False, sleep_known=same_process(now, then))


def quarantined(worker: Worker, reason: str, *, barred: bool = True) -> Worker:
    """
    *worker* taken out as dead for *reason*, for good.

    Args:
        barred: Whether good health checks do not bring it back.
    """
    if worker.dead and worker.proven and worker.barred == barred:
        return worker
    return evolve(
        worker, dead=True, proven=True, barred=barred, recovered=0, lapsed=True, last_error=reason
    )
