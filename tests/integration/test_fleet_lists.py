"""
Many ids, and lists over several workers, over real sockets.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.integration.answers import parse_answers
from tests.integration.commands import free_port
from tests.integration.fleet import Fleet, ask, routed, router_process, running_fleet, standing
from tests.integration.sockets import connect, reactor, running_router
from tests.integration.strict_worker import Received, StrictWorker

IDS = 10_000
WORKERS = 5
CLIENTS = 40


@define(eq=False)
class Clerk(StrictWorker):
    """
    A worker that makes nothing and answers at once: it only keeps a list of videos.
    """

    name: str = ""
    port: Any = None
    ids: list[str] = field(factory=list)
    places: dict[str, int] = field(factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.getHost().port}"

    def add(self) -> str:
        id = f"{self.name}-{len(self.ids)}"
        self.places[id] = len(self.ids)
        self.ids.append(id)
        return id

    def answer(self, request: Received) -> bytes:
        status, document = self._answer(request.method, urlsplit(request.target))
        body = json.dumps(document).encode()
        head = b"HTTP/1.1 %d X\r\nServer: strict\r\nContent-Type: application/json\r\n" % status
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _answer(self, method: str, target: Any) -> tuple[int, Any]:
        if target.path == "/v1/videos" and method == "POST":
            return 200, self._row(self.add())
        if target.path == "/v1/videos":
            query = parse_qs(target.query)
            start = self.places[query["after"][0]] + 1 if "after" in query else 0
            stop = start + int(query["limit"][0])
            rows = [self._row(id) for id in self.ids[start:stop]]
            return 200, {"object": "list", "data": rows, "has_more": stop < len(self.ids)}
        _, _, id = target.path.rpartition("/")
        if id in self.places:
            return 200, self._row(id)
        if target.path.startswith("/v1/videos/"):
            return 404, {"detail": "Video not found"}
        return 200, {}

    def _row(self, id: str) -> dict[str, Any]:
        created = 1_800_000_000 + self.places[id]
        return {"id": id, "status": "completed", "created_at": created, "worker": self.name}


@asynccontextmanager
async def clerks() -> AsyncIterator[list[Clerk]]:
    """
    Clerks on ports of their own.
    """
    there = []
    for number in range(WORKERS):
        clerk = Clerk(name=f"w{number}")
        endpoint = TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1")
        clerk.port = await endpoint.listen(clerk)
        there.append(clerk)
    try:
        yield there
    finally:
        for clerk in there:
            await clerk.port.stopListening()
            for connection in clerk.connections:
                connection.transport.abortConnection()
            assert clerk.violations == []


async def asked_in_rows(port: int, requests: list[bytes]) -> list[Any]:
    """
    The JSON of all answers, in the order of *requests*, from clients that each pipeline theirs.
    """

    async def client(mine: list[bytes]) -> list[Any]:
        connection = await connect(port)
        connection.write(b"".join(mine))
        end = b'"worker": "'
        await connection.until(lambda: connection.received.count(end) == len(mine), 60)
        answers, _ = parse_answers(connection.received)
        connection.transport.loseConnection()
        return [answer.json for answer in answers]

    shares = [requests[number::CLIENTS] for number in range(CLIENTS)]
    answers = await gatherResults([Deferred.fromCoroutine(client(share)) for share in shares])
    return [answers[number % CLIENTS][number // CLIENTS] for number in range(len(requests))]


def get(id: str) -> bytes:
    return f"GET /v1/videos/{id} HTTP/1.1\r\nHost: router\r\n\r\n".encode()


def asked_of(clerk: Clerk) -> int:
    return sum(connection.raw.count(b"GET /v1/videos/") for connection in clerk.connections)


@pytest_twisted.ensureDeferred
async def test_ten_thousand_ids_from_lists(tmp_path: Path) -> None:
    """
    Ids that were only ever seen in lists all go straight to their workers.
    """
    port = free_port()
    async with (
        clerks() as workers,
        router_process(
            tmp_path,
            "--port",
            str(port),
            "--log-level",
            "warn",
            "--worker-urls",
            *(each.url for each in workers),
        ),
    ):
        ids = [workers[number % WORKERS].add() for number in range(IDS)]
        seen: list[str] = []
        after = ""
        while True:
            path = f"/v1/videos?limit=100&order=asc{after}"
            page = (await ask(f"http://127.0.0.1:{port}", "GET", path)).json
            seen += [row["id"] for row in page["data"]]
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert seen == ids
        records = await asked_in_rows(port, [get(id) for id in ids])
        assert [record["id"] for record in records] == ids
        assert [asked_of(clerk) for clerk in workers] == [IDS // WORKERS] * WORKERS


@pytest_twisted.ensureDeferred
async def test_ids_from_creations() -> None:
    """
    Every id that a creation told goes straight to the worker that made it.
    """
    create = b"POST /v1/videos HTTP/1.1\r\nHost: router\r\nContent-Length: 2\r\n\r\n{}"
    async with clerks() as workers, running_router(*(each.url for each in workers)) as router:
        made = await asked_in_rows(router.port, [create] * 500)
        records = await asked_in_rows(router.port, [get(record["id"]) for record in made])
        assert records == made
        assert sum(map(asked_of, workers)) == 500
        assert len({record["worker"] for record in made}) == WORKERS


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest_twisted.ensureDeferred
async def test_pages_of_seven(order: str) -> None:
    """
    A list over five workers, read in pages of seven, is the one list sorted by time, registration
    and the worker's own order. A page asks each worker for at most one page; a router that never
    saw the page before it gives the same one.
    """
    async with standing(*["wan2.1-t2v-1.3b"] * 5) as stations:
        rows: list[tuple[int, int, int, str]] = []
        for place, station in enumerate(stations):
            for number in range(4 * place + 3):
                # Many share a second, on one worker and on several.
                created = 1_800_000_000 + (number * (place + 2)) // 3
                rows.append((created, place, number, station.has_video(number, created)))
        sign = 1 if order == "asc" else -1
        rows.sort(key=lambda row: (sign * row[0], row[1], row[2]))
        reference = [id for *_, id in rows]
        async with routed(stations) as fleet:
            assert await _read_all(fleet, order) == reference
        for start in range(7, len(reference), 14):
            async with routed(stations) as fleet:
                page = await _page(fleet, order, reference[start - 1])
                assert [row["id"] for row in page["data"]] == reference[start : start + 7]


async def _read_all(fleet: Fleet, order: str) -> list[str]:
    ids: list[str] = []
    more = True
    while more:
        for station in fleet.stations:
            station.worker.journal.clear()
        page = await _page(fleet, order, ids[-1] if ids else None)
        for station in fleet.stations:
            lists = [line for line in station.asked if line.startswith("GET /v1/videos?")]
            assert len(lists) <= 1
            assert all("limit=7&" in line for line in lists)
        listed = [row["id"] for row in page["data"]]
        assert (page["first_id"], page["last_id"]) == (listed[0], listed[-1])
        ids += listed
        more = page["has_more"]
        assert len(listed) == 7 or not more
    return ids


async def _page(fleet: Fleet, order: str, after: str | None) -> Any:
    behind = "" if after is None else f"&after={after}"
    return (await fleet.ask("GET", f"/v1/videos?limit=7&order={order}{behind}")).json


@pytest_twisted.ensureDeferred
async def test_a_list_without_a_worker() -> None:
    """
    A list names the workers that did not answer, and gives the rest.
    """
    async with running_fleet(*["wan2.1-t2v-1.3b"] * 3) as fleet:
        ids = [station.has_video(0, 1_800_000_000) for station in fleet.stations]
        await fleet.stations[1].stop()
        answer = await fleet.ask("GET", "/v1/videos")
        assert [row["id"] for row in answer.json["data"]] == [ids[0], ids[2]]
        missing = answer.headers.getRawHeaders("x-workers-missing")
        assert missing == [fleet.stations[1].url]
        for station in fleet.stations:
            await station.stop()
        silent = await fleet.ask("GET", "/v1/videos")
        assert silent.status == 503
        assert all(station.url in silent.json["error"] for station in fleet.stations)
