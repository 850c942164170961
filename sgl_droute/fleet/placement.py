"""
Which worker a job goes to, of those that may take it.

It chooses and changes nothing but what is remembered of groups; `sgl_droute.fleet.scheduler` acts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest
from typing import NamedTuple

from attrs import define, field

from sgl_droute.fleet.capabilities import Want
from sgl_droute.fleet.decisions import Candidate
from sgl_droute.fleet.desk import Tier
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.selection import Asked, LeastWork, Load
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.station import Station

# What a job must gain by waiting for a worker that has no room, as a share of the time to its end
# at one that has: predictions are not better than that, and a worker that stands idle is a loss.
_WORTH_WAITING = 0.1

# Candidates that are told of.
_MOST_CANDIDATES = 16

# Groups whose worker is remembered.
_MOST_GROUPS = 10_000


class Later(NamedTuple):
    """
    A worker that has no room, where a job would end sooner than where there is room.

    Attributes:
        end: When, as predicted (seconds).
    """

    end: float
    url: str


@define(eq=False)
class Placement:
    """
    Chooses stations.

    Args:
        stations: All there are, by URL.
        speeds: How long jobs take.
        by_work: Whether the algorithm looks at work; otherwise no job waits while there is room.
        group_margin: Jobs that the worker of a group may be ahead of the least loaded one (count).
        longest: Seconds that no job is expected to exceed.
    """

    stations: Mapping[str, Station]
    speeds: Speeds
    by_work: bool
    group_margin: int
    longest: float
    _groups: OrderedDict[str, str] = field(factory=OrderedDict, init=False)

    def load(self, station: Station, want: Want) -> Load:
        """
        What a choice among the workers for *want* sees of *station*.
        """
        if station.room and not self.by_work:
            return Load(station.count)
        worker, kind = station.worker, want.kind
        rate = self.speeds.rate(worker, kind)
        usual = self.speeds.usual(worker, kind)
        return Load(
            station.count, station.free, rate.pace, rate.fixed, usual, worker.capabilities.model
        )

    def choose(
        self, job: Job, tier: Tier, now: float, *, wait: bool = True
    ) -> Station | Later | None:
        """
        The station for *job*, one with room, or another that is worth waiting for; None when there
        is no room at all.

        Args:
            wait: Whether it may wait; then it is left to the caller to `reserve` its time.
        """
        home = self._home(job, tier)
        if home is not None:
            return home
        if not self.by_work:
            url = tier.room.choose(job.without)
            return None if url is None else self.stations[url]
        assert isinstance(tier.room, LeastWork)
        asked = self._asked(job, now)
        found = tier.room.earliest(asked, job.without)
        if found is None:
            return None
        end, url = found
        later = tier.full.earliest(asked, job.without) if wait and len(tier.full) else None
        if later is not None and later[0] < end - _WORTH_WAITING * (end - now):
            return Later(*later)
        return self.stations[url]

    def earliest(self, job: Job, tier: Tier, now: float) -> Station:
        """
        The station of *tier* where *job* would end first, whether it has room or not.
        """
        asked = self._asked(job, now)
        indexes = [each for each in (tier.room, tier.full) if isinstance(each, LeastWork)]
        found = [each.earliest(asked, job.without) for each in indexes]
        if tier.room not in indexes:
            roomy = (self.stations[url] for url in tier.urls.difference(job.without))
            found += [
                (max(each.free, now) + self.seconds(job, each), each.worker.url)
                for each in roomy
                if each.worker.url in tier.room
            ]
        return self.stations[min(each for each in found if each is not None)[1]]

    def candidates(self, job: Job, tier: Tier, now: float) -> tuple[Candidate, ...]:
        """
        The workers of *tier* for *job*, the 16 with the earliest predicted ends first.
        """
        found = [
            self._candidate(job, self.stations[url], now)
            for url in tier.urls
            if url not in job.without
        ]
        return tuple(nsmallest(_MOST_CANDIDATES, found, key=lambda one: (one.end, one.url)))

    def reserve(self, later: Later, tiers: Iterable[Tier]) -> list[tuple[Tier, str, Load]]:
        """
        Have a station look as busy in *tiers* as with the job that waits for it.

        Returns:
            In which tiers, its URL, and the loads to put back in reverse order when all is decided.
        """
        reserved = []
        for tier in tiers:
            if later.url in tier.full:
                load = tier.full.load(later.url)
                tier.full.put(later.url, load._replace(free=later.end))
                reserved.append((tier, later.url, load))
        return reserved

    def idles(self, tier: Tier, without: Collection[str]) -> bool:
        """
        Whether a worker of *tier*, none of those *without*, has a free slot; where there is no
        limit, as many as it has replicas.
        """
        stations = (self.stations[url] for url in tier.urls if url not in without)
        return any(each.room and (each.limit or each.taken < len(each.lanes)) for each in stations)

    def lanes(self, tier: Tier) -> int:
        """
        How many jobs the workers of *tier* work on at once.
        """
        return sum(len(self.stations[url].lanes) for url in tier.urls)

    def placed(self, job: Job, station: Station) -> None:
        """
        Take note of where *job* went.
        """
        if job.group is None:
            return
        if self._groups.get(job.group) not in self.stations:
            self._groups[job.group] = station.worker.url
        self._groups.move_to_end(job.group)
        if len(self._groups) > _MOST_GROUPS:
            self._groups.popitem(last=False)

    def start(self, job: Job, station: Station, now: float) -> float:
        """
        When *station* will begin with *job*: behind what it has, if that takes GPU time.
        """
        return max(station.free, now) if job.want.slot else now

    def seconds(self, job: Job, station: Station) -> float:
        """
        How long *job* will take at *station*.
        """
        return min(self.speeds.seconds(station.worker, job.kind, job.demand), self.longest)

    def _candidate(self, job: Job, station: Station, now: float) -> Candidate:
        start = self.start(job, station, now)
        end = start + (self.seconds(job, station) if job.want.slot else 0.0)
        return Candidate(station.worker.url, station.count, station.room, start, end)

    def _home(self, job: Job, tier: Tier) -> Station | None:
        """
        The station of the job's group, if it has room and is not too far ahead of the others.
        """
        url = None if job.group is None else self._groups.get(job.group)
        if url is None or url in job.without:
            return None
        if url not in tier.urls:
            del self._groups[job.group or ""]  # it takes no work: another may take its place
            return None
        home = self.stations[url]
        if not home.room:
            return None
        ahead = home.count - self.group_margin
        # The least loaded has 0 at least: most often nobody has to be looked at.
        if ahead <= 0 or all(self.stations[other].count >= ahead for other in tier.urls):
            return home
        return None

    def _asked(self, job: Job, now: float) -> Asked:
        return Asked(now, lambda model: self.speeds.work(model, job.kind, job.demand))
