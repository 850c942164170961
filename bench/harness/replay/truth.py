"""
How long each recorded job takes on each worker, whatever a scheduler believes.

A worker's pace is what the recording shows: the median over its jobs of seconds per unit of work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import fmean, median

from attrs import define, field, frozen

from bench.harness.replay.recording import Asked, NoRecording, Recording

# Measured jobs from which a worker is said to have a pace of its own.
_ENOUGH = 5


@frozen
class Taken:
    """
    What is known of a job's length.

    Attributes:
        url: The worker that it holds for; None for a usual one.
        source: ``measured``, ``predicted`` or ``average``.
    """

    seconds: float
    url: str | None
    source: str


@define(eq=False)
class Truth:
    """
    The seconds of every job of *recording*.

    Raises:
        NoRecording: Nothing tells how long any job takes.
    """

    recording: Recording
    _models: Mapping[str, str | None] = field(init=False)
    _paces: dict[tuple[str, str], float] = field(init=False)
    _usual: dict[tuple[str | None, str], float] = field(init=False)
    _taken: dict[Asked, Taken] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._models = self.recording.models()
        self._paces = self._learned()
        self._usual = self._medians()
        self._taken = self._known()

    @property
    def sources(self) -> Counter[str]:
        """How many jobs have their seconds from where."""
        return Counter(taken.source for taken in self._taken.values())

    def known(self, job: Asked) -> Taken:
        """
        What is known of the length of *job*.
        """
        return self._taken[job]

    def seconds(self, job: Asked, url: str) -> float:
        """
        How long *job* takes on the worker at *url*.
        """
        taken = self._taken[job]
        return taken.seconds * self._ratio(job, taken.url, url)

    def speeds(self) -> dict[str, float]:
        """
        Speed of each worker that was measured, where 1 is the usual speed of its model.
        """
        found: dict[str, list[float]] = defaultdict(list)
        for (url, kind), pace in self._paces.items():
            found[url].append(self._usual[self._models[url], kind] / pace)
        return {url: fmean(speeds) for url, speeds in found.items()}

    def _learned(self) -> dict[tuple[str, str], float]:
        """
        Seconds per unit of work by worker and kind.
        """
        samples: dict[tuple[str, str], list[float]] = defaultdict(list)
        for job in self.recording.jobs:
            if job.took and job.worker is not None and job.worker in self._models:
                work = job.work.get(self._models[job.worker] or "")
                if work:
                    samples[job.worker, job.want.kind].append(job.took / work)
        return {key: median(paces) for key, paces in samples.items() if len(paces) >= _ENOUGH}

    def _medians(self) -> dict[tuple[str | None, str], float]:
        """
        Seconds per unit of work by model and kind.
        """
        paces: dict[tuple[str | None, str], list[float]] = defaultdict(list)
        for (url, kind), pace in self._paces.items():
            paces[self._models[url], kind].append(pace)
        return {key: median(each) for key, each in paces.items()}

    def _known(self) -> dict[Asked, Taken]:
        known = {job: taken for job in self.recording.jobs if (taken := _taken(job))}
        by_kind: dict[str, list[float]] = defaultdict(list)
        for job in self.recording.jobs:
            if job in known:
                by_kind[job.want.kind].append(known[job].seconds)
        if not by_kind:
            raise NoRecording("nothing in this recording tells how long a job takes")
        overall = fmean(seconds for each in by_kind.values() for seconds in each)
        means = {kind: fmean(each) for kind, each in by_kind.items()}
        for job in self.recording.jobs:
            mean = means.get(job.want.kind, overall)
            known.setdefault(job, Taken(mean, None, "average"))
        return known

    def _ratio(self, job: Asked, here: str | None, there: str) -> float:
        """
        How much longer *job* takes *there*.
        """
        model = self._models.get(there)
        pace = self._pace(there, job.want.kind)
        if here is None:
            usual = self._usual.get((model, job.want.kind))
            return pace / usual if pace and usual else 1.0
        known = self._pace(here, job.want.kind)
        if not pace or not known:
            return 1.0
        if self._models.get(here) == model:
            return pace / known
        before, after = job.work.get(self._models.get(here) or ""), job.work.get(model or "")
        return pace * after / (known * before) if before and after else 1.0

    def _pace(self, url: str, kind: str) -> float | None:
        own = self._paces.get((url, kind))
        return own or self._usual.get((self._models.get(url), kind))


def _taken(job: Asked) -> Taken | None:
    if job.took:
        return Taken(job.took, job.worker, "measured")
    if job.predicted:
        return Taken(job.predicted, job.worker, "predicted")
    return Taken(job.length, None, "predicted") if job.length else None
