"""
The ring of happenings: numbers, and what somebody missed.
"""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.happenings import Happening, Happenings


def ring(count: int, most: int, run: str = "run") -> tuple[Happenings, list[Happening]]:
    """
    A ring of at most *most* after *count* happenings, and all of them.
    """
    happenings, told = Happenings(run, lambda: 0.0, most), list[Happening]()
    happenings.watch(told.append)
    for number in range(count):
        happenings.add("job.lost", {"n": number})
    return happenings, told


def test_a_happening() -> None:
    """
    It is told with its id, its type and the time in UTC, as JSON in one line.
    """
    happenings = Happenings("5f-2", lambda: 1_790_000_000.25)
    told: list[Happening] = []
    happenings.watch(told.append)
    happenings.add("worker.added", {"worker": "http://w:1\n"})
    (happening,) = told
    assert (happening.id, happening.kind) == ("5f-2-1", "worker.added")
    assert "\n" not in happening.text
    assert json.loads(happening.text) == {
        "type": "worker.added",
        "time": "2026-09-21T14:13:20.250Z",
        "worker": "http://w:1\n",
    }
    assert happenings.latest == "5f-2-1"


@given(count=st.integers(0, 30), most=st.integers(1, 10), read=st.integers(0, 30))
def test_what_somebody_missed(count: int, most: int, read: int) -> None:
    """
    Whoever has read up to one of the ids gets all that came after it; if some of that is gone, as
    much as is kept, and how much is lost.
    """
    happenings, told = ring(count, most)
    missed = happenings.after(f"run-{min(read, count)}")
    after = told[min(read, count) :]
    assert missed.rest == after[-most:]
    if len(after) <= most:
        assert missed.reset is None
        return
    assert missed.reset is not None
    reset = json.loads(missed.reset.text)
    assert reset["why"] == "too_old"
    assert reset["lost"] == len(after) - most
    assert reset["kept"] == most


@given(
    id=st.one_of(
        st.sampled_from(["other-1", "run", "run-", "run-x", "run-²", "run--1", "1", "run-7", "-1"]),
        st.text(max_size=30),
        st.integers(4).map(lambda number: f"run-{number}"),
    )
)
def test_an_unknown_id(id: str) -> None:
    """
    An id of another run, of what has not happened, or of nothing gets a reset and all that is kept.
    """
    happenings, told = ring(3, 2)
    missed = happenings.after(id)
    if id in ("run-0", "run-1", "run-2", "run-3"):
        return
    assert missed.rest == told[-2:]
    assert missed.reset is not None
    reset = json.loads(missed.reset.text)
    assert (reset["type"], reset["why"], reset["lost"]) == ("reset", "unknown", None)


@given(count=st.integers(0, 20), most=st.integers(1, 5), id=st.sampled_from(["run-0", "other-3"]))
def test_who_leaves_after_a_reset(count: int, most: int, id: str) -> None:
    """
    Whoever comes back with the id of a reset gets what that promised.
    """
    happenings, _ = ring(count, most)
    missed = happenings.after(id)
    if missed.reset is not None:
        again = happenings.after(missed.reset.id)
        assert again.reset is None
        assert again.rest == missed.rest


@given(before=st.integers(0, 20), after=st.integers(0, 5))
def test_a_greeting(before: int, after: int) -> None:
    """
    Whoever comes back with the id of a greeting gets all that came after it.
    """
    happenings, told = ring(before, 5)
    greeting = happenings.greeting()
    for number in range(after):
        happenings.add("job.lost", {"n": number})
    missed = happenings.after(greeting.id)
    assert missed.reset is None
    assert missed.rest == told[before:]
