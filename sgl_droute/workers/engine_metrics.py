"""
The workers' own metrics as one: what every worker exposes, with its URL as a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from attrs import define, field
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Cooperator
from twisted.web.http_headers import Headers

from sgl_droute.errors import WorkerFailed
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import Call, WorkerClient
from sgl_droute.workers.gather import Gathering
from sgl_droute.workers.once import Once

T = TypeVar("T")

LARGEST_SCRAPE = 1 << 20
"""Bytes of one worker's metrics that are read; with more it is left out."""

LONGEST_LINE = 1 << 14
"""Characters of one line of them; the parser takes seconds for one as long as all may be."""

UP = "sgl_droute_engine_up"
_TEXT = Headers({b"Accept": [b"text/plain;version=0.0.4"]})

# What the parser raises at text that is none of this format.
_NOT_METRICS = (ValueError, LookupError, TypeError)


@define(eq=False)
class EngineMetrics:
    """
    Asks all workers for their metrics.

    Args:
        pool: The workers.
        client: For what a worker answers at once.
        cooperator: Lets the reactor do other things while much text is read.
    """

    pool: Pool
    client: WorkerClient
    cooperator: Cooperator
    _scrapes: Once[str, list[Metric]] = field(factory=Once, init=False)

    async def scrape(self) -> list[Metric]:
        """
        The families of all workers that answered, each family once, and before them a gauge that
        tells which did. Quarantined workers are not asked. Who asks meanwhile gets the same.
        """
        return await self._scrapes.run("scrape", self._scrape)

    async def _scrape(self) -> list[Metric]:
        workers = list(self.pool)
        gathering = Gathering([worker for worker in workers if not worker.dead])
        answered = await gathering.ask(self._families_of)
        merged = Merged()
        await self._do(lambda each: merged.add(each[0].url, each[1]), answered)
        return [_up(workers, gathering.workers), *merged.families.values()]

    async def _families_of(self, worker: Worker) -> list[Metric]:
        call = Call(b"GET", worker.url, b"/metrics", _TEXT)
        answer = await self.client.fetch(call, limit=LARGEST_SCRAPE)
        if answer.status != 200:
            raise WorkerFailed(worker.url, f"/metrics answered {answer.status}")
        text = answer.body.decode("utf-8", "replace")
        if any(len(line) > LONGEST_LINE for line in text.split("\n")):
            why = f"/metrics has a line of more than {LONGEST_LINE} characters"
            raise WorkerFailed(worker.url, why)
        families: list[Metric] = []
        parsing = text_string_to_metric_families(text)
        try:
            await self._do(families.append, parsing)
        except _NOT_METRICS as problem:
            raise WorkerFailed(worker.url, "/metrics is not in Prometheus's format") from problem
        return families

    async def _do(self, do: Callable[[T], object], items: Iterable[T]) -> None:
        """
        Do something to each of *items*, and whatever else there is to do in between.
        """

        def steps() -> Iterator[None]:
            for item in items:
                do(item)
                yield

        await self.cooperator.cooperate(steps()).whenDone()


@define(eq=False)
class Merged:
    """
    Families of several workers.

    Attributes:
        families: By the name that they are exposed under, as the first worker described them.
    """

    families: dict[str, Metric] = field(factory=dict)

    def add(self, worker: str, families: list[Metric]) -> None:
        """
        Add what the *worker* at this URL exposes. A label that was called ``worker`` becomes
        ``exported_worker``, times are dropped, and a family that a worker before this one has as
        another type is left out.
        """
        for family in families:
            name = _exposed_name(family)
            if name == UP:
                continue
            known = self.families.get(name)
            if known is None:
                known = self.families[name] = Metric(family.name, family.documentation, family.type)
            if known.type != family.type:
                continue
            known.samples += [
                sample._replace(labels=_labelled(sample.labels, worker), timestamp=None)
                for sample in family.samples
            ]


def _exposed_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labelled(labels: dict[str, str], worker: str) -> dict[str, str]:
    labels = dict(labels)
    given = labels.pop("worker", None)
    if given is not None:
        name = "exported_worker"
        while name in labels:
            name = f"exported_{name}"
        labels[name] = given
    labels["worker"] = worker
    return labels


def _up(workers: list[Worker], answered: list[Worker]) -> Metric:
    says = "1 for a worker whose metrics are here, 0 for one that gave none."
    family = GaugeMetricFamily(UP, says, labels=("worker",))
    urls = {worker.url for worker in answered}
    for worker in workers:
        family.add_metric([worker.url], worker.url in urls)
    return family
