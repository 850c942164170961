"""
The workers that each kind of request may go to, indexed for a quick choice.

The desks are told of every change of a record and keep none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from attrs import define, evolve, field

from sgl_droute.errors import NotFound
from sgl_droute.fleet.capabilities import UNNAMED, Capabilities, Want
from sgl_droute.fleet.selection import Selection
from sgl_droute.fleet.worker import Worker


@define(eq=False)
class Desk:
    """
    Chooses workers for requests that want the same.

    It has four indexes, each used only when the one before has nobody: workers in service, those
    that have yet to pass their first health check or were not reached last time, those in a
    realtime session, those known to be unable. Who is in a session is no choice at all for another
    one.

    Args:
        want: What the requests want.
        make: Makes an empty index.
    """

    want: Want
    make: Callable[[], Selection]
    _tiers: tuple[Selection, ...] = field(init=False)
    _homes: dict[str, Selection] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._tiers = (self.make(), self.make(), self.make(), self.make())

    def put(self, worker: Worker) -> None:
        """
        Take note of *worker* as it is now.
        """
        home = self._home(worker)
        before = self._homes.get(worker.url)
        if before is not None and before is not home:
            self.discard(worker.url)
        if home is not None:
            self._homes[worker.url] = home
            home.put(worker.url, worker.load)

    def discard(self, url: str) -> None:
        """
        Forget the worker at *url*.
        """
        home = self._homes.pop(url, None)
        if home is not None:
            home.discard(url)

    def choose(self, without: Collection[str] = ()) -> str | None:
        """
        The URL of the worker for the next request, none of *without*; None when there is none.
        """
        chosen = (tier.choose(without) for tier in self._tiers)
        return next((url for url in chosen if url is not None), None)

    def _home(self, worker: Worker) -> Selection | None:
        if not worker.may_take(self.want):
            return None
        usual, last_resort, in_session, unable = self._tiers
        if self.want.unable(worker.capabilities):
            return unable
        if worker.in_session:
            return in_session
        return last_resort if worker.doubtful else usual


@define(eq=False)
class Desks:
    """
    A desk for each want that came, as long as somebody serves it.

    Args:
        make: Makes an empty index.
        strict_model: Whether a model that nobody serves is an error instead of no wish at all.
    """

    make: Callable[[], Selection]
    strict_model: bool = False
    _desks: dict[Want, Desk] = field(factory=dict, init=False)
    _by_capabilities: dict[Capabilities, list[Desk]] = field(factory=dict, init=False)
    _served: Counter[frozenset[str]] = field(factory=Counter, init=False)

    @property
    def several_models(self) -> bool:
        """Whether it matters which model a request names."""
        return self.strict_model or len(self._served) > 1

    def changed(self, before: Worker | None, now: Worker | None) -> None:
        """
        Take note of a worker that was *before* and is *now*: None when it was or is not there.
        """
        if before is not None and now is not None and before.capabilities == now.capabilities:
            if _moved(before, now):
                self._put(now)
            return
        if before is not None:
            for desk in self._open_to(before.capabilities):
                desk.discard(before.url)
            self._count_names(before, -1)
        if now is not None:
            self._count_names(now, 1)
            self._put(now)

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

    def choose(self, want: Want, without: Collection[str], workers: Iterable[Worker]) -> str | None:
        """
        The URL of the worker for a *resolved* want, none of *without*; None when there is none.

        Args:
            workers: All there are; read when the want is new.
        """
        desk = self._desks.get(want)
        if desk is None:
            desk = self._desks[want] = Desk(want, self.make)
            self._by_capabilities.clear()
            for worker in workers:
                desk.put(worker)
        return desk.choose(without)

    def __len__(self) -> int:
        return len(self._desks)

    def _put(self, worker: Worker) -> None:
        for desk in self._open_to(worker.capabilities):
            desk.put(worker)

    def _open_to(self, capabilities: Capabilities) -> list[Desk]:
        """
        The desks that workers with *capabilities* may stand on; with many models these are few.
        """
        desks = self._by_capabilities.get(capabilities)
        if desks is None:
            desks = [desk for desk in self._desks.values() if desk.want.allows(capabilities)]
            self._by_capabilities[capabilities] = desks
        return desks

    def _count_names(self, worker: Worker, by: int) -> None:
        names = worker.capabilities.names
        self._served[names] += by
        if not self._served[names]:
            del self._served[names]
            # A desk for a model that is served no more would be kept for good.
            gone = names.difference(*self._served) if self._served else names
            for want in [want for want in self._desks if want.model in gone]:
                del self._desks[want]
            self._by_capabilities.clear()


def _moved(before: Worker, now: Worker) -> bool:
    """
    Whether anything differs that a desk sees of a worker, its capabilities aside.
    """
    return (
        before.load != now.load
        or before.eligible != now.eligible
        or before.doubtful != now.doubtful
        or before.in_session != now.in_session
    )
