"""
Lists over the whole fleet: simulated workers behind, one list in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define, field, frozen
from klein import Klein
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.server import Request

from sgl_droute.api.lists import Lists
from sgl_droute.api.replies import refuse
from sgl_droute.errors import RouterError
from sgl_droute.fleet.listing import Cursors
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, Worker
from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.jobs import Job
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.videos import shown
from sgl_droute.simulator.worker import SimulatedWorker
from sgl_droute.workers.client import WorkerClient
from tests.memory import MemoryNetwork, Reply

BAD = Probe(healthy=False, reason="/health answered 503")


@define(eq=False)
class Front:
    """
    The routes under test, and nothing else.
    """

    lists: Lists

    app = Klein()

    @app.route("/v1/<any(videos, meshes):collection>")
    async def jobs(self, request: Request, collection: str) -> bytes:
        return await self.lists.jobs(request, collection)

    @app.route("/v1/models")
    async def models(self, request: Request) -> bytes:
        return await self.lists.models(request)

    @app.route("/v1/models/<path:name>")
    async def model(self, request: Request, name: str) -> bytes:
        return await self.lists.model(request, name)

    @app.route("/v1/list_loras")
    async def loras(self, request: Request) -> bytes:
        return await self.lists.loras(request)

    @app.handle_errors(RouterError)
    async def refused(self, request: Any, failure: Failure) -> bytes | None:
        assert isinstance(failure.value, RouterError)
        return await refuse(request, failure.value)


@frozen
class Learned:
    kind: str
    worker: str
    job: str


@define(eq=False)
class Fleet:
    """
    A pool of simulated workers, reachable at ``http://name:1``, and lists over it.
    """

    room: int = 4096
    clock: Clock = field(factory=Clock)
    network: MemoryNetwork = field(factory=MemoryNetwork)
    pool: Pool = field(factory=Pool)
    workers: dict[str, SimulatedWorker] = field(factory=dict)
    learned: list[Learned] = field(factory=list)
    numbers: Iterator[int] = field(default=Factory(lambda: iter(range(10_000))))
    _treq: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        quick, slow = (WorkerClient(self.network, self.clock, seconds) for seconds in (5.0, 900.0))
        lists = Lists(self.pool, quick, slow, self._learn, Cursors(self.room))
        self._treq = StubTreq(Front(lists).app.resource())

    def _learn(self, kind: str, worker: Worker, row: Mapping[str, Any]) -> None:
        self.learned.append(Learned(kind, worker.url, row["id"]))

    def add(self, *names: str, **options: Any) -> None:
        for name in names:
            worker = SimulatedWorker(self.clock, SimulatorSettings(**options))
            self.workers[name] = worker
            self.pool.add(f"http://{name}:1")
            self.plug_in(name)

    def plug_in(self, name: str) -> None:
        agent = RequestTraversalAgent(self.workers[name].resource())
        self.network.agents[f"http://{name}:1".encode()] = agent

    def unplug(self, name: str) -> None:
        del self.network.agents[f"http://{name}:1".encode()]

    def order(self, name: str, **rule: Any) -> None:
        self.workers[name].backstage.obey(parse_orders({"rules": [rule]}))

    def job(self, name: str, created: float, collection: str = "videos") -> str:
        """
        The id of a job that *name* got at *created*.
        """
        job_id = f"{name}{next(self.numbers)}"
        job = Job(id=job_id, model="m", created=created, paths=(Path("result"),))
        getattr(self.workers[name].routes, collection).jobs.put(job)
        return job_id

    def forget(self, job_id: str) -> None:
        for worker in self.workers.values():
            if any(job.id == job_id for job in worker.routes.videos.jobs):
                worker.routes.videos.jobs.forget(job_id)

    def reference(self, newest_first: bool) -> list[str]:
        jobs = [job for worker in self.workers.values() for job in worker.routes.videos.jobs]
        return [
            job.id for job in sorted(jobs, key=lambda job: int(job.created), reverse=newest_first)
        ]

    def begin(self, path: str) -> list[Reply]:
        """
        A list that holds the answer once it is there.
        """
        replies: list[Reply] = []
        sending = self._treq.get(f"http://router{path}")

        def read(response: Any) -> Any:
            body = response.content()
            return body.addCallback(
                lambda data: replies.append(Reply(response.code, response.headers, data))
            )

        sending.addCallback(read)
        self.wait(0.0)
        return replies

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for _ in range(20):
            self.network.flush()
            self._treq.flush()
            self.clock.advance(0)

    def get(self, path: str) -> Reply:
        replies = self.begin(path)
        if not replies:
            self.wait(6.0)
        [reply] = replies
        return reply

    def pages(self, query: str, path: str = "/v1/videos") -> Iterator[dict[str, Any]]:
        """
        Page after page, as the ``openai`` client asks for them.
        """
        after = ""
        while True:
            reply = self.get(f"{path}?{query}{after}")
            assert reply.status == 200
            page = reply.json
            yield page
            if not page["has_more"]:
                return
            after = f"&after={page['last_id']}"

    def calls(self, name: str) -> list[str]:
        """
        The targets of what *name* was asked since the last time.
        """
        journal = self.workers[name].journal
        targets = [each.target for each in journal.received]
        journal.clear()
        return targets


def ids(page: dict[str, Any]) -> list[str]:
    return [job["id"] for job in page["data"]]


def missing(reply: Reply) -> str | None:
    value: str | None = reply.headers.getRawHeaders("x-workers-missing", [None])[0]
    return value


def five_workers() -> Fleet:
    """
    50 videos on five workers, many of them in the same second.
    """
    fleet = Fleet()
    fleet.add("e", "b", "a", "d", "c", model="fastwan")
    for number in range(50):
        fleet.job("ebadc"[number * 7 % 11 % 5], 1000 + number * 3 % 17 + 0.5)
    return fleet


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_five_workers_paged_by_seven(order: str) -> None:
    """
    The pages of five workers are one list, cut: by time, then registration, then the worker's own
    order. Each page costs each worker one call for seven rows at most.
    """
    fleet = five_workers()
    expected = fleet.reference(order == "desc")
    seen: list[str] = []
    for page in fleet.pages(f"limit=7&order={order}"):
        assert page["object"] == "list"
        assert (page["first_id"], page["last_id"]) == (ids(page)[0], ids(page)[-1])
        seen += ids(page)
        assert seen == expected[: len(seen)]
        assert page["has_more"] == (len(seen) < 50)
        assert len(page["data"]) == (7 if page["has_more"] else 1)
        for name in fleet.workers:
            listed = [each for each in fleet.calls(name) if "?" in each]
            assert len(listed) <= 1
            assert all(each.startswith(f"/v1/videos?limit=7&order={order}") for each in listed)
    assert seen == expected


def test_jobs_pass_unchanged_and_are_learned() -> None:
    """
    A job reads as its worker shows it, and each one listed is told with kind and worker.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    first, second = fleet.job("a", 5), fleet.job("b", 6)
    page = fleet.get("/v1/videos").json
    assert ids(page) == [second, first]
    job = fleet.workers["b"].routes.videos.jobs[second]
    assert page["data"][0] == shown(job, fleet.clock.seconds())
    fleet.learned.clear()
    fleet.get("/v1/videos?limit=1")
    assert set(fleet.learned) == {
        Learned("video", "http://a:1", first),
        Learned("video", "http://b:1", second),
    }


