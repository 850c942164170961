"""
What each model is to have, and who may work with what it has.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.epochs import UNKNOWN, Epochs, worked_at
from sgl_droute.fleet.loras import SET, LoraCall
from sgl_droute.fleet.modules import ALL
from sgl_droute.fleet.weights import DISK, Actual, Desired, Update
from sgl_droute.fleet.worker import Worker

UPDATE = Update(1, DISK)
ONE = Desired().updated(UPDATE)
X = LoraCall(SET, {"lora_nickname": "x", "lora_path": "p/x"})
HAS = Actual(epoch=1, has=frozenset({1}), calls=1)


def worker(model: str | None = "m", **facets: Any) -> Worker:
    met: dict[str, Any] = {"lapsed": False, "incarnation": 1, "proven": True, **facets}
    return Worker(url="http://w:1", serial=1, capabilities=Capabilities(model=model), **met)


def epochs_at(desired: Desired = ONE) -> Epochs:
    epochs = Epochs()
    epochs.set("m", desired)
    return epochs


# Stamps.


@pytest.mark.parametrize(
    ("then", "now", "stamp"),
    [
        (HAS, HAS, "1"),
        (HAS, evolve(HAS, epoch=2, calls=2), "1-2"),
        (HAS, evolve(HAS, calls=2), "1"),
        (HAS, evolve(HAS, epoch=None, calls=2), f"1-{UNKNOWN}"),
        (evolve(HAS, epoch=None), evolve(HAS, calls=2), f"{UNKNOWN}-1"),
        (evolve(HAS, epoch=None), evolve(HAS, epoch=None, calls=2), UNKNOWN),
        # It counts as another epoch since, but nothing was sent to it.
        (HAS, evolve(HAS, epoch=None), "1"),
    ],
)
def test_stamps(then: Actual, now: Actual, stamp: str) -> None:
    """
    Work is stamped with the epoch before it, and with the one after it if the worker was sent a
    change meanwhile and is at another one.
    """
    assert worked_at(worker(actual=then), worker(actual=now)) == stamp


def test_stamps_of_who_is_gone() -> None:
    """
    What a successor has says nothing of work that was done before.
    """
    then = worker(actual=HAS)
    successor = worker(actual=Actual(calls=9), incarnation=2)
    assert worked_at(then, None) == worked_at(then, successor) == "1"


# What is desired.


def test_models_have_epochs_of_their_own() -> None:
    """
    What one model is to have is not for another.
    """
    epochs = epochs_at()
    assert epochs.desired("m") == epochs.of(worker()) == ONE
    assert epochs.desired("n") == epochs.desired(None) == Desired()
    assert epochs.highest == 1
    assert Epochs().highest == 0


def test_inherited() -> None:
    """
    A model of which nothing else is known needs what is desired of any.
    """
    epochs = epochs_at()
    epochs.inherited = Desired(epoch=5)
    assert epochs.desired("n").epoch == 5
    assert epochs.desired("m").epoch == 1


def test_before_its_turn() -> None:
    """
    A worker whose turn is still to come is judged by what it was to have, until it is forgotten.
    """
    epochs = epochs_at()
    epochs.pending = {1: Desired()}
    assert epochs.of(worker()) == Desired()
    assert not epochs.judged(worker()).stale
    epochs.forget(1)
    assert epochs.judged(worker()).stale


def test_forgotten() -> None:
    """
    Nothing of an update is left with a worker that is there no more.
    """
    epochs = Epochs()
    epochs.updating.add(1)
    epochs.catching_up.add(1)
    epochs.forget(1)
    epochs.forget(2)
    assert not epochs.judged(worker()).updating
    assert not epochs.judged(worker()).stale


def test_numbers() -> None:
    """
    No two changes have the same number, and the first is 1.
    """
    epochs = Epochs()
    assert [epochs.next_number() for _ in range(3)] == [1, 2, 3]


def test_models_in_order() -> None:
    """
    Models are told in alphabetical order, those workers that have not said theirs last.
    """
    epochs = Epochs()
    for model in (None, "b", "a"):
        epochs.set(model, Desired())
    assert epochs.models() == ["a", "b", None]


def test_comes_back() -> None:
    """
    What is desired, of which model and of those that are unknown, and the number of the last
    change come back from JSON; what was under way does not.
    """
    epochs = epochs_at(ONE.adapted(X, 2))
    epochs.set(None, ONE)
    epochs.inherited = Desired(epoch=3)
    epochs.number = 7
    epochs.updating.add(1)
    again = Epochs()
    again.restore(json.loads(json.dumps(epochs.saved())))
    assert again.saved() == epochs.saved()
    assert again.desired("m") == epochs.desired("m")
    assert again.desired("other").epoch == 3
    assert again.next_number() == 8
    assert not again.updating


# Who may work.


@pytest.mark.parametrize(
    ("actual", "stale"),
    [
        (HAS, False),
        (Actual(), True),
        (evolve(HAS, torn=ALL), True),
        (evolve(HAS, sure=False), True),
        (evolve(HAS, stranded=True), True),
        (evolve(HAS, loras=None), True),
    ],
)
def test_stale(actual: Actual, stale: bool) -> None:
    """
    Who does not, or not surely, have what its model is to have is stale and gets no work.
    """
    judged = epochs_at().judged(worker(actual=actual))
    assert judged.stale == stale
    assert judged.eligible != stale


def test_who_may_have_been_restarted() -> None:
    """
    It may have nothing, and is stale where there is something to have.
    """
    lapsed = worker(actual=HAS, lapsed=True)
    assert epochs_at().judged(lapsed).stale
    assert not Epochs().judged(worker(lapsed=True)).stale


def test_labels() -> None:
    """
    A worker that has all that is desired is at the epoch of that, however it came there.
    """
    judged = epochs_at().judged(worker(actual=evolve(HAS, epoch=None)))
    assert judged.epoch == 1


def test_updating() -> None:
    """
    No work goes to a worker while a change is on its way to it.
    """
    epochs = epochs_at()
    epochs.updating.add(1)
    judged = epochs.judged(worker(actual=HAS))
    assert (judged.updating, judged.stale, judged.eligible) == (True, False, False)


@pytest.mark.parametrize(("model", "closed"), [("m", True), (None, True), ("n", False)])
def test_closed(model: str | None, closed: bool) -> None:
    """
    A closed model has no worker that gets work, nor has one that may be of it.
    """
    epochs = Epochs()
    epochs.closed = frozenset({"m"})
    assert epochs.judged(worker(model)).eligible != closed


def test_catching_up() -> None:
    """
    While it is brought up to date a worker is stale, and gets no work where the stale do either.
    """
    for tolerant in (False, True):
        epochs = Epochs(tolerant=tolerant)
        epochs.catching_up.add(1)
        judged = epochs.judged(worker())
        assert judged.stale
        assert not judged.eligible
        assert judged.updating == tolerant


def test_tolerant() -> None:
    """
    Stale workers get work if that is tolerated, and are told as stale all the same.
    """
    epochs = Epochs(tolerant=True)
    epochs.set("m", ONE)
    judged = epochs.judged(worker())
    assert judged.eligible
    assert judged.state == "stale"


def test_lacks_nothing_more() -> None:
    """
    Why a worker could not be brought up to date is told until it is.
    """
    epochs = epochs_at()
    assert epochs.judged(worker(lacks="tensors")).lacks == "tensors"
    assert epochs.judged(worker(lacks="tensors", actual=HAS)).lacks == ""


def test_judged_twice() -> None:
    """
    Judging says nothing new the second time.
    """
    epochs = epochs_at()
    for actual in (HAS, Actual(), evolve(HAS, epoch=None)):
        judged = epochs.judged(worker(actual=actual))
        assert epochs.judged(judged) is judged
