"""
The workers that one kind of request may go to, indexed for a quick choice.

A desk is told of every change of a record and never looks at the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from attrs import define, field

from sgl_droute.fleet.capabilities import Want
from sgl_droute.fleet.selection import Selection
from sgl_droute.fleet.worker import Worker


@define(eq=False)
class Desk:
    """
    Chooses workers for requests that want the same.

    It has three indexes, each used only when the one before has nobody: workers in service, those
    that have yet to pass their first health check, those known to be unable.

    Args:
        want: What the requests want.
        make: Makes an empty index.
    """

    want: Want
    make: Callable[[], Selection]
    _tiers: tuple[Selection, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tiers = (self.make(), self.make(), self.make())

    def put(self, worker: Worker) -> None:
        """
        Take note of *worker* as it is now.
        """
        home = self._home(worker)
        for tier in self._tiers:
            if tier is home:
                tier.put(worker.url, worker.load)
            else:
                tier.discard(worker.url)

    def discard(self, url: str) -> None:
        """
        Forget the worker at *url*.
        """
        for tier in self._tiers:
            tier.discard(url)

    def choose(self, without: Collection[str] = ()) -> str | None:
        """
        The URL of the worker for the next request, none of *without*; None when there is none.
        """
        chosen = (tier.choose(without) for tier in self._tiers)
        return next((url for url in chosen if url is not None), None)

    def _home(self, worker: Worker) -> Selection | None:
        if not worker.eligible or not self.want.allows(worker.capabilities):
            return None
        usual, last_resort, unable = self._tiers
        if self.want.unable(worker.capabilities):
            return unable
        return last_resort if worker.doubtful else usual
