"""
A store as a plain model: what the next process should read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar

from twisted.internet.defer import Deferred, succeed

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.store import Store


class Model(Store):
    """
    Keeps in memory what a store would keep, from *saved* on.

    Attributes:
        puts: How often something was put of each worker's speed (count).
    """

    durable: ClassVar[bool] = True
    place = "/a/model"

    def __init__(self, saved: Saved) -> None:
        self.workers = {worker.url: worker for worker in saved.workers}
        self.owners = {(owner.kind, owner.id): owner for owner in saved.owners}
        self.loras = saved.loras
        self.speeds = dict(saved.speeds)
        self.weights = saved.weights
        self.webhooks = {webhook.key: webhook for webhook in saved.webhooks}
        self.puts: Counter[str] = Counter()
        self._before: list[Callable[[bool], None]] = []

    def load(self) -> Saved:
        self._before.clear()
        return self.saved()

    def saved(self) -> Saved:
        """
        What the next process will read.
        """
        owners = sorted(self.owners.values(), key=lambda each: (each.used, each.kind, each.id))
        speeds = tuple(sorted(self.speeds.items()))
        workers = tuple(self.workers.values())
        loras = () if self.weights else self.loras
        webhooks = tuple(sorted(self.webhooks.values(), key=lambda each: each.key))
        return Saved(workers, tuple(owners), loras, speeds, self.weights, webhooks)

    def put_worker(self, worker: SavedWorker) -> None:
        self.workers[worker.url] = worker  # a dict keeps the place of a key that it has

    def drop_worker(self, url: str) -> None:
        self.workers.pop(url, None)

    def put_owner(self, owner: SavedOwner) -> None:
        self.owners[owner.kind, owner.id] = owner

    def drop_owner(self, kind: str, owner_id: str) -> None:
        self.owners.pop((kind, owner_id), None)

    def put_weights(self, text: str) -> None:
        self.weights = text

    def put_speeds(self, url: str, text: str) -> None:
        self.speeds[url] = text
        self.puts[url] += 1

    def drop_speeds(self, url: str) -> None:
        self.speeds.pop(url, None)

    def put_webhook(self, webhook: Webhook) -> None:
        self.webhooks[webhook.key] = webhook

    def drop_webhook(self, kind: str, job_id: str) -> None:
        self.webhooks.pop((kind, job_id), None)

    def before_writing(self, put: Callable[[bool], None]) -> None:
        self._before.append(put)

    def written(self) -> Deferred[None]:
        return succeed(None)

    def write(self, *, last: bool = False) -> None:
        """
        What a store does twice a second, and once more when it stops.
        """
        for put in self._before:
            put(last)
