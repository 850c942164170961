"""
The LoRA set: the shortest list of calls, with the path of every nickname.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.loras import MERGE, SET, UNMERGE, LoraCall, LoraSet


def after(*calls: tuple[str, dict[str, Any]]) -> LoraSet:
    loras = LoraSet()
    for path, body in calls:
        loras = loras.after(LoraCall(path, body))
    return loras


def listed(loras: LoraSet) -> list[tuple[str, dict[str, Any]]]:
    return [(call.path, dict(call.body)) for call in loras.calls]


def lora(name: str, path: str | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    return SET, {"lora_nickname": name, **({"lora_path": path} if path else {}), **more}


def test_nothing_was_set() -> None:
    """
    Workers just started need nothing as long as nothing was set, whatever was merged.
    """
    assert not LoraSet()
    assert not after((MERGE, {}), (UNMERGE, {}))


def test_the_last_set_is_enough() -> None:
    """
    A later adapter takes the place of an earlier one.
    """
    assert listed(after(lora("a", "p/a"), lora("b", "p/b"))) == [lora("b", "p/b")]


def test_paths_are_filled_in() -> None:
    """
    A nickname that was loaded before is replayed with its path, which a fresh worker needs.
    """
    assert listed(after(lora("a", "p/a"), lora("b", "p/b"), lora("a"))) == [lora("a", "p/a")]
    both = {"lora_nickname": ["a", "b"], "lora_path": [None, "p/b"], "strength": [1.0, 0.5]}
    [(_, body)] = listed(after(lora("a", "p/a"), (SET, both)))
    assert body == {**both, "lora_path": ["p/a", "p/b"]}


def test_one_path_for_all_nicknames() -> None:
    """
    A single path beside several nicknames is the path of each, as workers take it.
    """
    both = {"lora_nickname": ["a", "b"], "lora_path": "p/ab"}
    assert listed(after((SET, both))) == [(SET, {**both, "lora_path": ["p/ab", "p/ab"]})]
    assert dict(after((SET, both)).known) == {"a": "p/ab", "b": "p/ab"}


@given(
    st.sampled_from([SET, MERGE, UNMERGE]),
    st.dictionaries(
        st.sampled_from(["lora_nickname", "lora_path", "target"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=6,
        ),
    ),
)
def test_odd_bodies(path: str, body: dict[str, Any]) -> None:
    """
    Whatever a worker let pass, keeping it breaks nothing.
    """
    loras = after(lora("a", "p/a"), (path, body), lora("a"))
    assert listed(loras)[-1] == lora("a", "p/a")
    assert LoraSet.restored(json.loads(json.dumps(loras.saved()))).calls == loras.calls


def test_merges_follow_their_set() -> None:
    """
    Of the calls behind the last set the last merge or unmerge counts.
    """
    a = lora("a", "p/a")
    assert listed(after(a, (MERGE, {}), (UNMERGE, {}))) == [a, (UNMERGE, {})]
    assert listed(after(a, (UNMERGE, {}), (MERGE, {"strength": 0.5}))) == [
        a,
        (MERGE, {"strength": 0.5}),
    ]
    assert listed(after(a, (MERGE, {}), lora("b", "p/b"))) == [lora("b", "p/b")]


def test_parts_of_the_model_are_apart() -> None:
    """
    Adapters on different parts stand side by side; one for all parts replaces them.
    """
    one, two = lora("a", "p/a", target="transformer"), lora("b", "p/b", target="transformer_2")
    assert listed(after(one, two)) == [one, two]
    assert listed(after(one, two, lora("c", "p/c"))) == [lora("c", "p/c")]
    unmerged = (UNMERGE, {"target": "transformer"})
    assert listed(after(one, two, unmerged)) == [one, two, unmerged]


CALLS = st.lists(
    st.one_of(
        st.tuples(
            st.just(SET),
            st.fixed_dictionaries(
                {
                    "lora_nickname": st.sampled_from(["a", "b"]),
                    "lora_path": st.sampled_from(["p/a", "p/b"]),
                    "target": st.sampled_from(["all", "transformer", "transformer_2"]),
                }
            ),
        ),
        st.tuples(
            st.sampled_from([MERGE, UNMERGE]),
            st.fixed_dictionaries(
                {"target": st.sampled_from(["all", "transformer", "transformer_2"])}
            ),
        ),
    ),
    max_size=20,
)


def effect(calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """
    What calls make of a worker just started: adapter and merge of each part.
    """
    parts: dict[str, Any] = {}
    for path, body in calls:
        all_parts = ["transformer", "transformer_2"]
        for part in all_parts if body["target"] == "all" else [body["target"]]:
            if path == SET:
                parts[part] = (body["lora_path"], None)
            elif part in parts:
                parts[part] = (parts[part][0], path)
    return parts


@given(CALLS)
def test_the_short_list_does_the_same(calls: list[tuple[str, dict[str, Any]]]) -> None:
    """
    The kept calls leave a worker as all calls would have, and are never many.
    """
    kept = listed(after(*calls))
    assert effect(kept) == effect(calls)
    assert len(kept) <= 6


@given(CALLS)
def test_saved_and_restored(calls: list[tuple[str, dict[str, Any]]]) -> None:
    """
    A set comes back from JSON as it was.
    """
    loras = after(*calls)
    assert LoraSet.restored(json.loads(json.dumps(loras.saved()))) == loras
