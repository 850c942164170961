"""
Requests without an answer yet, and the wait until a worker has answered them all.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.outstanding import Outstanding

A, B = (Worker(url=f"http://{name}:1", serial=n) for n, name in enumerate("ab", start=1))


def ends(waiting: Deferred[None]) -> list[Any]:
    outcome: list[Any] = []
    waiting.addBoth(outcome.append)
    return outcome


def test_nothing_outstanding() -> None:
    """
    Without a request there is nothing to wait for.
    """
    assert ends(Outstanding().none(A)) == [None]


def test_all_answered() -> None:
    """
    The wait ends with the last of the worker's requests, for all who wait.
    """
    outstanding = Outstanding()
    with outstanding.request(A):
        with outstanding.request(A):
            waits = [ends(outstanding.none(A)) for _ in range(2)]
        assert waits == [[], []]
    assert waits == [[None], [None]]
    assert ends(outstanding.none(A)) == [None]


def test_other_workers() -> None:
    """
    What another worker has before it is not waited for, nor is a former one at the same URL.
    """
    outstanding = Outstanding()
    again = Worker(url=A.url, serial=9)
    with outstanding.request(A):
        assert ends(outstanding.none(B)) == [None]
        assert ends(outstanding.none(again)) == [None]


def test_failed_requests() -> None:
    """
    A request that fails is not outstanding any more.
    """
    outstanding = Outstanding()
    waits: list[list[Any]] = []

    def fail() -> None:
        with outstanding.request(A):
            waits.append(ends(outstanding.none(A)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert waits == [[None]]


def test_leaving() -> None:
    """
    Who does not want to wait any longer is told so at once, and the others wait on.
    """
    outstanding = Outstanding()
    with outstanding.request(A):
        leaving, staying = outstanding.none(A), outstanding.none(A)
        left, stayed = ends(leaving), ends(staying)
        leaving.cancel()
        assert left[0].check(CancelledError)
        assert stayed == []
    assert stayed == [None]
    assert len(left) == 1


def test_a_request_in_answer_to_the_end() -> None:
    """
    Who waited may send at once, and is waited for in turn.
    """
    outstanding = Outstanding()
    stack = ExitStack()
    later: list[list[Any]] = []

    def send(_: None) -> None:
        stack.enter_context(outstanding.request(A))
        later.append(ends(outstanding.none(A)))

    with outstanding.request(A):
        outstanding.none(A).addCallback(send)
    assert later == [[]]
    stack.close()
    assert later == [[None]]


def test_leaving_in_answer_to_the_end() -> None:
    """
    One of those who waited may take another's wait away when the end comes.
    """
    outstanding = Outstanding()
    with outstanding.request(A):
        first, second = outstanding.none(A), outstanding.none(A)
        left = ends(second)
        first.addCallback(lambda _: second.cancel())
    assert ends(first) == [None]
    assert len(left) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "answer", "wait", "leave"]), st.sampled_from([A, B])),
    max_size=60,
)


@given(STEPS)
def test_any_order(steps: list[tuple[str, Worker]]) -> None:
    """
    In any order of requests and answers a wait ends exactly when its worker has answered all.
    """
    outstanding = Outstanding()
    sent: dict[int, list[ExitStack]] = {A.serial: [], B.serial: []}
    waiting: dict[int, list[tuple[Deferred[None], list[Any]]]] = {A.serial: [], B.serial: []}
    for verb, worker in steps:
        requests, waits = sent[worker.serial], waiting[worker.serial]
        if verb == "send":
            requests.append(ExitStack())
            requests[-1].enter_context(outstanding.request(worker))
        elif verb == "answer" and requests:
            requests.pop().close()
            if not requests:
                assert all(outcome == [None] for _, outcome in waits)
                waits.clear()
        elif verb == "wait":
            wait = outstanding.none(worker)
            waits.append((wait, ends(wait)))
            if not requests:
                assert waits.pop()[1] == [None]
        elif verb == "leave" and waits:
            wait, outcome = waits.pop(0)
            wait.cancel()
            assert outcome[0].check(CancelledError)
        assert all(outcome == [] for waits in waiting.values() for _, outcome in waits)
