"""
What the workers list, as one list: jobs, models, adapters.

How a page of jobs comes about is the business of `sgl_droute.workers.pages`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from attrs import define, field
from twisted.web.server import Request

from sgl_droute.api.reading import parameter
from sgl_droute.api.replies import reply
from sgl_droute.errors import NoAnswer, NotFound, NoWorker, Unprocessable, WorkerFailed
from sgl_droute.fleet.listing import LARGEST_PAGE, Cursors, Merged
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.broadcast import Result
from sgl_droute.workers.client import Answer, WorkerClient
from sgl_droute.workers.gather import Gathering, content, get
from sgl_droute.workers.pages import Learn, Pages, Wanted

T = TypeVar("T")

_MISSING = "X-Workers-Missing"
_NUMBER = re.compile("[0-9]{1,9}")


@define(eq=False)
class Lists:
    """
    Answers lists over the whole fleet. Workers that did not answer are named in the header
    ``X-Workers-Missing``.

    Args:
        pool: The fleet, in order of registration.
        client: For what a worker answers at once.
        control: For what waits in a worker's GPU queue.
        learn: Told each job that a worker lists: ``video`` or ``mesh``, the worker, and the job.
        cursors: What stands behind the ids that clients continue after.
    """

    pool: Pool
    client: WorkerClient
    control: WorkerClient
    learn: Learn
    cursors: Cursors = field(factory=Cursors)
    _pages: Pages = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pages = Pages(self.client, self.learn, self.cursors)

    async def jobs(self, request: Request, collection: str) -> bytes:
        """
        One page of all workers' *collection*, ``videos`` or ``meshes``, in the shape of a worker's.

        Raises:
            Unprocessable: ``limit`` or ``order`` has a value that it may not have.
            NoWorker: Nobody is registered, or nobody answered.
        """
        wanted = _wanted(request, collection)
        gathering = Gathering(list(self.pool))
        if not gathering.workers:
            raise NoWorker("No workers registered in the pool")
        page = await self._pages.page(wanted, gathering)
        if not gathering.workers:
            raise _unanswered("No worker answered", gathering)
        _name_missing(request, gathering)
        return reply(request, _shown(page))

    async def models(self, request: Request) -> bytes:
        """
        The model cards of all workers that are not quarantined, the first one of each id.

        Raises:
            NoWorker: There is nobody to ask.
        """
        gathering = Gathering(self._in_service())
        cards = await self._cards(gathering)
        if not gathering.workers:
            failures = [(url, str(error)) for url, error in gathering.missing.items()]
            raise _all_failed("No worker listed its models", failures)
        _name_missing(request, gathering)
        return reply(request, {"object": "list", "data": _unique(cards, _id)})

    async def model(self, request: Request, name: str) -> bytes:
        """
        The first card whose id is *name*.

        Raises:
            NotFound: No worker has it.
            NoWorker: Nobody who answered has it, or there is nobody to ask.
        """
        gathering = Gathering(self._in_service())
        for card in await self._cards(gathering):
            if card["id"] == name:
                return reply(request, card)
        if gathering.missing:
            raise _unanswered(
                f"The model '{name}' is not here, and there was no answer from", gathering
            )
        raise NotFound(f"The model '{name}' does not exist")

    async def loras(self, request: Request) -> bytes:
        """
        The adapters of all workers that are not quarantined, and what each of them answered.

        Raises:
            NoWorker: There is nobody to ask.
        """
        asked = self._in_service()
        gathering = Gathering(asked)
        answers = await gathering.ask(lambda worker: get(self.control, worker, b"/v1/list_loras"))
        results = {worker.url: Result.of(worker.url, answer) for worker, answer in answers}
        for url, error in gathering.missing.items():
            results[url] = Result(url, 502, {"error": str(error)})
        in_order = [results[worker.url] for worker in asked]
        listed = [result.body for result in in_order if _lists_adapters(result)]
        if not listed:
            failures = [(result.worker_url, _failure(result)) for result in in_order]
            raise _all_failed("No worker listed its adapters", failures)
        _name_missing(request, gathering)
        shown = [result.shown() for result in in_order]
        return reply(request, {**_merged_adapters(listed), "results": shown})

    def _in_service(self) -> list[Worker]:
        workers = [worker for worker in self.pool if not worker.dead]
        if not workers:
            raise NoWorker("No healthy workers available in the pool")
        return workers

    async def _cards(self, gathering: Gathering) -> list[dict[str, Any]]:
        async def ask(worker: Worker) -> list[dict[str, Any]]:
            return _model_cards(worker, await get(self.client, worker, b"/v1/models"))

        return [card for _, cards in await gathering.ask(ask) for card in cards]


def _wanted(request: Request, collection: str) -> Wanted:
    limit = parameter(request, "limit")
    order = parameter(request, "order")
    return Wanted(
        collection,
        after=parameter(request, "after"),
        limit=20 if limit is None else _limit(limit),
        newest_first=True if order is None else _newest_first(order),
    )


def _limit(text: str) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= LARGEST_PAGE:
        raise Unprocessable(f"limit must be a whole number from 1 to {LARGEST_PAGE}")
    return int(text)


def _newest_first(text: str) -> bool:
    if text.lower() not in ("asc", "desc"):
        raise Unprocessable("order must be asc or desc")
    return text.lower() == "desc"


def _shown(page: Merged) -> dict[str, Any]:
    return {
        "data": [row.shown for row in page.rows],
        "object": "list",
        "first_id": page.rows[0].id if page.rows else None,
        "last_id": page.rows[-1].id if page.rows else None,
        "has_more": page.more,
    }


def _model_cards(worker: Worker, answer: Answer) -> list[dict[str, Any]]:
    listed = content(worker, answer)
    cards = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(cards, list) or not all(map(_is_card, cards)):
        raise WorkerFailed(worker.url, "listed no model cards")
    return cards


def _id(card: dict[str, Any]) -> str:
    return str(card["id"])


def _is_card(card: Any) -> bool:
    return isinstance(card, dict) and isinstance(card.get("id"), str)


def _lists_adapters(result: Result) -> bool:
    body = result.body
    if result.status_code != 200 or not isinstance(body, dict):
        return False
    loaded, active = body.get("loaded_adapters"), body.get("active")
    return (
        isinstance(loaded, list)
        and isinstance(active, dict)
        and all(isinstance(adapters, list) for adapters in active.values())
    )


def _merged_adapters(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    active: dict[str, list[Any]] = {}
    for body in bodies:
        for module, adapters in body["active"].items():
            active.setdefault(module, []).extend(adapters)
    return {
        "loaded_adapters": _unique(
            (each for body in bodies for each in body["loaded_adapters"]), _text
        ),
        "active": {module: _unique(adapters, _text) for module, adapters in active.items()},
    }


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _unique(items: Iterable[T], key: Callable[[T], str]) -> list[T]:
    first: dict[str, T] = {}
    for item in items:
        first.setdefault(key(item), item)
    return list(first.values())


def _name_missing(request: Request, gathering: Gathering) -> None:
    if gathering.missing:
        request.setHeader(_MISSING, gathering.missing_urls)


def _unanswered(text: str, gathering: Gathering) -> NoWorker:
    urls = gathering.missing_urls
    return NoWorker(f"{text}: {urls}", headers={_MISSING: urls})


def _failure(result: Result) -> str:
    if isinstance(result.body, dict) and "error" in result.body:
        return str(result.body["error"])
    return f"answered {result.status_code} {json.dumps(result.body)}"


def _all_failed(text: str, failures: list[tuple[str, str]]) -> NoAnswer:
    details = [{"worker_url": url, "error": why} for url, why in failures]
    return NoAnswer(text, fields={"details": details})
