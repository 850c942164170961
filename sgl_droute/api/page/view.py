"""
What the live page shows, as messages: the whole, and what changed since the last look.

It looks when it is told to; who looks on, and how messages reach them, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from attrs import define, field, frozen

from sgl_droute.api.page.cards import Cards, encoded, moment, open_jobs, turn
from sgl_droute.api.page.recent import Recent, between
from sgl_droute.api.telemetry.account import Accounts
from sgl_droute.api.telemetry.request_log import is_probe
from sgl_droute.api.worker_object import worker_id_of
from sgl_droute.fleet.forecast import prospects
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.trends import SPARK_STEPS, STEP, Point, Trends

# Jobs shown of the line, open jobs, and requests that ended before the page was opened.
_MOST_WAITING = 50
_MOST_JOBS = 100
_MOST_BEFORE = 100


@frozen(eq=False)
class Look:
    """
    What was seen at one time.

    Attributes:
        now: When (seconds).
        workers: The workers' cards as JSON, by id.
        serials: Their registration numbers.
        parts: All else that is sent anew when it has changed, as JSON by name.
        request: Number of the last request that had ended.
        point: Number of the last point of the charts.
        spark: Number of the last points of workers.
        spark_end: When these ended.
    """

    now: float
    workers: Mapping[str, str]
    serials: Mapping[str, int]
    parts: Mapping[str, str]
    request: int
    point: int
    spark: int
    spark_end: float


@define(eq=False)
class View:
    """
    Looks at the fleet.

    Args:
        scheduler: The workers, what they do, and who waits.
        jobs: The video and mesh jobs.
        accounts: The requests that are open.
        trends: The last 15 minutes.
        recent: The requests that have ended.
    """

    scheduler: Scheduler
    jobs: OpenJobs
    accounts: Accounts
    trends: Trends
    recent: Recent
    _cards: Cards = field(init=False)
    _seen: Look | None = field(default=None, init=False)
    _whole: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._cards = Cards(self.jobs, self.scheduler.speeds)

    def look(self, now: float) -> str:
        """
        Look, and what changed since the look before: a message for those who know that one.
        """
        before, seen = self._seen, self._look(now)
        self._seen, self._whole = seen, ""
        return "" if before is None else self._changes(before, seen)

    def whole(self) -> str:
        """
        All that was seen at the last look: a message for those who know nothing.
        """
        assert self._seen is not None
        self._whole = self._whole or self._all(self._seen)
        return self._whole

    def _look(self, now: float) -> Look:
        trends = self.trends
        pool, floor = self.scheduler.pool, self.scheduler.floor
        return Look(
            now=now,
            workers=self._cards.of(pool, floor.stations),
            serials={worker_id_of(worker.url): worker.serial for worker in pool},
            parts={
                "fleet": encoded(self._fleet(now)),
                "queue": encoded(self._queue(now)),
                "videos": encoded(self._videos()),
            },
            request=self.recent.number,
            point=trends.number,
            spark=trends.spark_number,
            spark_end=trends.spark_end,
        )

    # Messages.

    def _all(self, seen: Look) -> str:
        return _message(
            seen,
            seen.workers,
            gone=[],
            parts={
                **seen.parts,
                "sparks": self._sparks(0, seen),
                "requests": encoded(self.recent.shown(seen.request - _MOST_BEFORE, seen.request)),
                "charts": self._charts(0, seen),
            },
        )

    def _changes(self, before: Look, seen: Look) -> str:
        # One that was registered anew is another worker at the same place.
        gone = [id for id, serial in before.serials.items() if seen.serials.get(id) != serial]
        left = set(gone)
        workers = {
            id: text
            for id, text in seen.workers.items()
            if id in left or before.workers.get(id) != text
        }
        parts = {name: text for name, text in seen.parts.items() if before.parts[name] != text}
        if seen.spark > before.spark:
            parts["sparks"] = self._sparks(before.spark, seen)
        if seen.request > before.request:
            parts["requests"] = encoded(self.recent.shown(before.request, seen.request))
        if seen.point > before.point:
            parts["charts"] = self._charts(before.point, seen)
        return _message(seen, workers, gone=gone, parts=parts)

    def _sparks(self, after: int, seen: Look) -> str:
        trends = self.trends
        points = {
            id: between(trends.sparks(serial), trends.spark_number, after, seen.spark)
            for id, serial in seen.serials.items()
        }
        step = STEP * SPARK_STEPS
        return encoded({"step": step, "end": moment(seen.spark_end), "points": points})

    def _charts(self, after: int, seen: Look) -> str:
        points = between(self.trends.points, self.trends.number, after, seen.point)
        return encoded({"step": STEP, "points": [_point(each) for each in points]})

    # Parts.

    def _fleet(self, now: float) -> dict[str, Any]:
        scheduler, trends = self.scheduler, self.trends
        pool, floor = scheduler.pool, scheduler.floor
        done, failed = trends.minute(now)
        p50, p95 = trends.latencies
        epochs = self._epochs()
        different = set(epochs.values()) or {pool.epochs.highest}
        return {
            "workers": len(pool),
            "usable": sum(worker.eligible for worker in pool),
            "busy": sum(station.taken > 0 for station in floor.stations.values()),
            "waiting": len(scheduler.line),
            "running": len(floor.running),
            "in_flight": sum(not is_probe(account) for account in self.accounts),
            "epoch": different.pop() if len(different) == 1 else None,
            "epochs": epochs,
            "algorithm": scheduler.rules.algorithm,
            "per_minute": done + failed,
            "failed_per_minute": failed,
            "p50": p50,
            "p95": p95,
        }

    def _epochs(self) -> dict[str, int]:
        """
        The epoch of each model that is served.
        """
        pool = self.scheduler.pool
        models = {worker.capabilities.model for worker in pool}
        named = sorted(model for model in models if model is not None)
        return {model: pool.epochs.desired(model).epoch for model in named}

    def _queue(self, now: float) -> dict[str, Any]:
        scheduler = self.scheduler
        return {
            "waiting_count": len(scheduler.line),
            "running_count": len(scheduler.floor.running),
            "waiting": [turn(each) for each in prospects(scheduler, now, _MOST_WAITING)],
        }

    def _videos(self) -> dict[str, Any]:
        shown = list(islice(self.jobs, _MOST_JOBS))
        found = map(self.scheduler.floor.stations.get, {job.worker for job in shown})
        stations = [station for station in found if station is not None]
        return {"count": len(self.jobs), "open": open_jobs(shown, stations, self.jobs)}


def _point(point: Point) -> list[Any]:
    return [
        moment(point.end),
        point.done,
        point.failed,
        point.p50,
        point.p95,
        point.waiting,
        point.busy,
    ]


def _message(
    seen: Look, workers: Mapping[str, str], *, gone: Iterable[str], parts: Mapping[str, str]
) -> str:
    """
    A JSON object with what is JSON already.
    """
    named = {"now": encoded(moment(seen.now)), **parts}
    if workers:
        named["workers"] = _object(workers)
    if gone:
        named["gone"] = encoded(gone)
    return _object(named)


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",".join([f"{encoded(name)}:{text}" for name, text in members.items()]) + "}"
