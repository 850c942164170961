"""
Jobs that want the same with the same priority, in the order in which clients take turns.

It knows neither other levels nor the line: `sgl_droute.fleet.line` has those.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice

from attrs import define, field, frozen

from sgl_droute.fleet.batches import Place, Queue
from sgl_droute.fleet.job import Job


def whole_share(share: float) -> int:
    """
    How many jobs a client with that *share* is served in a turn, 1 or more.
    """
    return max(1, round(share))


@frozen
class Seat:
    """
    Where a job stands, or stood when it left.

    Attributes:
        place: Among all that wait.
        own: Among the jobs of its client.
        turn: The turn of its client, compared with others: lower is sooner.
        left: Jobs that its client had yet to be served in that turn, this one included (count).
        served: Whether it was one of them.
    """

    place: Place
    own: Place
    turn: int
    left: int = 1
    served: bool = False


@define(eq=False)
class Client(Queue):
    """
    The jobs of one client, and its turns.

    Attributes:
        share: Jobs that it is served in a turn (count).
        left: How many of these are left in the turn that it has or waits for.
    """

    share: int = field(default=1, init=False)
    left: int = field(default=1, init=False)

    def in_rounds(self, rounds: int) -> int:
        """
        How many of its jobs are served in its next *rounds* turns.
        """
        return min(self.left + self.share * (rounds - 1), len(self.places)) if rounds else 0

    def round_of(self, index: int) -> int:
        """
        How many whole turns it has before the one in which the job at *index* is served.
        """
        return 0 if index < self.left else 1 + (index - self.left) // self.share


@define(eq=False)
class Level:
    """
    Jobs of one key and priority: as many places as jobs, filled by the clients in turns.

    A client that comes anew has the last turn, and so has one that was served as many jobs as it
    has shares.

    Args:
        turns: Gives a turn later than all before; one for the whole line.

    Attributes:
        seconds: How long the jobs are expected to take on one usual worker.
    """

    turns: Iterator[int]
    seconds: float = field(default=0.0, init=False)
    _places: list[Place] = field(factory=list, init=False)
    _clients: dict[str, Client] = field(factory=dict, init=False)
    _round: list[tuple[int, Client]] = field(factory=list, init=False)
    _with_shares: int = field(default=0, init=False)

    def put(self, client: str, job: Job, seat: Seat) -> None:
        """
        Let *job* of *client* wait; the client's turn is that of *seat* if it had a later one, and
        it is served once more in it if it was for this job.
        """
        insort(self._places, seat.place)
        self.seconds += job.length
        queue = self._clients.get(client)
        if queue is None:
            queue = self._clients[client] = Client(seat.turn)
            insort(self._round, (queue.turn, queue))
            queue.left = 1 if seat.served else seat.left
        elif seat.turn < queue.turn:
            self._give_turn(queue, seat.turn)
            queue.left = 1
        elif seat.turn == queue.turn:
            queue.left += seat.served
        self._give_share(queue, whole_share(job.share))
        queue.put(job, seat.own)

    def leave(self, client: str, job: Job, *, served: bool) -> Seat:
        """
        Let *job* of *client* leave with the place that it fills; if it is *served* the client has
        had its turn. Where it stood.
        """
        self.seconds -= job.length
        queue = self._clients[client]
        place = self._places.pop(self._rank(queue, queue.index(job)))
        seat = Seat(place, queue.place(job), queue.turn, queue.left, served)
        queue.discard(job)
        if not queue:
            self._give_share(queue, 1)
            del self._clients[client], self._round[self._turn_index(queue)]
        elif served and queue.left > 1:
            queue.left -= 1
        elif served:
            self._give_turn(queue, next(self.turns))
            queue.left = queue.share
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
        waiting: Iterable[tuple[Iterator[Job], int, int]] = (
            (iter(queue), queue.left, queue.share) for _, queue in self._round
        )
        while waiting:
            served = []
            for jobs, turn, share in waiting:
                count = 0
                for job in islice(jobs, turn):
                    yield job
                    count += 1
                if count == turn:
                    served.append((jobs, share, share))
            waiting = served

    def _rank(self, queue: Client, index: int) -> int:
        """
        How many jobs of all clients stand before the one that stands at *index* in *queue*.
        """
        sooner = self._turn_index(queue)
        if not self._with_shares:
            return self._rank_in_single_turns(sooner, index)
        rounds = queue.round_of(index)
        before = sum([each.in_rounds(rounds + 1) for _, each in self._round[:sooner]])
        if rounds:
            before += sum([each.in_rounds(rounds) for _, each in self._round[sooner + 1 :]])
        return before + index

    def _rank_in_single_turns(self, sooner: int, index: int) -> int:
        if not index:
            return sooner
        sizes = [len(queue.places) for _, queue in self._round]
        in_whole_rounds = sum([index if size > index else size for size in sizes])
        return in_whole_rounds + sum([size > index for size in sizes[:sooner]])

    def _give_turn(self, queue: Client, turn: int) -> None:
        del self._round[self._turn_index(queue)]
        queue.turn = turn
        insort(self._round, (turn, queue))

    def _give_share(self, queue: Client, share: int) -> None:
        self._with_shares += (share > 1) - (queue.share > 1)
        queue.share = share
        queue.left = min(queue.left, share)

    def _turn_index(self, queue: Client) -> int:
        return bisect_left(self._round, (queue.turn,))

    def __len__(self) -> int:
        return len(self._places)
