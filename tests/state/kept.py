"""
A fleet that is kept in a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.loras import LoraCall
from sgl_droute.fleet.modules import Modules
from sgl_droute.fleet.owners import Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.webhooks import PendingWebhooks
from sgl_droute.fleet.weights import Adaptation, Change, Update
from sgl_droute.fleet.worker import Probe, Worker
from sgl_droute.state.keeper import Keeper
from sgl_droute.state.store import Store

GOOD, BAD = Probe(healthy=True), Probe(healthy=False, reason="/health answered 503")
A, B = "http://a:1", "http://b:1"


class Lessons:
    """
    Stands for learned speeds.

    Attributes:
        texts: What is known of each worker.
        asked: How often that was asked for (count).
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.asked = 0
        self.on_change: Callable[[str, str], object] = lambda url, kind: None

    def learn(self, url: str, text: str) -> None:
        self.texts[url] = text
        self.on_change(url, "image")

    def saved(self, url: str) -> str | None:
        self.asked += 1
        return self.texts.get(url)

    def restore(self, url: str, text: str) -> None:
        self.texts[url] = text


class Fleet:
    """
    A pool, its holdings, its weights and what was learned of its speeds, kept in a store.
    """

    def __init__(self, store: Store) -> None:
        self.now = 1_000_000.0
        self.lessons = Lessons()
        self.pool = Pool()
        self.refits = Refits(self.pool)
        self.holdings = Holdings(self.pool, Owners(3600.0), OpenJobs(), lambda: self.now)
        self.webhooks = PendingWebhooks()
        self.called: dict[str, Worker] = {}
        Keeper(store, self.pool, self.holdings, self.lessons, self.refits, self.webhooks).begin()

    @property
    def states(self) -> dict[str, str]:
        return {worker.url: worker.state for worker in self.pool}

    def ready(self, url: str, model: str | None = None) -> Worker:
        """
        The worker at *url*, registered if it was not, that has answered a health check and said
        that it serves *model*.
        """
        worker = self.pool[url] if url in self.pool else self.pool.add(url)
        self.pool.change(worker, lambda now: evolve(now, capabilities=Capabilities(model=model)))
        self.pool.record_probe(worker, GOOD, threshold=3)
        return self.pool[url]

    def update(self, path: str, body: bytes = b"", modules: Modules = None) -> Update:
        return Update(self.pool.epochs.next_number(), path, body, modules)

    def adaptation(self, call: LoraCall) -> Adaptation:
        return Adaptation(self.pool.epochs.next_number(), call)

    # A change of the weights, step by step.

    def begin(self, change: Change) -> Refit:
        return self.refits.begin(change, "/path", b"{}", "broadcast", list(self.pool), self.now)

    def call(self, refit: Refit, url: str) -> None:
        self.refits.hold(self.pool[url])
        self.called[url] = self.pool[url]
        self.refits.calling(refit, self.pool[url])

    def answer(self, refit: Refit, url: str, verdict: Verdict) -> None:
        self.refits.ended_at(refit, self.called[url], verdict)

    def make(self, change: Change, verdicts: Mapping[str, Verdict | None]) -> Refit:
        """
        An update whose end is still to come, and what workers made of it; None for no answer yet.
        """
        refit = self.begin(change)
        for url in verdicts:
            self.call(refit, url)
        for url, verdict in verdicts.items():
            if verdict is not None:
                self.answer(refit, url, verdict)
        return refit
