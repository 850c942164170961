"""
The workers that each kind of request may go to, indexed for a quick choice.

The desks are told of every change of a record or a load and keep none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from attrs import define, evolve, field

from sgl_droute.errors import NotFound
from sgl_droute.fleet.capabilities import UNNAMED, Capabilities, Want
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


@define(eq=False)
class Desk:
    """
    Knows the workers for requests that want the same.

    It has five tiers, each used only when those before have nobody: workers in service, those that
    have come lately and have as much as they should have for a start, those that have yet to pass
    their first health check or were not reached last time, those in a realtime session, those known
    to be unable. Who is in a session is no choice at all for another one.

    Args:
        want: What the requests want.
        make: Makes an empty index.
        load: Tells the load of a worker as this desk sees it.
    """

    want: Want
    make: Callable[[], Selection]
    load: Callable[[Station, Want], Load]
    _tiers: tuple[Tier, ...] = field(init=False)
    _homes: dict[str, Tier] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._tiers = tuple(Tier(self.make()) for _ in range(5))

    def put(self, station: Station) -> None:
        """
        Take note of *station* as it is now.
        """
        url = station.worker.url
        home = self._home(station)
        before = self._homes.get(url)
        if before is not None and before is not home:
            before.discard(url)
            del self._homes[url]
        if home is not None:
            self._homes[url] = home
            room = station.room or not self.want.slot
            home.put(url, self.load(station, self.want), room=room)

    def discard(self, url: str) -> None:
        """
        Forget the worker at *url*.
        """
        home = self._homes.pop(url, None)
        if home is not None:
            home.discard(url)

    def tier(self, without: Collection[str] = ()) -> Tier | None:
        """
        The workers for the next request, apart from those *without*; None when there are none.
        """
        return next((tier for tier in self._tiers if tier.urls and tier.has(without)), None)

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


@define(eq=False)
class Desks:
    """
    A desk for each want that came, as long as somebody serves it.

    Args:
        make: Makes an empty index.
        load: Tells the load of a worker for a want.
        stations: The workers there are; read when a want is new.
        strict_model: Whether a model that nobody serves is an error instead of no wish at all.
    """

    make: Callable[[], Selection]
    load: Callable[[Station, Want], Load]
    stations: Callable[[], Iterable[Station]]
    strict_model: bool = False
    _desks: dict[Want, Desk] = field(factory=dict, init=False)
    _by_capabilities: dict[Capabilities, list[Desk]] = field(factory=dict, init=False)
    _served: Counter[frozenset[str]] = field(factory=Counter, init=False)

    @property
    def several_models(self) -> bool:
        """Whether it matters which model a request names."""
        return self.strict_model or len(self._served) > 1

    def came(self, station: Station) -> None:
        """
        Take note of a worker that was not there.
        """
        self._count_names(station.worker.capabilities, 1)
        self.put(station)

    def left(self, worker: Worker) -> None:
        """
        Take note of a worker that is there no more, or not as it was.
        """
        for desk in self._open_to(worker.capabilities):
            desk.discard(worker.url)
        self._count_names(worker.capabilities, -1)

    def put(self, station: Station) -> None:
        """
        Take note of *station* as it is now; it serves what it served.
        """
        for desk in self._open_to(station.worker.capabilities):
            desk.put(station)

    def resolved(self, want: Want) -> Want:
        """
        *want*, without its model if nobody serves that and it does not matter.

        Raises:
            NotFound: It matters, and every worker has said that it serves other models.
        """
        if want.model is None or any(want.model in names for names in self._served):
            return want
        if not self.strict_model:
            return evolve(want, model=None)
        if frozenset() in self._served:
            return evolve(want, model=UNNAMED)
        raise NotFound(f"The model {want.model!r} is served by no worker")

    def desk(self, want: Want) -> Desk:
        """
        The desk for a *resolved* want.
        """
        desk = self._desks.get(want)
        if desk is None:
            desk = self._desks[want] = Desk(want, self.make, self.load)
            self._by_capabilities.clear()
            for station in self.stations():
                desk.put(station)
        return desk

    def __len__(self) -> int:
        return len(self._desks)

    def _open_to(self, capabilities: Capabilities) -> list[Desk]:
        """
        The desks that workers with *capabilities* may stand on; with many models these are few.
        """
        desks = self._by_capabilities.get(capabilities)
        if desks is None:
            desks = [desk for desk in self._desks.values() if desk.want.allows(capabilities)]
            self._by_capabilities[capabilities] = desks
        return desks

    def _count_names(self, capabilities: Capabilities, by: int) -> None:
        names = capabilities.names
        self._served[names] += by
        if not self._served[names]:
            del self._served[names]
            # A desk for a model that is served no more would be kept for good.
            gone = names.difference(*self._served) if self._served else names
            for want in [want for want in self._desks if want.model in gone]:
                del self._desks[want]
            self._by_capabilities.clear()
