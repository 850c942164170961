"""
One question to many: who answers is heard, who does not is named, and nobody waits for nothing.
"""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from sgl_droute.errors import NoSockets, WorkerFailed, WorkerTimeout
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import Answer
from sgl_droute.workers.gather import Gathering, content

A, B, C = (Worker(url=f"http://{name}:1", serial=n) for n, name in enumerate("abc", start=1))


@define
class Questions:
    """
    Questions that are answered by hand.
    """

    open: dict[str, Deferred[str]] = field(factory=dict)

    async def ask(self, worker: Worker) -> str:
        self.open[worker.url] = Deferred()
        return await self.open[worker.url]


def test_all_are_asked_together() -> None:
    """
    Nobody waits for another; the answers come in the order of the workers, not of answering.
    """
    questions, gathering = Questions(), Gathering([A, B, C])
    asking = Deferred.fromCoroutine(gathering.ask(questions.ask))
    assert set(questions.open) == {A.url, B.url, C.url}
    for worker in (C, A, B):
        questions.open[worker.url].callback(f"from {worker.url}")
    assert asking.result == [(worker, f"from {worker.url}") for worker in (A, B, C)]
    assert (gathering.workers, gathering.missing) == ([A, B, C], {})


def test_who_did_not_answer() -> None:
    """
    Who failed is named with the reason and is not asked again.
    """
    questions, gathering = Questions(), Gathering([A, B, C])
    asking = Deferred.fromCoroutine(gathering.ask(questions.ask))
    late, full = WorkerTimeout(B.url, "no response within 5 s"), NoSockets("out of open files")
    questions.open[A.url].callback("yes")
    questions.open[B.url].errback(late)
    questions.open[C.url].errback(full)
    assert asking.result == [(A, "yes")]
    assert gathering.missing == {B.url: late, C.url: full}
    assert gathering.missing_urls == "http://b:1, http://c:1"
    again = Questions()
    asking = Deferred.fromCoroutine(gathering.ask(again.ask))
    assert set(again.open) == {A.url}
    again.open[A.url].callback("yes")
    assert asking.result == [(A, "yes")]


def test_nobody_to_ask() -> None:
    """
    Nobody asked, nobody answered, at once.
    """
    asking = Deferred.fromCoroutine(Gathering([]).ask(Questions().ask))
    assert asking.result == []


def test_cancelled() -> None:
    """
    When the one who asked is gone, so are all questions.
    """
    questions = Questions()
    asking = Deferred.fromCoroutine(Gathering([A, B]).ask(questions.ask))
    asked = list(questions.open.values())
    asking.cancel()
    ends: list[object] = []
    asking.addErrback(lambda failure: ends.append(failure.type))
    assert ends == [CancelledError]
    assert all(each.called for each in asked)


def test_what_is_no_refusal_is_not_hidden() -> None:
    """
    A mistake of the router's own is not taken for a silent worker.
    """
    questions = Questions()
    asking = Deferred.fromCoroutine(Gathering([A]).ask(questions.ask))
    questions.open[A.url].errback(ZeroDivisionError())
    ends: list[object] = []
    asking.addErrback(lambda failure: ends.append(failure.type))
    assert ends == [ZeroDivisionError]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(503, b'{"error":"dead"}'), 'http://a:1: answered 503 {"error":"dead"}'),
        (Answer(500, b""), "http://a:1: answered 500"),
        (Answer(200, b"{"), "http://a:1: the answer is not JSON"),
        (Answer(200, b"[" * 100_000), "http://a:1: the answer is not JSON"),
        (Answer(200, b"\xff"), "http://a:1: the answer is not JSON"),
    ],
)
def test_answers_that_are_none(answer: Answer, reason: str) -> None:
    """
    What is no 200 with JSON counts as no answer, and says why.
    """
    with pytest.raises(WorkerFailed) as failed:
        content(A, answer)
    assert str(failed.value) == f"Worker request failed: {reason}"


def test_content() -> None:
    """
    The JSON of a 200.
    """
    assert content(A, Answer(200, b'{"data":[1]}')) == {"data": [1]}
