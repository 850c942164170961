"""
Work that several want: done once at a time, and whoever leaves takes nothing from the others.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from sgl_droute.workers.once import Once


@define(eq=False)
class Works:
    """
    Pieces of work that are ended by hand.
    """

    once: Once[str, int] = field(factory=Once)
    begun: list[Deferred[int]] = field(factory=list)
    waiting: Deferred[int] = field(factory=Deferred)

    def want(self, key: str = "k") -> list[Any]:
        """
        What became of one wish: empty while it waits.
        """
        self.waiting = self.once.run(key, self._work)
        outcome: list[Any] = []
        self.waiting.addCallbacks(outcome.append, lambda why: outcome.append(why.value))
        return outcome

    async def _work(self) -> int:
        self.begun.append(Deferred())
        return await self.begun[-1]


def ends(waiting: Deferred[Any]) -> list[Any]:
    outcome: list[Any] = []
    waiting.addBoth(outcome.append)
    return outcome


def test_shared() -> None:
    """
    Who wants what is under way gets its result, and it is done once.
    """
    works = Works()
    first, second = works.want(), works.want()
    assert len(works.begun) == 1
    assert (first, second) == ([], [])
    works.begun[0].callback(7)
    assert (first, second) == ([7], [7])


def test_again() -> None:
    """
    What has ended is begun anew for the next who wants it; nothing is remembered.
    """
    works = Works()
    works.want()
    works.begun[0].callback(1)
    later = works.want()
    works.begun[1].callback(2)
    assert later == [2]


def test_superseded() -> None:
    """
    Work begun in spite of what is under way cancels that, and those who waited wait for it.
    """
    works = Works()
    first = works.want()
    second = ends(works.once.again("k", works._work))
    assert len(works.begun) == 2
    assert (first, second) == ([], [])
    joined = works.want()
    works.begun[1].callback(7)
    assert (first, second, joined) == ([7], [7], [7])
    assert ends(works.once.settled("k")) == [None]


def test_keys_do_not_wait_for_each_other() -> None:
    """
    Work of another key is other work.
    """
    works = Works()
    a, b = works.want("a"), works.want("b")
    works.begun[1].callback(2)
    assert (a, b) == ([], [2])


def test_a_failure_is_everybodys() -> None:
    """
    When the work fails all who wait are told why, and the next begins anew.
    """
    works = Works()
    first, second = works.want(), works.want()
    why = ValueError("no")
    works.begun[0].errback(why)
    assert (first, second) == ([why], [why])
    works.want()
    assert len(works.begun) == 2


def test_work_that_needs_no_time() -> None:
    """
    What ends at once is not kept.
    """
    once: Once[str, int] = Once()

    async def now() -> int:
        return 1

    assert [ends(once.run("k", now)) for _ in range(2)] == [[1], [1]]
    assert ends(once.settled("k")) == [None]


def test_leaving() -> None:
    """
    Who leaves does not stop the work, and the others get its result.
    """
    works = Works()
    first = works.want()
    works.waiting.cancel()
    second = works.want()
    assert isinstance(first[0], CancelledError)
    assert not works.begun[0].called
    works.begun[0].callback(3)
    assert (len(first), second) == (1, [3])


def test_all_left(logged: list[Any]) -> None:
    """
    Work that nobody waits for goes on; its failure is nobody's and makes no noise.
    """
    works = Works()
    works.want()
    works.waiting.cancel()
    works.begun[0].errback(ValueError("no"))
    assert not [event for event in logged if "log_failure" in event]
    works.want()
    assert len(works.begun) == 2


def test_who_wants_it_when_it_ends() -> None:
    """
    Who is told of the end and wants it again gets new work, not the old result.
    """
    works = Works()
    more: list[list[Any]] = []
    works.want()
    works.waiting.addCallback(lambda _: more.append(works.want()))
    works.begun[0].callback(1)
    assert len(works.begun) == 2
    works.begun[1].callback(2)
    assert more == [[2]]


def test_settled() -> None:
    """
    A key is settled when the work under way for it has ended, however it ended; other work, and
    what begins later, is not waited for.
    """
    works = Works()
    assert ends(works.once.settled("a")) == [None]
    works.want("a")
    works.want("b")
    settled = [ends(works.once.settled(key)) for key in "ab"]
    works.begun[1].errback(ValueError("no"))
    assert settled == [[], [None]]
    works.begun[0].callback(1)
    works.want("a")
    assert settled == [[None], [None]]


def test_abandoned() -> None:
    """
    Work that is to be abandoned is cancelled when the last who wanted it has left, not before.
    """
    works = Works(Once(abandon=True))
    works.want()
    first = works.waiting
    works.want()
    first.cancel()
    assert not works.begun[0].called
    works.waiting.cancel()
    assert works.begun[0].called
    assert works.want() == []
    assert len(works.begun) == 2


def test_leaving_in_answer_to_the_end() -> None:
    """
    One of those who waited may take another's wait away when the end comes.
    """
    works = Works()
    works.want()
    first = works.waiting
    second = works.want()
    other = works.waiting
    broken: list[Any] = []
    first.addCallback(lambda _: other.cancel())
    first.addErrback(broken.append)
    works.begun[0].callback(1)
    assert broken == []
    assert len(second) == 1


def test_stop() -> None:
    """
    To stop cancels what is under way; it is over when that has ended, and all who wait are told.
    """
    works = Works()
    a, b = works.want("a"), works.want("b")
    stopped = ends(works.once.stop())
    assert len(stopped) == 1
    assert [type(each[0]) for each in (a, b)] == [CancelledError] * 2
    assert all(each.called for each in works.begun)


def test_stopping_what_cleans_up() -> None:
    """
    Work that takes its time to end when it is cancelled is waited for.
    """
    once: Once[str, int] = Once()
    cleaning: Deferred[None] = Deferred()

    async def work() -> int:
        try:
            return await Deferred()
        finally:
            await cleaning

    wanted = ends(once.run("k", work))
    stopped = ends(once.stop())
    assert (wanted, stopped) == ([], [])
    cleaning.callback(None)
    assert len(stopped) == 1
    assert wanted[0].check(CancelledError)


STEPS = st.lists(
    st.tuples(st.sampled_from(["want", "leave", "end", "fail"]), st.sampled_from("ab")),
    max_size=60,
)


def test_who_waits_for_the_end_and_leaves() -> None:
    """
    Waiting for the end of work can be cancelled like any waiting; the work goes on.
    """
    works = Works()
    outcome = works.want()
    settled = works.once.settled("k")
    settled.cancel()
    failed: list[Any] = []
    settled.addErrback(failed.append)
    assert [failure.type for failure in failed] == [CancelledError]
    works.begun[0].callback(1)
    assert outcome == [1]


@given(STEPS)
def test_any_order(steps: list[tuple[str, str]]) -> None:
    """
    Whatever happens in whatever order: one work per key at a time, and everybody gets exactly one
    outcome, that of the work which was under way when they came.
    """
    once: Once[str, int] = Once()
    running: dict[str, tuple[int, Deferred[int]]] = {}
    waiting: dict[str, list[tuple[Deferred[int], list[Any]]]] = {"a": [], "b": []}
    begun = 0

    async def work(key: str) -> int:
        nonlocal begun
        assert key not in running
        begun += 1
        running[key] = (begun, Deferred())
        return await running[key][1]

    for verb, key in steps:
        if verb == "want":
            wanted = once.run(key, lambda key=key: work(key))  # type: ignore[misc]
            waiting[key].append((wanted, ends(wanted)))
        elif verb == "leave" and waiting[key]:
            wanted, outcome = waiting[key].pop()
            wanted.cancel()
            [why] = outcome
            assert why.check(CancelledError)
        elif verb in ("end", "fail") and key in running:
            number, deferred = running.pop(key)
            told, waiting[key] = waiting[key], []
            if verb == "end":
                deferred.callback(number)
                assert [outcome for _, outcome in told] == [[number]] * len(told)
            else:
                deferred.errback(ValueError(number))
                assert all(outcome[0].check(ValueError) for _, outcome in told)
    assert all(outcome == [] for key in "ab" for _, outcome in waiting[key])
