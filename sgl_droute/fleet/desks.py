"""
The desks for all kinds of requests.

They are told of every change of a record or a load and keep none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from attrs import define, evolve, field

from sgl_droute.errors import NotFound
from sgl_droute.fleet.capabilities import UNNAMED, Capabilities, Want
from sgl_droute.fleet.desk import Desk, Tier
from sgl_droute.fleet.selection import Load, Selection
from sgl_droute.fleet.station import Station
from sgl_droute.fleet.worker import Worker


@lru_cache(maxsize=1024)
def of_any_epoch(want: Want) -> Want:
    """
    *want*, whatever epoch it requires.
    """
    return evolve(want, epoch=None)


@define(eq=False)
class Desks:
    """
    A desk for each want that came, whatever epoch it requires, as long as somebody serves it.

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

    def tier(self, want: Want, without: Collection[str] = ()) -> Tier | None:
        """
        The workers for the next request with a *resolved* want; see `Desk.tier`.
        """
        return self.desk(want).tier(without, want.epoch)

    def desk(self, want: Want) -> Desk:
        """
        The desk for a *resolved* want, whatever epoch it requires.
        """
        if want.epoch is not None:
            want = of_any_epoch(want)
        desk = self._desks.get(want)
        if desk is None:
            desk = self._desks[want] = Desk(want, self.make, self.load, self.stations)
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
