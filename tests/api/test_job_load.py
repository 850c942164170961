"""
Video and mesh jobs count as load of their workers from creation to end, however that is learned.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent

from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.settings import SimulatorSettings
from tests.memory import MemoryRouter, Reply

VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
MESH = {"input_image": f"data:image/png;base64,{b64encode(b'no picture').decode()}"}
# A tiny video takes 7.7 s, a mesh 24 s.
FILMS = SimulatorSettings(model="fastwan", speed=0.001)
SOLIDS = SimulatorSettings(model="hunyuan3d", speed=10)


def started(*workers: str, simulator: SimulatorSettings = FILMS, **options: Any) -> MemoryRouter:
    router = MemoryRouter(*workers, simulator=simulator, **options)
    router.service.startService()
    router.settle()
    return router


def created(router: MemoryRouter, path: str = "/v1/videos") -> str:
    answer = router.ask("POST", path, json=MESH if path == "/v1/meshes" else VIDEO)
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def jobs(router: MemoryRouter) -> list[int]:
    return [worker.jobs for worker in router.service.pool]


def creations(router: MemoryRouter) -> list[int]:
    return [
        sum(each.method == "POST" for each in worker.engine.journal.received)
        for worker in router.workers.values()
    ]


def polls(router: MemoryRouter, name: str) -> Counter[str]:
    """
    How often a worker was asked about each of its videos.
    """
    received = router.workers[name].engine.journal.received
    return Counter(
        each.target
        for each in received
        if each.method == "GET" and each.target.startswith("/v1/videos/")
    )


def fault(router: MemoryRouter, name: str, **rule: Any) -> None:
    router.workers[name].backstage.obey(parse_orders({"rules": [rule]}))


def read(router: MemoryRouter, id: str) -> Reply:
    return router.ask("GET", f"/v1/videos/{id}")


@pytest.mark.parametrize("path", ["/v1/videos", "/generate_video", "/v1/meshes"])
def test_one_after_the_other(path: str) -> None:
    """
    Twelve jobs created one after the other on three idle workers go 4, 4, 4.
    """
    simulator = SOLIDS if path == "/v1/meshes" else FILMS
    router = MemoryRouter("a", "b", "c", simulator=simulator)
    for _ in range(12):
        created(router, path)
    assert jobs(router) == [4, 4, 4]
    assert creations(router) == [4, 4, 4]
    assert set(router.loads.values()) == {0}


def test_jobs_turn_other_work_away() -> None:
    """
    A worker with a running video is busy for pictures too.
    """
    router = MemoryRouter("a", "b", simulator=SimulatorSettings(model="cosmos3"))
    router.ask("POST", "/v1/videos", json=VIDEO)
    busy = jobs(router).index(1)
    for _ in range(3):
        client = router.begin("POST", "/generate", json={"prompt": "x", "size": "64x64"})
        assert creations(router)[busy] == 1
        client.hang_up()
        router.wait(1.0)  # the worker works on, which counts


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/meshes"])
def test_followed_to_their_end(path: str) -> None:
    """
    Jobs that no client asks about stop counting soon after they are done, one by one.
    """
    router = started("a", simulator=SOLIDS if path == "/v1/meshes" else FILMS)
    for _ in range(3):
        created(router, path)
    counts = [3]
    for _ in range(100):
        router.wait(1)
        done = router.workers["a"].engine.journal.generations_finished
        assert jobs(router)[0] >= 3 - done
        if jobs(router)[0] != counts[-1]:
            counts.append(jobs(router)[0])
    assert counts == [3, 2, 1, 0]


def test_a_clients_poll_teaches() -> None:
    """
    The answer to a client's own poll ends a job without waiting for the router's.
    """
    router = started("a", job_poll_interval=1000)
    id = created(router)
    router.wait(9)
    assert jobs(router) == [1]
    assert read(router, id).json["status"] == "completed"
    assert jobs(router) == [0]


def test_a_list_teaches() -> None:
    """
    So does a list that a client asks for.
    """
    router = started("a", job_poll_interval=1000)
    created(router)
    router.wait(9)
    assert router.ask("GET", "/v1/videos").json["data"][0]["status"] == "completed"
    assert jobs(router) == [0]


def test_failed_jobs() -> None:
    """
    A job that failed is over.
    """
    router = started("a")
    router.workers["a"].backstage.obey(parse_orders({"fail_generations": 1}))
    id = created(router)
    router.wait(15)
    assert read(router, id).json["status"] == "failed"
    assert jobs(router) == [0]


def test_sparse_polling() -> None:
    """
    However long a worker's line is, only its oldest jobs are asked about, and those who have none
    are not asked.
    """
    router = started("a", "b", job_poll_interval=5)
    router.ask("PUT", "/workers/http%3A%2F%2Fb%3A1", json={"disabled": True})
    ids = [created(router) for _ in range(20)]
    router.workers["a"].backstage.obey(parse_orders({"slow": 1000}))
    router.wait(5)
    asked = polls(router, "a")
    assert set(asked) <= {f"/v1/videos/{id}" for id in ids[:4]}
    assert sum(asked.values()) <= 4
    assert f"/v1/videos/{ids[0]}" in asked
    router.wait(60)
    assert sum(polls(router, "a").values()) <= 4 * 14
    assert not polls(router, "b")
    assert jobs(router)[0] == 19


def test_the_interval() -> None:
    """
    ``job_poll_interval`` is the time between two questions about a job.
    """
    router = started("a", job_poll_interval=20)
    router.workers["a"].backstage.obey(parse_orders({"slow": 1000}))
    id = created(router)
    router.wait(65)
    assert polls(router, "a") == {f"/v1/videos/{id}": 3}


def test_stopped() -> None:
    """
    A router that stopped asks no more, also when a question was under way.
    """
    router = started("a")
    created(router)
    fault(router, "a", path="/v1/videos/", hang=True)
    router.wait(6)
    stopped: list[object] = []
    router.service.stopService().addBoth(stopped.append)
    router.settle()
    assert len(stopped) == 1
    asked = polls(router, "a")
    router.wait(60)
    assert polls(router, "a") == asked


def test_deleted_jobs_are_work_still() -> None:
    """
    A deleted job counts until it would have ended, because its worker works on.
    """
    router = started("a", job_poll_interval=1)
    first = created(router)
    router.wait(9)
    assert read(router, first).json["status"] == "completed"
    ids = [created(router) for _ in range(2)]
    for id in ids:
        assert router.ask("DELETE", f"/v1/videos/{id}").status == 200
    assert jobs(router) == [2]
    router.wait(6)
    assert jobs(router) == [2]
    router.wait(4)
    assert jobs(router) == [1]
    router.wait(8)
    assert jobs(router) == [0]


def test_deleted_before_another() -> None:
    """
    A deleted job is over at the latest when the next one runs.
    """
    router = started("a", job_poll_interval=1)
    router.ask("DELETE", f"/v1/videos/{created(router)}")
    created(router)
    router.wait(6)
    assert jobs(router) == [2]
    router.wait(4)
    assert jobs(router) == [1]
    router.wait(8)
    assert jobs(router) == [0]


def test_new_work_avoids_deleted_jobs() -> None:
    """
    New videos go to the worker that does not work on a deleted one.
    """
    router = MemoryRouter("a", "b", simulator=FILMS)
    id = created(router)
    busy = creations(router).index(1)
    router.ask("DELETE", f"/v1/videos/{id}")
    created(router)
    assert creations(router)[1 - busy] == 1


def test_a_worker_that_forgot() -> None:
    """
    A job that its worker does not know any more stops counting, by the router's own question.
    """
    router = started("a", "b")
    for _ in range(4):
        created(router)
    assert jobs(router) == [2, 2]
    router.start_worker("a")
    router.wait(6)
    assert jobs(router)[0] == 0
    assert jobs(router)[1] > 0


def test_a_clients_poll_tells_of_a_restart() -> None:
    """
    A client's question to a worker that forgot ends the job too.
    """
    router = started("a", job_poll_interval=1000)
    id = created(router)
    router.start_worker("a")
    assert read(router, id).status == 404
    assert jobs(router) == [0]


def test_deleted_jobs_of_a_worker_that_was_restarted() -> None:
    """
    A new process works on nothing: deleted jobs of the old one stop counting when that is noticed.
    """
    router = started("a", "b")
    router.ask("PUT", "/workers/http%3A%2F%2Fb%3A1", json={"disabled": True})
    router.workers["a"].backstage.obey(parse_orders({"slow": 1000}))
    router.ask("DELETE", f"/v1/videos/{created(router)}")
    created(router)
    router.stop_worker("a")
    router.wait(10)
    router.start_worker("a")
    router.wait(21)
    assert router.service.pool["http://a:1"].state == "ready"
    assert jobs(router) == [0, 0]


def test_a_worker_that_is_gone(logged: list[LogEvent]) -> None:
    """
    Jobs of a worker that refuses connections are given up after some rounds, and not after one.
    """
    router = started("a", "b", job_poll_interval=5)
    for _ in range(4):
        created(router)
    router.stop_worker("a")
    router.wait(6)
    assert jobs(router)[0] == 2
    router.wait(10)
    assert jobs(router)[0] == 0
    told = [formatEvent(event) or "" for event in logged]
    assert sum("the open jobs of http://a:1 are given up" in line for line in told) == 1


def test_a_worker_that_was_away_shortly() -> None:
    """
    Refusals count in a row: a worker that is back in between keeps its jobs.
    """
    router = started("a", job_poll_interval=5)
    router.workers["a"].backstage.obey(parse_orders({"slow": 1000}))
    created(router)
    agent = router.network.agents[b"http://a:1"]
    for _ in range(4):
        router.stop_worker("a")
        router.wait(10)
        router.network.agents[b"http://a:1"] = agent
        router.wait(5)
    assert jobs(router) == [1]


@pytest.mark.parametrize("rule", [{"hang": True}, {"status": 503}, {"status": 200, "body": "?"}])
def test_a_worker_that_does_not_tell(rule: dict[str, Any]) -> None:
    """
    No answer, or none that can be read, says nothing of a job.
    """
    router = started("a")
    router.workers["a"].backstage.obey(parse_orders({"slow": 1000}))
    created(router)
    fault(router, "a", path="/v1/videos/", **rule)
    router.wait(60)
    assert jobs(router) == [1]


def test_a_hanging_worker_does_not_delay_others() -> None:
    """
    All workers are asked at the same time.
    """
    router = started("a", "b")
    for _ in range(2):
        created(router)
    fault(router, "a", path="/v1/videos/", hang=True)
    router.wait(16)
    assert jobs(router) == [1, 0]


def test_jobs_of_a_removed_worker() -> None:
    """
    A worker that was removed and registers again begins without jobs, as far as is known; what it
    still has is learned from polls.
    """
    router = started("a")
    router.workers["a"].backstage.obey(parse_orders({"slow": 1000}))
    id = created(router)
    router.ask("DELETE", "/workers/http%3A%2F%2Fa%3A1")
    assert len(router.service.holdings.jobs) == 0
    router.ask("POST", "/workers?url=http://a:1")
    assert jobs(router) == [0]
    assert read(router, id).json["status"] == "in_progress"
    assert jobs(router) == [1]


@pytest.mark.parametrize("wish", ["draining", "disabled", "is_dead"])
def test_out_of_rotation(wish: str) -> None:
    """
    The jobs of a worker that gets no work are followed all the same.
    """
    router = started("a")
    created(router)
    router.ask("PUT", "/workers/http%3A%2F%2Fa%3A1", json={wish: True})
    assert jobs(router) == [1]
    router.wait(15)
    assert jobs(router) == [0]


def test_nothing_is_left() -> None:
    """
    When everything has ended no count and no job is left, and work is shared evenly again.
    """
    router = started("a", "b", "c")
    ids = [created(router) for _ in range(6)]
    router.ask("DELETE", f"/v1/videos/{ids[0]}")
    router.start_worker("c")
    router.wait(60)
    assert jobs(router) == [0, 0, 0]
    assert len(router.service.holdings.jobs) == 0
    assert set(router.loads.values()) == {0}
    for _ in range(6):
        created(router)
    assert jobs(router) == [2, 2, 2]