def test_meshes() -> None:
    """
    Meshes have a list of their own.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="hunyuan3d")
    mesh = fleet.job("b", 5, "meshes")
    fleet.job("b", 5, "videos")
    assert ids(fleet.get("/v1/meshes").json) == [mesh]
    assert fleet.learned == [Learned("mesh", "http://b:1", mesh)]


def test_nothing_to_list() -> None:
    """
    An empty list is what a worker's is.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    empty: dict[str, Any] = {
        "data": [],
        "object": "list",
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    assert fleet.get("/v1/videos").json == empty
    fleet.job("a", 1)
    for after in ("nobody", "", "%2E%2E%2Fx", "a%26limit%3D1"):
        reply = fleet.get(f"/v1/videos?after={after}")
        assert (reply.status, reply.json) == (200, empty)


def test_an_odd_id_is_escaped() -> None:
    """
    What a client gives as ``after`` cannot become another request.
    """
    fleet = Fleet()
    fleet.add("a", model="fastwan")
    fleet.get("/v1/videos?after=..%2Fx%3Flimit%3D1%26y%20%C3%A9")
    assert fleet.calls("a") == ["/v1/videos/..%2Fx%3Flimit%3D1%26y%20%C3%A9"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=",
        "limit=x",
        "limit=-1",
        "limit=1.5",
        "limit=1_0",
        f"limit={'9' * 5000}",
        "order=",
        "order=up",
    ],
)
def test_bad_queries(query: str) -> None:
    """
    A limit outside 1 to 100 and an unknown order are 422, without a call to any worker.
    """
    fleet = Fleet()
    fleet.add("a", model="fastwan")
    reply = fleet.get(f"/v1/videos?{query}")
    assert reply.status == 422
    assert "must be" in reply.json["error"]
    assert fleet.calls("a") == []


