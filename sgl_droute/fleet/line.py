"""
The jobs that wait for a worker, in the order in which they are to be served.

A job brings a place: its time of arrival, brought forward by `Line.ageing` seconds for each level
of priority. So higher priority goes first, but only before those that have not waited that much
longer: nobody starves. Jobs of one key and priority share their places: client by client in turns
if that is wished, and those of a rollout batch longest first, see `sgl_droute.fleet.batches`.

It knows no workers and no time: who may be served now is up to `sgl_droute.fleet.scheduler`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from itertools import count
from weakref import WeakKeyDictionary

from attrs import define, field, frozen

from sgl_droute.fleet.batches import Place, Queue
from sgl_droute.fleet.capabilities import Want
from sgl_droute.fleet.job import Job

# Jobs of one key may go to the same workers.
Key = tuple[Want, frozenset[str]]


def key_of(job: Job) -> Key:
    """
    What *job* wants, and the workers that are out of the question for it.
    """
    return job.want, job.without


@frozen
class Seat:
    """
    Where a job stands, or stood when it left.

    Attributes:
        place: Among all that wait.
        own: Among the jobs of its client.
        turn: The turn of its client, compared with others: lower is sooner.
    """

    place: Place
    own: Place
    turn: int


@define(eq=False)
class Level:
    """
    Jobs of one key and priority: as many places as jobs, filled by the clients in turns.

    A client that comes anew has the last turn, and so has one that was served.

    Args:
        turns: Gives a turn later than all before; one for the whole line.

    Attributes:
        seconds: How long the jobs are expected to take on one usual worker.
    """

    turns: Iterator[int]
    seconds: float = field(default=0.0, init=False)
    _places: list[Place] = field(factory=list, init=False)
    _clients: dict[str, Queue] = field(factory=dict, init=False)
    _round: list[tuple[int, Queue]] = field(factory=list, init=False)

    def put(self, client: str, job: Job, seat: Seat) -> None:
        """
        Let *job* of *client* wait; the client's turn is that of *seat* if it had a later one.
        """
        insort(self._places, seat.place)
        self.seconds += job.length
        queue = self._clients.get(client)
        if queue is None:
            queue = self._clients[client] = Queue(seat.turn)
            insort(self._round, (queue.turn, queue))
        elif seat.turn < queue.turn:
            self._give_turn(queue, seat.turn)
        queue.put(job, seat.own)

    def leave(self, client: str, job: Job, *, served: bool) -> Seat:
        """
        Let *job* of *client* leave with the place that it fills; if it is *served* the client has
        had its turn. Where it stood.
        """
        self.seconds -= job.length
        queue = self._clients[client]
        place = self._places.pop(self._rank(queue, queue.index(job)))
        seat = Seat(place, queue.place(job), queue.turn)
        queue.discard(job)
        if not queue:
            del self._clients[client], self._round[self._turn_index(queue)]
        elif served:
            self._give_turn(queue, next(self.turns))
        return seat

    def place(self, client: str, job: Job) -> Place:
        """
        The place that *job* of *client* fills.
        """
        queue = self._clients[client]
        return self._places[self._rank(queue, queue.index(job))]

    def before(self, place: Place) -> int:
        """
        How many jobs stand before *place*.
        """
        return bisect_left(self._places, place)

    def in_order(self) -> tuple[Place, Iterator[Place], Iterator[Job]]:
        """
        The first place, the others, and the jobs that fill them, lazily.
        """
        places = iter(self._places)
        return next(places), places, self._in_turns()

    def _in_turns(self) -> Iterator[Job]:
        waiting: Iterable[Iterator[Job]] = (iter(queue) for _, queue in self._round)
        while waiting:
            served = []
            for jobs in waiting:
                for job in jobs:
                    yield job
                    served.append(jobs)
                    break
            waiting = served

    def _rank(self, queue: Queue, index: int) -> int:
        """
        How many jobs of all clients stand before the one that stands at *index* in *queue*.
        """
        sooner = self._turn_index(queue)
        if not index:
            return sooner
        sizes = [len(queue.places) for _, queue in self._round]
        in_whole_rounds = sum([index if size > index else size for size in sizes])
        return in_whole_rounds + sum([size > index for size in sizes[:sooner]])

    def _give_turn(self, queue: Queue, turn: int) -> None:
        del self._round[self._turn_index(queue)]
        queue.turn = turn
        insort(self._round, (turn, queue))

    def _turn_index(self, queue: Queue) -> int:
        return bisect_left(self._round, (queue.turn,))

    def __len__(self) -> int:
        return len(self._places)


@define(eq=False)
class Line:
    """
    The jobs that wait.

    While a job waits its fields must stay as they are. One that left, served or not, keeps its
    place as long as the object lives: put again, it stands where it stood, and its client has back
    the turn that it took.

    Args:
        fair: Whether clients are served in turns within a key and priority.
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
        return Seat(place, place, next(self._turns))

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, id: object) -> bool:
        return id in self._jobs
