"""
The jobs that wait for a worker, in the order in which they are to be served.

A job brings a place: its time of arrival, brought forward by `Line.ageing` seconds for each level
of priority. So higher priority goes first, but only before those that have not waited that much
longer: nobody starves. Jobs of one key and priority share their places: client by client in turns
if that is wished, as many jobs in a turn as the client has shares, and those of a rollout batch
longest first, see `sgl_droute.fleet.batches`.

It knows no workers and no time: who may be served now is up to `sgl_droute.fleet.scheduler`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heapreplace
from itertools import count
from weakref import WeakKeyDictionary

from attrs import define, field

from sgl_droute.fleet.capabilities import Want
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.level import Level, Seat, whole_share

# Jobs of one key may go to the same workers.
Key = tuple[Want, frozenset[str]]


def key_of(job: Job) -> Key:
    """
    What *job* wants, and the workers that are out of the question for it.
    """
    return job.want, job.without


@define(eq=False)
class Line:
    """
    The jobs that wait.

    While a job waits its fields must stay as they are. One that left, served or not, keeps its
    place as long as the object lives: put again, it stands where it stood, and its client has back
    the turn that it took.

    Args:
        fair: Whether clients are served in turns within a key and priority, as many jobs in a turn
            as their shares, rounded.
        ageing: Seconds of waiting that count as much as one level of priority.
    """

    fair: bool = field(default=False, kw_only=True)
    ageing: float = field(default=60.0, kw_only=True)
    _jobs: dict[str, tuple[Job, Key]] = field(factory=dict, init=False)
    _levels: dict[Key, dict[int, Level]] = field(factory=dict, init=False)
    _awake: dict[Key, None] = field(factory=dict, init=False)
    _batches: dict[str, dict[str, Job]] = field(factory=dict, init=False)
    _seconds: float = field(default=0.0, init=False)
    _turns: Iterator[int] = field(factory=count, init=False)
    _left: WeakKeyDictionary[Job, Seat] = field(factory=WeakKeyDictionary, init=False)

    def put(self, job: Job) -> None:
        """
        Let *job* wait; its ``number``, unique, and its ``length`` are set.

        Raises:
            ValueError: A job of that id waits.
        """
        if job.id in self._jobs:
            raise ValueError(f"Job {job.id} waits already")
        key = key_of(job)
        levels = self._levels.get(key)
        if levels is None:
            levels = self._levels[key] = {}
            self._awake[key] = None
        level = levels.get(job.priority)
        if level is None:
            level = levels[job.priority] = Level(self._turns)
        level.put(self._client(job), job, self._left.get(job) or self._last_seat(job))
        self._jobs[job.id] = job, key
        self._seconds += job.length
        if job.batch is not None:
            self._batches.setdefault(job.batch, {})[job.id] = job

    def take(self, job: Job) -> None:
        """
        Let *job* go to a worker, wherever it stands: its client has had its turn.

        Raises:
            KeyError: It does not wait.
        """
        self._leave(job.id, served=True)

    def remove(self, id: str) -> Job | None:
        """
        The job *id*, which leaves unserved: nobody else's turn changes. None if it does not wait.
        """
        return self._leave(id, served=False) if id in self._jobs else None

    def get(self, id: str) -> Job | None:
        """
        The job *id*; None if it does not wait.
        """
        waiting = self._jobs.get(id)
        return None if waiting is None else waiting[0]

    def wants(self) -> list[Key]:
        """
        The keys of all that wait, but for those that `rest`.
        """
        return list(self._awake)

    @property
    def resting(self) -> bool:
        """Whether all that wait `rest`, or nobody waits."""
        return not self._awake

    def rest(self, key: Key) -> None:
        """
        Let those of *key*, whom nobody can serve, wait until all `wake`.
        """
        self._awake.pop(key, None)

    def wake(self) -> None:
        """
        Let nobody `rest` any more.
        """
        self._awake = dict.fromkeys(self._levels)

    def in_order(self, keys: Collection[Key] | None = None) -> Iterator[Job]:
        """
        The jobs of *keys*, each named once, in the order in which they are to be served; all that
        wait if None. Lazily: the line must not change meanwhile.
        """
        chosen = self._levels if keys is None else keys
        levels = [
            level.in_order() for key in chosen for level in self._levels.get(key, {}).values()
        ]
        heapify(levels)
        while levels:
            _, places, jobs = levels[0]
            yield next(jobs)
            place = next(places, None)
            if place is None:
                heappop(levels)
            else:
                heapreplace(levels, (place, places, jobs))

    def take_turns(self, fair: bool) -> None:
        """
        Have clients served in turns from now on if that is *fair*, else all in order of arrival;
        no client's own jobs change their order, but for those of a batch that clients share, which
        is one where they do not take turns.
        """
        if fair == self.fair:
            return
        jobs = list(self.in_order())
        for job in jobs:
            self._leave(job.id, served=False)
        self.fair = fair
        for job in [*jobs, *(set(self._left) - set(jobs))]:
            own = self._left[job].own
            self._left[job] = Seat(own, own, next(self._turns), whole_share(job.share))
        for job in jobs:
            self.put(job)

    def of_batch(self, batch: str) -> list[Job]:
        """
        The jobs of the rollout batch *batch*, in order of arrival.
        """
        return sorted(self._batches.get(batch, {}).values(), key=lambda job: job.number)

    def seconds(self) -> float:
        """
        How long all that waits is expected to take on one usual worker.
        """
        return self._seconds

    def seconds_by_key(self) -> list[tuple[Key, float]]:
        """
        As `seconds`, of those of each key, also of those that `rest`.
        """
        levels = self._levels.items()
        return [(key, sum(level.seconds for level in each.values())) for key, each in levels]

    def seconds_ahead(self, job: Job) -> float:
        """
        As `seconds`, of the jobs that *job*, new in line, would have before it: those that want the
        same with its priority or a higher one.
        """
        levels = self._levels.get(key_of(job), {}).items()
        return sum(level.seconds for priority, level in levels if priority >= job.priority)

    def position(self, job: Job) -> int:
        """
        Where *job*, which waits, stands among all: 1 for the next.
        """
        _, key = self._jobs[job.id]
        place = self._levels[key][job.priority].place(self._client(job), job)
        levels = (level for each in self._levels.values() for level in each.values())
        return 1 + sum(level.before(place) for level in levels)

    def _leave(self, id: str, *, served: bool) -> Job:
        job, key = self._jobs.pop(id)
        levels = self._levels[key]
        level = levels[job.priority]
        self._left[job] = level.leave(self._client(job), job, served=served)
        if not level:
            del levels[job.priority]
        if not levels:
            del self._levels[key]
            self._awake.pop(key, None)
        if job.batch is not None:
            batch = self._batches[job.batch]
            del batch[id]
            if not batch:
                del self._batches[job.batch]
        # Nothing of the rounding errors outlives a busy time.
        self._seconds = self._seconds - job.length if self._jobs else 0.0
        return job

    def _client(self, job: Job) -> str:
        return job.client if self.fair else ""

    def _last_seat(self, job: Job) -> Seat:
        place = (job.submitted - self.ageing * job.priority, job.number)
        return Seat(place, place, next(self._turns), whole_share(job.share))

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, id: object) -> bool:
        return id in self._jobs
