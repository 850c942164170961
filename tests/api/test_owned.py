"""
Requests for an id go to the worker that holds it, and to everybody when that is not known.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from sgl_droute.fleet.worker import Probe, quarantined
from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.jobs import Job
from sgl_droute.simulator.settings import SimulatorSettings
from tests.errors import unknown
from tests.memory import Client, MemoryRouter, Reply

IMAGE = {"prompt": "a red fox", "size": "64x64"}
VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
MESH = {"input_image": f"data:image/png;base64,{b64encode(b'no picture').decode()}"}
# A tiny video takes 0.8 s, a picture 0.4 s, a mesh 2.4 s.
MODELS = {
    "image": SimulatorSettings(model="flux.2-klein"),
    "video": SimulatorSettings(model="fastwan", speed=0.01),
    "mesh": SimulatorSettings(model="hunyuan3d", speed=100),
}
BODIES = {"image": IMAGE, "video": VIDEO, "mesh": MESH}
COLLECTIONS = {"image": "/v1/images", "video": "/v1/videos", "mesh": "/v1/meshes"}
CREATIONS = {**COLLECTIONS, "image": "/v1/images/generations"}
TYPES = {"image": "image/jpeg", "video": "video/mp4", "mesh": "model/gltf-binary"}

Target = tuple[str, str]


def fleet(kind: str, *names: str, **options: Any) -> MemoryRouter:
    return MemoryRouter(*names, simulator=MODELS[kind], **options)


def answered(router: MemoryRouter, client: Client) -> Reply:
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    return client.reply


def created(router: MemoryRouter, kind: str) -> str:
    answer = answered(router, router.begin("POST", CREATIONS[kind], json=BODIES[kind]))
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def seen(router: MemoryRouter, name: str) -> list[Target]:
    received = router.workers[name].engine.journal.received
    return [(each.method, each.target) for each in received]


def clear(router: MemoryRouter) -> None:
    for worker in router.workers.values():
        worker.engine.journal.clear()


def holder(router: MemoryRouter, id: str) -> str:
    """
    The worker that made the thing with that id, by its own memory.
    """
    for name, worker in router.workers.items():
        routes = worker.routes
        for jobs in (routes.videos.jobs, routes.meshes.jobs):
            if any(job.id == id for job in jobs):
                return name
        if any(path.name.startswith(id) for path in worker.engine.folder.iterdir()):
            return name
    raise AssertionError(f"nobody made {id}")


def fault(router: MemoryRouter, name: str, **rule: Any) -> None:
    router.workers[name].backstage.obey(parse_orders({"rules": [rule]}))


def take_out(router: MemoryRouter, name: str, facet: str) -> None:
    pool = router.service.pool
    worker = pool[f"http://{name}:1"]
    facets: dict[str, Any] = {facet: True}
    if facet == "quarantined":
        pool.change(worker, lambda now: quarantined(now, "by hand"))
    elif facet == "suspect":
        pool.record_probe(worker, Probe(healthy=False), threshold=3)
    else:
        pool.change(worker, lambda now: evolve(now, **facets))


def forget_all(router: MemoryRouter) -> None:
    """
    As after a restart of the router without a state file.
    """
    owners = router.service.holdings.owners
    for worker in router.workers.values():
        for job in (*worker.routes.videos.jobs, *worker.routes.meshes.jobs):
            for kind in ("video", "mesh"):
                owners.forget(kind, job.id)
        for path in worker.engine.folder.iterdir():
            owners.forget("image", path.stem)


# What is known.


@pytest.mark.parametrize("kind", ["image", "video", "mesh"])
def test_creation_teaches(kind: str) -> None:
    """
    What is created can be read at once, and only its worker is asked.
    """
    router = fleet(kind, "a", "b", "c")
    ids = [created(router, kind) for _ in range(6)]
    router.wait(30)
    clear(router)
    for id in ids:
        answer = router.ask("GET", f"{COLLECTIONS[kind]}/{id}/content")
        assert answer.status == 200
        assert answer.headers.getRawHeaders("content-type") == [TYPES[kind]]
        owner = holder(router, id)
        assert seen(router, owner)[-1] == ("GET", f"{COLLECTIONS[kind]}/{id}/content")
    assert sum(len(seen(router, name)) for name in "abc") == len(ids)
    assert set(router.loads.values()) == {0}


@pytest.mark.parametrize("kind", ["video", "mesh"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_records(kind: str, method: str) -> None:
    """
    Reads and deletions of a job reach its worker as they are, and nobody else.
    """
    router = fleet(kind, "a", "b", "c")
    id = created(router, kind)
    owner = holder(router, id)
    clear(router)
    answer = router.ask(method, f"{COLLECTIONS[kind]}/{id}")
    assert answer.status == (405 if method == "HEAD" else 200)
    if method != "HEAD":
        assert answer.json["id"] == id
    assert seen(router, owner) == [(method, f"{COLLECTIONS[kind]}/{id}")]
    assert sum(len(seen(router, name)) for name in "abc") == 1


@pytest.mark.parametrize("kind", ["video", "mesh"])
@pytest.mark.parametrize("name", ["{kind}_id", "id", "job_id"])
def test_by_query(kind: str, name: str) -> None:
    """
    An id in the query of the list is answered as the record with that id.
    """
    router = fleet(kind, "a", "b")
    id = created(router, kind)
    router.wait(30)
    clear(router)
    by_query = router.ask("GET", f"{COLLECTIONS[kind]}?{name.format(kind=kind)}={id}")
    by_path = router.ask("GET", f"{COLLECTIONS[kind]}/{id}")
    assert (by_query.status, by_query.body) == (by_path.status, by_path.body)
    assert by_query.json["status"] == "completed"
    assert seen(router, holder(router, id)) == [("GET", f"{COLLECTIONS[kind]}/{id}")] * 2


@pytest.mark.parametrize("odd", ["..%2F..%2Fhealth", "%3Flimit=1", "%0A", "%F0%9F%A6%8A", "+"])
def test_odd_ids_by_query(odd: str) -> None:
    """
    Whatever stands in the query is one id, which nobody has.
    """
    router = fleet("video", "a")
    answer = router.ask("GET", f"/v1/videos?video_id={odd}", allow_redirects=False)
    assert (answer.status, answer.error) == (404, unknown("video"))


def test_an_id_by_query_is_no_path() -> None:
    """
    An id with a slash names no other resource of a worker: workers decode paths before they route.
    """
    router = fleet("video", "a")
    id = created(router, "video")
    router.wait(10)
    answer = router.ask("GET", f"/v1/videos?video_id={id}%2Fcontent", allow_redirects=False)
    assert answer.status in (400, 404)


@pytest.mark.parametrize("name", ["video_id", "id", "job_id"])
def test_an_empty_id_by_query(name: str) -> None:
    """
    An empty id is refused by the router; it is neither a list nor a redirect to one.
    """
    router = fleet("video", "a")
    created(router, "video")
    answer = router.ask("GET", f"/v1/videos?{name}=", allow_redirects=False)
    assert answer.status in (400, 404)
    assert "error" in answer.json


@pytest.mark.parametrize("kind", ["image", "video", "mesh"])
def test_parts(kind: str) -> None:
    """
    Range requests and partial answers pass, for images, videos and meshes.
    """
    router = fleet(kind, "a", "b")
    id = created(router, kind)
    router.wait(30)
    path = f"{COLLECTIONS[kind]}/{id}/content"
    whole = router.ask("GET", path).body
    part = router.ask("GET", path, headers={"Range": "bytes=2-11"})
    assert (part.status, part.body) == (206, whole[2:12])
    assert part.headers.getRawHeaders("content-range") == [f"bytes 2-11/{len(whole)}"]
    beyond = router.ask("GET", path, headers={"Range": f"bytes={len(whole)}-"})
    assert beyond.status == 416
    assert router.ask("GET", path).body == whole


@pytest.mark.parametrize("facet", ["draining", "disabled", "stale", "asleep", "quarantined"])
def test_owners_that_get_no_work(facet: str) -> None:
    """
    A worker that is out of rotation and answers is still read and deleted from.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    router.wait(10)
    take_out(router, holder(router, id), facet)
    assert router.ask("GET", f"/v1/videos/{id}").json["status"] == "completed"
    assert router.ask("GET", f"/v1/videos/{id}/content").status == 200
    assert router.ask("DELETE", f"/v1/videos/{id}").json["status"] == "deleted"
    assert router.ask("GET", f"/v1/videos/{id}").status == 404