def test_defaults() -> None:
    """
    Twenty rows, newest first; the order is read in any case.
    """
    fleet = Fleet()
    fleet.add("a", model="fastwan")
    jobs = [fleet.job("a", number) for number in range(30)]
    assert ids(fleet.get("/v1/videos").json) == jobs[:-21:-1]
    assert ids(fleet.get("/v1/videos?order=ASC&limit=100").json) == jobs


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 7, 20])
def test_list_and_delete(order: str, limit: int) -> None:
    """
    A client that deletes each video as it goes through the pages deletes them all, each once.
    """
    fleet = five_workers()
    expected = fleet.reference(order == "desc")
    seen: list[str] = []
    for page in fleet.pages(f"limit={limit}&order={order}"):
        for job_id in ids(page):
            seen.append(job_id)
            fleet.forget(job_id)
    assert seen == expected
    assert fleet.reference(True) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_forgotten_cursors(order: str) -> None:
    """
    A router that remembers no cursor, as after a restart, walks the lists again: same pages.
    """
    fleet = five_workers()
    forgetful = Fleet(room=0, clock=fleet.clock, network=fleet.network, pool=fleet.pool)
    pages = list(forgetful.pages(f"limit=7&order={order}"))
    assert [job for page in pages for job in ids(page)] == fleet.reference(order == "desc")
    walked = [each for each in fleet.calls("a") if "limit=100" in each]
    assert len(walked) == len(pages) - 1


def test_new_jobs_between_pages() -> None:
    """
    Newest first, what comes in between is not seen behind a cursor, on a worker that has given
    nothing yet either; oldest first it comes at the end.
    """
    for order in ("desc", "asc"):
        fleet = Fleet()
        fleet.add("a", "b", model="fastwan")
        jobs = [fleet.job("a", 20), fleet.job("a", 19), fleet.job("b", 5), fleet.job("b", 4)]
        pages = fleet.pages(f"limit=2&order={order}")
        seen = ids(next(pages))
        new = [fleet.job(name, 30 + number) for number, name in enumerate("abbb")]
        for page in pages:
            seen += ids(page)
        expected = jobs if order == "desc" else [*reversed(jobs), *new]
        assert seen == expected


