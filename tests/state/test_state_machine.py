"""
Law: whatever is put, dropped, written, failed, stopped or killed in whatever order, the next
process reads what a plain model holds.
"""

from __future__ import annotations

import os
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.python.failure import Failure

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.state.database import StateError
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.store import Store
from tests.state.hands import Bench
from tests.state.model import Model

URLS = [f"http://w{number}:1" for number in range(4)]
IDS = [("image", "a"), ("video", "a"), ("video", "b"), ("mesh", "é\0")]

urls = st.sampled_from(URLS)
ids = st.sampled_from(IDS)
workers = st.builds(
    SavedWorker,
    url=urls,
    dead=st.booleans(),
    barred=st.booleans(),
    leaving=st.booleans(),
    asleep=st.booleans(),
    concurrency=st.sampled_from([None, "auto", 0, 2]),
    speed=st.sampled_from([None, 0.5, 2.0]),
)
owners = st.builds(
    lambda key, worker, used, still_open, epoch: SavedOwner(
        kind=key[0], id=key[1], worker=worker, used=used, open=still_open, epoch=epoch
    ),
    ids,
    urls,
    st.integers(0, 3).map(float),
    st.booleans(),
    st.sampled_from(["", "7", "7-8", "unknown"]),
)
webhooks = st.builds(
    lambda key, url, body, tries, due: Webhook(
        kind=key[0], id=key[1], url=url, event="e", body=body, tries=tries, due=due, until=due
    ),
    ids,
    urls,
    st.sampled_from(["", "{}"]),
    st.integers(0, 3),
    st.floats(0, 1e10),
)


class Promise:
    """
    Somebody waits for what was put to be written: `answer` is how that ended, if it has.
    """

    def __init__(self, store: Store) -> None:
        self.answer: Failure | bool | None = None
        store.written().addBoth(self._ended)

    @property
    def kept(self) -> bool:
        return self.answer is True

    @property
    def broken(self) -> bool:
        return isinstance(self.answer, Failure) and self.answer.check(StateError) is not None

    def _ended(self, result: Failure | None) -> None:
        assert self.answer is None
        self.answer = True if result is None else result


class StateMachine(RuleBasedStateMachine):
    """
    `model` is what the router knows, `writing` what a write under way will have written, and
    `durable` what a kill would leave; `served` wait for the write under way and `next` for the one
    after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.bench = Bench(os.path.join(self.folder.name, "router.sqlite"))
        self.durable = Saved()
        self.writing: Saved | None = None
        self.served: list[Promise] = []
        self.next: list[Promise] = []
        self._start()

    @rule(worker=workers)
    def put_worker(self, worker: SavedWorker) -> None:
        for store in self._both():
            store.put_worker(worker)

    @rule(url=urls)
    def drop_worker(self, url: str) -> None:
        for store in self._both():
            store.drop_worker(url)

    @rule(owner=owners)
    def put_owner(self, owner: SavedOwner) -> None:
        for store in self._both():
            store.put_owner(owner)

    @rule(key=ids)
    def drop_owner(self, key: tuple[str, str]) -> None:
        for store in self._both():
            store.drop_owner(*key)

    @rule(text=st.text(alphabet="1é\0", max_size=2))
    def put_weights(self, text: str) -> None:
        for store in self._both():
            store.put_weights(text)

    @rule(url=urls, text=st.text(alphabet="1é\0", max_size=2))
    def put_speeds(self, url: str, text: str) -> None:
        for store in self._both():
            store.put_speeds(url, text)

    @rule(url=urls)
    def drop_speeds(self, url: str) -> None:
        for store in self._both():
            store.drop_speeds(url)

    @rule(webhook=webhooks)
    def put_webhook(self, webhook: Webhook) -> None:
        for store in self._both():
            store.put_webhook(webhook)

    @rule(key=ids)
    def drop_webhook(self, key: tuple[str, str]) -> None:
        for store in self._both():
            store.drop_webhook(*key)

    @precondition(lambda self: self.writing is None)
    @rule()
    def begin_to_write(self) -> None:
        self.bench.clock.advance(0.5)
        self._begun()

    @rule()
    def wait_for_a_write(self) -> None:
        promise = Promise(self.bench.store)
        self.next.append(promise)
        if self.writing is None:
            self._begun()

    @precondition(lambda self: self.writing is not None)
    @rule()
    def write(self) -> None:
        assert self.writing is not None
        served, self.durable = self.served, self.writing
        self.bench.thread.finish()
        assert all(promise.kept for promise in served)
        self._ended()

    @precondition(lambda self: self.writing is not None)
    @rule()
    def fail_to_write(self) -> None:
        served = self.served
        self.bench.database.fill()
        self.bench.thread.finish()
        self.bench.database.problem = None
        assert all(promise.broken for promise in served)
        self._ended()

    @rule()
    def kill(self) -> None:
        self.bench.database.close()
        self._restart()

    @rule(full=st.booleans())
    def stop(self, full: bool) -> None:
        if full:
            self.bench.database.fill()
        else:
            self.durable = self.model.load()
        done: list[None] = []
        self.bench.store.stopService().addCallback(done.append)
        while self.bench.thread.calls:
            assert done == []
            self.bench.thread.finish()
        assert done == [None]
        assert all(promise.broken if full else promise.kept for promise in self.served)
        # Where what waited was undone meanwhile, nothing is left that could fail.
        well = self.model.load() == self.durable
        assert all((full and each.broken) or (well and each.kept) for each in self.next)
        assert Promise(self.bench.store).broken
        self._restart()

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.bench.store._pending) <= 2 * len(URLS) + 2 * len(IDS) + 1

    @invariant()
    def nobody_is_told_too_early(self) -> None:
        assert all(promise.answer is None for promise in [*self.served, *self.next])

    def teardown(self) -> None:
        self.bench.database.close()
        self.folder.cleanup()

    def _both(self) -> tuple[Store, Store]:
        return self.bench.store, self.model

    def _begun(self) -> None:
        served, self.next = self.next, []
        if self.bench.thread.calls:
            self.writing, self.served = self.model.load(), served
        else:
            assert self.model.load() == self.durable
            assert all(promise.kept for promise in served)

    def _ended(self) -> None:
        self.writing, self.served = None, []
        if self.next:
            self._begun()
        assert self.writing is not None or not self.bench.thread.calls

    def _restart(self) -> None:
        self.bench = self.bench.restarted()
        self._start()

    def _start(self) -> None:
        self.model = Model(self.durable)
        self.writing = None
        self.served, self.next = [], []
        assert self.bench.store.load() == self.durable
        self.bench.thread.held = True
        self.bench.store.startService()


TestState = StateMachine.TestCase
TestState.settings = settings(max_examples=60, stateful_step_count=40)
