"""
What health checks make of a worker.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.capabilities import RequiredEpoch, Want
from sgl_droute.fleet.weights import Actual
from sgl_droute.fleet.worker import (
    Probe,
    Worker,
    answered,
    checked,
    lapsed,
    quarantined,
    registered_again,
    same_process,
    tried_again,
)

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")
SILENT = Probe(healthy=False, silent=True, reason="no response within 5 s")
HAS = Actual(epoch=2, has=frozenset({1, 2}), source="/w")
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
    A worker in service goes on, but workers register when they start: its next good answer may be
    that of a new process, which need not have what was given to the one before.
    """
    well = evolve(after(new(), GOOD), actual=HAS)
    again = registered_again(well)
    assert again == evolve(well, lapsed=True)
    met = after(again, GOOD)
    assert met.state == "ready"
    assert met.incarnation == well.incarnation + 1
    assert met.actual == HAS.begun_anew()


def test_registered_again_before_its_leave() -> None:
    """
    A worker that was about to leave stays, and takes work.
    """
    leaving = evolve(after(new(), GOOD), leaving=True, draining=True)
    assert registered_again(leaving).eligible


def test_registered_again_ends_being_stranded() -> None:
    """
    A worker that an operator wants restarted is let in again once it is registered anew.
    """
    stranded = evolve(after(new(), GOOD), actual=evolve(HAS, stranded=True))
    assert registered_again(stranded).actual == HAS


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


GONE = Probe(healthy=False, silent=True, gone=True, reason="broken off")
REFUSED = Probe(healthy=False, silent=True, gone=True, refused=True, reason="connection refused")


def test_a_restart_is_noticed() -> None:
    """
    Who answers well after nobody listened is a new process, and has what it was started with.
    """
    worker = evolve(after(new(), GOOD), actual=HAS)
    assert worker.incarnation == 1
    assert after(worker, SILENT, GOOD) == worker
    gone = after(worker, REFUSED, SILENT)
    assert (gone.restarted, gone.lapsed, gone.actual) == (True, True, HAS)
    restarted = after(gone, GOOD)
    assert (restarted.restarted, restarted.lapsed) == (False, False)
    assert restarted.incarnation == 2
    assert restarted.actual == Actual()


def test_a_restart_that_may_have_been() -> None:
    """
    Who answers well after it broke off may be a new process: it is to get everything, and nobody
    knows its epoch. Adapters that it never had it does not have now either.
    """
    worker = evolve(after(new(), GOOD), actual=HAS)
    met = after(worker, GONE, GOOD)
    assert not met.lapsed
    assert met.incarnation == 2
    assert met.actual == HAS.begun_anew()
    assert met.epoch is None
    assert met.actual.loras == 0


def test_met_by_a_router_that_was_restarted() -> None:
    """
    The first process that a restarted router meets may be the one that it knew: it keeps what that
    had, unsure, unless nobody listened there meanwhile.
    """
    known = evolve(new(), actual=evolve(HAS, sure=False))
    assert after(known, GOOD).actual == known.actual
    assert after(known, SILENT, GONE, GOOD).actual == known.actual
    assert after(known, REFUSED, GOOD).actual == Actual()
    again = after(known, GOOD, GONE, GOOD)
    assert again.actual == HAS.begun_anew()


def test_lapses_add_up() -> None:
    """
    A process that must be a new one stays that, whatever else is found out before it answers.
    """
    worker = lapsed(lapsed(after(new(), GOOD), restarted=True), restarted=False)
    assert worker.lapsed
    assert worker.restarted


def test_the_same_process() -> None:
    """
    A record is of the same process as long as there is no sign of another one.
    """
    then = after(new(), GOOD)
    assert same_process(evolve(then, in_flight=3, draining=True), then)
    for now in (
        lapsed(then, restarted=False),
        after(then, GONE, GOOD),
        evolve(then, serial=2),
    ):
        assert not same_process(now, then)


def test_the_epoch_of_who_may_be_another() -> None:
    """
    While a stale worker may have been restarted, nobody knows its epoch; a worker at the start of
    its model is at epoch 0 either way.
    """
    worker = evolve(after(new(), GOOD), actual=HAS, stale=True)
    assert worker.epoch == 2
    assert lapsed(worker, restarted=False).epoch is None
    assert new().epoch == 0