def test_exactly_full() -> None:
    """
    A page that just holds everything says that nothing follows, at the cost of a call for one row.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    jobs = [fleet.job("a", number) for number in range(4)]
    page = fleet.get("/v1/videos?limit=4&order=asc").json
    assert (ids(page), page["has_more"]) == (jobs, False)
    assert fleet.calls("a") == [
        "/v1/videos?limit=4&order=asc",
        f"/v1/videos?limit=1&order=asc&after={jobs[-1]}",
    ]
    assert fleet.calls("b") == ["/v1/videos?limit=4&order=asc"]


def test_a_version_that_never_says_more() -> None:
    """
    Where a worker says that nothing follows a full page, it is asked: nothing is lost.
    """
    fleet = Fleet()
    fleet.add("a", model="fastwan")
    jobs = [fleet.job("a", number) for number in range(4)]
    page = fleet.get("/v1/videos?limit=2&order=asc").json
    fleet.order("a", path="/v1/videos", times=1, status=200, body={**page, "has_more": False})
    silent = fleet.get("/v1/videos?limit=2&order=asc").json
    assert (ids(silent), silent["has_more"]) == (jobs[:2], True)


FAULTS: list[dict[str, Any]] = [
    {"status": 500, "body": "Internal Server Error"},
    {"status": 422, "body": {"detail": []}},
    {"status": 200, "body": "no JSON"},
    {"status": 200, "body": {"data": [{"id": 5}]}},
    {"status": 200, "body": {"data": [None]}},
    {"status": 200, "body": []},
    {"hang": True},
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_does_not_answer(fault: dict[str, Any]) -> None:
    """
    Who answers nothing usable is named; the list is that of the others; and when it answers again
    its rows come on a later page, none of the others' twice.
    """
    fleet = Fleet()
    fleet.add("a", "b", "c", model="fastwan")
    jobs = {name: [fleet.job(name, number) for number in range(3)] for name in "abc"}
    fleet.order("b", path="/v1/videos", times=1, **fault)
    first = fleet.get("/v1/videos?limit=4&order=asc")
    assert (first.status, missing(first)) == (200, "http://b:1")
    assert ids(first.json) == [jobs["a"][0], jobs["c"][0], jobs["a"][1], jobs["c"][1]]
    assert first.json["has_more"]
    second = fleet.get(f"/v1/videos?limit=9&order=asc&after={first.json['last_id']}")
    assert missing(second) is None
    rest = [*jobs["b"][:2], jobs["a"][2], jobs["b"][2], jobs["c"][2]]
    assert (ids(second.json), second.json["has_more"]) == (rest, False)


def test_a_hanging_worker_costs_its_time_once() -> None:
    """
    Who did not answer the search for a forgotten cursor is not asked for rows in the same request.
    """
    fleet = Fleet(room=0)
    fleet.add("a", "b", model="fastwan")
    jobs = [fleet.job("a", number) for number in range(3)]
    fleet.order("b", path="/v1/videos", hang=True)
    replies = fleet.begin(f"/v1/videos?limit=5&order=asc&after={jobs[0]}")
    fleet.wait(5.1)
    [reply] = replies
    assert (ids(reply.json), missing(reply)) == (jobs[1:], "http://b:1")


def test_a_worker_without_the_route() -> None:
    """
    A worker that knows no such list has no jobs, and is not missing.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    job = fleet.job("a", 1)
    fleet.order("b", path="/v1/videos", status=404, body={"detail": "Not Found"})
    reply = fleet.get("/v1/videos")
    assert (ids(reply.json), missing(reply)) == ([job], None)


def test_all_registered_workers_are_asked() -> None:
    """
    Quarantined workers still list their jobs as long as they answer.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    fleet.pool.record_probe(fleet.pool["http://a:1"], BAD, threshold=1)
    assert fleet.pool["http://a:1"].dead
    job = fleet.job("a", 1)
    assert ids(fleet.get("/v1/videos").json) == [job]


def test_nobody_answers() -> None:
    """
    Without any answer it is 503 and names who was asked; in an empty pool too.
    """
    fleet = Fleet()
    reply = fleet.get("/v1/videos")
    assert reply.status == 503
    assert reply.error == {"error": "No workers registered in the pool", "reason": "no_worker"}
    fleet.add("a", "b", model="fastwan")
    fleet.unplug("a")
    fleet.unplug("b")
    for path in ("/v1/videos", "/v1/videos?after=x"):
        reply = fleet.get(path)
        assert reply.status == 503
        assert reply.error == {
            "error": "No worker answered: http://a:1, http://b:1",
            "reason": "no_worker",
        }
        assert missing(reply) == "http://a:1, http://b:1"


def test_a_restarted_worker_between_pages() -> None:
    """
    A worker that forgot all its jobs does not stop the walk through those of the others.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    for number in range(6):
        fleet.job("ab"[number % 2], number)
    pages = fleet.pages("limit=2&order=desc")
    seen = ids(next(pages))
    for job_id in [each for each in fleet.reference(True) if each[0] == "a"]:
        fleet.forget(job_id)
    left = [each for each in fleet.reference(True) if each not in seen]
    for page in pages:
        seen += ids(page)
    assert seen[2:] == left


