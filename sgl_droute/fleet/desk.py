"""
The workers that one kind of request may go to, indexed for a quick choice.

A desk is told of every change of a record or a load and keeps none but to know that it changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from attrs import define, evolve, field

from sgl_droute.fleet.capabilities import RequiredEpoch, Want
from sgl_droute.fleet.selection import LeastWork, Load, Selection
from sgl_droute.fleet.station import Station
from sgl_droute.fleet.worker import Worker


@define(eq=False)
class Tier:
    """
    Workers that are equally good for a kind of request.

    Args:
        room: Those that have room for one more.
        full: Those that have none.

    Attributes:
        urls: All of them.
    """

    room: Selection
    full: LeastWork = field(factory=LeastWork)
    urls: set[str] = field(factory=set, init=False)

    def put(self, url: str, load: Load, *, room: bool) -> None:
        """
        Take note of the worker at *url*.
        """
        self.urls.add(url)
        (self.full if room else self.room).discard(url)
        (self.room if room else self.full).put(url, load)

    def discard(self, url: str) -> None:
        """
        Forget the worker at *url*.
        """
        self.urls.discard(url)
        self.room.discard(url)
        self.full.discard(url)

    def has(self, without: Collection[str]) -> bool:
        """
        Whether there is any worker but those *without*.
        """
        return len(self.urls) > len(without) or any(url not in without for url in self.urls)

    def has_room(self, without: Collection[str]) -> bool:
        """
        Whether any of them but those *without* has room.
        """
        room = len(self.room)
        return room > len(without) or room > sum(url in self.room for url in without)


class Place(NamedTuple):
    """
    Where a desk has a worker, as whose record and with which weights epoch.
    """

    tier: Tier
    epoch: int | None
    worker: Worker


@define(eq=False)
class Desk:
    """
    Knows the workers for requests that want the same.

    It has five tiers, each used only when those before have nobody: workers in service, those that
    have come lately and have as much as they should have for a start, those that have yet to pass
    their first health check or were not reached last time, those in a realtime session, those known
    to be unable. Who is in a session is no choice at all for another one; and nobody is given to
    the unable while somebody able is only being updated.

    Where workers differ in their weights epochs it has desks of its own for the epochs that are
    required, for as long as they differ in the same ones.

    Args:
        want: What the requests want.
        make: Makes an empty index.
        load: Tells the load of a worker as this desk sees it.
        stations: The workers there are; read when an epoch is required.
    """

    want: Want
    make: Callable[[], Selection]
    load: Callable[[Station, Want], Load]
    stations: Callable[[], Iterable[Station]]
    _tiers: tuple[Tier, ...] = field(init=False)
    _places: dict[str, Place] = field(factory=dict, init=False)
    _coming: dict[str, bool] = field(factory=dict, init=False)
    _epochs: Counter[int | None] = field(factory=Counter, init=False)
    _required: dict[RequiredEpoch, Desk] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._tiers = tuple(Tier(self.make()) for _ in range(5))

    def put(self, station: Station) -> None:
        """
        Take note of *station* as it is now.
        """
        worker = station.worker
        place = self._places.get(worker.url)
        # Most often only what it has to do has changed; who comes lately is looked at again.
        settled = station.start is None and place is not None and place.tier is not self._tiers[1]
        if place is None or place.worker is not worker or not settled:
            place = self._placed(station)
        if place is not None:
            room = station.room or not self.want.slot
            place.tier.put(worker.url, self.load(station, self.want), room=room)
        for desk in self._required.values():
            desk.put(station)

    def discard(self, url: str) -> None:
        """
        Forget the worker at *url*.
        """
        self._move(url, None)
        for desk in self._required.values():
            desk.discard(url)

    def tier(
        self, without: Collection[str] = (), required: RequiredEpoch | None = None
    ) -> Tier | None:
        """
        The workers for the next request, apart from those *without* and those that do not have the
        *required* epoch; None when there are none.
        """
        if required is not None:
            met = [each for each in self._epochs if each is not None and required.met_by(each)]
            if not met:
                return None
            if len(met) < len(self._epochs):
                # All that is required of those who differ is as good as the least that meets it.
                same = required if required.exact else RequiredEpoch(min(met))
                return self._requiring(same).tier(without)
        tier = next((tier for tier in self._tiers if tier.urls and tier.has(without)), None)
        return None if tier is self._tiers[-1] and self.awaits(without) else tier

    def awaits(self, without: Collection[str] = (), *, unable: bool = False) -> bool:
        """
        Whether somebody, none of those *without*, will take such requests when an update has ended.

        Args:
            unable: Whether the unable count.
        """
        return any(url not in without and (able or unable) for url, able in self._coming.items())

    def someone(self) -> str | None:
        """
        The URL of a worker that takes such requests, now or when an update has ended.
        """
        return next(iter(self._coming or self._places), None)

    def _requiring(self, epoch: RequiredEpoch) -> Desk:
        desk = self._required.get(epoch)
        if desk is None:
            want = evolve(self.want, epoch=epoch)
            desk = self._required[epoch] = Desk(want, self.make, self.load, self.stations)
            for station in self.stations():
                desk.put(station)
        return desk

    def _placed(self, station: Station) -> Place | None:
        """
        Where *station* is from now on; None for nowhere.
        """
        worker, home = station.worker, self._home(station)
        url = worker.url
        if home is None:
            self._move(url, None)
            if self._comes(worker):
                self._coming[url] = not self.want.unable(worker.capabilities)
            return None
        place, before = Place(home, worker.epoch, worker), self._places.get(url)
        if before is not None and before[:2] == place[:2]:
            self._places[url] = place
        else:
            self._move(url, place)
        return place

    def _move(self, url: str, place: Place | None) -> None:
        self._coming.pop(url, None)
        before = self._places.pop(url, None)
        if place is not None:
            self._places[url] = place
            self._count_epoch(place.epoch, 1)
        if before is not None:
            before.tier.discard(url)
            self._count_epoch(before.epoch, -1)

    def _count_epoch(self, epoch: int | None, by: int) -> None:
        different = len(self._epochs)
        self._epochs[epoch] += by
        if not self._epochs[epoch]:
            del self._epochs[epoch]
        if len(self._epochs) != different:
            self._required.clear()

    def _home(self, station: Station) -> Tier | None:
        worker = station.worker
        if not worker.may_take(self.want):
            return None
        usual, ramping, last_resort, in_session, unable = self._tiers
        if self.want.unable(worker.capabilities):
            return unable
        if worker.in_session:
            return in_session
        if worker.doubtful:
            return last_resort
        return ramping if station.held_back else usual

    def _comes(self, worker: Worker) -> bool:
        """
        Whether *worker*, which takes no such requests now, will when an update has ended.
        """
        if not worker.in_rotation or not self.want.allows(worker.capabilities):
            return False
        required = self.want.epoch
        older = required is not None and worker.eligible and not required.met_by(worker.epoch)
        return worker.updating or older