def test_back_from_quarantine() -> None:
    """
    So many good answers in a row as are asked for bring a worker back, as a process just met.
    """
    dead = evolve(after(new(), GOOD, BAD, BAD, BAD), actual=HAS)
    back = dead
    for probe, expected in ((GOOD, 1), (BAD, 0), (GOOD, 1), (GOOD, 0)):
        assert back.dead
        back = checked(back, probe, threshold=3, readmit=2)
        assert back.recovered == expected
    assert back.state == "ready"
    assert (back.failures, back.last_error, back.lapsed) == (0, "", False)
    assert back.incarnation == dead.incarnation + 1
    assert back.actual == HAS.begun_anew()
    assert after(dead, *[GOOD] * 9) == dead


def test_barred() -> None:
    """
    No number of good answers brings back a worker that an operator quarantined; registering it
    again does, with its next good one.
    """
    barred = quarantined(after(new(), GOOD), "by hand")
    assert barred.barred
    assert not barred.recoverable
    assert checked(barred, GOOD, threshold=3, readmit=1) == barred
    again = registered_again(barred)
    assert (again.barred, again.probed) == (False, True)
    assert not after(again, GOOD).dead


def test_quarantined_but_not_barred() -> None:
    """
    A worker that was taken out by a rule may come back by good answers, until an operator bars it.
    """
    out = quarantined(after(new(), GOOD), "by rule", barred=False)
    assert out.recoverable
    assert not checked(out, GOOD, threshold=3, readmit=1).dead
    assert quarantined(out, "again", barred=False) is out
    assert not quarantined(out, "by hand").recoverable


def test_the_quarantined_may_be_restarted() -> None:
    """
    Whatever comes back from quarantine comes as if it had joined.
    """
    assert after(new(), GOOD, BAD, BAD, BAD).lapsed
    assert quarantined(after(new(), GOOD), "by hand").lapsed


def test_tried_again() -> None:
    """
    Only who is quarantined has to prove itself anew.
    """
    well = after(new(), GOOD)
    assert tried_again(well) is well
    again = tried_again(after(well, BAD, BAD, BAD))
    assert (again.proven, again.lapsed, again.probed, again.dead) == (False, True, True, True)


@pytest.mark.parametrize(
    ("facets", "catching_up"),
    [
        ({}, False),
        ({"stale": True}, True),
        ({"updating": True}, True),
        ({"stale": True, "updating": True, "lapsed": True}, True),
        ({"stale": True, "draining": True}, False),
        ({"stale": True, "disabled": True}, False),
        ({"updating": True, "asleep": True}, False),
        ({"updating": True, "dead": True}, False),
    ],
)
def test_who_gets_work_by_itself(facets: dict[str, Any], catching_up: bool) -> None:
    """
    Only what is missing of weights comes by itself; for all else somebody has to do something.
    """
    worker = evolve(after(new(), GOOD), **facets)
    assert worker.catching_up == catching_up
    assert not (worker.catching_up and worker.eligible)


@pytest.mark.parametrize(("number", "exact"), [(2, True), (2, False), (1, False)])
def test_a_required_epoch(number: int, exact: bool) -> None:
    """
    Work that needs an epoch goes to workers that surely have it.
    """
    want = Want(epoch=RequiredEpoch(number, exact))
    worker = evolve(after(new(), GOOD), actual=HAS)
    assert worker.may_take(want)
    for epoch in (0, None):
        assert not evolve(worker, actual=evolve(HAS, epoch=epoch)).may_take(want)
    later = evolve(worker, actual=evolve(HAS, epoch=3))
    assert later.may_take(want) != exact


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
        ({"updating": True, "stale": True}, "updating"),
        ({"asleep": True, "updating": True}, "sleeping"),
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


def test_tolerated() -> None:
    """
    Where stale workers are tolerated they get work, but not while a change is on its way to them.
    """
    stale = evolve(after(new(), GOOD), stale=True, tolerated=True)
    assert stale.eligible
    assert stale.state == "stale"
    assert not evolve(stale, updating=True).eligible
    assert not evolve(stale, draining=True).eligible


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
