"""
How the fleet is now: read from the pool and the scheduler at the moment of a scrape.

Nothing is kept here, so that what has left them leaves no series behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sized
from importlib.metadata import version
from platform import python_version

from attrs import define, field
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.turns import Turns

STATES = (
    *("ready", "suspect", "joining", "stale", "updating"),
    *("sleeping", "draining", "disabled", "dead"),
)
"""What `Worker.state` may be."""

# Characters of a model's name, which workers choose, that are told at most.
_LONGEST_NAME = 200

_OF_WORKER = ("worker",)


@define(eq=False)
class FleetNow:
    """
    Tells of the workers, the line and the jobs; a collector for a registry.

    Args:
        turns: The pool and the line.
        requests: The requests under way.
        jobs: The video and mesh jobs that are open.
        connections: How many connections clients have open (count).
    """

    turns: Turns
    requests: Sized
    jobs: Sized
    connections: Callable[[], int]
    _build: Metric = field(factory=lambda: _build_info(), init=False)

    def collect(self) -> Iterator[Metric]:
        """
        What there is now.
        """
        yield self._build
        yield from self._router()
        workers = list(self.turns.pool)
        yield from _states(workers)
        yield from self._workers(workers)
        yield from self._epochs(workers)

    def _router(self) -> Iterator[Metric]:
        line = self.turns.scheduler.line
        yield _gauge("in_flight", "Requests under way, this scrape included.", len(self.requests))
        yield _gauge("waiting", "Requests that wait in line.", len(line))
        says = "Seconds that the line is expected to take on one usual worker."
        yield _gauge("waiting_work_seconds", says, line.seconds())
        yield _gauge("jobs", "Video and mesh jobs that workers have before them.", len(self.jobs))
        says = "Connections that clients have open."
        yield _gauge("client_connections", says, self.connections())

    def _workers(self, workers: list[Worker]) -> Iterator[Metric]:
        now, stations = self.turns.now(), self.turns.scheduler.floor.stations
        yield _by_worker(
            "in_flight",
            "Requests that a worker has and that have not ended.",
            ((worker, worker.in_flight) for worker in workers),
        )
        yield _by_worker(
            "jobs",
            "Video and mesh jobs that a worker has before it.",
            ((worker, worker.jobs) for worker in workers),
        )
        yield _by_worker(
            "backlog_seconds",
            "Seconds until a worker is predicted to have a replica with nothing to do.",
            ((worker, max(0.0, stations[worker.url].free - now)) for worker in workers),
        )
        yield _by_worker(
            "failures",
            "Health checks of a worker that failed in a row.",
            ((worker, worker.failures) for worker in workers),
        )

    def _epochs(self, workers: list[Worker]) -> Iterator[Metric]:
        yield _by_worker(
            "weights_epoch",
            "Weights epoch that a worker has; none while that is not sure.",
            ((worker, worker.epoch) for worker in workers if worker.epoch is not None),
        )
        served = InfoMetricFamily("sgl_droute_worker", "What a worker serves.", labels=_OF_WORKER)
        for worker in workers:
            served.add_metric([worker.url], {"model": name_of(worker.capabilities.model)})
        yield served
        epochs = self.turns.pool.epochs
        models = {worker.capabilities.model for worker in workers}
        desired = {name_of(model): epochs.desired(model).epoch for model in models}
        wanted = _gauge("weights_epoch", "Weights epoch that a model is to have.", of=("model",))
        for name, epoch in desired.items():
            wanted.add_metric([name], epoch)
        yield wanted


def name_of(model: str | None) -> str:
    """
    A model's name as a label; ``unknown`` for one that is not known.
    """
    text = "unknown" if model is None else model[:_LONGEST_NAME]
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair has no UTF-8


def _gauge(
    name: str, says: str, value: float | None = None, of: tuple[str, ...] | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sgl_droute_{name}", says, value, labels=of)


def _by_worker(name: str, says: str, values: Iterable[tuple[Worker, float]]) -> Metric:
    family = _gauge(f"worker_{name}", says, of=_OF_WORKER)
    for worker, value in values:
        family.add_metric([worker.url], value)
    return family


def _states(workers: list[Worker]) -> Iterator[Metric]:
    counted = Counter(worker.state for worker in workers)
    all_of_them = _gauge("workers", "Registered workers, by state.", of=("state",))
    for state in STATES:
        all_of_them.add_metric([state], counted[state])
    yield all_of_them
    says = "1 for the state that a worker is in, 0 for the others."
    each = _gauge("worker_state", says, of=("worker", "state"))
    for worker in workers:
        for state in STATES:
            each.add_metric([worker.url, state], worker.state == state)
    yield each


def _build_info() -> Metric:
    value = {
        "version": version("sgl-droute"),
        "python": python_version(),
        "twisted": version("twisted"),
    }
    return InfoMetricFamily("sgl_droute_build", "What the router is made of.", value)
