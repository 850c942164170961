"""
Pages of the fleet's list of video or mesh jobs.

It carries questions to workers; what to ask, and how a page comes about, is decided in
`sgl_droute.fleet.listing`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from attrs import define, evolve, field, frozen

from sgl_droute.errors import WorkerFailed
from sgl_droute.fleet.listing import (
    Cursor,
    Cursors,
    Listed,
    Merged,
    OneRow,
    PageAfter,
    Position,
    Question,
    Steps,
    Stretch,
    merge,
    parse_list,
    parse_row,
    read_on,
    walk_to,
)
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import WorkerClient
from sgl_droute.workers.gather import Gathering, content, get

T = TypeVar("T")
Learn = Callable[[str, Worker, Mapping[str, Any]], None]

_KINDS = {"videos": "video", "meshes": "mesh"}


@frozen
class Wanted:
    """
    What a client asks of a list.

    Attributes:
        collection: ``videos`` or ``meshes``.
        after: Id of the job that the page is to follow; None for the first page.
        limit: Most jobs on the page (count).
    """

    collection: str
    after: str | None = None
    limit: int = 20
    newest_first: bool = True

    def key(self, job: str) -> tuple[str, bool, str]:
        """
        What the cursor behind *job* is kept under.
        """
        return self.collection, self.newest_first, job


@define(eq=False)
class Pages:
    """
    Asks for pages, and remembers where those that were given out end.

    Args:
        client: For what a worker answers at once.
        learn: Told each job that a worker lists: ``video`` or ``mesh``, the worker, and the job.
        cursors: What stands behind the ids of last jobs.
    """

    client: WorkerClient
    learn: Learn
    cursors: Cursors = field(factory=Cursors)

    async def page(self, wanted: Wanted, gathering: Gathering) -> Merged:
        """
        The page that is *wanted* out of the jobs of the workers in *gathering*.

        It costs each worker one call. A page that is full of one worker's jobs may be followed by
        a call for one job more: not every version says whether more follow. A cursor that is not
        kept is found again by walking the lists; behind an id that no worker knows nothing comes.
        """
        return await _Page(self, wanted, gathering, list(gathering.workers)).read()


@frozen(eq=False)
class _Page:
    """
    One page in the making.
    """

    pages: Pages
    wanted: Wanted
    gathering: Gathering
    workers: list[Worker]

    async def read(self) -> Merged:
        cursor = await self._cursor()
        return Merged() if cursor is None else await self._behind(cursor)

    async def _cursor(self) -> Cursor | None:
        after = self.wanted.after
        if after is None:
            return Cursor()
        return self.pages.cursors.recall(self.wanted.key(after)) or await self._walk(after)

    async def _walk(self, after: str) -> Cursor | None:
        if not after:
            return None
        question = OneRow(after)
        answers = await self.gathering.ask(lambda worker: self._ask(worker, question))
        found = [(worker, row) for worker, listed in answers for row in listed.rows]
        if not found:
            return None
        holder, mark = found[0]
        places = {worker.url: place for place, worker in enumerate(self.workers)}

        def walk(worker: Worker) -> Coroutine[Any, Any, Position]:
            rank = places[worker.url] - places[holder.url]
            steps = walk_to(mark, rank, newest_first=self.wanted.newest_first)
            return self._follow(worker, steps)

        walked = await self.gathering.ask(walk)
        return Cursor(mark.created, {worker.url: position for worker, position in walked})

    async def _behind(self, cursor: Cursor) -> Merged:
        limit, newest_first = self.wanted.limit, self.wanted.newest_first
        positions = {worker.url: cursor.position(worker.url) for worker in self.workers}

        def read(worker: Worker) -> Coroutine[Any, Any, Stretch]:
            steps = read_on(positions[worker.url], limit, newest_first=newest_first)
            return self._follow(worker, steps)

        answered = await self.gathering.ask(read)
        page = merge([stretch for _, stretch in answered], limit, newest_first=newest_first)
        for (worker, _), position in zip(answered, page.positions, strict=True):
            positions[worker.url] = position
        if page.rows:
            last = page.rows[-1]
            self.pages.cursors.keep(self.wanted.key(last.id), Cursor(last.created, positions))
        if page.doubtful is None:
            return page
        worker, _ = answered[page.doubtful]
        return evolve(page, more=await self._more(worker, positions[worker.url]))

    async def _more(self, worker: Worker, position: Position) -> bool:
        question = PageAfter(position.after, 1)
        alone = Gathering([worker], self.gathering.missing)
        answers = await alone.ask(lambda worker: self._ask(worker, question))
        return any(listed.rows for _, listed in answers)

    async def _follow(self, worker: Worker, steps: Steps[T]) -> T:
        try:
            question = next(steps)
            while True:
                question = steps.send(await self._ask(worker, question))
        except StopIteration as end:
            found: T = end.value
            return found

    async def _ask(self, worker: Worker, question: Question) -> Listed:
        answer = await get(self.pages.client, worker, _target(self.wanted, question))
        if answer.status == 404:
            return Listed()
        found = content(worker, answer)
        try:
            one = isinstance(question, OneRow)
            listed = Listed((parse_row(found),)) if one else parse_list(found)
        except ValueError as problem:
            raise WorkerFailed(worker.url, f"listed {problem}") from problem
        for row in listed.rows:
            self.pages.learn(_KINDS[self.wanted.collection], worker, row.shown)
        return listed


def _target(wanted: Wanted, question: Question) -> bytes:
    path = f"/v1/{wanted.collection}"
    if isinstance(question, OneRow):
        return f"{path}/{_escaped(question.id)}".encode()
    order = "desc" if wanted.newest_first else "asc"
    after = "" if question.after is None else f"&after={_escaped(question.after)}"
    return f"{path}?limit={question.limit}&order={order}{after}".encode()


def _escaped(text: str) -> str:
    return quote(text, safe="", errors="replace")