def test_owner_does_not_answer() -> None:
    """
    When its worker cannot be reached an id is 503 with the reason, and not forgotten.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    owner = holder(router, id)
    agent = router.network.agents[f"http://{owner}:1".encode()]
    router.stop_worker(owner)
    for path in (f"/v1/videos/{id}", f"/v1/videos/{id}/content"):
        answer = router.ask("GET", path)
        assert answer.status == 503
        assert f"http://{owner}:1" in answer.json["error"]
        assert id in answer.json["error"]
    router.network.agents[f"http://{owner}:1".encode()] = agent
    assert router.ask("GET", f"/v1/videos/{id}").status == 200


def test_owner_hangs() -> None:
    """
    A worker that never answers is 503 after the timeout, and its count is given back.
    """
    router = fleet("video", "a", timeout=20)
    id = created(router, "video")
    fault(router, "a", path="/v1/videos/", hang=True)
    client = router.begin("GET", f"/v1/videos/{id}")
    assert set(router.loads.values()) == {1}
    answer = answered(router, client)
    assert answer.status == 503
    assert "no response within 20 s" in answer.json["error"]
    assert set(router.loads.values()) == {0}


def test_reading_is_no_load() -> None:
    """
    A slow download does not turn work away from its worker.
    """
    router = fleet("image", "a", "b")
    id = created(router, "image")
    owner = holder(router, id)
    fault(router, owner, path="/v1/images/", method="GET", drip=1)
    downloads = [router.begin("GET", f"/v1/images/{id}/content") for _ in range(3)]
    clear(router)
    works = [router.begin("POST", "/generate", json=IMAGE) for _ in range(4)]
    for work in works:
        answered(router, work)
    assert [len(seen(router, name)) for name in "ab"] == [2, 2]
    assert all(download.reply is None for download in downloads)


def test_a_client_that_leaves_a_download() -> None:
    """
    A reader that hangs up frees its worker at once.
    """
    router = fleet("image", "a")
    id = created(router, "image")
    fault(router, "a", path="/v1/images/", method="GET", first_byte=100)
    client = router.begin("GET", f"/v1/images/{id}/content")
    assert router.loads == {"http://a:1": 1}
    client.hang_up()
    router.settle()
    assert router.loads == {"http://a:1": 0}


def test_owner_removed() -> None:
    """
    An id whose worker was removed is 404 with an ``error``.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    router.service.pool.remove(f"http://{holder(router, id)}:1")
    answer = router.ask("GET", f"/v1/videos/{id}")
    assert (answer.status, answer.error) == (404, unknown("video"))


