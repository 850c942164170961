"""
Which job goes to which worker, and when: the waiting line in front of the fleet.

Pure: time comes in as an argument, what is to be done goes out as decisions. Who waits is kept by
`sgl_droute.fleet.line`, what workers have been given by `sgl_droute.fleet.floor`, and
`sgl_droute.fleet.placement` chooses among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from itertools import count

from attrs import define, evolve, field

from sgl_droute.errors import Cancelled, NotFound, RouterError
from sgl_droute.fleet.alarms import Alarms
from sgl_droute.fleet.capabilities import ANYTHING
from sgl_droute.fleet.decisions import Bound, Candidate, Decision, Dropped, Event
from sgl_droute.fleet.desk import Tier
from sgl_droute.fleet.drain import Drain
from sgl_droute.fleet.floor import Floor
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.line import Key, Line
from sgl_droute.fleet.patience import Patience
from sgl_droute.fleet.placement import Placement
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.reach import epochs_for, hopeless, lacks_epoch
from sgl_droute.fleet.refusals import (
    at_its_worker,
    cancelled,
    deadline_passed,
    epoch_not_reached,
    queue_full,
    too_late,
    waited_too_long,
)
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.selection import Load
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.station import Running, Station
from sgl_droute.fleet.worker import Worker

# Jobs that may wait for a faster worker, one behind the other, before one takes what is free.
_LOOK_AHEAD = 16

# Jobs that are to be handed over within so many seconds are handed over together, in the order of
# the line; and after as many it is looked at again, if no more may be open.
_TOGETHER = 1.0

Thing = tuple[str, str]


@define(eq=False)
class Scheduler:
    """
    Gives jobs to the workers of *pool*.

    Whoever submits a job tells of its end, by `finish`, `abandon` or `unreached`. The decisions
    that an event returns are to be carried out; those of a call that raises come with the next.
    Times never go back.

    Attributes:
        line: The jobs that wait.
        floor: The workers and what they have been given.
    """

    pool: Pool
    speeds: Speeds
    rules: Rules = field(factory=Rules)
    line: Line = field(init=False)
    floor: Floor = field(init=False)
    _placement: Placement = field(init=False)
    _alarms: Alarms = field(factory=Alarms, init=False)
    _patience: Patience = field(init=False)
    _drain: Drain = field(init=False)
    _things: dict[Thing, Running] = field(factory=dict, init=False)
    _open: int = field(default=0, init=False)
    _numbers: Iterator[int] = field(factory=lambda: count(1), init=False)
    _decisions: list[Decision] = field(factory=list, init=False)
    _observers: list[Callable[[Event], object]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.line = Line(fair=self.rules.fair)
        self._patience = Patience(self.line)
        self.floor = Floor(self.pool, self.speeds, self.rules, self._alarms)
        self._placement = self.floor.placement
        self._drain = Drain(self.line, self.floor)

    def watch(self, observer: Callable[[Event], object]) -> None:
        """
        Have *observer* told of what happens to jobs.
        """
        self._observers.append(observer)

    def adopt(self, rules: Rules, now: float) -> list[Decision]:
        """
        Go by other rules from now on. Nobody who waits is let go, nor loses the place of arrival:
        a shorter line is full for those who come, and where clients begin or cease to take turns
        each one's own jobs keep their order, but for batches that clients share. What workers have
        been given stays theirs.
        """
        self.rules = rules
        self.line.take_turns(rules.fair)
        self.floor.adopt(rules, now)
        self._advance(now)
        return self._decided()

    # What clients do.

    def submit(self, job: Job, now: float) -> list[Decision]:
        """
        Take a new job: it goes to a worker or waits.

        Raises:
            NoWorker: Nobody can take it now.
            BadRequest: No worker of the pool is able to serve it.
            NotFound: It names a model that nobody serves, and that matters.
            TooLate: It would end behind its deadline.
            PreconditionFailed: It requires weights that no worker will have any more.
            Refused: Too many jobs wait.
        """
        self._advance(now)
        job.number = next(self._numbers)
        self._tell("submitted", now, job)
        try:
            self._admit(job, now)
        except RouterError as refused:
            self._tell("refused", now, job, reason=refused.reason)
            raise
        return self._decided()

    def abandon(self, id: str, now: float) -> list[Decision]:
        """
        Note that the client of a job is gone: it leaves the line, or its worker works on for as
        long as was predicted. A job that has ended is ignored.
        """
        job = self.line.remove(id)
        running = self.floor.running.get(id)
        if job is not None:
            self._tell("abandoned", now, job)
        elif running is not None and running.open:
            if running.thing is None:
                self._tell("abandoned", now, running.job, running)
            self._close(running)
            self.floor.abandon(running, now)
        self._advance(now)
        return self._decided()

    def cancel(self, id: str, now: float) -> list[Decision]:
        """
        Take a job out of the line.

        Raises:
            NotFound: There is no such job.
            NotWaiting: It is at a worker, and workers cannot cancel.
        """
        job = self.line.remove(id)
        if job is None and id in self.floor.running:
            raise at_its_worker(id)
        if job is None:
            raise NotFound(f"Job {id} is not known")
        self._drop(job, cancelled(id), now)
        self._advance(now)
        return self._decided()

    # What workers do.

    def answered(self, id: str, now: float) -> list[Decision]:
        """
        Note that its worker has done a job, whose answer has yet to reach its client.
        """
        self.floor.free_slot(self.floor.running[id], now)
        self._advance(now)
        return self._decided()

    def finish(
        self, id: str, now: float, *, took: float | None = None, well: bool = True
    ) -> list[Decision]:
        """
        Note that the request of a job has ended. If it makes a thing that is not there yet, the job
        runs on until `thing_ended`.

        Args:
            took: Seconds of GPU time that the worker told.
            well: Whether the worker did it.
        """
        running = self.floor.running[id]
        self._close(running)
        if running.thing is None:
            self._end(running, now, took, well)
        self._advance(now)
        return self._decided()

    def unreached(self, id: str, now: float) -> list[Decision]:
        """
        Note that the worker of a job was not reached and has seen nothing of it: it takes its old
        place again, and never goes to that worker.

        Raises:
            NoWorker: There is nobody else now.
            PreconditionFailed: As of `submit`.
        """
        running = self.floor.running[id]
        job = running.job
        self._tell("unreached", now, job, running)
        self._close(running)
        self.floor.remove(running, now)
        self._advance(now)
        job.without |= {running.station.worker.url}
        error = hopeless(self.floor, job.want, job.without)
        if error is not None:
            self._tell("dropped", now, job, reason=error.reason)
            raise error
        self.line.put(job)
        self._dispatch(now)
        self._patience.watch(job)
        return self._decided()

    def made(self, id: str, thing: Thing) -> None:
        """
        Note that a job makes *thing*, a kind and an id, and is done when that is.
        """
        running = self.floor.running[id]
        if thing not in self._things and self.floor.has(running):
            running.thing = thing
            self._things[thing] = running

    def thing_opened(self, thing: Thing, worker: Worker, now: float) -> None:
        """
        Note that *worker* has *thing* before it, whoever asked for it.
        """
        station = self.floor.stations.get(worker.url)
        if thing in self._things or station is None or station.worker.serial != worker.serial:
            return
        kind, id = thing
        job = Job(id=f"{kind}-{id}", want=evolve(ANYTHING, kind=kind), submitted=now)
        running = self.floor.put(job, station, now)
        running.open = False
        running.thing = thing
        self._things[thing] = running

    def thing_ended(
        self, thing: Thing, now: float, *, took: float | None = None, well: bool = True
    ) -> list[Decision]:
        """
        Note that *thing* is made, or will not be; arguments as of `finish`.
        """
        running = self._things.pop(thing, None)
        if running is not None:
            running.thing = None
            self._end(running, now, took, well)
        self._advance(now)
        return self._decided()

    def expected(self, thing: Thing) -> float | None:
        """
        Seconds that *thing* is expected to take on the GPU; None where nothing like it was seen.
        """
        running = self._things.get(thing)
        if running is None or not self.speeds.measured(running.station.worker, thing[0]):
            return None
        return running.seconds

    def awaited(self, now: float) -> list[tuple[Running, float]]:
        """
        The jobs whose things should be made by *now*, while others wait in line, and by how much
        they are late (seconds): who learns sooner of an end can give the worker the next job.
        """
        if not len(self.line):
            return []
        lanes = (lane for station in self.floor.stations.values() for lane in station.lanes)
        late = ((lane.first, lane.late(now)) for lane in lanes)
        return [(first, by) for first, by in late if first is not None and first.thing and by >= 0]

    # Time.

    def tick(self, now: float) -> list[Decision]:
        """
        What is to be done since time has passed or the pool has changed.
        """
        self._advance(now)
        return self._decided()

    def due(self) -> float | None:
        """
        When `tick` should be called if nothing happens before; None if it need not be.
        """
        if self._decisions:
            return 0.0
        if not len(self.line):
            return None
        if self.floor.stirred:
            return 0.0
        times = [when for when in (self._alarms.next, self._patience.next) if when is not None]
        return min(times, default=None)

    @property
    def full(self) -> bool:
        """
        Whether no more requests may be open to workers.
        """
        return self._open >= self.rules.max_running

    # Jobs come in.

    def _admit(self, job: Job, now: float) -> None:
        floor, rules = self.floor, self.rules
        job.want = floor.desks.resolved(job.want)
        tier = floor.tier(job.want, job.without)
        if tier is None:
            error = hopeless(floor, job.want, job.without)
            if error is not None:
                raise error
        elif self.line.resting and not self.full:
            station = self._placement.choose(job, tier, now)
            if isinstance(station, Station):
                self._check_deadline(job, station, 0.0, now)
                self._bind(job, station, now)
                return
        job.length = self.speeds.length(floor.model(job.want, tier), job.kind, job.demand)
        # While some are updated nobody can tell.
        if job.deadline is not None and tier and not floor.awaits(job.want, job.without):
            ahead = self._seconds_ahead(job) / self._placement.lanes(tier)
            self._check_deadline(job, self._placement.earliest(job, tier, now), ahead, now)
        self.line.put(job)
        self._dispatch(now)
        # Those who wait may wait for others than this job does.
        if job.id in self.line and len(self.line) > rules.queue_size:
            self.line.remove(job.id)
            raise queue_full(len(self.line), self._drain.seconds(now))
        self._patience.watch(job)

    def _seconds_ahead(self, job: Job) -> float:
        """
        How long what *job* would have before it in line takes on one usual worker.
        """
        ahead = self.line.seconds_ahead(job)
        if self.rules.fair and len(self.line):
            usual = self.line.seconds() / len(self.line)
            self.line.put(job)
            ahead = min(ahead, usual * (self.line.position(job) - 1))
            self.line.remove(job.id)
        return ahead

    def _check_deadline(self, job: Job, station: Station, ahead: float, now: float) -> None:
        if job.deadline is None or not job.want.slot:
            return
        # Jobs that a worker does at once end together, and nobody knows when.
        one_by_one = station.limit <= len(station.lanes)
        if not (one_by_one and self.speeds.learned(station.worker, job.kind)):
            return
        start = self._placement.start(job, station, now)
        end = start + ahead + self._placement.seconds(job, station)
        if end > job.deadline:
            raise too_late(job, end, len(self.line) + 1, now)

    def _limit_passed(self, job: Job, limit: str, now: float) -> None:
        if limit == "hand_over":
            self._hand_over(job, now)
            return
        position = self.line.position(job)
        self.line.remove(job.id)
        if lacks_epoch(self.pool, job.want):
            epochs = epochs_for(self.pool, job.want)
            self._drop(job, epoch_not_reached(job, position, epochs, now), now)
        elif limit == "deadline":
            self._drop(job, deadline_passed(job, position, now), now)
        else:
            drained = self._drain.seconds(now)
            self._drop(job, waited_too_long(job, position, drained, now), now)

    def _hand_over(self, job: Job, now: float) -> None:
        """
        Give a job that has waited long enough to a worker over its limit, and those with it that
        have waited about as long.
        """
        tier = self.floor.tier(job.want, job.without)
        soon = now + _TOGETHER
        if tier is not None and not self.full:
            jobs = self.line.in_order([(job.want, job.without)])
            due = [each for each in jobs if each.hand_over is not None and each.hand_over <= soon]
            for each in due[: self.rules.max_running - self._open]:
                self.line.take(each)
                self._bind(each, self._placement.earliest(each, tier, now), now)
        if job.id in self.line:
            self._patience.set(job, "hand_over", soon)

    def _drop(self, job: Job, error: RouterError, now: float) -> None:
        name = "cancelled" if isinstance(error, Cancelled) else "dropped"
        self._tell(name, now, job, reason=error.reason)
        self._decisions.append(Dropped(job, error))

    # Jobs go out.

    def _decided(self) -> list[Decision]:
        decisions, self._decisions = self._decisions, []
        return decisions

    def _advance(self, now: float) -> None:
        """
        Do what is due, and give out what can be.
        """
        self._alarms.ring(now)
        for job, limit in self._patience.passed(now):
            self._limit_passed(job, limit, now)
        if not len(self.line):
            return
        if self.floor.stirred:
            self._drop_hopeless(now)
        self._dispatch(now)

    def _drop_hopeless(self, now: float) -> None:
        self.floor.stirred = False
        self.line.wake()
        for want, without in self.line.wants():
            error = hopeless(self.floor, want, without, waiting=True)
            if error is not None:
                for job in list(self.line.in_order([(want, without)])):
                    self.line.remove(job.id)
                    self._drop(job, copy(error), now)

    def _dispatch(self, now: float) -> None:
        while not self.line.resting and not self.full:
            if not self._bind_next(now):
                return

    def _bind_next(self, now: float) -> bool:
        ready: dict[Key, Tier] = {}
        for key in self.line.wants():
            tier = self.floor.tier(*key)
            if tier is None:
                self.line.rest(key)  # until workers have changed
            elif self._has_room(key, tier):
                ready[key] = tier
        if not ready:
            return False
        reserved: list[tuple[Tier, str, Load]] = []
        try:
            for looked, job in enumerate(self.line.in_order(ready), 1):
                tier = ready[job.want, job.without]
                station = self._placement.choose(job, tier, now, wait=looked < _LOOK_AHEAD)
                if isinstance(station, Station):
                    break
                # It ends sooner behind what another worker has: nobody else may count on that.
                if station is not None:
                    reserved += self._placement.reserve(station, ready.values())
            else:
                return False
        finally:
            for tier, url, load in reversed(reserved):
                tier.full.put(url, load)
        self.line.take(job)
        self._bind(job, station, now)
        return True

    def _has_room(self, key: Key, tier: Tier) -> bool:
        """
        Whether a worker of *tier* may be given a job of *key*.
        """
        want, without = key
        if not tier.has_room(without):
            return False
        if self.rules.concurrency or not (want.slot and self.floor.awaits(want, without)):
            return True
        # Who is the first to be back from an update would get all that waited for it.
        return self._placement.idles(tier, without)

    def _bind(self, job: Job, station: Station, now: float) -> None:
        start = self._placement.start(job, station, now)
        candidates = self._candidates(job, now) if job.why else ()
        running = self.floor.put(job, station, now)
        self._open += 1
        self._placement.placed(job, station)
        self.pool.count(station.worker, 1, sessions=int(job.want.session))
        end = start + running.seconds
        self._tell("bound", now, job, running, start=start, end=end)
        self._decisions.append(Bound(job, station.worker, start, end, candidates))

    def _candidates(self, job: Job, now: float) -> tuple[Candidate, ...]:
        tier = self.floor.tier(job.want, job.without)
        return () if tier is None else self._placement.candidates(job, tier, now)

    # Jobs end.

    def _close(self, running: Running) -> None:
        self.floor.close(running)
        self._open -= 1

    def _end(self, running: Running, now: float, took: float | None, well: bool) -> None:
        """
        A job is done. If its request is still open, that is to end too.
        """
        self.floor.free_slot(running, now)
        took = running.measured if took is None else took
        running.measured = None
        if well:
            self.floor.done(running, now, took)
        if not running.open:
            self.floor.remove(running, now)
            reason = "well" if well else "failed"
            self._tell("ended", now, running.job, running, took=took, reason=reason)

    def _tell(
        self,
        name: str,
        now: float,
        job: Job,
        running: Running | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        took: float | None = None,
        reason: str = "",
    ) -> None:
        if self._observers:
            worker = None if running is None else running.station.worker.url
            event = Event(name, now, job, worker, start, end, took, reason)
            for observer in self._observers:
                observer(event)
