"""
What passes through the router, counted: requests, jobs, health checks, predictions.

No client can add to the series: routes are templates, methods that no route has are ``other``, and
what concerned a worker is dropped when the worker leaves.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field
from prometheus_client import Metric

from sgl_droute.api.telemetry.account import DONE, Account
from sgl_droute.api.telemetry.tallies import Spread, Tallies, Tally
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.job import JOBS
from sgl_droute.fleet.jobs import EndedJob
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, Worker

NONE = "none"
"""The label of what has no worker, no route or no status."""

GONE = "gone"
"""The worker of what ended after its worker had been removed."""

OTHER = "other"
"""Any method that no route has."""

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_STATUSES = (NONE, "1xx", "2xx", "3xx", "4xx", "5xx")

SECONDS = (
    *(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 1800.0),
)
"""Buckets of what takes between a moment and half an hour."""

_LATE = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RATIOS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)


def _requests() -> Tally:
    says = "Requests that have ended, by termination code."
    return Tally("sgl_droute_requests", says, ("route", "method", "worker", "code", "status"))


def _bytes_in() -> Tally:
    says = "Bytes of request bodies, counted when the request has ended."
    return Tally("sgl_droute_request_bytes", says, ("route",))


def _bytes_out() -> Tally:
    says = "Bytes of answers' bodies, counted when the request has ended."
    return Tally("sgl_droute_response_bytes", says, ("route",))


def _jobs() -> Tally:
    says = "Video and mesh jobs that are over for their client."
    return Tally("sgl_droute_jobs_ended", says, ("kind", "worker", "how"))


def _probes() -> Tally:
    says = "Health checks of workers."
    return Tally("sgl_droute_probes", says, ("worker", "result"))


def _queue() -> Spread:
    says = "Seconds from the end of a request's body to its worker."
    return Spread("sgl_droute_queue_seconds", says, ("kind",), SECONDS)


def _first_byte() -> Spread:
    says = "Seconds that a worker took from being given a request to the head of its answer."
    return Spread("sgl_droute_first_byte_seconds", says, ("kind", "worker"), SECONDS)


def _total() -> Spread:
    says = "Seconds from a request's head to its end, however it ended."
    return Spread("sgl_droute_request_seconds", says, ("route",), SECONDS)


def _job_seconds() -> Spread:
    says = "Seconds of GPU time that workers told of video and mesh jobs that they completed."
    return Spread("sgl_droute_job_seconds", says, ("kind", "worker"), SECONDS)


def _ratio() -> Spread:
    says = "Seconds that work took, divided by those predicted when its worker was given it."
    return Spread("sgl_droute_prediction_ratio", says, ("kind", "worker"), _RATIOS)


def _lag() -> Spread:
    says = "Seconds that the reactor was late for a call, measured twice a second."
    return Spread("sgl_droute_reactor_lag_seconds", says, (), _LATE)


@define(eq=False)
class Traffic:
    """
    Counts what it is told; a collector for a registry.

    Its methods are observers, of `Accounts`, `OpenJobs`, `HealthMonitor`, `Scheduler` and
    `ReactorLag`.

    Args:
        pool: The workers that may be labels.
    """

    pool: Pool
    requests: Tally = field(factory=_requests, init=False)
    bytes_in: Tally = field(factory=_bytes_in, init=False)
    bytes_out: Tally = field(factory=_bytes_out, init=False)
    jobs: Tally = field(factory=_jobs, init=False)
    probes: Tally = field(factory=_probes, init=False)
    queue: Spread = field(factory=_queue, init=False)
    first_byte: Spread = field(factory=_first_byte, init=False)
    total: Spread = field(factory=_total, init=False)
    job_seconds: Spread = field(factory=_job_seconds, init=False)
    ratio: Spread = field(factory=_ratio, init=False)
    lag: Spread = field(factory=_lag, init=False)
    _tallies: Tallies = field(init=False)
    _predicted: dict[str, float] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._tallies = Tallies(
            (
                *(self.requests, self.total, self.queue, self.first_byte, self.ratio),
                *(self.bytes_in, self.bytes_out),
                *(self.jobs, self.job_seconds, self.probes, self.lag),
            )
        )
        self.pool.watch(self._worker_changed)

    def request_ended(self, account: Account) -> None:
        """
        Count a request that has ended.
        """
        route, worker = account.route or NONE, self._worker(account.worker)
        method = account.method if account.method in METHODS else OTHER
        status = _STATUSES[min(account.status // 100, 5)]
        self.requests.add((route, method, worker, account.code, status))
        self.bytes_in.add((route,), account.bytes_in)
        self.bytes_out.add((route,), account.bytes_out)
        total, queue, work = account.total, account.queue, account.work
        if total is not None:
            self.total.add((route,), total)
        kind = account.kind
        if not kind or queue is None:
            return
        self.queue.add((kind,), queue)
        if work is None:
            return
        self.first_byte.add((kind, worker), work)
        # The answer to who wants a video comes long before the video.
        if account.expected and account.code == DONE and status == "2xx" and kind not in JOBS:
            self.ratio.add((kind, worker), work / account.expected)

    def job_ended(self, ended: EndedJob) -> None:
        """
        Count a video or mesh job that is over for its client.
        """
        job, worker = ended.job, self._worker(ended.job.worker)
        self.jobs.add((job.kind, worker, ended.how))
        if ended.took is not None:
            self.job_seconds.add((job.kind, worker), ended.took)

    def job_happened(self, event: Event) -> None:
        """
        Compare the GPU time that was predicted of a video or mesh with what its worker told, when
        it is made.
        """
        job = event.job
        if job.kind not in JOBS:
            return
        if event.name == "bound":
            assert event.start is not None
            assert event.end is not None
            self._predicted[job.id] = event.end - event.start
            return
        predicted = self._predicted.pop(job.id, 0.0)
        if event.name == "ended" and event.took is not None and predicted > 0:
            self.ratio.add((job.kind, self._worker(event.worker)), event.took / predicted)

    def probed(self, worker: Worker, probe: Probe) -> None:
        """
        Count a health check.
        """
        self.probes.add((self._worker(worker.url), result_of(probe)))

    def late(self, seconds: float) -> None:
        """
        Note how late the reactor was.
        """
        self.lag.add((), seconds)

    def collect(self) -> Iterator[Metric]:
        """
        All that was counted.
        """
        return self._tallies.collect()

    def _worker(self, url: str | None) -> str:
        if url is None:
            return NONE
        return url if url in self.pool else GONE

    def _worker_changed(self, before: Worker | None, now: Worker | None) -> None:
        if now is None and before is not None:
            self._tallies.forget("worker", before.url)


def result_of(probe: Probe) -> str:
    """
    How a health check went, in one word: ``healthy``, ``unhealthy`` (the worker says so), or that
    the connection was ``refused`` or ``broken``, or ``timeout``.
    """
    if probe.healthy:
        return "healthy"
    if not probe.silent:
        return "unhealthy"
    if probe.refused:
        return "refused"
    return "broken" if probe.gone else "timeout"
