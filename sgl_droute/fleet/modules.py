"""
Parts of a model that a call is for: a set of names, or all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

# None is every part of the model.
Modules = frozenset[str] | None

NONE: Modules = frozenset()
ALL: Modules = None
# What an update from tensors is for that names no modules: workers say so nowhere.
UNNAMED_TENSORS: Modules = frozenset({""})


def within(some: Modules, others: Modules) -> bool:
    """
    Whether *others* have all of *some*.
    """
    return others is None or (some is not None and some <= others)


def apart(some: Modules, others: Modules) -> bool:
    """
    Whether it is sure that none is in both.
    """
    if some is None or others is None:
        return some == NONE or others == NONE
    if not (some and others):
        return True
    unnamed = "" in some or "" in others
    return some.isdisjoint(others) and not unnamed


def joined(many: Iterable[Modules]) -> Modules:
    """
    Those that are in any of *many*.
    """
    together: frozenset[str] = frozenset()
    for modules in many:
        if modules is None:
            return None
        together |= modules
    return together


def without(some: Modules, others: Modules) -> Modules:
    """
    *some* apart from those that are surely in *others*.
    """
    if within(some, others):
        return NONE
    return some if some is None or others is None else some - others
