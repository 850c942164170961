"""
The registered workers: who there is, who may take work, who has how much.

It decides little by itself: `sgl_droute.fleet.worker` has the transitions, and who gets which
request is up to `sgl_droute.fleet.scheduler`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count

from attrs import define, evolve, field

from sgl_droute.errors import NoCapableWorker, NotFound, NoWorker, RouterError
from sgl_droute.fleet.capabilities import ANYTHING, Capabilities, Want
from sgl_droute.fleet.epochs import Epochs
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.fleet.worker import (
    Probe,
    Worker,
    answered,
    checked,
    counted,
    lapsed,
    registered_again,
)

Observer = Callable[[Worker | None, Worker | None], None]

# Drained workers whose results stay readable after they left.
_MOST_RETIRED = 1000

_LACKING = ". Stale workers lack weights or adapters that the fleet has: see GET /weights"


@define(eq=False)
class Pool:
    """
    The fleet in order of registration.

    Args:
        epochs: Judges the weights that workers have.
    """

    epochs: Epochs = field(factory=Epochs)
    _workers: dict[str, Worker] = field(factory=dict, init=False)
    _retired: OrderedDict[str, Worker] = field(factory=OrderedDict, init=False)
    _serials: Iterator[int] = field(factory=lambda: count(1), init=False)
    _changes: deque[tuple[Worker | None, Worker | None]] = field(factory=deque, init=False)
    _observers: list[Observer] = field(factory=list, init=False)

    def watch(self, observer: Observer) -> None:
        """
        Have *observer* called with the record before and after each change: None before a
        registration, None after a removal. How many requests are in flight changes with each of
        them, and is not told.
        """
        self._observers.append(observer)

    # Who there is.

    def add(self, url: str, *, lasting: bool = True) -> Worker:
        """
        The worker at *url*, registered now if it was not; a quarantined one is to be probed again.

        Args:
            lasting: Whether it is there after a restart of the router.

        Raises:
            BadRequest: *url* is not one a worker can have.
        """
        url = normalise_worker_url(url)
        worker = self._workers.get(url)
        if worker is None:
            self._retired.pop(url, None)
            return self._keep(Worker(url=url, serial=next(self._serials), lasting=lasting))
        return self._keep(registered_again(worker))

    def remove(self, url: str) -> Worker:
        """
        The worker that was at *url*, gone from now on; its running answers end in peace.

        Raises:
            BadRequest: *url* is not one a worker can have.
            NotFound: No such worker is registered.
        """
        return self._drop(self.worker(normalise_worker_url(url)))

    def worker(self, url: str) -> Worker:
        """
        The record of the worker at *url*, in the pool's spelling.

        Raises:
            NotFound: No such worker is registered.
        """
        if url not in self._workers:
            raise NotFound(f"Worker {url} is not registered")
        return self._workers[url]

    def still(self, worker: Worker) -> Worker | None:
        """
        The record of *worker* as it is now; None when that registration is gone.
        """
        now = self._workers.get(worker.url)
        return now if now is not None and now.serial == worker.serial else None

    def holder(self, url: str) -> Worker | None:
        """
        The worker at *url*, also one that was drained and has left: what it made is still there.
        """
        return self._workers.get(url) or self._retired.get(url)

    def order_takers(self) -> list[Worker]:
        """
        The workers that a fleet-wide call goes to: all that are neither quarantined nor asleep.

        Raises:
            NoWorker: There is none.
        """
        return self._or_nobody(lambda worker: worker.takes_orders)

    def updatable(self, name: str | None = None) -> list[Worker]:
        """
        The workers that an update of the weights goes to: those of `order_takers` that are not
        disabled and serve the model of that *name*, or have not said what they serve.

        Raises:
            NoWorker: There is none.
            NotFound: No worker serves that model.
        """
        if name is not None and not any(worker.capabilities.may_be(name) for worker in self):
            raise NotFound(f"The model {name!r} is served by no worker")
        return self._or_nobody(
            lambda worker: (
                worker.takes_orders
                and not worker.disabled
                and (name is None or worker.capabilities.may_be(name))
            )
        )

    def _or_nobody(self, usable: Callable[[Worker], bool]) -> list[Worker]:
        workers = [worker for worker in self if usable(worker)]
        if not workers:
            raise self._nobody(ANYTHING, usable)
        return workers

    # What they have.

    def count(self, worker: Worker, by: int, *, sessions: int = 0) -> None:
        """
        Have *worker* count *by* more requests in flight, each of them so many *sessions*; nothing
        happens if that registration is gone.
        """
        now = self.still(worker)
        if now is None:
            return
        after = counted(now, by, sessions=sessions)
        if sessions or after.leaving:
            self._keep(after)
        else:
            self._workers[worker.url] = after

    @contextmanager
    def visit(self, worker: Worker) -> Iterator[Worker]:
        """
        *worker*, with a request that only reads what it holds counted as in flight until the block
        ends, however it ends.
        """
        self.count(worker, 1)
        try:
            yield worker
        finally:
            self.count(worker, -1)

    # What became of them.

    def change(self, worker: Worker, transition: Callable[[Worker], Worker]) -> Worker | None:
        """
        The record of *worker* after *transition*; None when that registration is gone, maybe by it.
        """
        now = self.still(worker)
        if now is None:
            return None
        after = transition(now)
        if after is now:
            return now
        self._keep(after)
        return self.still(worker)

    def record_probe(
        self, worker: Worker, probe: Probe, *, threshold: int, readmit: int = 0
    ) -> Worker | None:
        """
        The record after a health check of *worker*; None when that registration is gone.
        Arguments as of `checked`.
        """
        return self.change(
            worker, lambda now: checked(now, probe, threshold=threshold, readmit=readmit)
        )

    def record_answer(self, worker: Worker) -> None:
        """
        Note that *worker* answered a request.
        """
        self.change(worker, answered)

    def record_unreached(self, worker: Worker) -> None:
        """
        Note that a request could not be brought to *worker*.
        """
        self.change(worker, lambda now: evolve(now, unreached=True))

    def record_lapse(self, worker: Worker, *, restarted: bool = False) -> None:
        """
        Note that what answers next for *worker* may be a new process, or must be one.
        """
        self.change(worker, lambda now: lapsed(now, restarted=restarted))

    def record_capabilities(self, worker: Worker, capabilities: Capabilities) -> Worker | None:
        """
        The record after *worker* said what it serves; None when that registration is gone.
        """
        return self.change(worker, lambda now: evolve(now, capabilities=capabilities))

    def judge(self) -> None:
        """
        Have all records say what follows from `epochs` as they are now.
        """
        for worker in self:
            self.judge_one(worker)

    def judge_one(self, worker: Worker) -> None:
        """
        As `judge`, for the record of *worker*.
        """
        now = self.still(worker)
        if now is not None:
            self._keep(now)

    def _drop(self, worker: Worker) -> Worker:
        del self._workers[worker.url]
        self._tell(worker, None)
        return worker

    def _keep(self, worker: Worker) -> Worker:
        worker = self.epochs.judged(worker)
        before = self._workers.get(worker.url)
        if worker is before:
            return worker
        self._workers[worker.url] = worker
        self._tell(before, worker)
        if worker.leaving and worker.idle and self._workers.get(worker.url) is worker:
            self._retire(worker)
        return worker

    def _retire(self, worker: Worker) -> None:
        self._drop(worker)
        self._retired[worker.url] = worker
        if len(self._retired) > _MOST_RETIRED:
            self._retired.popitem(last=False)

    def _tell(self, before: Worker | None, after: Worker | None) -> None:
        # A change that an observer makes is told after the one that caused it.
        self._changes.append((before, after))
        if len(self._changes) > 1:
            return
        while self._changes:
            for observer in self._observers:
                observer(*self._changes[0])
            self._changes.popleft()

    def catches_up(self, want: Want, without: Collection[str] = ()) -> bool:
        """
        Whether a worker that may serve *want*, none of those *without*, gets work again by itself.
        """
        return any(
            worker.catching_up and worker.url not in without and want.allows(worker.capabilities)
            for worker in self
        )

    # Why nobody.

    def nobody(self, want: Want) -> RouterError:
        """
        Why there is no worker for *want*: `NoWorker` for now, `NoCapableWorker` at all.
        """
        error: RouterError
        if self._workers or want.strict:
            error = self._nobody(want, lambda worker: worker.may_take(want))
        else:
            error = NoWorker("No workers registered in the pool")
        if isinstance(error, NoWorker):
            error.fields.update(queue_position=None, retry_after=None)
        return error

    def _nobody(self, want: Want, usable: Callable[[Worker], bool]) -> RouterError:
        allowed = [worker for worker in self if want.allows(worker.capabilities)]
        kind = f"{want.word}-capable " if want.strict else ""
        if want.strict and not allowed:
            served = f" None of them serves the model {want.model!r}." if want.model else ""
            return NoCapableWorker(f"No {kind}workers available in current worker pool.{served}")
        if all(worker.dead for worker in self):
            return NoWorker("No healthy workers available in the pool")
        states = Counter(
            "in a realtime session" if worker.eligible else worker.state
            for worker in allowed
            if not usable(worker)
        )
        counts = ", ".join(f"{number} {state}" for state, number in states.items())
        sentence = f"No eligible {kind}workers available in the pool: {counts or 'none left'}"
        return NoWorker(sentence + _LACKING if "stale" in states else sentence)

    def __iter__(self) -> Iterator[Worker]:
        """The workers as they are now; what changes meanwhile does not disturb it."""
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def __getitem__(self, url: str) -> Worker:
        return self._workers[url]

    def __contains__(self, url: object) -> bool:
        return url in self._workers
