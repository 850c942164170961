"""
One list out of many: nothing twice, nothing lost, in the one order, whatever happens in between.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.listing import (
    LARGEST_PAGE,
    Cursor,
    Cursors,
    Listed,
    Merged,
    OneRow,
    PageAfter,
    Position,
    Question,
    Row,
    Steps,
    merge,
    parse_list,
    parse_row,
    read_on,
    walk_to,
)

T = TypeVar("T")
NOBODY: frozenset[str] = frozenset()


@define(eq=False)
class Ledger:
    """
    A worker's list of jobs, which answers as a worker does.

    Args:
        tells: Whether it says that more rows follow; some versions never do.
    """

    name: str
    tells: bool = True
    rows: list[Row] = field(factory=list)
    asked: Counter[str] = field(factory=Counter)

    def add(self, created: int) -> Row:
        self.asked["rows made"] += 1
        row = row_of(f"{self.name}{self.asked['rows made']}", created)
        self.rows.append(row)
        return row

    def ordered(self, newest_first: bool) -> list[Row]:
        return sorted(self.rows, key=lambda row: row.created, reverse=newest_first)

    def answer(self, question: Question, newest_first: bool) -> Listed:
        if isinstance(question, OneRow):
            return Listed(tuple(row for row in self.rows if row.id == question.id))
        self.asked[f"pages of {question.limit}"] += 1
        rows = self.ordered(newest_first)
        if question.after is not None:
            ids = [row.id for row in rows]
            rows = rows[ids.index(question.after) + 1 :] if question.after in ids else []
        return Listed(tuple(rows[: question.limit]), self.tells and len(rows) > question.limit)


def row_of(name: str, created: int) -> Row:
    return parse_row({"id": name, "created_at": created})


def ask(ledger: Ledger, steps: Steps[T], newest_first: bool) -> T:
    try:
        question = next(steps)
        while True:
            question = steps.send(ledger.answer(question, newest_first))
    except StopIteration as end:
        found: T = end.value
        return found


def page_of(
    ledgers: list[Ledger],
    cursor: Cursor,
    limit: int,
    newest_first: bool,
    silent: frozenset[str] = NOBODY,
) -> tuple[Merged, Cursor]:
    """
    The page behind *cursor*, and the cursor behind that page; *silent* ledgers do not answer.
    """
    positions = {each.name: cursor.position(each.name) for each in ledgers}
    asked = [each for each in ledgers if each.name not in silent]
    stretches = [
        ask(each, read_on(positions[each.name], limit, newest_first=newest_first), newest_first)
        for each in asked
    ]
    page = merge(stretches, limit, newest_first=newest_first)
    positions |= {each.name: where for each, where in zip(asked, page.positions, strict=True)}
    if page.doubtful is not None:
        doubtful = asked[page.doubtful]
        behind = PageAfter(positions[doubtful.name].after, 1)
        page = evolve(page, more=bool(doubtful.answer(behind, newest_first).rows))
        doubtful.asked.update({"doubts": 1, "pages of 1": -1})
    if not page.rows:
        return page, cursor
    return page, Cursor(page.rows[-1].created, positions)


def reference(ledgers: list[Ledger], newest_first: bool) -> list[str]:
    """
    The ids of the whole list: by time, then by worker, then in the worker's own order.
    """
    rows = [row for ledger in ledgers for row in ledger.rows]
    return [row.id for row in sorted(rows, key=lambda row: row.created, reverse=newest_first)]


@st.composite
def fleets(draw: st.DrawFn) -> list[Ledger]:
    ledgers = [
        Ledger(name, tells=draw(st.booleans())) for name in "abcde"[: draw(st.integers(1, 5))]
    ]
    for ledger in ledgers:
        for created in draw(st.lists(st.integers(0, 6), max_size=12)):
            ledger.add(created)
    return ledgers


@given(ledgers=fleets(), limit=st.integers(1, 9), newest_first=st.booleans())
def test_pages_are_the_whole_list(ledgers: list[Ledger], limit: int, newest_first: bool) -> None:
    """
    Where nothing changes the pages are the list, cut; ``more`` is true on all but the last; no
    worker is asked for a page more than once; and one that tells whether rows follow is asked for
    one row more on the last page at most.
    """
    expected = reference(ledgers, newest_first)
    cursor, seen, pages = Cursor(), list[str](), 0
    while True:
        page, cursor = page_of(ledgers, cursor, limit, newest_first)
        pages += 1
        seen += [row.id for row in page.rows]
        assert seen == expected[: pages * limit]
        assert page.more == (len(seen) < len(expected))
        for ledger in ledgers:
            assert ledger.asked[f"pages of {limit}"] <= pages
            assert ledger.asked["doubts"] <= (1 if ledger.tells else pages)
            assert not ledger.asked[f"pages of {LARGEST_PAGE}"]
        if not page.more:
            return


@given(
    ledgers=fleets(),
    limit=st.integers(1, 9),
    newest_first=st.booleans(),
    data=st.data(),
)
def test_a_list_that_changes(
    ledgers: list[Ledger], limit: int, newest_first: bool, data: st.DataObject
) -> None:
    """
    While jobs come and go and workers fall silent, no row comes twice; what is there all the time
    comes, in order where all answer; and what is added comes last, or newest first not at all.
    """
    names = [each.name for each in ledgers]
    first = reference(ledgers, newest_first)
    cursor, seen, now, added, late = Cursor(), list[str](), 10, list[str](), set[str]()
    for number in range(200):
        hush = number < 20 and data.draw(st.integers(0, 3), "hush") == 0
        silent = data.draw(st.frozensets(st.sampled_from(names)), "silent") if hush else NOBODY
        page, cursor = page_of(ledgers, cursor, limit, newest_first, silent)
        seen += [row.id for row in page.rows]
        late |= silent if seen else set(names)  # until a row is out, every page is the first
        if not page.more and not silent:
            break
        if number < 20:
            for ledger in ledgers:
                ids = [row.id for row in ledger.rows]
                gone = data.draw(st.sets(st.sampled_from(ids)), "deleted") if ids else set()
                ledger.rows = [row for row in ledger.rows if row.id not in gone]
                for _ in range(data.draw(st.integers(0, 2), "added")):
                    now += 1
                    added.append(ledger.add(now).id)
    else:
        raise AssertionError("no end")
    assert len(seen) == len(set(seen))
    left = {row.id for ledger in ledgers for row in ledger.rows}
    assert set(first) & left <= set(seen)
    if newest_first:
        assert not {row for row in set(added) & set(seen) if row[0] not in late}
    else:
        assert set(added) & left <= set(seen)
    if not late:
        order = [*first, *added]
        assert seen == sorted(seen, key=order.index)


@given(ledgers=fleets(), limit=st.integers(1, 9), newest_first=st.booleans(), data=st.data())
def test_delete_all_that_is_listed(
    ledgers: list[Ledger], limit: int, newest_first: bool, data: st.DataObject
) -> None:
    """
    A client that deletes each page before it asks for the next sees every row once, in order.
    """
    expected = reference(ledgers, newest_first)
    cursor, seen, more = Cursor(), list[str](), True
    while more:
        page, cursor = page_of(ledgers, cursor, limit, newest_first)
        given = {row.id for row in page.rows}
        seen += [row.id for row in page.rows]
        more = page.more
        for ledger in ledgers:
            ledger.rows = [row for row in ledger.rows if row.id not in given]
    assert seen == expected


@given(ledgers=fleets(), limit=st.integers(1, 9), newest_first=st.booleans(), data=st.data())
def test_a_forgotten_cursor(
    ledgers: list[Ledger], limit: int, newest_first: bool, data: st.DataObject
) -> None:
    """
    Walking to any row gives a cursor behind which exactly the rest comes, with rows added or not.
    """
    expected = reference(ledgers, newest_first)
    if not expected:
        return
    place = data.draw(st.integers(0, len(expected) - 1))
    marks = [
        (number, row)
        for number, ledger in enumerate(ledgers)
        for row in ledger.rows
        if row.id == expected[place]
    ]
    [(holder, mark)] = marks
    positions = {
        ledger.name: ask(
            ledger, walk_to(mark, number - holder, newest_first=newest_first), newest_first
        )
        for number, ledger in enumerate(ledgers)
    }
    rest = expected[place + 1 :]
    for ledger in ledgers:
        if data.draw(st.booleans()):
            new = ledger.add(100 + ledgers.index(ledger))
            rest += [] if newest_first else [new.id]
    cursor, seen, more = Cursor(mark.created, positions), list[str](), True
    while more:
        page, cursor = page_of(ledgers, cursor, limit, newest_first)
        seen += [row.id for row in page.rows]
        more = page.more
    assert seen == rest


@pytest.mark.parametrize("newest_first", [True, False])
def test_walks_go_page_by_page(newest_first: bool) -> None:
    """
    Walking to a row far down takes pages of a hundred, and so does reading on from a deleted row.
    """
    ledger = Ledger("a")
    for created in range(350):
        ledger.add(created)
    rows = ledger.ordered(newest_first)
    position = ask(ledger, walk_to(rows[249], 0, newest_first=newest_first), newest_first)
    assert position.after == rows[249].id
    assert ledger.asked["pages of 100"] == 3
    ledger.rows.remove(rows[249])
    stretch = ask(ledger, read_on(position, 5, newest_first=newest_first), newest_first)
    assert stretch.rows[:5] == tuple(rows[250:255])
    assert ledger.asked["pages of 5"] == 1
    assert ledger.asked["pages of 100"] == 6


def test_a_row_deleted_during_a_walk() -> None:
    """
    When the last row of one page is deleted before the next is asked for, the walk begins again.
    """
    ledger = Ledger("a")
    for created in range(150):
        ledger.add(created)
    rows = list(ledger.rows)
    walk = walk_to(rows[120], 0, newest_first=False)
    assert next(walk) == PageAfter(None, 100)
    assert walk.send(ledger.answer(PageAfter(None, 100), False)) == PageAfter(rows[99].id, 100)
    ledger.rows.remove(rows[99])
    assert walk.send(Listed()) == OneRow(rows[99].id)
    assert walk.send(Listed()) == PageAfter(None, 100)
    walk.send(ledger.answer(PageAfter(None, 100), False))
    with pytest.raises(StopIteration) as end:
        walk.send(ledger.answer(PageAfter(rows[100].id, 100), False))
    assert end.value.value.after == rows[120].id


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_deleted_row_among_those_of_one_second(newest_first: bool) -> None:
    """
    Reading on from a deleted row does not repeat rows of the same second from earlier pages.
    """
    ledger = Ledger("a")
    for _ in range(4):
        ledger.add(5)
    cursor, seen = Cursor(), list[str]()
    for _ in range(4):
        page, cursor = page_of([ledger], cursor, 1, newest_first)
        seen += [row.id for row in page.rows]
        ledger.rows = [row for row in ledger.rows if row.id != "a2" or "a2" not in seen]
    assert seen == ["a1", "a2", "a3", "a4"]


def test_at_its_end() -> None:
    """
    Newest first a worker at its end is not asked again; oldest first it may have got new rows.
    """
    ledger = Ledger("a")
    ledger.add(1)
    for newest_first, calls in ((True, 1), (False, 2)):
        ledger.asked["pages of 5"] = 0
        _, cursor = page_of([ledger], Cursor(), 5, newest_first)
        page, _ = page_of([ledger], cursor, 5, newest_first)
        assert page.rows == ()
        assert not page.more
        assert ledger.asked["pages of 5"] == calls


def test_a_worker_that_does_not_page() -> None:
    """
    A worker that answers the same rows whatever it is asked is not asked for ever.
    """
    same = Listed(tuple(row_of(f"x{number}", 5) for number in range(100)), more=True)
    reading = read_on(Position(created=9), 100, newest_first=False)
    assert next(reading) == PageAfter(None, 100)
    assert reading.send(same) == PageAfter("x99", 100)
    with pytest.raises(StopIteration) as end:
        reading.send(same)
    assert end.value.value.rows == ()


def test_a_worker_with_smaller_pages() -> None:
    """
    Where a worker gives fewer rows than asked for and says more follow, the page ends with them:
    the next rows of others may belong behind those that are still to come.
    """
    few = ask_all([Listed((row_of("a1", 9),), more=True), Listed((row_of("b1", 5),))], limit=3)
    assert [row.id for row in few.rows] == ["a1"]
    assert few.more


def ask_all(answers: list[Listed], limit: int) -> Merged:
    stretches = []
    for listed in answers:
        reading = read_on(Position("before", 10, ("before",)), limit, newest_first=True)
        assert next(reading) == PageAfter("before", limit)
        with pytest.raises(StopIteration) as end:
            reading.send(listed)
        stretches.append(end.value.value)
    return merge(stretches, limit, newest_first=True)


def test_a_worker_that_joins_between_pages() -> None:
    """
    A worker registered after a cursor was handed out comes in with what is not before it.
    """
    old, new = Ledger("a"), Ledger("b")
    for created in (9, 7, 5, 3):
        old.add(created)
    page, cursor = page_of([old], Cursor(), 2, True)
    assert [row.created for row in page.rows] == [9, 7]
    for created in (8, 6, 4):
        new.add(created)
    page, _ = page_of([old, new], cursor, 9, True)
    assert [row.created for row in page.rows] == [6, 5, 4, 3]


def test_cursors_are_bounded() -> None:
    """
    The cursor unused for longest is forgotten first.
    """
    cursors = Cursors(room=2)
    for key in ("a", "b"):
        cursors.keep(key, Cursor(1.0))
    assert cursors.recall("a") == Cursor(1.0)
    cursors.keep("c", Cursor(2.0))
    assert (cursors.recall("b"), len(cursors)) == (None, 2)
    assert cursors.recall("a") == Cursor(1.0)


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"data": None}, {"data": [1]}, {"data": [{}]}, {"data": [{"id": 5}]}],
)
def test_no_list(answer: Any) -> None:
    """
    What is no list of objects with a text as id is refused as a whole.
    """
    with pytest.raises(ValueError, match=r"jobs|job without"):
        parse_list(answer)


@pytest.mark.parametrize("created", [None, "5", float("nan"), float("inf"), 10**400, []])
def test_jobs_without_a_time(created: Any) -> None:
    """
    A job whose time is no number counts as from the beginning of time, as its worker counts it.
    """
    assert parse_row({"id": "a", "created_at": created}).created == 0
