"""
One list out of the job lists of many workers, page by page.

Pure: what has to be asked of a worker comes out of a generator as questions, and goes in as what
the worker listed. Who carries them, and what to do about silent workers, is decided elsewhere.

A worker sorts by whole seconds of ``created_at`` and keeps jobs of one second in order of arrival
in both directions. It answers an empty page for an ``after`` that it does not know, and some
versions leave ``has_more`` out or always say false.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Hashable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen

LARGEST_PAGE = 100

T = TypeVar("T")


@frozen
class Row:
    """
    One job in a worker's list.

    Attributes:
        created: Seconds since the epoch; 0 where the worker tells none.
        shown: The job as the worker shows it.
    """

    id: str
    created: float
    shown: Mapping[str, Any]


@frozen
class Listed:
    """
    What a worker answered: rows in its own order.

    Attributes:
        more: It says that more follow. Without that nothing is known unless the page is short.
    """

    rows: tuple[Row, ...] = ()
    more: bool = False


@frozen
class PageAfter:
    """
    The question for at most *limit* rows behind the row *after*, or from the start.
    """

    after: str | None
    limit: int


@frozen
class OneRow:
    """
    The question for the row *id*; it lists nothing when the worker no longer knows it.
    """

    id: str


Question = PageAfter | OneRow
Steps = Generator[Question, Listed, T]


@frozen
class Position:
    """
    How far one worker's list has been given out.

    It outlives the deletion of any row: what has passed is known by its time as well.

    Attributes:
        after: Id of a row up to which everything has passed; None to begin at the start.
        created: Time of the row that passed last, or of the first one to come; None as long as
            the worker has not answered.
        given: Ids that have passed of those with the time *created*.
        ended: Nothing was behind it when the worker was last asked.
    """

    after: str | None = None
    created: float | None = None
    given: tuple[str, ...] = ()
    ended: bool = False

    def past(self, rows: Sequence[Row]) -> Position:
        """
        The position behind *rows*, the next ones in the worker's order.
        """
        if not rows:
            return self
        last = rows[-1]
        before = self.given if self.created == last.created else ()
        same = (row.id for row in rows if row.created == last.created)
        return Position(last.id, last.created, (*before, *same))

    def has_passed(self, row: Row, *, newest_first: bool) -> bool:
        """
        Whether *row* has been given out, or came later and belongs before what was.
        """
        if self.created is None:
            return False
        if row.created == self.created:
            return row.id in self.given
        return (row.created > self.created) is newest_first


@frozen
class Stretch:
    """
    The next rows of one worker.

    Attributes:
        position: Where they begin.
        more: Whether others follow; None when the worker's answer leaves that open.
    """

    position: Position
    rows: tuple[Row, ...]
    more: bool | None


@frozen
class Merged:
    """
    One page of the whole list.

    Attributes:
        positions: Where each stretch goes on, in the order of the stretches.
        more: Whether rows follow, as far as is known.
        doubtful: Number of the one stretch that alone could tell of more and did not; ask its
            worker for one row behind its position.
    """

    rows: tuple[Row, ...] = ()
    positions: tuple[Position, ...] = ()
    more: bool = False
    doubtful: int | None = None


@frozen
class Cursor:
    """
    What stands behind the id of a page's last row: a position for each worker, by its URL.

    Attributes:
        created: Time of that row; None before the first page.
    """

    created: float | None = None
    positions: Mapping[str, Position] = field(factory=dict)

    def position(self, worker: str) -> Position:
        """
        Where *worker* goes on; one that joined since, with what is no earlier in the list.
        """
        return self.positions.get(worker) or Position(created=self.created)


@define(eq=False)
class Cursors:
    """
    The cursors handed out last.

    Args:
        room: How many are kept (count); the one unused for longest is forgotten first.
        most_positions: Positions of workers kept in all of them together (count), which is what
            takes memory in a large fleet.
    """

    room: int = 4096
    most_positions: int = 100_000
    _cursors: OrderedDict[Hashable, Cursor] = field(factory=OrderedDict, init=False)
    _positions: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._cursors)

    def recall(self, key: Hashable) -> Cursor | None:
        """
        The cursor kept under *key*; None when there is none, or none any more.
        """
        cursor = self._cursors.get(key)
        if cursor is not None:
            self._cursors.move_to_end(key)
        return cursor

    def keep(self, key: Hashable, cursor: Cursor) -> None:
        before = self._cursors.pop(key, None)
        if before is not None:
            self._positions -= len(before.positions)
        self._cursors[key] = cursor
        self._positions += len(cursor.positions)
        while len(self._cursors) > self.room or self._positions > self.most_positions:
            _, oldest = self._cursors.popitem(last=False)
            self._positions -= len(oldest.positions)


def parse_row(shown: Any) -> Row:
    """
    The row of one job.

    Raises:
        ValueError: It is not an object with a text as ``id``.
    """
    if not isinstance(shown, dict) or not isinstance(shown.get("id"), str):
        raise ValueError("a job without an id")
    created = shown.get("created_at")
    if not isinstance(created, int | float) or not abs(created) < 1e18:  # NaN is not
        created = 0
    return Row(shown["id"], created, shown)


def parse_list(answer: Any) -> Listed:
    """
    The rows of a worker's list.

    Raises:
        ValueError: It is not an object with a list of jobs as ``data``.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ValueError("no list of jobs")
    return Listed(tuple(map(parse_row, answer["data"])), answer.get("has_more") is True)