def test_owner_removed_and_asked_for_again() -> None:
    """
    That nobody has the id of a removed worker is remembered as of any other: one search in 5 s.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    owner = holder(router, id)
    left = "a" if owner == "b" else "b"
    router.service.pool.remove(f"http://{owner}:1")
    clear(router)
    for _ in range(5):
        assert router.ask("GET", f"/v1/videos/{id}").status == 404
    assert seen(router, left) == [("GET", f"/v1/videos/{id}")]


def test_owner_came_back() -> None:
    """
    A worker that was removed and registers again is asked for what it made.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    owner = holder(router, id)
    router.service.pool.remove(f"http://{owner}:1")
    assert router.ask("GET", f"/v1/videos/{id}").status == 404
    router.ask("POST", f"/workers?url=http://{owner}:1")
    assert router.ask("GET", f"/v1/videos/{id}").status == 200


@pytest.mark.parametrize("kind", ["video", "mesh"])
def test_deleted(kind: str) -> None:
    """
    What was deleted is unknown from then on.
    """
    router = fleet(kind, "a", "b")
    id = created(router, kind)
    assert router.ask("DELETE", f"{COLLECTIONS[kind]}/{id}").json["status"] == "deleted"
    for method in ("GET", "DELETE"):
        answer = router.ask(method, f"{COLLECTIONS[kind]}/{id}")
        assert (answer.status, answer.error) == (404, unknown(kind))


