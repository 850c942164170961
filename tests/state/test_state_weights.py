"""
What is known of the fleet's weights goes to a store, and comes back from it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sgl_droute.fleet.loras import MERGE, SET, LoraCall, LoraSet
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.refits import MOST_HISTORY
from sgl_droute.fleet.weights import DISK, TENSOR, Actual
from sgl_droute.state.database import StateError
from sgl_droute.state.saved import Saved, SavedWorker
from tests.state.hands import Bench
from tests.state.kept import GOOD, A, B, Fleet
from tests.state.model import Model

TOOK, REFUSED, FAILED, LOST = Verdict.TOOK, Verdict.REFUSED, Verdict.FAILED, Verdict.LOST
BODY = b'{"model_path": "/w/\xff"}'
LORA = LoraCall(SET, {"lora_nickname": "x", "lora_path": "p/x"})
OLDER = LoraSet().after(LORA).saved()


def store() -> Model:
    return Model(Saved())


def updated(kept: Model) -> Fleet:
    """
    A fleet of which A took three updates and B the first one only.
    """
    fleet = Fleet(kept)
    for url in (A, B):
        fleet.ready(url, "m")
    part = frozenset({"vae"})
    for change, of_b in (
        (fleet.update(DISK, BODY), TOOK),
        (fleet.update(TENSOR, modules=part), REFUSED),
        (fleet.adaptation(LORA), LOST),
    ):
        fleet.refits.end(fleet.make(change, {A: TOOK, B: of_b}), 2.5)
    return fleet


def after_crash(kept: Model) -> Fleet:
    """
    The fleet of the next process, if this one ends right after a write.
    """
    kept.write()
    return Fleet(kept)


def history(fleet: Fleet) -> list[dict[str, Any]]:
    """
    All that is known of the updates that ended.
    """
    return [{**refit.saved(), "models": refit.models} for refit in fleet.refits.history]


def same(actual: Actual, before: Actual) -> bool:
    """
    Whether all of that is the same that outlives the router: an epoch is told anew.
    """
    return evolve(actual, epoch=None) == evolve(before, epoch=None, calls=0)


def test_what_is_desired_survives() -> None:
    """
    Epochs, the updates that a fresh worker needs, the LoRA set and the checksums come back, model
    by model, and the next change gets the next number.
    """
    kept = store()
    fleet = updated(kept)
    fleet.refits.refer("m", {"text_encoder": ("sum", "")})
    again = after_crash(kept)
    before, now = fleet.pool.epochs, again.pool.epochs
    assert [now.desired(model) for model in ("m", None)] == [
        before.desired(model).after_a_crash() for model in ("m", None)
    ]
    assert now.desired("m").epoch == 3
    assert [update.body for update in now.desired("m").updates] == [BODY, b""]
    assert now.desired("m").loras.calls == (LORA,)
    assert now.desired("m").sums == {"text_encoder": ("sum", "")}
    assert now.next_number() == before.next_number() == 4


def test_what_workers_have_survives_unsure() -> None:
    """
    What each worker had comes back, but as the worker may be another process by now it gets no
    work for all that, and its epoch is not known.
    """
    kept = store()
    fleet = updated(kept)
    again = after_crash(kept)
    for worker in fleet.pool:
        restored = again.pool[worker.url]
        assert same(restored.actual, evolve(worker.actual, sure=False))
        assert restored.epoch is None
    for url in (A, B):
        again.ready(url, "m")
    assert again.states == {A: "stale", B: "stale"}
    assert not again.pool[A].eligible


def test_proven_to_have_what_it_had() -> None:
    """
    A worker gets work again once checksums have shown that it has what is desired.
    """
    kept = store()
    fleet = Fleet(kept)
    for url in (A, B):
        fleet.ready(url)
    fleet.refits.end(fleet.make(fleet.update(DISK, BODY), {A: TOOK, B: REFUSED}), 1.0)
    again = after_crash(kept)
    for url in (A, B):
        again.ready(url)
    again.refits.proven(again.pool[A])
    assert (again.states, again.pool[A].epoch) == ({A: "ready", B: "stale"}, 1)


def test_a_worker_just_started_has_nothing() -> None:
    """
    What a worker had does not come back to a process that surely is a new one.
    """
    kept = store()
    updated(kept)
    again = after_crash(kept)
    again.pool.record_lapse(again.pool[A], restarted=True)
    again.ready(A, "m")
    desired = again.pool.epochs.desired("m")
    assert [update.number for update in desired.missing(again.pool[A].actual)] == [1, 2]


def test_weights_go_with_their_worker() -> None:
    """
    Of a worker that left, or was there for one run only, nothing is known after a restart, and its
    successor is a fresh one.
    """
    kept = store()
    fleet = updated(kept)
    fleet.pool.remove(A)
    passing = "http://passing:1"
    fleet.pool.add(passing, lasting=False)
    fleet.refits.end(fleet.make(fleet.update(DISK), {passing: TOOK, B: TOOK}), 1.0)
    again = after_crash(kept)
    for url in (A, passing):
        assert (again.pool.add(url).actual.has, again.pool[url].actual.sure) == (frozenset(), True)
    assert again.pool[B].actual.has == {4}


def test_history_survives() -> None:
    """
    The last 50 updates that ended come back, each with what every worker made of it.
    """
    kept = store()
    fleet = updated(kept)
    for _ in range(MOST_HISTORY - 2):
        fleet.refits.end(fleet.make(fleet.update(DISK), {A: FAILED, B: REFUSED}), 1.0)
    again = after_crash(kept)
    assert history(again) == history(fleet)
    assert len(history(again)) == MOST_HISTORY
    assert history(again)[0]["outcomes"] == {A: "took", B: "refused"}
    assert again.refits.interrupted is None


@pytest.mark.parametrize(
    ("so_far", "epoch", "interrupted", "states"),
    [
        ({}, 0, False, "ready ready"),
        ({A: REFUSED}, 0, False, "ready ready"),
        ({A: None}, 0, True, "stale ready"),
        ({A: REFUSED, B: None}, 0, True, "ready stale"),
        ({A: LOST, B: FAILED}, 0, True, "stale stale"),
        ({A: TOOK}, 1, False, "stale stale"),
        ({A: TOOK, B: None}, 1, False, "stale stale"),
    ],
)
def test_crash_during_an_update(
    so_far: dict[str, Verdict | None], epoch: int, interrupted: bool, states: str
) -> None:
    """
    After a crash the workers that were called and had not answered get no work. If any is known to
    have taken the update it counts as made, and nobody gets work that may lack it; if none is,
    and one may have, the update is an open question; else it never was.
    """
    kept = store()
    fleet = Fleet(kept)
    for url in (A, B):
        fleet.ready(url)
    fleet.make(fleet.update(DISK, BODY), so_far)
    again = after_crash(kept)
    for url in (A, B):
        again.ready(url)
    assert again.pool.epochs.desired(None).epoch == epoch
    assert (again.refits.interrupted is not None) == interrupted
    assert " ".join(again.states.values()) == states
    [broken_off] = [*again.refits.history, *filter(None, [again.refits.interrupted])]
    assert broken_off.outcomes == so_far
    assert broken_off.note == ("" if interrupted else "interrupted by a restart of the router")
    for url, verdict in so_far.items():
        if verdict in (None, LOST, FAILED):
            assert again.pool[url].actual.torn is None
            assert again.pool[url].epoch is None


def test_an_open_question_stays_open() -> None:
    """
    An interrupted update is one after any number of restarts, until somebody finds out what its
    workers have; and then is so no more.
    """
    kept = store()
    fleet = Fleet(kept)
    fleet.ready(A)
    fleet.make(fleet.update(DISK, BODY), {A: None})
    for _ in range(3):
        fleet = after_crash(kept)
        assert fleet.refits.interrupted is not None
    fleet.refits.proven(fleet.ready(A))
    for each in (fleet, after_crash(kept)):
        assert each.refits.interrupted is None
        assert [(refit.outcomes, refit.note) for refit in each.refits.history] == [
            ({A: None}, "made good")
        ]


def test_safe_once_written(tmp_path: Path) -> None:
    """
    A kill can make the router forget which worker it is about to call, up to the moment when it
    is told that all is written; from then on none can.
    """
    bench = Bench(str(tmp_path / "router.sqlite"))
    fleet = Fleet(bench.store)
    bench.store.startService()
    fleet.ready(A)
    bench.clock.advance(0.5)
    bench.thread.held = True
    refit = fleet.begin(fleet.update(DISK, BODY))
    fleet.call(refit, A)
    safe: list[None] = []
    bench.store.written().addCallback(safe.append)
    assert (Fleet(bench.restarted().store).refits.interrupted, safe) == (None, [])
    bench.thread.finish()
    interrupted = Fleet(bench.restarted().store).refits.interrupted
    assert safe == [None]
    assert interrupted is not None
    assert interrupted.outcomes == {A: None}


def test_written_when_changed() -> None:
    """
    Weights of which nothing has changed since they were written are not written again.
    """
    kept = store()
    fleet = updated(kept)
    kept.write()
    kept.put_weights("as written")
    kept.write()
    assert kept.weights == "as written"
    fleet.refits.proven(fleet.pool[B])
    kept.write()
    assert kept.weights != "as written"


def test_the_lora_set_of_an_older_version() -> None:
    """
    The set that an older version kept is desired of all workers before they get work. It is told
    with the weights from then on, and does not come back when that changes.
    """
    kept = Model(Saved((SavedWorker(url=A),), loras=tuple(OLDER)))
    fleet = after_crash(kept)
    for _ in range(2):
        desired = fleet.pool.epochs.desired("any")
        assert (desired.epoch, desired.loras.calls, fleet.states) == (1, (LORA,), {A: "stale"})
        fleet = after_crash(kept)
    other = LoraCall(SET, {"lora_nickname": "y", "lora_path": "p/y"})
    fleet.refits.end(fleet.make(fleet.adaptation(other), {A: TOOK}), 1.0)
    assert after_crash(kept).pool.epochs.desired(None).loras.calls == (other,)


DAMAGED = ["{", "[]", "1", "null", '"x"', "{}", '{"number": 1}', "[" * 100_000, "\0"]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_weights(tmp_path: Path, text: str) -> None:
    """
    Weights that cannot be read stop the start with one sentence that names the file.
    """
    bench = Bench(str(tmp_path / "router.sqlite"))
    bench.store.load()
    bench.store.startService()
    bench.store.put_weights(text)
    bench.store.stopService()
    with pytest.raises(StateError) as problem:
        Fleet(bench.restarted().store)
    said = f"state file {tmp_path}/router.sqlite: is damaged: its weights cannot be read: "
    assert str(problem.value).startswith(said)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("calls", [({"a": 1},), ({"path": SET, "body": 5},), (7,)])
def test_damaged_loras(calls: tuple[Any, ...]) -> None:
    """
    So does a LoRA set of an older version.
    """
    with pytest.raises(StateError, match=r"^state file /a/model: is damaged: its weights"):
        Fleet(Model(Saved(loras=calls)))


def parts(value: Any) -> list[tuple[Any, Any]]:
    """
    Where each part of a JSON value stands: what it is in, and its key or index there.
    """
    if not isinstance(value, (dict, list)):
        return []
    keys = value if isinstance(value, dict) else range(len(value))
    return [each for key in keys for each in [(value, key), *parts(value[key])]]


def a_text() -> str:
    kept = store()
    fleet = updated(kept)
    fleet.refits.refer("m", {"text_encoder": ("sum", "")})
    fleet.make(fleet.update(DISK, BODY, frozenset({"vae"})), {A: None})
    kept.write()
    return kept.weights


TEXT = a_text()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some),
    max_leaves=4,
)


@given(data=st.data())
def test_damage_anywhere(data: st.DataObject) -> None:
    """
    Whichever part of the weights is missing or something else, the start goes well or is refused.
    """
    damaged = json.loads(TEXT)
    within, key = data.draw(st.sampled_from(parts(damaged)))
    if data.draw(st.booleans()):
        within[key] = data.draw(ANYTHING)
    else:
        del within[key]
    with suppress(StateError):
        Fleet(Model(Saved((SavedWorker(url=A),), weights=json.dumps(damaged))))


URLS = st.sampled_from([A, B, "http://c:1"])
MODULES = st.sampled_from([None, frozenset({"vae"}), frozenset({"vae", "dit"}), frozenset({""})])
LORAS = st.sampled_from([LORA, LoraCall(SET, {"lora_nickname": "x"}), LoraCall(MERGE, {})])


class KeptWeights(RuleBasedStateMachine):
    """
    Wherever the router is killed, the next one knows what was desired, what each worker had, and
    of which workers nobody knows it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = store()
        self.fleet = Fleet(self.store)

    @property
    def refit(self) -> Refit | None:
        return self.fleet.refits.under_way

    @property
    def at_rest(self) -> bool:
        """Whether an update can begin."""
        return self.refit is None and len(self.fleet.pool) > 0

    @rule(url=URLS, model=st.sampled_from([None, "m", "n"]))
    def join(self, url: str, model: str | None) -> None:
        self.fleet.ready(url, model)

    @rule(url=URLS)
    def register_again(self, url: str) -> None:
        self.fleet.pool.add(url)

    @rule(url=URLS)
    def check(self, url: str) -> None:
        if url in self.fleet.pool:
            self.fleet.pool.record_probe(self.fleet.pool[url], GOOD, threshold=3)

    @rule(url=URLS)
    def leave(self, url: str) -> None:
        if url in self.fleet.pool:
            self.fleet.pool.remove(url)

    @precondition(lambda self: self.at_rest)
    @rule(path=st.sampled_from([DISK, TENSOR]), modules=MODULES)
    def begin_update(self, path: str, modules: frozenset[str] | None) -> None:
        self.fleet.begin(self.fleet.update(path, BODY, modules))

    @precondition(lambda self: self.at_rest)
    @rule(call=LORAS)
    def begin_adaptation(self, call: LoraCall) -> None:
        self.fleet.begin(self.fleet.adaptation(call))

    @precondition(lambda self: self.refit is not None)
    @rule(url=URLS)
    def call(self, url: str) -> None:
        assert self.refit is not None
        if url in self.fleet.pool and url not in self.refit.outcomes:
            self.fleet.call(self.refit, url)

    @precondition(lambda self: self.refit is not None)
    @rule(url=URLS, verdict=st.sampled_from(list(Verdict)))
    def answer(self, url: str, verdict: Verdict) -> None:
        assert self.refit is not None
        if url in self.refit.outcomes and self.refit.outcomes[url] is None:
            self.fleet.answer(self.refit, url, verdict)

    @precondition(lambda self: self.refit is not None)
    @rule()
    def end(self) -> None:
        assert self.refit is not None
        for url, verdict in self.refit.outcomes.items():
            if verdict is None:
                self.fleet.answer(self.refit, url, LOST)
        self.fleet.refits.end(self.refit, 1.0)

    @rule(url=URLS)
    def prove(self, url: str) -> None:
        if url in self.fleet.pool:
            self.fleet.refits.proven(self.fleet.pool[url])

    @rule()
    def crash(self) -> None:
        self.fleet = Fleet(self.store)

    @invariant()
    def the_same_is_known(self) -> None:
        self.store.write()
        mine, other = self.fleet, Fleet(Model(self.store.saved()))
        models = {*other.pool.epochs.models(), *mine.pool.epochs.models()}
        for model in models:
            desired, then = other.pool.epochs.desired(model), mine.pool.epochs.desired(model)
            assert desired == evolve(then, used=desired.used)
            assert desired.next > then.next
        begun = mine.refits.under_way or mine.refits.interrupted
        doubtful = begun.unfinished if begun is not None else []
        for worker in mine.pool:
            actual = other.pool[worker.url].actual
            if worker.url in doubtful:
                assert not actual.known
                assert actual.epoch is None
            else:
                assert same(actual, evolve(worker.actual, sure=actual.sure))
        before, again = history(mine), history(other)
        assert again[: len(before)] == before
        open_question = begun is not None and not begun.reached
        in_doubt = open_question and any(url in mine.pool for url in doubtful)
        assert (other.refits.interrupted is not None) == in_doubt
        assert len(again) - len(before) == (begun is not None and not in_doubt)


TestKeptWeights = KeptWeights.TestCase
TestKeptWeights.settings = settings(max_examples=60, stateful_step_count=30)
