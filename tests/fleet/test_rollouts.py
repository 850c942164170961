"""
What is counted of rollout batches.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.errors import NotFound
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.rollouts import Rollouts

COUNTS = ("waiting", "running", "done", "failed", "cancelled")


def job(id: str = "j", batch: str | None = "b") -> Job:
    return Job(id=id, batch=batch)


def after(*names: str, rollouts: Rollouts | None = None, job: Job | None = None) -> Rollouts:
    """
    What is known once the events of *names* happened to one job; ``well`` is its good end.
    """
    rollouts = rollouts or Rollouts()
    job = job or Job(id="j", batch="b")
    for name in names:
        ended = name in ("well", "gone")
        reason = name if ended else ""
        rollouts.note(Event("ended" if ended else name, 0.0, job, reason=reason))
    return rollouts


def counted(rollouts: Rollouts, batch: str = "b") -> dict[str, Any]:
    """
    The counts of *batch* that are not 0.
    """
    shown = rollouts.shown(batch)
    return {name: shown[name] for name in COUNTS if shown[name]}


@pytest.mark.parametrize(
    ("names", "state"),
    [
        (("submitted",), "waiting"),
        (("submitted", "bound"), "running"),
        (("submitted", "bound", "well"), "done"),
        (("submitted", "bound", "gone"), "failed"),
        (("submitted", "bound", "unreached"), "waiting"),
        (("submitted", "bound", "unreached", "bound", "well"), "done"),
        (("submitted", "dropped"), "failed"),
        (("submitted", "cancelled"), "cancelled"),
        (("submitted", "abandoned"), "cancelled"),
        (("submitted", "bound", "abandoned"), "failed"),
        (("submitted", "bound", "abandoned", "well"), "failed"),
        (("refused",), "failed"),
        (("submitted", "refused"), "failed"),
        (("submitted", "bound", "unreached", "refused"), "failed"),
        (("submitted", "a word of tomorrow"), "waiting"),
    ],
)
def test_states(names: tuple[str, ...], state: str) -> None:
    """
    A job counts once, where its last event left it.
    """
    assert counted(after(*names)) == {state: 1}


def test_shown() -> None:
    """
    A batch is shown with its id, how many jobs were announced and every count, zeros included.
    """
    rollouts = after("submitted", "bound")
    assert rollouts.shown("b") == {
        "id": "b",
        "expected": None,
        "waiting": 0,
        "running": 1,
        "done": 0,
        "failed": 0,
        "cancelled": 0,
    }
    rollouts.expect("b", 8)
    assert rollouts.shown("b")["expected"] == 8


def test_announced_before_its_first_job() -> None:
    """
    A batch is known from the moment that its size is.
    """
    rollouts = Rollouts()
    rollouts.expect("b", 8)
    assert rollouts.shown("b")["expected"] == 8
    assert counted(after("submitted", rollouts=rollouts)) == {"waiting": 1}


def test_unknown() -> None:
    """
    A batch nobody submitted to is not found, and jobs of no batch make none.
    """
    rollouts = after("submitted", job=job(batch=None))
    for batch in ("b", ""):
        with pytest.raises(NotFound, match="Unknown rollout batch"):
            rollouts.shown(batch)


def test_shown_is_a_copy() -> None:
    """
    What was shown does not change afterwards.
    """
    rollouts = after("submitted")
    shown = rollouts.shown("b")
    after("bound", rollouts=rollouts)
    assert shown["waiting"] == 1


def test_finished_go_first() -> None:
    """
    Beyond the most, a batch that has finished is forgotten before an older one that has not.
    """
    rollouts = Rollouts(most=2)
    after("submitted", rollouts=rollouts, job=job("1", "open"))
    after("submitted", "bound", "well", rollouts=rollouts, job=job("2", "finished"))
    after("submitted", rollouts=rollouts, job=job("3", "new"))
    assert counted(rollouts, "open") == counted(rollouts, "new") == {"waiting": 1}
    with pytest.raises(NotFound):
        rollouts.shown("finished")


def test_least_recently_used_goes() -> None:
    """
    Among finished batches the one that was asked for or had an event last stays longest.
    """
    rollouts = Rollouts(most=2)
    for batch in ("first", "second"):
        after("submitted", "bound", "well", rollouts=rollouts, job=job(batch, batch))
    rollouts.shown("first")
    rollouts.expect("third", 1)
    assert counted(rollouts, "first") == {"done": 1}
    with pytest.raises(NotFound):
        rollouts.shown("second")


def test_forgotten_batch_stays_forgotten() -> None:
    """
    The end of a job whose batch was forgotten makes no batch of its own, and takes no place.
    """
    rollouts = after("submitted", rollouts=Rollouts(most=1), job=job("1", "old"))
    after("submitted", rollouts=rollouts, job=job("2", "new"))
    after("bound", "well", rollouts=rollouts, job=job("1", "old"))
    with pytest.raises(NotFound):
        rollouts.shown("old")
    assert counted(rollouts, "new") == {"waiting": 1}


# What may come next in a job's life, by its last event.
NEXT = {
    "": ["submitted", "refused"],
    "submitted": ["bound", "refused", "dropped", "cancelled", "abandoned"],
    "bound": ["well", "gone", "unreached", "left"],
    "unreached": ["bound", "refused", "dropped", "cancelled", "abandoned"],
    "left": ["well", "gone"],
}
STATE = {
    "submitted": "waiting",
    "unreached": "waiting",
    "bound": "running",
    "well": "done",
    "gone": "failed",
    "left": "failed",
    "refused": "failed",
    "dropped": "failed",
    "cancelled": "cancelled",
    "abandoned": "cancelled",
}


@given(st.data())
def test_counts_add_up(data: st.DataObject) -> None:
    """
    However the lives of jobs mix, no count is negative, their sum is the number of jobs that were
    submitted, and each is what a plain count of the jobs' states gives.
    """
    rollouts = Rollouts()
    lives: dict[int, str] = {}
    left: set[int] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        number = data.draw(st.integers(0, 7))
        choices = NEXT.get(lives.get(number, ""))
        if choices is None:
            continue
        name = data.draw(st.sampled_from(choices))
        after("abandoned" if name == "left" else name, rollouts=rollouts, job=job(str(number)))
        lives[number] = name
        left.update([number] if name == "left" else [])
        shown = rollouts.shown("b")
        expected = Counter("failed" if n in left else STATE[last] for n, last in lives.items())
        assert {state: shown[state] for state in COUNTS} == {s: expected[s] for s in COUNTS}
