"""
What all workers are to have, what one has, and what brings the one to the other.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.loras import MERGE, SET, UNMERGE, LoraCall, LoraSet
from sgl_droute.fleet.modules import ALL, NONE, UNNAMED_TENSORS, Modules
from sgl_droute.fleet.weights import (
    DISK,
    TENSOR,
    Actual,
    Adaptation,
    Change,
    Desired,
    Update,
    change_restored,
    modules_of,
)

PARTS = ("dit", "vae", "text")
DIT, VAE = frozenset({"dit"}), frozenset({"vae"})
MODULES = st.none() | st.frozensets(st.sampled_from(PARTS), min_size=1)
X = LoraCall(SET, {"lora_nickname": "x", "lora_path": "p/x"})
Y = LoraCall(SET, {"lora_nickname": "y", "lora_path": "p/y"})
PART = LoraCall(SET, {"lora_nickname": "z", "lora_path": "p/z", "target": "transformer"})
MERGED = LoraCall(MERGE, {})
UNMERGED = LoraCall(UNMERGE, {})

Parts = dict[str, int]


def disk(number: int, modules: Modules = ALL, path: str = "/w") -> Update:
    return Update(number, DISK, json.dumps({"model_path": path}).encode(), modules)


def wanted(*changes: Change) -> Desired:
    desired = Desired()
    for change in changes:
        desired = change.desired(desired)
    return desired


def having(*changes: Change) -> Actual:
    """
    What a worker has that took all of *changes* as they came.
    """
    actual, desired = Actual(), Desired()
    for change in changes:
        before, desired = desired, change.desired(desired)
        actual = change.took(actual, before, desired)
    return actual


def given_to(parts: Parts, update: Update) -> Parts:
    """
    Which update each part of a worker is of, after one more.
    """
    modules = PARTS if update.modules is None else update.modules
    return {**parts, **dict.fromkeys(modules, update.number)}


def numbered(many: list[Modules]) -> list[Update]:
    return [disk(number, modules) for number, modules in enumerate(many, 1)]


# Changes.


@pytest.mark.parametrize(
    ("body", "source"),
    [
        (b'{"model_path": "/w"}', "/w"),
        (b'{"model_path": 5}', None),
        (b"{}", None),
        (b"", None),
        (b"[]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_source(body: bytes, source: str | None) -> None:
    """
    Where weights come from is read from the body, and is not known where that does not say.
    """
    assert Update(1, DISK, body).source == source


def test_replayable() -> None:
    """
    Weights from disk can be given to another worker later; tensors, which are bound to a GPU, not.
    """
    assert Update(1, DISK).replayable
    assert not Update(1, TENSOR).replayable


@pytest.mark.parametrize(
    ("path", "fields", "modules"),
    [
        (DISK, {"target_modules": ["dit", "vae"]}, DIT | VAE),
        (DISK, {"target_modules": ["dit", "all"]}, ALL),
        (DISK, {"target_modules": []}, ALL),
        (DISK, {"target_modules": None}, ALL),
        (DISK, {}, ALL),
        (DISK, None, ALL),
        (TENSOR, {"target_modules": ["dit"]}, DIT),
        (TENSOR, {}, UNNAMED_TENSORS),
        (TENSOR, None, UNNAMED_TENSORS),
    ],
)
def test_modules_of(path: str, fields: dict[str, Any] | None, modules: Modules) -> None:
    """
    An update is for the modules that it names; without any, one from disk is for all, and nobody
    knows what one from tensors is for.
    """
    assert modules_of(path, fields) == modules


CHANGES = st.one_of(
    st.builds(
        Update,
        number=st.integers(1, 99),
        path=st.sampled_from([DISK, TENSOR]),
        body=st.binary(max_size=20),
        modules=MODULES,
    ),
    st.builds(Adaptation, st.integers(1, 99), st.sampled_from([X, Y, PART, MERGED])),
)


def through_json(saved: Any) -> Any:
    return json.loads(json.dumps(saved))


@given(CHANGES)
def test_changes_come_back(change: Change) -> None:
    """
    A change comes back from JSON as it was, its body to the byte.
    """
    assert change_restored(through_json(change.saved())) == change


@given(st.lists(CHANGES, max_size=6), st.dictionaries(st.text(), st.tuples(st.text(), st.text())))
def test_desired_comes_back(changes: list[Change], sums: dict[str, tuple[str, str]]) -> None:
    """
    What is desired comes back from JSON as it was.
    """
    desired = evolve(wanted(*changes), sums=sums)
    assert Desired.restored(through_json(desired.saved())) == desired


@given(
    st.builds(
        Actual,
        epoch=st.none() | st.integers(0, 99),
        has=st.frozensets(st.integers(1, 99)),
        loras=st.none() | st.integers(0, 99),
        history=st.none() | st.text(max_size=5),
        torn=MODULES | st.just(NONE),
        sure=st.booleans(),
        stranded=st.booleans(),
        source=st.none() | st.text(max_size=5),
        calls=st.integers(0, 9),
    )
)
def test_what_a_worker_has_comes_back_unsure(actual: Actual) -> None:
    """
    What a worker has comes back from JSON, but the process that had it may be gone.
    """
    restored = Actual.restored(through_json(actual.saved()))
    assert evolve(restored, epoch=None) == evolve(actual, sure=False, calls=0, epoch=None)


# What is desired.


def test_each_change_is_an_epoch() -> None:
    """
    Every change raises the epoch by one, but for a LoRA call that changes nothing.
    """
    desired = wanted(disk(1), disk(2, DIT), Adaptation(3, X))
    assert desired.epoch == 3
    assert desired.loras_number == 3
    assert wanted(Adaptation(1, MERGED)) == Desired()


def test_no_updates_but_those_needed() -> None:
    """
    A fresh worker needs the last update of all modules and those after it, but for those whose
    modules a later one replaces.
    """
    numbers = [update.number for update in wanted(disk(1), disk(2, VAE), disk(3)).updates]
    assert numbers == [3]
    numbers = [update.number for update in wanted(disk(1), disk(2, VAE), disk(3, VAE)).updates]
    assert numbers == [1, 3]


def test_tensors_replace_nothing_that_is_named() -> None:
    """
    Tensors of which nobody knows what they are for replace only their like.
    """
    tensors = [Update(number, TENSOR, b"", UNNAMED_TENSORS) for number in (3, 4)]
    assert wanted(disk(1), disk(2, DIT), *tensors).numbers == {1, 2, 4}


def test_what_is_part_of_it() -> None:
    """
    A change is part of what is desired until another one replaces it.
    """
    update, loras = disk(1), Adaptation(2, X)
    assert not Desired().has(update)
    assert wanted(update, loras).has(update)
    assert wanted(update, loras).has(loras)
    assert not wanted(update, loras, disk(3)).has(update)
    assert not wanted(update, loras, Adaptation(3, Y)).has(loras)


def test_sums_are_forgotten_with_what_they_were_of() -> None:
    """
    An update forgets the sums of the modules that it replaces, or may; LoRA calls forget none.
    """
    desired = evolve(Desired(), sums={"dit": ("1", ""), "vae": ("2", "")})
    assert set(desired.updated(disk(1, DIT)).sums) == {"vae"}
    assert not desired.updated(disk(1)).sums
    assert not desired.updated(Update(1, TENSOR, b"", UNNAMED_TENSORS)).sums
    assert set(desired.adapted(X, 1).sums) == {"dit", "vae"}


@given(st.lists(MODULES, max_size=8))
def test_a_fresh_worker_gets_it_all(many: list[Modules]) -> None:
    """
    The updates that a fresh worker is given leave it as all that ever were do, none of them is one
    that a later one replaces, and they are in order.
    """
    updates = numbered(many)
    desired = wanted(*updates)
    fresh: Parts = {}
    for update in desired.missing(Actual()):
        fresh = given_to(fresh, update)
    every: Parts = {}
    for update in updates:
        every = given_to(every, update)
    assert fresh == every
    assert desired.missing(Actual()) == desired.updates
    for index, update in enumerate(desired.updates):
        for later in desired.updates[index + 1 :]:
            assert later.number > update.number
            assert later.modules is not None
            assert update.modules is None or not update.modules <= later.modules


STEPS = st.lists(
    st.tuples(
        MODULES,
        st.sampled_from(["took", "took", "refused", "lost", "restarted"]),
        st.frozensets(st.sampled_from(PARTS)),
    ),
    max_size=8,
)


@given(STEPS)
def test_what_is_missing_makes_up(steps: list[tuple[Modules, str, frozenset[str]]]) -> None:
    """
    Whatever became of each update at a worker, who counts as current has what a worker has that
    took them all; and who does not has it after the missing ones, unless it is said that these do
    not cure it.
    """
    desired, actual = Desired(), Actual()
    everything: Parts = dict.fromkeys(PARTS, 0)
    parts = dict(everything)
    updates = numbered([modules for modules, _, _ in steps])
    for update, (_, outcome, done) in zip(updates, steps, strict=True):
        desired = desired.updated(update)
        everything = given_to(everything, update)
        if outcome == "took":
            parts = given_to(parts, update)
            actual = actual.took(update, desired)
        elif outcome == "lost":
            after = given_to(parts, update)
            parts = {part: (after if part in done else parts)[part] for part in PARTS}
            actual = actual.lost(update, desired)
        elif outcome == "restarted":
            parts = dict.fromkeys(PARTS, 0)
            actual = actual.begun_anew()
        if actual.current(desired):
            assert parts == everything
            assert not desired.missing(actual)
    cured = desired.cures(actual)
    assert cured or actual.torn
    for update in desired.missing(actual):
        parts = given_to(parts, update)
        actual = actual.took(update, desired)
    assert actual.current(desired) == cured
    assert (actual.epoch == desired.epoch) == cured
    if cured:
        assert parts == everything


def test_what_is_torn_is_given_again() -> None:
    """
    A worker that has an update is given it again if something else may have come over its modules;
    and those after it too, which it replaces in part.
    """
    updates = disk(1), disk(2, VAE), disk(3, DIT)
    desired = wanted(*updates)
    torn = evolve(having(*updates), torn=DIT)
    assert [update.number for update in desired.missing(torn)] == [1, 2, 3]
    named = wanted(*updates[1:])
    torn = evolve(having(*updates[1:]), torn=DIT)
    assert [update.number for update in named.missing(torn)] == [3]


def test_nothing_is_sure_of_the_unsure() -> None:
    """
    A worker that may have been restarted lacks all, until it is proven that it does not; where it
    was at the start it still is.
    """
    update = disk(1)
    unsure = evolve(having(update), sure=False)
    assert wanted(update).missing(unsure) == (update,)
    assert not unsure.current(wanted(update))
    assert Actual(sure=False).current(Desired())


def test_cures() -> None:
    """
    What nobody knows is cured only by updates that replace all of it.
    """
    all_torn = Actual(torn=ALL)
    assert wanted(disk(1)).cures(all_torn)
    assert not wanted(disk(1, VAE | DIT)).cures(all_torn)
    assert not Desired().cures(Actual(torn=DIT))
    assert Desired().cures(Actual())


# What a worker has.


def test_took() -> None:
    """
    A worker that takes an update when it is made has its epoch and source; one that had missed
    another is of no epoch.
    """
    took = having(disk(1), disk(2, VAE, "/v"))
    assert (took.epoch, took.source) == (2, "/v")
    assert took.has == {1, 2}
    desired = wanted(disk(1), disk(2, VAE))
    missed = Actual().took(disk(2, VAE), desired)
    assert missed.epoch is None
    assert missed.has == {2}


def test_tensors_tell_no_source() -> None:
    """
    Tensors say nowhere where they come from: the source stays.
    """
    assert having(disk(1), Update(2, TENSOR, b"", DIT)).source == "/w"


def test_took_what_is_desired_no_more() -> None:
    """
    A worker that took an update which another one has replaced by then has something unknown, to be
    replaced as well.
    """
    desired = wanted(disk(1, DIT), disk(2, DIT))
    actual = Actual().took(disk(1, DIT), desired)
    assert (actual.epoch, actual.has, actual.torn) == (None, frozenset(), DIT)
    assert [update.number for update in desired.missing(actual)] == [2]


def test_lost() -> None:
    """
    Of what a worker may have taken nobody knows the modules, nor the epoch; updates of others it
    still has.
    """
    updates = disk(1, VAE), disk(2, DIT)
    lost = having(*updates).lost(disk(3, DIT), wanted(*updates))
    assert (lost.epoch, lost.torn) == (None, DIT)
    assert lost.has == {1}
    assert not lost.known
    assert not lost.current(wanted(*updates))


def test_a_refused_update_changes_nothing() -> None:
    """
    A worker that refused an update has what it had.
    """
    actual = having(disk(1))
    assert disk(2).refused(actual) is actual


def test_all_anew_makes_sure() -> None:
    """
    Whoever takes all weights anew has these, whatever it had; of some modules that is not so.
    """
    desired = wanted(disk(1), disk(2))
    unsure = Actual(sure=False, has=frozenset({1}))
    assert unsure.took(disk(2), desired).current(desired)
    partly = wanted(disk(1), disk(2, VAE))
    assert not unsure.took(disk(2, VAE), partly).current(partly)


def test_current() -> None:
    """
    A worker has what is desired with all updates, the LoRA set, nothing unknown, and unless an
    operator stranded it.
    """
    changes: tuple[Change, ...] = (disk(1), Adaptation(2, X))
    desired, actual = wanted(*changes), having(*changes)
    assert actual.current(desired)
    for other in (
        evolve(actual, has=frozenset()),
        evolve(actual, loras=0),
        evolve(actual, loras=None),
        evolve(actual, torn=DIT),
        evolve(actual, sure=False),
        evolve(actual, stranded=True),
    ):
        assert not other.current(desired)
        assert other.labelled(desired).epoch is None


def test_known() -> None:
    """
    What a worker has is known if no part and no adapter is in doubt, wanted or not.
    """
    assert Actual().known
    assert having(disk(1), Adaptation(2, X)).known
    assert not Actual(torn=DIT).known
    assert not Actual(loras=None).known


def test_calls_are_counted() -> None:
    """
    Each call that is sent counts, before anything is known of it.
    """
    assert Actual().called().called() == Actual(calls=2)


def test_begun_anew() -> None:
    """
    A worker to which all has to be given has nothing that is sure but adapters that it never had,
    and has no epoch.
    """
    anew = having(disk(1)).begun_anew()
    assert (anew.epoch, anew.has, anew.loras, anew.history) == (None, frozenset(), 0, "")
    adapted = having(Adaptation(1, X)).begun_anew()
    assert (adapted.loras, adapted.history) == (None, None)
    assert Actual(sure=False).begun_anew().sure


# Adapters.


def test_one_call_that_gives_all() -> None:
    """
    A call that sets the adapters of all targets brings any worker up to date, whatever it had.
    """
    before = wanted(Adaptation(1, X))
    after = wanted(Adaptation(1, X), Adaptation(2, Y))
    for loras in (None, 0, 1):
        assert Actual(loras=loras).adapted(Y, before, after).epoch == 2


def test_a_call_that_builds_on_others() -> None:
    """
    A call that changes what was set brings up to date only those who had that.
    """
    before = wanted(Adaptation(1, X))
    after = wanted(Adaptation(1, X), Adaptation(2, MERGED))
    assert having(Adaptation(1, X)).adapted(MERGED, before, after).epoch == 2
    for loras in (None, 0):
        behind = Actual(loras=loras).adapted(MERGED, before, after)
        assert (behind.loras, behind.epoch) == (None, None)


def test_the_first_call_for_one_target() -> None:
    """
    A worker just started has a set that is one call alone after that call; one of which nobody
    knows its adapters has not.
    """
    before, after = Desired(), wanted(Adaptation(1, PART))
    assert Actual().adapted(PART, before, after).loras == 1
    assert Actual(loras=None).adapted(PART, before, after).loras is None


def test_a_call_that_changes_nothing() -> None:
    """
    A LoRA call that changes nothing leaves the epoch, also with those who had it.
    """
    desired = wanted(disk(1))
    actual = Adaptation(2, UNMERGED).took(having(disk(1)), desired, desired)
    assert (actual.epoch, actual.loras) == (1, 0)


def test_histories() -> None:
    """
    Workers have the same history if they were sent the same calls in the same order, refused ones
    too; nobody knows it after a call without an answer.
    """
    one = Actual().lora_called(X, 1).lora_called(Y, 2)
    same = Adaptation(2, Y).refused(Actual().lora_called(X, None))
    assert one.history == same.history
    assert same.loras is None
    other = Actual().lora_called(Y, 1).lora_called(X, 2)
    assert len({one.history, other.history, Actual().lora_called(X, 1).history, ""}) == 4
    lost = Adaptation(3, Y).lost(one, Desired())
    assert (lost.history, lost.loras, lost.epoch) == (None, None, None)
    assert lost.lora_called(X, 4).history is None


# Proofs.


def test_proven() -> None:
    """
    Checksums show that a worker has the desired weights, whatever it was held to have.
    """
    desired = wanted(disk(1), disk(2, VAE))
    for actual in (Actual(torn=ALL, epoch=None), Actual(sure=False), Actual().begun_anew()):
        proven = actual.proven(desired, {})
        assert proven.current(desired)
        assert proven.epoch == 2


def test_adapters_are_not_proven() -> None:
    """
    Equal weights do not show adapters of a process that may be another one; they do if the sum is
    one that only a process with these LoRA calls behind it can have.
    """
    desired = wanted(disk(1), Adaptation(2, X))
    unsure = evolve(having(disk(1), Adaptation(2, X)), sure=False)
    proven = unsure.proven(desired, {"transformer": "t"})
    assert (proven.loras, proven.history, proven.epoch) == (None, None, None)
    told = evolve(desired, sums={"transformer": ("t", str(unsure.history))})
    assert unsure.proven(told, {"transformer": "t"}).epoch == 2
    for sums in ({"transformer": "other"}, {"vae": "t"}):
        assert unsure.proven(told, sums).loras is None
    plain = evolve(desired, sums={"vae": ("v", "")})
    assert unsure.proven(plain, {"vae": "v"}).loras is None


def test_the_set_is_what_fresh_workers_get() -> None:
    """
    The LoRA set that is desired is that of all calls in order.
    """
    assert wanted(Adaptation(1, X), Adaptation(2, MERGED)).loras == LoraSet().after(X).after(MERGED)


def test_a_number_is_not_given_twice() -> None:
    """
    After a crash the next change skips a number, and with every further one another.
    """
    desired = Desired().updated(Update(1, DISK)).after_a_crash()
    assert (desired.epoch, desired.next) == (1, 3)
    assert desired.after_a_crash().next == 4
    assert desired.updated(Update(2, DISK)).epoch == 3
    assert Desired.restored(desired.saved()) == desired
