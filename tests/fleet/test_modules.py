"""
Parts of a model behave as sets, also where they are all, or not named.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.modules import (
    ALL,
    NONE,
    UNNAMED_TENSORS,
    Modules,
    apart,
    joined,
    within,
    without,
)

# What all modules are; the last is one that nobody names.
EVERY = frozenset({"a", "b", "c", "elsewhere"})
NAMED = st.none() | st.frozensets(st.sampled_from(["a", "b", "c"]))
MODULES = st.none() | st.frozensets(st.sampled_from(["a", "b", "c", ""]))
TENSORS = st.frozensets(st.sampled_from(sorted(EVERY)))


def meant(modules: Modules, tensors: frozenset[str]) -> frozenset[str]:
    """
    The modules meant if tensors that name none are for *tensors*.
    """
    if modules is None:
        return EVERY
    return (modules - {""}) | (tensors if "" in modules else frozenset())


def test_unnamed_tensors() -> None:
    """
    Nobody knows what they are for: they may meet any module, but stand for none that is named, nor
    for all; other such tensors are for the same.
    """
    vae = frozenset({"vae"})
    for others in (vae, ALL, UNNAMED_TENSORS):
        assert not apart(UNNAMED_TENSORS, others)
    assert not within(vae, UNNAMED_TENSORS)
    assert not within(ALL, UNNAMED_TENSORS)
    assert within(UNNAMED_TENSORS, UNNAMED_TENSORS)
    assert within(UNNAMED_TENSORS, ALL)
    assert without(vae, UNNAMED_TENSORS) == vae


def test_all() -> None:
    """
    All modules are in no set of some, however many, and are not less for it.
    """
    many = frozenset({"transformer", "vae", "text_encoder"})
    assert not within(ALL, many)
    assert without(ALL, many) is ALL
    assert without(ALL, ALL) == NONE
    assert apart(ALL, NONE)


def test_nothing_joined() -> None:
    """
    Nothing joined is no module.
    """
    assert joined([]) == NONE


@given(NAMED, NAMED)
def test_set_laws(some: Modules, others: Modules) -> None:
    """
    Where modules are named it is all as with sets.
    """
    left, right = meant(some, frozenset()), meant(others, frozenset())
    assert within(some, others) == (left <= right)
    assert apart(some, others) == (not left & right)
    assert meant(joined([some, others]), frozenset()) == left | right
    if some is not None:
        assert meant(without(some, others), frozenset()) == left - right


@given(MODULES, MODULES, TENSORS)
def test_said_when_sure(some: Modules, others: Modules, tensors: frozenset[str]) -> None:
    """
    Whatever unnamed tensors are for, what is said to be within others, or apart from them, is, and
    nothing is said to be gone that may be left.
    """
    left, right = meant(some, tensors), meant(others, tensors)
    if within(some, others):
        assert left <= right
    if apart(some, others):
        assert not left & right
    assert meant(joined([some, others]), tensors) == left | right
    assert meant(without(some, others), tensors) >= left - right


@given(MODULES, MODULES, MODULES)
def test_order(one: Modules, two: Modules, three: Modules) -> None:
    """
    Being within is a partial order between none and all; being apart goes both ways, and what is
    within one thing is apart from all that the other is apart from.
    """
    assert within(NONE, one)
    assert within(one, one)
    assert within(one, ALL)
    if within(one, two):
        assert one == two or not within(two, one)
        assert within(one, joined([two, three]))
        if within(two, three):
            assert within(one, three)
        if apart(two, three):
            assert apart(one, three)
    assert apart(one, two) == apart(two, one)


@given(MODULES, MODULES)
def test_without(some: Modules, others: Modules) -> None:
    """
    What is left is of the first, is nothing only if the others have all of it, and taking the same
    away again takes nothing.
    """
    left = without(some, others)
    assert within(left, some)
    assert (left == NONE) == within(some, others)
    assert without(left, others) == left
    assert within(some, joined([left, others]))
