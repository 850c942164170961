"""
The scheduler on the reactor: jobs wait for their turn, and get a worker.

What is decided, and why, is up to `sgl_droute.fleet.scheduler`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sgl_droute.errors import RouterError
from sgl_droute.fleet.decisions import Bound, Decision, Dropped
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.worker import Worker

Waiting = Callable[[], AbstractContextManager[object]]


@define(eq=False)
class Turns:
    """
    Gives jobs their turns.

    Args:
        scheduler: Decides; it is told of everything through this.
        clock: Provides the time.
    """

    scheduler: Scheduler
    clock: IReactorTime
    _waiting: dict[str, Deferred[Bound]] = field(factory=dict, init=False)
    _decisions: deque[Decision] = field(factory=deque, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _deciding: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.scheduler.pool.watch(lambda before, now: self._arm())

    @property
    def pool(self) -> Pool:
        """The fleet."""
        return self.scheduler.pool

    @property
    def algorithm(self) -> str:
        """The name of the routing algorithm."""
        return self.scheduler.rules.algorithm

    @property
    def several_models(self) -> bool:
        """Whether it matters which model a request names."""
        return self.scheduler.floor.desks.several_models

    def adopt(self, rules: Rules) -> None:
        """
        Go by other rules from now on; see `Scheduler.adopt`.
        """
        self._carry_out(self.scheduler.adopt(rules, self.now()))

    async def submitted(self, job: Job, waiting: Waiting = nullcontext) -> Bound:
        """
        The worker for a new job, when it has one; its client may leave meanwhile.

        Args:
            waiting: Makes a context in which the job waits, if it has to.

        Raises:
            RouterError: It was refused, or let go.
        """
        with self._others_told():
            decisions = self.scheduler.submit(job, self.now())
        return await self._turn(job, decisions, waiting)

    async def once_more(self, job: Job, waiting: Waiting = nullcontext) -> Bound:
        """
        As `submitted`, for a job whose worker was not reached.
        """
        with self._others_told():
            decisions = self.scheduler.unreached(job.id, self.now())
        return await self._turn(job, decisions, waiting)

    def answered(self, job: Job) -> None:
        """
        The GPU is done with a job, whose answer begins.
        """
        self._carry_out(self.scheduler.answered(job.id, self.now()))

    def made(self, job: Job, kind: str, id: str) -> None:
        """
        A job makes the video or mesh with that id.
        """
        self.scheduler.made(job.id, (kind, id))

    def finish(self, job: Job, *, took: float | None, well: bool) -> None:
        """
        The request of a job has ended; see `Scheduler.finish`.
        """
        self._carry_out(self.scheduler.finish(job.id, self.now(), took=took, well=well))

    def abandon(self, job: Job) -> None:
        """
        Nobody waits for a job any more; see `Scheduler.abandon`.
        """
        self._carry_out(self.scheduler.abandon(job.id, self.now()))

    def cancel(self, id: str) -> None:
        """
        Take a job out of the line; see `Scheduler.cancel`.
        """
        self._carry_out(self.scheduler.cancel(id, self.now()))

    def opened(self, kind: str, id: str, worker: Worker) -> None:
        """
        A worker has a video or mesh before it; see `Scheduler.thing_opened`.
        """
        self.scheduler.thing_opened((kind, id), worker, self.now())

    def ended(self, kind: str, id: str, took: float | None, well: bool) -> None:
        """
        A video or mesh is made, or will not be; see `Scheduler.thing_ended`.
        """
        thing = kind, id
        self._carry_out(self.scheduler.thing_ended(thing, self.now(), took=took, well=well))

    def expected(self, kind: str, id: str) -> float | None:
        """
        Seconds that a video or mesh is expected to take; None for one that is not known.
        """
        return self.scheduler.expected((kind, id))

    def at_work(self, worker: Worker) -> bool:
        """
        Whether *worker* has work that takes GPU time, as far as is known.
        """
        station = self.scheduler.floor.stations.get(worker.url)
        return station is not None and station.taken > 0

    def look(self) -> None:
        """
        Have everything done that is due.
        """
        self._carry_out(self.scheduler.tick(self.now()))

    def now(self) -> float:
        """
        The time on the scheduler's clock (seconds).
        """
        return self.clock.seconds()

    async def _turn(self, job: Job, decisions: list[Decision], waiting: Waiting) -> Bound:
        first = decisions[0] if len(decisions) == 1 else None
        if type(first) is Bound and first.job is job:
            return first
        turn = self._waiting[job.id] = Deferred(lambda _: self._left(job))
        self._carry_out(decisions)
        if turn.called:
            return await turn
        bound: Bound | None = None
        try:
            with waiting():
                bound = await turn
        except Exception:
            # What it waited in, or was to wait in, may have failed: no worker has seen anything.
            if bound is not None:
                self.finish(job, took=None, well=False)
            elif not turn.called:
                turn.addErrback(lambda left: None)
                turn.cancel()
            raise
        return bound

    @contextmanager
    def _others_told(self) -> Iterator[None]:
        """
        Have others know what was decided for them even if the job within is refused.
        """
        try:
            yield
        except RouterError:
            self.look()
            raise

    def _left(self, job: Job) -> None:
        del self._waiting[job.id]
        if job.id in self.scheduler.line:
            self.abandon(job)

    def _carry_out(self, decisions: list[Decision]) -> None:
        """
        Tell those who wait. What they do at once may lead to decisions: these come behind.
        """
        self._decisions += decisions
        if self._deciding:
            return
        self._deciding = True
        try:
            while self._decisions:
                self._tell(self._decisions.popleft())
        finally:
            self._deciding = False
            self._arm()

    def _tell(self, decision: Decision) -> None:
        turn = self._waiting.pop(decision.job.id, None)
        if isinstance(decision, Dropped):
            if turn is not None:
                turn.errback(decision.error)
        elif turn is not None:
            turn.callback(decision)
        else:
            # Its client left between the decision and now: the worker has seen nothing.
            self.finish(decision.job, took=None, well=False)

    def _arm(self) -> None:
        """
        Come back when the scheduler wants to be asked.
        """
        due = self.scheduler.due()
        if due is None or self._deciding:
            return
        timer = self._timer
        if timer is not None and timer.active():
            if timer.getTime() <= due:
                return
            timer.cancel()
        self._timer = self.clock.callLater(max(0.0, due - self.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.look()
