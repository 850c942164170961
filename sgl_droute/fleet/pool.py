"""
The registered workers: who there is, who may take work, who has how much.

The one mutable object of the fleet. It decides nothing by itself: `sgl_droute.fleet.worker` has the
transitions, `sgl_droute.fleet.selection` the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random

from attrs import define, evolve, field

from sgl_droute.errors import NotFound, NoWorker
from sgl_droute.fleet.selection import ALGORITHMS, Selection
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.fleet.worker import Probe, Worker, answered, checked, registered_again


@define(eq=False)
class Pool:
    """
    The fleet in order of registration.

    Args:
        algorithm: A name in `sgl_droute.fleet.selection.ALGORITHMS`.
        random: Where the random algorithm gets its chances from.
    """

    algorithm: str = "least-request"
    random: Random = field(factory=Random)
    _workers: dict[str, Worker] = field(factory=dict, init=False)
    _serials: Iterator[int] = field(factory=lambda: count(1), init=False)
    _usual: Selection = field(init=False)
    _last_resort: Selection = field(init=False)

    def __attrs_post_init__(self) -> None:
        make = ALGORITHMS[self.algorithm]
        self._usual, self._last_resort = make(self.random), make(self.random)

    def add(self, url: str) -> Worker:
        """
        The worker at *url*, registered now if it was not; a quarantined one is to be probed again.

        Raises:
            BadRequest: *url* is not one a worker can have.
        """
        url = normalise_worker_url(url)
        worker = self._workers.get(url)
        if worker is None:
            return self._keep(Worker(url=url, serial=next(self._serials)))
        return self._keep(registered_again(worker))

    def remove(self, url: str) -> Worker:
        """
        The worker that was at *url*, gone from now on; its running answers end in peace.

        Raises:
            BadRequest: *url* is not one a worker can have.
            NotFound: No such worker is registered.
        """
        url = normalise_worker_url(url)
        if url not in self._workers:
            raise NotFound(f"Worker {url} is not registered")
        self._usual.discard(url)
        self._last_resort.discard(url)
        return self._workers.pop(url)

    @contextmanager
    def lease(self, without: Collection[str] = ()) -> Iterator[Worker]:
        """
        A worker for one request, counted as in flight until the block ends, however it ends.

        Args:
            without: URLs not to choose, for instance those already tried.

        Raises:
            NoWorker: Nobody can take the request.
        """
        url = self._usual.choose(without) or self._last_resort.choose(without)
        if url is None:
            raise NoWorker(self._why_nobody())
        worker = self._workers[url]
        self._keep(evolve(worker, in_flight=worker.in_flight + 1))
        try:
            yield worker
        finally:
            self._change(worker, lambda now: evolve(now, in_flight=now.in_flight - 1))

    def record_probe(self, worker: Worker, probe: Probe, *, threshold: int) -> Worker | None:
        """
        The record after a health check of *worker*; None when that registration is gone.
        """
        return self._change(worker, lambda now: checked(now, probe, threshold=threshold))

    def record_answer(self, worker: Worker) -> None:
        """
        Note that *worker* answered a request.
        """
        self._change(worker, answered)

    def reachable(self) -> list[Worker]:
        """
        The workers that a fleet-wide call goes to: all that are not quarantined.

        Raises:
            NoWorker: There is none.
        """
        workers = [worker for worker in self if not worker.dead]
        if not workers:
            raise NoWorker("No healthy workers available in the pool")
        return workers

    def _why_nobody(self) -> str:
        if not self._workers:
            return "No workers registered in the pool"
        return "No healthy workers available in the pool"

    def _change(self, worker: Worker, change: Callable[[Worker], Worker]) -> Worker | None:
        now = self._workers.get(worker.url)
        if now is None or now.serial != worker.serial:
            return None
        return self._keep(change(now))

    def _keep(self, worker: Worker) -> Worker:
        before = self._workers.get(worker.url)
        if worker is before:
            return worker
        self._workers[worker.url] = worker
        home = None if worker.dead else self._last_resort if worker.doubtful else self._usual
        for selection in (self._usual, self._last_resort):
            if selection is home:
                selection.put(worker.url, worker.in_flight)
            else:
                selection.discard(worker.url)
        return worker

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def __getitem__(self, url: str) -> Worker:
        return self._workers[url]

    def __contains__(self, url: object) -> bool:
        return url in self._workers