def test_a_worker_that_forgot() -> None:
    """
    When its worker was restarted a job is 404, first in the worker's words, then in the router's.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    owner = holder(router, id)
    router.start_worker(owner)
    first = router.ask("GET", f"/v1/videos/{id}")
    assert (first.status, first.json) == (404, {"detail": "Video not found"})
    again = router.ask("GET", f"/v1/videos/{id}")
    assert (again.status, again.error) == (404, unknown("video"))
    assert router.service.pool[f"http://{owner}:1"].jobs == 0


def test_not_finished_is_not_forgotten() -> None:
    """
    The 404 for the content of an unfinished job does not make anybody forget the job.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    early = router.ask("GET", f"/v1/videos/{id}/content")
    assert (early.status, early.json["detail"]) == (404, "Generation is still in-progress")
    clear(router)
    assert router.ask("GET", f"/v1/videos/{id}").status == 200
    assert sum(len(seen(router, name)) for name in "ab") == 1
    router.wait(10)
    variant = router.ask("GET", f"/v1/videos/{id}/content?variant=7")
    assert (variant.status, variant.json["detail"]) == (404, "Video variant 7 not found")
    clear(router)
    assert router.ask("GET", f"/v1/videos/{id}/content").status == 200
    assert sum(len(seen(router, name)) for name in "ab") == 1


def test_a_creation_that_failed_teaches_nothing() -> None:
    """
    The id in a refusal is nobody's.
    """
    router = fleet("video", "a")
    fault(router, "a", path="/v1/videos", method="POST", status=500, body={"id": "x"})
    assert router.ask("POST", "/v1/videos", json=VIDEO).status == 500
    assert router.service.pool["http://a:1"].jobs == 0
    assert router.ask("GET", "/v1/videos/x").error == unknown("video")


def test_large_answers_teach_too() -> None:
    """
    The id stands at the beginning of megabytes of base64, and is learned from there.
    """
    router = fleet("image", "a", "b")
    body = {"prompt": "x", "size": "512x512", "response_format": "b64_json", "output_format": "png"}
    answer = answered(router, router.begin("POST", "/v1/images/generations", json=body))
    assert len(answer.body) > 1_000_000
    id = answer.json["id"]
    clear(router)
    assert router.ask("GET", f"/v1/images/{id}/content").status == 200
    assert sum(len(seen(router, name)) for name in "ab") == 1


# What is not known.


@pytest.mark.parametrize("kind", ["image", "video", "mesh"])
def test_found(kind: str) -> None:
    """
    An id that the router lacks is looked for on all workers at once, and then remembered.
    """
    router = fleet(kind, "a", "b", "c")
    id = created(router, kind)
    router.wait(30)
    forget_all(router)
    clear(router)
    path = f"{COLLECTIONS[kind]}/{id}/content"
    whole = router.ask("GET", path)
    assert whole.status == 200
    owner = holder(router, id)
    question = path if kind == "image" else f"{COLLECTIONS[kind]}/{id}"
    for name in "abc":
        assert seen(router, name) == [("GET", question)] + [("GET", path)] * (name == owner)
    [file] = router.workers[owner].engine.folder.glob(f"{id}.*")
    assert whole.body == file.read_bytes()
    clear(router)
    assert router.ask("GET", path).body == whole.body
    assert seen(router, owner) == [("GET", path)]
    assert sum(len(seen(router, name)) for name in "abc") == 1


def test_a_search_for_an_image_asks_for_one_byte() -> None:
    """
    Looking for an image does not fetch it.
    """
    router = fleet("image", "a", "b")
    id = created(router, "image")
    forget_all(router)
    clear(router)
    router.ask("GET", f"/v1/images/{id}/content")
    asked = router.workers[holder(router, id)].engine.journal.received[0]
    assert dict(asked.headers)["Range"] == "bytes=0-0"
    assert asked.status == 206


def test_a_job_that_was_found_is_load() -> None:
    """
    A running job that a search finds counts as load of its worker.
    """
    router = MemoryRouter("a", "b", simulator=SimulatorSettings(model="fastwan", speed=0.001))
    id = created(router, "video")
    owner = router.service.pool[f"http://{holder(router, id)}:1"]
    router.service.holdings.jobs.worker_lost(owner.url, owner.serial)
    forget_all(router)
    assert router.service.pool[owner.url].jobs == 0
    assert router.ask("GET", f"/v1/videos/{id}").json["status"] == "in_progress"
    assert router.service.pool[owner.url].jobs == 1


