"""
What health checks make of a worker.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.worker import (
    Probe,
    Worker,
    answered,
    checked,
    quarantined,
    registered_again,
)

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")
SILENT = Probe(healthy=False, silent=True, reason="no response within 5 s")
PROBES = st.sampled_from([GOOD, BAD, SILENT])


def new() -> Worker:
    return Worker(url="http://w:1", serial=1)


def after(worker: Worker, *probes: Probe) -> Worker:
    for probe in probes:
        worker = checked(worker, probe, threshold=3)
    return worker


def test_threshold_quarantines() -> None:
    """
    The third failure in a row quarantines a worker, and not the second.
    """
    assert not after(new(), GOOD, BAD, SILENT).dead
    dead = after(new(), GOOD, BAD, SILENT, BAD)
    assert dead.dead
    assert dead.last_error == BAD.reason


def test_success_resets() -> None:
    """
    One good answer resets the count of failures.
    """
    worker = after(new(), BAD, BAD, GOOD, BAD, BAD)
    assert worker.failures == 2
    assert not worker.dead
    assert worker.last_error == BAD.reason


def test_quarantine_of_a_proven_worker_is_for_good() -> None:
    """
    A worker that was in service and is quarantined is not probed any more.
    """
    assert not after(new(), GOOD, BAD, BAD, BAD).probed


def test_a_loading_worker_is_probed_on() -> None:
    """
    A worker that never answered well is marked dead at the threshold and joins by itself.
    """
    loading = after(new(), SILENT, SILENT, SILENT, SILENT)
    assert loading.dead
    assert loading.probed
    assert not after(loading, GOOD).dead


def test_registered_again() -> None:
    """
    Registering a quarantined worker again has it probed; it stays dead until it answers.
    """
    again = registered_again(after(new(), GOOD, BAD, BAD, BAD))
    assert again.dead
    assert again.probed
    assert after(again, SILENT).dead
    assert not after(again, GOOD).dead


def test_registered_again_while_well() -> None:
    """
    Registering a worker that is in service changes nothing.
    """
    well = after(new(), GOOD)
    assert registered_again(well) is well


def test_an_answer_counts_as_life() -> None:
    """
    A probe without an answer is no failure when traffic was answered since the last one.
    """
    busy = answered(after(new(), GOOD))
    assert after(busy, SILENT).failures == 0
    assert after(busy, SILENT, SILENT).failures == 1


def test_an_answer_does_not_excuse_a_bad_one() -> None:
    """
    A worker that itself says it is not well is believed, whatever it answered to traffic.
    """
    assert after(answered(after(new(), GOOD)), BAD).failures == 1


def test_not_reached() -> None:
    """
    Who could not be reached is the last choice until the next sign of life, on whatever road.
    """
    lost = evolve(after(new(), GOOD), unreached=True)
    assert lost.doubtful
    assert lost.state == "suspect"
    assert after(lost, SILENT).doubtful
    for found in (after(lost, GOOD), answered(lost), answered(evolve(lost, answered=True))):
        assert not found.doubtful
        assert found.state == "ready"


def test_doubtful() -> None:
    """
    A new worker counts as usable until its first probe has failed.
    """
    assert not new().doubtful
    assert after(new(), SILENT).doubtful
    assert not after(new(), SILENT, GOOD).doubtful


def test_sleep_is_no_illness() -> None:
    """
    A sleeping worker is not quarantined, whatever its probes say, nor counted as failing.
    """
    asleep = evolve(after(new(), GOOD), asleep=True)
    for worker in (after(asleep, BAD, BAD, BAD, BAD), after(asleep, *[SILENT] * 5)):
        assert not worker.dead
        assert worker.failures == 0
        assert worker.last_error
        assert worker.state == "sleeping"


GONE = Probe(healthy=False, silent=True, gone=True, reason="connection refused")


def test_a_restart_is_noticed() -> None:
    """
    A worker that refused and then answers well is taken for a new process, without weights.
    """
    worker = evolve(after(new(), GOOD), weights="step-100")
    assert worker.incarnation == 1
    assert after(worker, SILENT, GOOD) == worker
    restarted = after(worker, GONE, SILENT, GOOD)
    assert restarted.incarnation == 2
    assert restarted.weights is None
    assert not restarted.lapsed


def test_quarantined_during_a_check() -> None:
    """
    A check that was under way when an operator took the worker out changes nothing.
    """
    out = quarantined(after(new(), GOOD), "by hand")
    assert after(out, GOOD, BAD) == out


def test_a_restart_wakes() -> None:
    """
    Whether the process that answers after a restart sleeps is not known; it gets no work yet.
    """
    asleep = evolve(after(new(), GOOD), asleep=True, sleep_known=True)
    restarted = after(asleep, GONE, GOOD)
    assert restarted.asleep
    assert not restarted.sleep_known
    assert after(asleep, SILENT, GOOD).sleep_known


@pytest.mark.parametrize(
    ("facets", "word"),
    [
        ({}, "ready"),
        ({"proven": False}, "joining"),
        ({"failures": 1}, "suspect"),
        ({"stale": True, "failures": 1}, "stale"),
        ({"asleep": True, "stale": True}, "sleeping"),
        ({"draining": True, "asleep": True}, "draining"),
        ({"disabled": True, "draining": True}, "disabled"),
        ({"dead": True, "disabled": True}, "dead"),
    ],
)
def test_states(facets: dict[str, Any], word: str) -> None:
    """
    The gravest facet names the state; ready, joining and suspect workers get traffic.
    """
    worker = evolve(after(new(), GOOD), **facets)
    assert worker.state == word
    assert worker.eligible == (word in ("ready", "joining", "suspect"))


def test_an_operators_quarantine() -> None:
    """
    It is for good and says who did it; a worker that is out for good already keeps its reason.
    """
    out = quarantined(after(new(), GOOD), "by hand")
    assert out.dead
    assert not out.probed
    assert out.last_error == "by hand"
    assert quarantined(out, "again") is out
    joining = after(new(), SILENT, SILENT, SILENT)
    assert not quarantined(joining, "by hand").probed


@given(st.lists(st.tuples(PROBES, st.booleans()), max_size=30), st.integers(1, 5))
def test_quarantine_needs_the_threshold(history: list[tuple[Probe, bool]], threshold: int) -> None:
    """
    A worker is dead only after that many failures in a row, and proven death is for good.
    """
    worker, in_a_row = new(), 0
    for probe, traffic in history:
        before = worker
        if traffic:
            worker = answered(worker)
        if not worker.probed:
            break
        excused = probe.silent and worker.answered and not worker.dead
        worker = checked(worker, probe, threshold=threshold)
        in_a_row = 0 if probe.healthy or excused else in_a_row + 1
        assert worker.failures == in_a_row
        assert worker.dead == (in_a_row >= threshold)
        assert worker.proven >= before.proven