def read_on(position: Position, limit: int, *, newest_first: bool) -> Steps[Stretch]:
    """
    The *limit* rows behind *position*, or as many as there are, in one question.

    More are asked only where the row that they were to follow has been deleted, or rows came in
    that belong before it. Newest first, a worker at its end is not asked at all: whatever it got
    since belongs before.
    """
    if newest_first and position.ended:
        return Stretch(position, (), False)
    if position.after is None:
        return (yield from _read_from_start(position, limit, limit, newest_first))
    listed = yield from _page(position.after, limit)
    if listed is None:
        return (yield from _read_from_start(position, limit, LARGEST_PAGE, newest_first))
    return Stretch(position, listed.rows, _more(listed, limit))


def _read_from_start(
    position: Position, limit: int, size: int, newest_first: bool
) -> Steps[Stretch]:
    position = evolve(position, after=None)
    found: list[Row] = []
    after = None
    while True:
        listed = yield from _page(after, size)
        if listed is None:
            return (yield from _read_from_start(position, limit, size, newest_first))
        for row in listed.rows:
            if not position.has_passed(row, newest_first=newest_first):
                found.append(row)
            elif not found:
                position = evolve(position, after=row.id)
        more = _more(listed, size)
        if more is False or len(found) >= limit:
            return Stretch(position, tuple(found), more)
        after = listed.rows[-1].id


def walk_to(mark: Row, rank: int, *, newest_first: bool) -> Steps[Position]:
    """
    Where a worker goes on behind the row *mark* of the whole list.

    Args:
        rank: Below 0 for a worker registered before the one that has *mark*, 0 for that one, above
            0 for later ones.
    """
    position, after = Position(created=mark.created), None
    while True:
        listed = yield from _page(after, LARGEST_PAGE)
        if listed is None:
            return (yield from walk_to(mark, rank, newest_first=newest_first))
        until = _first_behind(mark, rank, listed.rows, newest_first)
        position = position.past(listed.rows[:until])
        if until < len(listed.rows) or _more(listed, LARGEST_PAGE) is False:
            return position
        after = listed.rows[-1].id
        if after == mark.id:
            return position


def _page(after: str | None, limit: int) -> Steps[Listed | None]:
    """
    The page behind *after*; None when that row has been deleted.
    """
    listed = yield PageAfter(after, limit)
    if after is None:
        return listed
    if not listed.rows:
        return listed if (yield OneRow(after)).rows else None
    # A worker that knows no `after` begins anew each time: nothing is behind its first page.
    return Listed() if listed.rows[-1].id == after else listed


def _first_behind(mark: Row, rank: int, rows: Sequence[Row], newest_first: bool) -> int:
    for number, row in enumerate(rows):
        if row.id == mark.id:
            return number + 1
        same = row.created == mark.created
        if (same and rank > 0) or (not same and (row.created < mark.created) is newest_first):
            return number
    return len(rows)


def _more(listed: Listed, limit: int) -> bool | None:
    if not listed.rows:
        return False
    if listed.more:
        return True
    return False if len(listed.rows) < limit else None


def merge(stretches: Sequence[Stretch], limit: int, *, newest_first: bool) -> Merged:
    """
    The first *limit* rows of all *stretches*, which come in order of registration: by time, then
    by registration, then in the worker's own order.

    The page is shorter where a stretch is used up and more of its worker's rows follow.
    """
    rows, used = _first_rows(stretches, limit, -1 if newest_first else 1)
    pairs = list(zip(stretches, used, strict=True))
    more = any(count < len(stretch.rows) or stretch.more for stretch, count in pairs)
    open_ended = [number for number, stretch in enumerate(stretches) if stretch.more is None]
    return Merged(
        rows=tuple(rows),
        positions=tuple(_position_after(stretch, count) for stretch, count in pairs),
        more=more,
        doubtful=open_ended[0] if open_ended and not more else None,
    )


def _first_rows(stretches: Sequence[Stretch], limit: int, sign: int) -> tuple[list[Row], list[int]]:
    rows: list[Row] = []
    used = [0] * len(stretches)
    heads = [
        (sign * stretch.rows[0].created, number)
        for number, stretch in enumerate(stretches)
        if stretch.rows
    ]
    heapify(heads)
    while heads and len(rows) < limit:
        number = heads[0][1]
        stretch = stretches[number]
        rows.append(stretch.rows[used[number]])
        used[number] += 1
        if used[number] < len(stretch.rows):
            heapreplace(heads, (sign * stretch.rows[used[number]].created, number))
        elif stretch.more:
            break
        else:
            heappop(heads)
    return rows, used


def _position_after(stretch: Stretch, count: int) -> Position:
    position = stretch.position.past(stretch.rows[:count])
    if count == len(stretch.rows):
        return evolve(position, ended=stretch.more is False)
    if position.created is None:
        # Newest first, this tells rows that come in before the next page from those to give out.
        return evolve(position, created=stretch.rows[0].created)
    return position