@pytest.mark.parametrize(
    "facet", ["draining", "disabled", "stale", "asleep", "quarantined", "suspect"]
)
def test_everybody_is_asked(facet: str) -> None:
    """
    The search goes to workers out of rotation too, and finds what they hold.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    forget_all(router)
    take_out(router, holder(router, id), facet)
    assert router.ask("GET", f"/v1/videos/{id}").status == 200


@pytest.mark.parametrize("kind", ["image", "video", "mesh"])
def test_nobody_knows(kind: str) -> None:
    """
    When every worker said no it is 404, and nobody is asked again for 5 s.
    """
    router = fleet(kind, "a", "b")
    path = f"{COLLECTIONS[kind]}/nothing/content"
    for _ in range(3):
        answer = router.ask("GET", path)
        assert (answer.status, answer.error) == (404, unknown(kind))
    assert [len(seen(router, name)) for name in "ab"] == [1, 1]
    router.wait(4.5, step=0.5)
    router.ask("GET", path)
    assert [len(seen(router, name)) for name in "ab"] == [1, 1]
    router.wait(0.5)
    router.ask("GET", path)
    assert [len(seen(router, name)) for name in "ab"] == [2, 2]


def test_kinds_are_told_apart() -> None:
    """
    That nobody has such a video says nothing of an image with the same id.
    """
    router = fleet("image", "a")
    id = created(router, "image")
    assert router.ask("GET", f"/v1/videos/{id}").error == unknown("video")
    assert router.ask("GET", f"/v1/images/{id}/content").status == 200


def test_a_new_worker_may_know() -> None:
    """
    When somebody registers, what nobody knew is asked again at once.
    """
    router = fleet("video", "a", "b", registered=("a",))
    job = Job(id="elsewhere", model="m", created=0.0, paths=(Path("result"),))
    router.workers["b"].routes.videos.jobs.put(job)
    assert router.ask("GET", "/v1/videos/elsewhere").status == 404
    router.ask("POST", "/workers?url=http://b:1")
    assert router.ask("GET", "/v1/videos/elsewhere").status == 200


def test_registering_again_is_nobody_new() -> None:
    """
    A known worker that registers once more does not end the memory of a "no".
    """
    router = fleet("video", "a")
    assert router.ask("GET", "/v1/videos/nothing").status == 404
    router.ask("POST", "/workers?url=http://a:1")
    clear(router)
    assert router.ask("GET", "/v1/videos/nothing").status == 404
    assert seen(router, "a") == []


def test_no_workers() -> None:
    """
    Without workers nobody knows anything.
    """
    answer = MemoryRouter().ask("GET", "/v1/videos/x")
    assert (answer.status, answer.error) == (404, unknown("video"))


@pytest.mark.parametrize("how", ["refuses", "503", "hangs"])
def test_not_all_answered(how: str) -> None:
    """
    A worker that does not answer may have it: 503 that names it, and nothing is remembered.
    """
    router = fleet("video", "a", "b")
    if how == "refuses":
        router.stop_worker("b")
    elif how == "503":
        fault(router, "b", path="/v1/videos/", status=503, times=1)
    else:
        fault(router, "b", path="/v1/videos/", hang=True, times=1)
    answer = answered(router, router.begin("GET", "/v1/videos/x"))
    assert answer.status == 503
    assert "http://b:1" in answer.json["error"]
    assert "http://a:1" not in answer.json["error"]
    if how == "refuses":
        router.start_worker("b")
    again = router.ask("GET", "/v1/videos/x")
    assert (again.status, again.error) == (404, unknown("video"))
    assert len(seen(router, "a")) == 2


def test_found_although_not_all_answer() -> None:
    """
    Who has it is believed without waiting for those who do not answer.
    """
    router = fleet("video", "a", "b", "c")
    id = created(router, "video")
    forget_all(router)
    owner = holder(router, id)
    for name in "abc":
        if name != owner:
            fault(router, name, path="/v1/videos/", hang=True)
    assert router.ask("GET", f"/v1/videos/{id}").status == 200


def test_workers_that_do_not_know_such_things() -> None:
    """
    A worker without the route, or that finds the id malformed, has it not.
    """
    router = fleet("video", "a", "b", "c")
    fault(router, "a", path="/v1/meshes/", status=404, body={"detail": "Not Found"})
    fault(router, "b", path="/v1/meshes/", status=405, body={"detail": "Method Not Allowed"})
    fault(router, "c", path="/v1/meshes/", status=422, body={"detail": []})
    answer = router.ask("GET", "/v1/meshes/x")
    assert (answer.status, answer.error) == (404, unknown("mesh"))


def test_one_search_for_many() -> None:
    """
    Clients that ask for the same id at the same time share one search.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    forget_all(router)
    clear(router)
    for name in "ab":
        fault(router, name, path="/v1/videos/", delay=2, times=1)
    first = router.begin("GET", f"/v1/videos/{id}")
    second = router.begin("GET", f"/v1/videos/{id}")
    assert [len(seen(router, name)) for name in "ab"] == [1, 1]
    assert answered(router, first).body == answered(router, second).body
    owner = holder(router, id)
    assert len(seen(router, owner)) == 3
    assert sum(len(seen(router, name)) for name in "ab") == 4


