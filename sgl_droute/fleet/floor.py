"""
All workers with what they have been given: the floor that the scheduler looks down on.

It follows the records of the pool and keeps the desks up to date. Who waits it does not know.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from attrs import define, field

from sgl_droute.fleet.alarms import Alarms
from sgl_droute.fleet.capabilities import Want
from sgl_droute.fleet.desk import Tier
from sgl_droute.fleet.desks import Desks
from sgl_droute.fleet.job import JOBS, Demand, Job
from sgl_droute.fleet.placement import Placement
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.station import Lane, Running, Station
from sgl_droute.fleet.worker import Worker

# By how much predictions of a worker change before the jobs that it has are predicted again; and
# by how much those of a usual worker before that is done at all that have done little.
_NOTABLE = 0.05
_GROSS = 0.3

# A job that its client left counts for at most so many times what is usual, or so many seconds.
_MANY_TIMES = 8
_A_WHILE = 60.0


@define(eq=False)
class Floor:
    """
    The stations of the workers of *pool*, and the jobs there.

    Args:
        pool: Whose records are followed.
        speeds: How long jobs take.
        rules: Options.
        alarms: Where it asks to be called when a prediction has come true, or not.

    Attributes:
        stations: The workers by URL.
        running: The jobs by id, in the order in which they were given out.
        stirred: Set when the workers have changed in what matters to a choice.
        placement: Chooses.
    """

    pool: Pool
    speeds: Speeds
    rules: Rules
    alarms: Alarms
    stations: dict[str, Station] = field(factory=dict, init=False)
    running: dict[str, Running] = field(factory=dict, init=False)
    stirred: bool = field(default=False, init=False)
    placement: Placement = field(init=False)
    desks: Desks = field(init=False)
    _under_way: bool = field(default=False, init=False)
    _usual: dict[tuple[str | None, str], tuple[Demand, float]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        rules = self.rules
        self.placement = Placement(
            self.stations,
            self.speeds,
            rules.algorithm == "least-work",
            rules.group_margin,
            rules.longest,
        )
        self.desks = self._made_desks()
        for worker in self.pool:
            self._came(worker)
        self.pool.watch(self._worker_changed)

    def adopt(self, rules: Rules, now: float) -> None:
        """
        Go by other rules from now on; who has been given what stays as it is.
        """
        self.rules = rules
        placement = self.placement
        placement.by_work = rules.algorithm == "least-work"
        placement.group_margin = rules.group_margin
        placement.longest = rules.longest
        self.desks = self._made_desks()
        for station in self.stations.values():
            station.usual_limit = rules.concurrency
            station.bind_ahead = rules.bind_ahead
            self.desks.came(station)
            self._predict_again(station, now)

    def _made_desks(self) -> Desks:
        rules = self.rules
        make = ALGORITHMS[rules.algorithm]
        return Desks(
            lambda: make(rules.random),
            self.placement.load,
            self.stations.values,
            strict_model=rules.strict_model,
        )

    def tier(self, want: Want, without: Collection[str] = ()) -> Tier | None:
        """
        The workers that a job may go to; None when there are none.
        """
        return self.desks.tier(want, without)

    def awaits(self, want: Want, without: Collection[str] = (), *, unable: bool = False) -> bool:
        """
        Whether an update keeps a worker from a job that it will take then; whether it is able
        matters unless *unable* ones count too.
        """
        return self.desks.desk(want).awaits(without, unable=unable)

    def model(self, want: Want, tier: Tier | None) -> str | None:
        """
        What is served by a worker of *tier*, or by one that may take jobs with that *want* later;
        None where that is not known.
        """
        url = self.desks.desk(want).someone() if tier is None else next(iter(tier.urls))
        return None if url is None else self.stations[url].worker.capabilities.model

    def put(self, job: Job, station: Station, now: float) -> Running:
        """
        Give *job* to the worker of *station*.
        """
        slot = job.want.slot
        seconds = self.placement.seconds(job, station) if slot else 0.0
        sure = slot and self.speeds.learned(station.worker, job.kind)
        alone = slot and not station.free and job.kind not in JOBS
        running = Running(job, station, seconds, sure, now, alone=alone)
        self.running[job.id] = running
        station.put(running, now, slot=slot)
        self._look(station, now)
        return running

    def close(self, running: Running) -> None:
        """
        The request of a job has ended, and that of its worker with it.

        Raises:
            ValueError: It had ended before.
        """
        if not running.open:
            raise ValueError(f"job {running.job.id} ended twice")
        sessions = int(running.job.want.session)
        self.pool.count(running.station.worker, -1, sessions=sessions)
        running.open = False

    def free_slot(self, running: Running, now: float) -> None:
        """
        The GPU has nothing to do with a job any more, nor with those before it that nobody would
        tell of.
        """
        if running.lane is None:
            return
        for ghost in running.station.overtaken(running):
            self.remove(ghost, now)
        running.station.free_slot(running, now)
        self._look(running.station, now)

    def remove(self, running: Running, now: float) -> None:
        """
        Forget a job.
        """
        self._forget(running, now)
        self._look(running.station, now)

    def has(self, running: Running) -> bool:
        """
        Whether a GPU of a worker that is still here works on a job, or will.
        """
        station = running.station
        return running.lane is not None and self.stations.get(station.worker.url) is station

    def abandon(self, running: Running, now: float) -> None:
        """
        Nobody will tell of the end of a job any more, unless it makes a thing: it is forgotten, or
        ends as predicted, within reason. The prediction is from what its client said.
        """
        if not self.has(running) and running.thing is None:
            self.remove(running, now)
        elif running.abandoned and self._expected(running) < running.seconds:
            self._predict_again(running.station, now)

    def done(self, running: Running, now: float, took: float | None) -> None:
        """
        A job was done well; learn from it, if it took GPU time.

        Args:
            took: Seconds of GPU time; None if nobody knows.
        """
        station, job = running.station, running.job
        if not job.want.slot:
            return
        self._under_way = True
        station.succeeded()
        if took is not None and not job.want.session:
            self._learn(station, job, took, now)

    def _learn(self, station: Station, job: Job, took: float, now: float) -> None:
        speeds, worker, kind = self.speeds, station.worker, job.kind
        model = worker.capabilities.model
        before = speeds.seconds(worker, kind, job.demand)
        demand, believed = self._usual.get((model, kind), (job.demand, 0.0))
        speeds.learn(worker, kind, job.demand, took)
        if _differ(before, speeds.seconds(worker, kind, job.demand), _NOTABLE):
            self._predict_again(station, now)
        usual = speeds.length(model, kind, demand)
        if _differ(believed, usual, _GROSS):
            self._usual[model, kind] = demand, usual
            for other in self.stations.values():
                # Of workers that have done little the usual speed of their model is believed, or
                # that of another model.
                if other.worker.speed is not None or not speeds.learned(other.worker, kind):
                    self._predict_again(other, now)

    def _predict_again(self, station: Station, now: float) -> None:
        """
        What was predicted of jobs before more was known would be believed until they end.
        """
        for lane in station.lanes:
            lane.predict_again(self._expected, now)
        self._look(station, now)

    def _expected(self, running: Running) -> float:
        seconds = self.placement.seconds(running.job, running.station)
        if not running.abandoned:
            return seconds
        usual = self.speeds.usual(running.station.worker, running.job.kind)
        return min(seconds, max(_MANY_TIMES * usual, _A_WHILE))

    # What workers become.

    def _worker_changed(self, before: Worker | None, now: Worker | None) -> None:
        if now is None:
            assert before is not None
            self._forget_ghosts(self.stations.pop(before.url))
            self.desks.left(before)
            self.speeds.forget(before.url)
        elif before is None:
            self._came(now)
        elif _matters(before, now):
            self._changed(before, now)
        else:
            self.stations[now.url].worker = now
            return
        self.stirred = True

    def _came(self, worker: Worker) -> None:
        rules = self.rules
        start = 1 if self._under_way else None
        station = Station(worker, rules.concurrency, rules.bind_ahead, start)
        self.stations[worker.url] = station
        self.desks.came(station)

    def _changed(self, before: Worker, now: Worker) -> None:
        station = self.stations[now.url]
        serves_other = before.capabilities != now.capabilities
        if serves_other:
            self.desks.left(before)
        station.changed(now)
        if serves_other:
            self.desks.came(station)
        if self._under_way and before.dead and not now.dead:
            station.start = 1
        if before.incarnation != now.incarnation:
            self._forget_ghosts(station)
        self._look(station, self.alarms.now)

    def _forget_ghosts(self, station: Station) -> None:
        """
        Forget the jobs of which only the prediction would tell when they end.
        """
        for ghost in station.forgotten():
            self._forget(ghost, self.alarms.now)

    def _forget(self, running: Running, when: float) -> None:
        running.station.remove(running, when)
        del self.running[running.job.id]

    # Looks at workers.

    def _look(self, station: Station, now: float) -> None:
        """
        Have the desks know how *station* is, and come back when that may have changed.
        """
        follow = station.look(now)
        if follow is not None and follow != station.watched:
            station.watched = follow
            self.alarms.at(follow, partial(self._look, station))
        for lane in station.lanes:
            end = lane.first_end
            if end and (lane.watched is None or end < lane.watched):
                lane.watched = end
                self.alarms.at(end, partial(self._should_have_ended, station, lane, end))
        if self.stations.get(station.worker.url) is station:
            self.desks.put(station)

    def _should_have_ended(self, station: Station, lane: Lane, when: float, now: float) -> None:
        """
        The first job of *lane* has ended if nobody would tell of that; else it is late.
        """
        if lane.watched != when:
            return  # an earlier look was asked for since
        lane.watched = None
        first, end = lane.first, lane.first_end
        if first is not None and end <= now:
            if first.abandoned:
                # The next one began then, even if nobody looks before now.
                self._forget(first, end)
            else:
                lane.extend(now)
        self._look(station, now)


def _differ(before: float, now: float, share: float) -> bool:
    """
    Whether a prediction changed by more than this *share*.
    """
    return abs(now - before) > share * before


def _matters(before: Worker, now: Worker) -> bool:
    """
    Whether anything differs that a desk or a station sees of a worker.
    """
    return (
        before.eligible != now.eligible
        or before.catching_up != now.catching_up
        or before.updating != now.updating
        or before.stale != now.stale
        or before.epoch != now.epoch
        or before.actual is not now.actual
        or before.doubtful != now.doubtful
        or before.in_session != now.in_session
        or before.capabilities != now.capabilities
        or before.concurrency != now.concurrency
        or before.speed != now.speed
        or before.incarnation != now.incarnation
        or before.dead != now.dead
    )
