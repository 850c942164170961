"""
The order of one client's jobs: first come, first served; those of a rollout batch longest first.

It knows neither other clients nor priorities: `sgl_droute.fleet.line` has those.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from attrs import define, field

from sgl_droute.fleet.job import Job

# When it is due, in seconds on the clock of the jobs, and the number of the job that brought it.
Place = tuple[float, int]


@define(eq=False)
class _Group:
    """Jobs of one group that wait, kept together by the number of the first."""

    first: int
    waiting: int = 0


@define(eq=False)
class Batch:
    """
    Jobs of one rollout batch: longest first, groups of equally long ones together, and then in
    order of arrival.

    Attributes:
        places: Where they stand among others, in order: the first job fills the first place.
    """

    places: list[Place] = field(factory=list, init=False)
    _jobs: list[tuple[float, int, int, Job]] = field(factory=list, init=False)
    _ranks: dict[Job, tuple[float, int, int]] = field(factory=dict, init=False)
    _groups: dict[str, _Group] = field(factory=dict, init=False)

    def put(self, job: Job, place: Place) -> None:
        """
        Let *job* wait too; *place* is one more for all of them.
        """
        first = job.number
        if job.group is not None:
            group = self._groups.setdefault(job.group, _Group(job.number))
            group.waiting += 1
            first = group.first
        rank = self._ranks[job] = (-job.length, first, job.number)
        insort(self._jobs, (*rank, job))
        insort(self.places, place)

    def place(self, job: Job) -> Place:
        """
        The place that *job* fills.
        """
        return self.places[self._index(job)]

    def discard(self, job: Job) -> None:
        """
        Let *job* leave with the place that it fills; the others keep theirs.
        """
        index = self._index(job)
        del self._jobs[index], self.places[index], self._ranks[job]
        if job.group is not None:
            group = self._groups[job.group]
            group.waiting -= 1
            if not group.waiting:
                del self._groups[job.group]

    def _index(self, job: Job) -> int:
        return bisect_left(self._jobs, self._ranks[job])

    def __iter__(self) -> Iterator[Job]:
        return (job for _, _, _, job in self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)


@define(eq=False)
class Queue:
    """
    Jobs of one client, in the order in which it would have them served.

    Each has brought a place. A job without a batch fills its own; jobs of a batch share theirs.

    Attributes:
        turn: When it is this client's turn, compared with others: lower is sooner.
        places: In order, with those who fill them.
    """

    turn: int
    places: list[tuple[Place, Job | Batch]] = field(factory=list, init=False)
    _own: dict[Job, Place] = field(factory=dict, init=False)
    _batches: dict[str, Batch] = field(factory=dict, init=False)

    def put(self, job: Job, place: Place) -> None:
        """
        Let *job* wait too.
        """
        if job.batch is None:
            self._own[job] = place
            insort(self.places, (place, job))
        else:
            batch = self._batches.setdefault(job.batch, Batch())
            batch.put(job, place)
            insort(self.places, (place, batch))

    def place(self, job: Job) -> Place:
        """
        The place that *job* fills.
        """
        return self._own[job] if job.batch is None else self._batches[job.batch].place(job)

    def index(self, job: Job) -> int:
        """
        How many jobs stand before *job*.
        """
        return bisect_left(self.places, (self.place(job),))

    def discard(self, job: Job) -> None:
        """
        Let *job* leave with the place that it fills; the others keep theirs.
        """
        del self.places[self.index(job)]
        if job.batch is None:
            del self._own[job]
        else:
            batch = self._batches[job.batch]
            batch.discard(job)
            if not batch:
                del self._batches[job.batch]

    def __iter__(self) -> Iterator[Job]:
        longest: dict[Batch, Iterator[Job]] = {}
        for _, owner in self.places:
            if isinstance(owner, Job):
                yield owner
            else:
                if owner not in longest:
                    longest[owner] = iter(owner)
                yield next(longest[owner])

    def __len__(self) -> int:
        return len(self.places)
