"""
What a place for the state must be able to do, and the one that keeps nothing.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service

from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker


class Store(Service, metaclass=ABCMeta):
    """
    Keeps the state while the service runs. Only `load` may block; a put or drop returns at once,
    never fails for the store's sake, and is written behind the caller's back.
    """

    @abstractmethod
    def load(self) -> Saved:
        """
        What the last run left. Call it once, before the service starts and before any change.

        Raises:
            ValueError: The state cannot be had; one sentence says where and why.
        """

    @abstractmethod
    def put_worker(self, worker: SavedWorker) -> None:
        """
        Keep a worker; a new one goes to the end of the order, a known one keeps its place.
        """

    @abstractmethod
    def drop_worker(self, url: str) -> None:
        """
        Forget a worker. The owners that name it stay until they are dropped themselves.
        """

    @abstractmethod
    def put_owner(self, owner: SavedOwner) -> None:
        """
        Keep an owner, in the place of what was known of the same kind and id.
        """

    @abstractmethod
    def drop_owner(self, kind: str, owner_id: str) -> None:
        """
        Forget an owner.
        """

    @abstractmethod
    def put_loras(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """
        Keep the calls that give the fleet's LoRA set, in the place of those before.

        Raises:
            TypeError, ValueError: They hold something that is no JSON.
        """

    @abstractmethod
    def put_speeds(self, url: str, text: str) -> None:
        """
        Keep what was learned of the speed of the worker at *url*, in the place of what was known.
        """

    @abstractmethod
    def drop_speeds(self, url: str) -> None:
        """
        Forget what was learned of the speed of the worker at *url*.
        """

    @abstractmethod
    def before_writing(self, put: Callable[[bool], None]) -> None:
        """
        Have *put* called before each write, to put what was held back until then: with true before
        the last one. A store that never writes never calls it.
        """


class MemoryStore(Store):
    """
    Keeps nothing: what the router knows is in its memory anyway.
    """

    def load(self) -> Saved:
        return Saved()

    def put_worker(self, worker: SavedWorker) -> None:
        pass

    def drop_worker(self, url: str) -> None:
        pass

    def put_owner(self, owner: SavedOwner) -> None:
        pass

    def drop_owner(self, kind: str, owner_id: str) -> None:
        pass

    def put_loras(self, calls: Sequence[Mapping[str, Any]]) -> None:
        pass

    def put_speeds(self, url: str, text: str) -> None:
        pass

    def drop_speeds(self, url: str) -> None:
        pass

    def before_writing(self, put: Callable[[bool], None]) -> None:
        pass