@pytest.mark.parametrize("leaving", [0, 1])
def test_hanging_up_on_a_search(leaving: int) -> None:
    """
    A client that leaves does not take the search from another who waits for it.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    forget_all(router)
    for name in "ab":
        fault(router, name, path="/v1/videos/", delay=2, times=1)
    clients = [router.begin("GET", f"/v1/videos/{id}") for _ in range(2)]
    clients[leaving].hang_up()
    router.settle()
    stayed = answered(router, clients[1 - leaving])
    assert (stayed.status, stayed.json["id"]) == (200, id)


def test_everybody_hangs_up_on_a_search() -> None:
    """
    A search without anybody waiting ends in peace, and the next one begins anew.
    """
    router = fleet("video", "a", "b")
    for name in "ab":
        fault(router, name, path="/v1/videos/", delay=2, times=1)
    router.begin("GET", "/v1/videos/x").hang_up()
    router.settle()
    router.wait(10)
    assert router.ask("GET", "/v1/videos/x").status == 404
    assert set(router.loads.values()) == {0}


def test_searches_are_bounded() -> None:
    """
    At most 20 searches go on at once; the others wait, first come first served, and all end.
    """
    router = fleet("video", "a", "b")
    for name in "ab":
        fault(router, name, path="/v1/videos/", delay=2)
    clients = [router.begin("GET", f"/v1/videos/x{number}") for number in range(50)]
    asked = []
    for _ in range(3):
        asked.append(len(seen(router, "a")))
        router.wait(2)
    assert asked == [20, 40, 50]
    assert [target for _, target in seen(router, "b")] == [f"/v1/videos/x{n}" for n in range(50)]
    assert [client.reply.status for client in clients if client.reply] == [404] * 50


def test_known_ids_do_not_wait_for_searches() -> None:
    """
    A queue of searches holds up nobody who asks for what is known, however few may be in flight.
    """
    router = fleet("video", "a", "b", max_connections=1)
    id = created(router, "video")
    other = "a" if holder(router, id) == "b" else "b"
    fault(router, other, path="/v1/videos/", hang=True)
    for number in range(30):
        router.begin("GET", f"/v1/videos/x{number}")
    assert router.ask("GET", f"/v1/videos/{id}").status == 200


def test_a_worker_joins_during_a_search() -> None:
    """
    A "no" of all who were there before somebody joined is not remembered.
    """
    router = fleet("video", "a", "b", registered=("a",))
    fault(router, "a", path="/v1/videos/", delay=2, times=1)
    client = router.begin("GET", "/v1/videos/x")
    router.ask("POST", "/workers?url=http://b:1")
    assert answered(router, client).status == 404
    clear(router)
    router.ask("GET", "/v1/videos/x")
    assert [len(seen(router, name)) for name in "ab"] == [1, 1]


def test_the_holder_leaves_during_a_search() -> None:
    """
    What a worker says that has been removed meanwhile teaches nothing, and breaks nothing.
    """
    router = fleet("video", "a", "b")
    id = created(router, "video")
    owner = holder(router, id)
    forget_all(router)
    fault(router, owner, path="/v1/videos/", delay=2, times=1)
    client = router.begin("GET", f"/v1/videos/{id}")
    router.ask("DELETE", f"/workers/http%3A%2F%2F{owner}%3A1")
    assert answered(router, client).status in (200, 404)
    assert router.service.holdings.owners.entry("video", id) is None
    assert set(router.loads.values()) == {0}


def test_stopping_during_a_search() -> None:
    """
    A router that stops gives up its searches and says so.
    """
    router = fleet("video", "a")
    router.service.startService()
    router.settle()
    fault(router, "a", path="/v1/videos/", hang=True)
    client = router.begin("GET", "/v1/videos/x")
    stopped: list[object] = []
    router.service.stopService().addBoth(stopped.append)
    router.settle()
    assert len(stopped) == 1
    assert client.reply is not None
    assert client.reply.status == 503
