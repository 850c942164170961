"""
One worker as the scheduler pictures it: what it has been given, what runs, when it is free.

A worker works on one job after the other on each of its replicas, in the order of arrival, and
never gives one back. All seconds here are predictions until a job has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, field

from sgl_droute.fleet.job import Job
from sgl_droute.fleet.worker import Concurrency, Worker

# A job that outlives its prediction is expected to take this much longer in all, again and again.
_LONGER = 1.25
_AT_LEAST = 0.1

# Jobs that a worker which came lately may be given at once, beyond which it counts as settled.
_SETTLED = 16


@define(eq=False)
class Running:
    """
    A job at its worker.

    Attributes:
        station: Its worker.
        seconds: How long it is expected to take there.
        sure: Whether that rests on measurements of this worker.
        bound: When it was given to the worker.
        alone: Whether what it takes can be seen: it began when it was given to the worker.
        lane: Where it stands in line there; None when the GPU has nothing to do with it.
        measured: How long it took, if that was seen (seconds).
        open: Whether its request is open: somebody will tell of its end.
        thing: Kind and id of the video or mesh it makes, which outlives its request.
    """

    job: Job
    station: Station
    seconds: float
    sure: bool
    bound: float
    alone: bool
    lane: Lane | None = None
    measured: float | None = None
    open: bool = True
    thing: tuple[str, str] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody will tell of its end, so that its prediction has to do."""
        return not self.open and self.thing is None


@define(eq=False)
class Lane:
    """
    The jobs of one replica, the first of which runs.

    Attributes:
        watched: When somebody looks at it next; None if nobody does.
    """

    watched: float | None = field(default=None, init=False)
    _jobs: dict[str, Running] = field(factory=dict, init=False)
    _began: float = field(default=0.0, init=False)
    _seconds: float = field(default=0.0, init=False)
    _others: float = field(default=0.0, init=False)

    @property
    def first(self) -> Running | None:
        """The job that runs."""
        return next(iter(self._jobs.values()), None)

    @property
    def first_end(self) -> float:
        """When the job that runs will have ended; 0 if there is none."""
        return self._began + self._seconds if self._jobs else 0.0

    @property
    def free(self) -> float:
        """When all will have ended; 0 if there is none."""
        return self.first_end + self._others

    def late(self, now: float) -> float:
        """
        Seconds since the job that runs should have ended, as it was predicted before that.
        """
        first = self.first
        return 0.0 if first is None else now - self._began - first.seconds

    def put(self, running: Running, now: float) -> None:
        """
        Add a job at the end.
        """
        running.lane = self
        if self._jobs:
            self._others += running.seconds
        else:
            self._began, self._seconds = now, running.seconds
        self._jobs[running.job.id] = running

    def drop(self, running: Running, now: float) -> None:
        """
        Take a job out, wherever it stands.
        """
        running.lane = None
        was_first = self.first is running
        del self._jobs[running.job.id]
        first = self.first
        if not was_first:
            self._others -= running.seconds
        elif first is not None:
            self._began, self._seconds = now, first.seconds
            self._others -= first.seconds
        if len(self._jobs) < 2:
            self._others = 0.0  # nor what rounding left

    def ahead_of(self, running: Running) -> list[Running]:
        """
        The jobs before *running*.
        """
        jobs = list(self._jobs.values())
        return jobs[: jobs.index(running)]

    def plan(self) -> Iterator[tuple[Running, float, float]]:
        """
        Each job with its predicted start and end.
        """
        start, end = self._began, self.first_end
        for running in self._jobs.values():
            end = end if running is self.first else start + running.seconds
            yield running, start, end
            start = end

    def extend(self, now: float) -> None:
        """
        Give the job that runs more time: it should have ended by *now*.
        """
        elapsed = now - self._began
        self._seconds = max(_LONGER * max(self._seconds, elapsed), elapsed + _AT_LEAST)

    def predict_again(self, seconds: Callable[[Running], float], now: float) -> None:
        """
        Have each job take what *seconds* says by now; the one that runs ends at *now* or later.
        """
        self._others = 0.0
        for running in self._jobs.values():
            running.seconds = seconds(running)
            if running is self.first:
                self._seconds = max(running.seconds, now - self._began)
            else:
                self._others += running.seconds

    def __len__(self) -> int:
        return len(self._jobs)