def test_models() -> None:
    """
    Each model is listed once, in order of registration; workers in quarantine are not asked.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    fleet.add("c", served_model_name="qwen/image")
    fleet.add("dead", served_model_name="none")
    fleet.pool.record_probe(fleet.pool["http://dead:1"], BAD, threshold=1)
    reply = fleet.get("/v1/models")
    cards = reply.json["data"]
    path = fleet.workers["a"].engine.model.path
    assert reply.json["object"] == "list"
    assert [card["id"] for card in cards] == [path, "qwen/image"]
    assert missing(reply) is None
    assert fleet.calls("dead") == []
    assert fleet.get("/v1/models/qwen/image").json == cards[1]
    assert fleet.get(f"/v1/models/{path}").json == cards[0]
    unknown = fleet.get("/v1/models/no/such")
    assert unknown.status == 404
    assert unknown.error == {"error": "The model 'no/such' does not exist", "reason": "not_found"}


def test_models_of_a_part() -> None:
    """
    Who does not answer is named; a model that nobody else has is not denied then.
    """
    fleet = Fleet()
    fleet.add("a", "b", model="fastwan")
    fleet.order("a", path="/v1/models", hang=True)
    reply = fleet.get("/v1/models")
    assert (reply.status, missing(reply), len(reply.json["data"])) == (200, "http://a:1", 1)
    assert fleet.get(f"/v1/models/{reply.json['data'][0]['id']}").status == 200
    unknown = fleet.get("/v1/models/x")
    assert unknown.status == 503
    assert "http://a:1" in unknown.json["error"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/list_loras"])
def test_lists_that_nobody_gives(path: str) -> None:
    """
    503 without anybody to ask; 502 with the reasons when all fail.
    """
    fleet = Fleet()
    assert fleet.get(path).status == 503
    fleet.add("a", "b", "c", model="fastwan")
    fleet.unplug("a")
    fleet.order("b", path=path, status=500, body={"detail": "Lora is not enabled"})
    fleet.order("c", path=path, status=200, body={"data": 5})
    reply = fleet.get(path)
    assert reply.status == 502
    assert reply.json["error"].startswith("No worker listed")
    a, b, c = reply.json["details"]
    assert a == {
        "worker_url": "http://a:1",
        "error": "Worker request failed: http://a:1: connection refused",
    }
    assert b["worker_url"] == "http://b:1"
    assert "Lora is not enabled" in b["error"]
    assert c["worker_url"] == "http://c:1"
    for worker in fleet.pool:
        fleet.pool.record_probe(worker, BAD, threshold=1)
    assert fleet.get(path).status == 503


X = {"nickname": "x", "path": "repo/x"}
Y = {"nickname": "y", "path": "repo/y"}


def test_loras() -> None:
    """
    Adapters are listed once each; what every worker said stands beside, so that differences show.
    """
    fleet = Fleet()
    fleet.add("a", "b", "c", "d", model="fastwan")
    same = {"loaded_adapters": [X], "active": {"transformer": [X]}}
    more = {
        "loaded_adapters": [Y, {"path": "repo/x", "nickname": "x"}],
        "active": {"transformer": [X, Y], "transformer_2": [Y]},
    }
    for name, body in (("a", same), ("b", more)):
        fleet.order(name, path="/v1/list_loras", status=200, body=body)
    fleet.order("c", path="/v1/list_loras", status=500, body={"detail": "Lora is not enabled"})
    fleet.unplug("d")
    reply = fleet.get("/v1/list_loras")
    assert (reply.status, missing(reply)) == (200, "http://d:1")
    assert reply.json["loaded_adapters"] == [X, Y]
    assert reply.json["active"] == {"transformer": [X, Y], "transformer_2": [Y]}
    assert reply.json["results"] == [
        {"worker_url": "http://a:1", "status_code": 200, "body": same},
        {"worker_url": "http://b:1", "status_code": 200, "body": more},
        {"worker_url": "http://c:1", "status_code": 500, "body": {"detail": "Lora is not enabled"}},
        {
            "worker_url": "http://d:1",
            "status_code": 502,
            "body": {"error": "Worker request failed: http://d:1: connection refused"},
        },
    ]


def test_loras_wait_for_the_gpu() -> None:
    """
    A list of adapters stands in line behind generations: it waits longer than other lists.
    """
    fleet = Fleet()
    fleet.add("a", model="fastwan")
    fleet.order("a", path="/v1/list_loras", delay=600)
    replies = fleet.begin("/v1/list_loras")
    fleet.wait(600)
    [reply] = replies
    assert reply.status == 200
    assert reply.json["loaded_adapters"] == []
