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
    leaving=st.booleans(),
    asleep=st.booleans(),
    concurrency=st.sampled_from([None, "auto", 0, 2]),
    speed=st.sampled_from([None, 0.5, 2.0]),
)
owners = st.builds(
    lambda key, worker, used, still_open: SavedOwner(
        kind=key[0], id=key[1], worker=worker, used=used, open=still_open
    ),
    ids,
    urls,
    st.integers(0, 3).map(float),
    st.booleans(),
)
loras = st.lists(st.dictionaries(st.text(max_size=3), st.integers()), max_size=2)


class StateMachine(RuleBasedStateMachine):
    """
    `model` is what the router knows, `writing` what a write under way will have written, and
    `durable` what a kill would leave.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.bench = Bench(os.path.join(self.folder.name, "router.sqlite"))
        self.durable = Saved()
        self.writing: Saved | None = None
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

    @rule(calls=loras)
    def put_loras(self, calls: list[dict[str, int]]) -> None:
        for store in self._both():
            store.put_loras(calls)

    @rule(url=urls, text=st.text(alphabet="1é\0", max_size=2))
    def put_speeds(self, url: str, text: str) -> None:
        for store in self._both():
            store.put_speeds(url, text)

    @rule(url=urls)
    def drop_speeds(self, url: str) -> None:
        for store in self._both():
            store.drop_speeds(url)

    @precondition(lambda self: self.writing is None)
    @rule()
    def begin_to_write(self) -> None:
        self.bench.clock.advance(0.5)
        if self.bench.thread.calls:
            self.writing = self.model.load()
        else:
            assert self.model.load() == self.durable

    @precondition(lambda self: self.writing is not None)
    @rule()
    def write(self) -> None:
        assert self.writing is not None
        self.bench.thread.finish()
        self.durable, self.writing = self.writing, None

    @precondition(lambda self: self.writing is not None)
    @rule()
    def fail_to_write(self) -> None:
        self.bench.database.fill()
        self.bench.thread.finish()
        self.bench.database.problem = None
        self.writing = None

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
        self._restart()

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.bench.store._pending) <= 2 * len(URLS) + len(IDS) + 1

    def teardown(self) -> None:
        self.bench.database.close()
        self.folder.cleanup()

    def _both(self) -> tuple[Store, Store]:
        return self.bench.store, self.model

    def _restart(self) -> None:
        self.bench = self.bench.restarted()
        self._start()

    def _start(self) -> None:
        self.model = Model(self.durable)
        self.writing = None
        assert self.bench.store.load() == self.durable
        self.bench.thread.held = True
        self.bench.store.startService()


TestState = StateMachine.TestCase
TestState.settings = settings(max_examples=60, stateful_step_count=40)