@define(eq=False)
class Station:
    """
    One worker's slots and what is in them.

    Args:
        worker: Its record as it is now.
        usual_limit: The limit of workers that have none of their own.
        bind_ahead: Seconds before the predicted end of a job at which an ``auto`` limit lets the
            next one follow.
        start: Jobs it may be given at once for a start (count); None when it is settled.

    Attributes:
        room: Whether it may be given one more job; see `look`.
        lanes: One for each replica.
        watched: When somebody looks at its room next, if that may change by time alone.
    """

    worker: Worker
    usual_limit: Concurrency = 0
    bind_ahead: float = 1.0
    start: int | None = None
    room: bool = field(default=True, init=False)
    lanes: list[Lane] = field(factory=list, init=False)
    watched: float | None = field(default=None, init=False)
    _jobs: dict[str, Running] = field(factory=dict, init=False)
    _taken: int = field(default=0, init=False)
    _taken_since: float = field(default=0.0, init=False)
    _worked: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.changed(self.worker)
        self.look(0.0)

    @property
    def count(self) -> int:
        """Requests and jobs that it has before it, answers on their way included."""
        return len(self._jobs)

    @property
    def taken(self) -> int:
        """Slots that are in use."""
        return self._taken

    def worked(self, now: float) -> float:
        """
        Seconds by *now* in which any of its slots was in use.
        """
        return self._worked + (now - self._taken_since if self._taken else 0.0)

    @property
    def limit(self) -> int:
        """Its slots; 0 for no limit."""
        limit = self._concurrency
        return len(self.lanes) if limit == "auto" else limit

    @property
    def held_back(self) -> bool:
        """Whether it came lately, has no limit, and has as much as it should have for a start."""
        return self.start is not None and not self.limit and self._taken >= self.start

    @property
    def free(self) -> float:
        """When one of its replicas will have nothing to do; 0 when one has nothing now."""
        lanes = self.lanes
        return lanes[0].free if len(lanes) == 1 else min(lane.free for lane in lanes)

    def look(self, now: float) -> float | None:
        """
        Find out whether there is room for one more, and when that may change by time alone.
        """
        limit = self.limit
        follow: float | None = None
        if self.start is not None:
            limit = min(limit, self.start)
        elif self._concurrency == "auto":
            ends = [lane.free - self.bind_ahead for lane in self.lanes if _ends_soon(lane)]
            limit += sum(end <= now for end in ends)
            follow = min((end for end in ends if end > now), default=None)
        self.room = not self.limit or self._taken < limit
        return None if self.room else follow

    def put(self, running: Running, now: float, *, slot: bool) -> None:
        """
        Add a job: to the replica that is free first if it takes a *slot*.
        """
        self._jobs[running.job.id] = running
        if slot:
            if not self._taken:
                self._taken_since = now
            self._taken += 1
            lanes = self.lanes
            lane = lanes[0] if len(lanes) == 1 else min(lanes, key=lambda lane: lane.free)
            lane.put(running, now)

    def free_slot(self, running: Running, now: float) -> None:
        """
        The GPU has nothing to do with that job any more.
        """
        if running.lane is None:
            return
        if running.alone:
            running.measured = now - running.bound
        running.lane.drop(running, now)
        self._taken -= 1
        if not self._taken:
            self._worked += now - self._taken_since
        if len(self.lanes) > self.worker.capabilities.replicas:
            self.changed(self.worker)  # one of them was kept for its jobs

    def remove(self, running: Running, now: float) -> None:
        """
        Forget a job.
        """
        self.free_slot(running, now)
        del self._jobs[running.job.id]

    def overtaken(self, running: Running) -> list[Running]:
        """
        The abandoned jobs that must have ended, as *running* has.
        """
        if running.lane is None or len(self.lanes) > 1:
            return []
        return [other for other in running.lane.ahead_of(running) if other.abandoned]

    def forgotten(self) -> list[Running]:
        """
        The abandoned jobs, of which a new process knows nothing.
        """
        return [running for running in self._jobs.values() if running.abandoned]

    def succeeded(self) -> None:
        """
        Take note that it did a job well: one that came lately may have more at once.
        """
        if self.start is not None:
            self.start *= 2
            if self.start >= _SETTLED or 0 < self.limit <= self.start:
                self.start = None

    def changed(self, worker: Worker) -> None:
        """
        Take note of the record as it is now.
        """
        self.worker = worker
        replicas = max(1, worker.capabilities.replicas)
        self.lanes += [Lane() for _ in range(replicas - len(self.lanes))]
        idle = (lane for lane in reversed(self.lanes) if not len(lane))
        for lane in list(idle)[: len(self.lanes) - replicas]:
            self.lanes.remove(lane)

    @property
    def _concurrency(self) -> Concurrency:
        own = self.worker.concurrency
        return self.usual_limit if own is None else own


def _ends_soon(lane: Lane) -> bool:
    """
    Whether the next job may be given to *lane* just before the one that runs has ended.
    """
    first = lane.first
    return first is not None and len(lane) == 1 and first.sure
