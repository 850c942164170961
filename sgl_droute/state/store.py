"""
What a place for the state must be able to do, and the one that keeps nothing.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker


class Store(Service, metaclass=ABCMeta):
    """
    Keeps the state while the service runs. Only `load` may block; a put or drop returns at once,
    never fails for the store's sake, and is written behind the caller's back.

    Attributes:
        durable: What is put is there after a restart.
    """

    durable: ClassVar[bool]

    @property
    @abstractmethod
    def place(self) -> str:
        """
        Where that is: the path of the file, or ``memory:``.
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
    def put_weights(self, text: str) -> None:
        """
        Keep what the fleet knows of its weights, in the place of what was kept before, LoRA calls
        of older versions included.

        Raises:
            ValueError: The text has no UTF-8.
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
    def put_webhook(self, webhook: Webhook) -> None:
        """
        Keep a call that is to be made, in the place of what was known of the same job's.
        """

    @abstractmethod
    def drop_webhook(self, kind: str, job_id: str) -> None:
        """
        Forget the call for that job.
        """

    @abstractmethod
    def before_writing(self, put: Callable[[bool], None]) -> None:
        """
        Have *put* called before each write, to put what was held back until then: with true before
        the last one. A store that never writes never calls it.
        """

    @abstractmethod
    def written(self) -> Deferred[None]:
        """
        Fires when all that was put before this call is on the disk, where neither a kill nor a
        power cut can take it away; a write begins at once, or right after the one under way. At
        once where the store is not `durable`. Cancelling the wait does not reach the write.

        It fails with `sgl_droute.state.database.StateError` if that write did not succeed, and what
        was put then waits for the next one; also if one of those called before it (see
        `before_writing`) failed, and if the service does not run or is stopping.
        """


class MemoryStore(Store):
    """
    Keeps nothing: what the router knows is in its memory anyway.
    """

    durable = False
    place = "memory:"

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

    def put_weights(self, text: str) -> None:
        pass

    def put_speeds(self, url: str, text: str) -> None:
        pass

    def drop_speeds(self, url: str) -> None:
        pass

    def put_webhook(self, webhook: Webhook) -> None:
        pass

    def drop_webhook(self, kind: str, job_id: str) -> None:
        pass

    def before_writing(self, put: Callable[[bool], None]) -> None:
        pass

    def written(self) -> Deferred[None]:
        return succeed(None)
