"""
Faults, the journal, and the HTTP manners of a simulated worker.
"""

from __future__ import annotations

from hashlib import sha256

import pytest

from sgl_droute.simulator.backstage import pattern
from sgl_droute.simulator.faults import Faults, parse_orders
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.testing import MemoryWorker

FAULTS = "/simulator/faults"
GENERATIONS = "/v1/images/generations"
SMALL = {"prompt": "a fox", "size": "64x64", "num_inference_steps": 1}
DEAD = "Scheduler worker exited; restart the server."


@pytest.fixture
def worker() -> MemoryWorker:
    return MemoryWorker(SimulatorSettings(model="flux.1-dev", speed=100))


def set_rule(worker: MemoryWorker, **rule: object) -> None:
    assert worker.post(FAULTS, {"rules": [rule]}).status == 200


def test_forced_status(worker: MemoryWorker) -> None:
    """
    A rule answers in place of the worker, so many times, under its prefix and for its method.
    """
    set_rule(worker, path="/v1/images", method="POST", status=503, body="busy", times=2)
    assert worker.get("/v1/images/x/content").status == 404
    for _ in range(2):
        answer = worker.post(GENERATIONS, SMALL)
        assert (answer.status, answer.body) == (503, b"busy")
    assert worker.finish(worker.post(GENERATIONS, SMALL)).status == 200
    assert worker.worker.journal.generations_started == 1


def test_health_is_spared(worker: MemoryWorker) -> None:
    """
    A rule for everything leaves health alone unless it says otherwise.
    """
    set_rule(worker, status=500)
    assert worker.get("/v1/models").status == 500
    assert worker.get("/health").status == 200
    worker.ask("DELETE", FAULTS)
    set_rule(worker, status=500, health=True)
    assert worker.get("/health").status == 500
    assert worker.get(FAULTS).status == 200


def test_delays(worker: MemoryWorker) -> None:
    """
    ``delay`` holds a request back before its work, ``first_byte`` its answer after.
    """
    set_rule(worker, path="/v1", delay=5.0, first_byte=2.0)
    answer = worker.get("/v1/models")
    worker.advance(5.0)
    assert answer.status is None
    worker.advance(2.0)
    assert answer.status == 200


def test_hang(worker: MemoryWorker) -> None:
    """
    A hanging request is accepted and never answered; others go on.
    """
    set_rule(worker, path="/health", hang=True, times=1)
    answer = worker.get("/health")
    worker.advance(10_000.0)
    assert (answer.status, answer.failure) == (None, None)
    assert worker.get("/health").status == 200


def test_cut(worker: MemoryWorker) -> None:
    """
    A cut answer announces its whole length and breaks off.
    """
    set_rule(worker, path="/simulator/bytes", cut_after=100)
    answer = worker.get("/simulator/bytes?size=5000")
    assert answer.status == 200
    worker.advance(1.0)
    assert answer.body is None
    assert answer.failure is not None


def test_drip(worker: MemoryWorker) -> None:
    """
    A dripping answer takes its time and arrives whole.
    """
    set_rule(worker, path="/simulator/bytes", drip=1000)
    answer = worker.get("/simulator/bytes?size=2000")
    for _ in range(10):
        worker.advance(0.1)
    assert (answer.status, answer.body) == (200, None)
    for _ in range(11):
        worker.advance(0.1)
    assert answer.body == b"".join(pattern(2000, 64))


def test_failing_generations(worker: MemoryWorker) -> None:
    """
    The next generations fail after their time on the GPU.
    """
    worker.post(FAULTS, {"fail_generations": 1})
    failed = worker.finish(worker.post(GENERATIONS, SMALL))
    assert (failed.status, failed.body) == (500, b"Internal Server Error")
    assert worker.finish(worker.post(GENERATIONS, SMALL)).status == 200
    log = worker.get("/simulator/log").json
    assert [one["failed"] for one in log["generations"]] == [True, False]


def test_slow(worker: MemoryWorker) -> None:
    """
    A slow worker takes a multiple of its time.
    """
    plain = worker.finish(worker.post(GENERATIONS, SMALL)).json["inference_time_s"]
    worker.post(FAULTS, {"slow": 3})
    slow = worker.finish(worker.post(GENERATIONS, SMALL)).json["inference_time_s"]
    assert slow == pytest.approx(3 * plain, abs=1e-5)


def test_dead_backend() -> None:
    """
    With its GPU process gone a worker fails what waits, 503s every POST, and still serves reads.
    """
    worker = MemoryWorker(SimulatorSettings(model="cosmos3"))
    running, waiting = (worker.post(GENERATIONS, SMALL) for _ in range(2))
    job = worker.post("/v1/videos", {"prompt": "x"}).json["id"]
    worker.post(FAULTS, {"dead": True})
    worker.advance(0.0)
    for answer in (running, waiting):
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
    health = worker.get("/health")
    assert (health.status, health.json) == (503, {"status": "unhealthy", "error": DEAD})
    for path in (GENERATIONS, "/v1/set_lora", "/nowhere"):
        post = worker.post(path, SMALL)
        assert (post.status, post.json) == (503, {"error": DEAD})
    assert worker.get(f"/v1/videos/{job}").json["status"] == "failed"
    assert worker.get("/stats").json["disagg"] == {"error": DEAD}
    assert worker.get("/v1/list_loras").status == 500
    assert worker.ask("DELETE", f"/v1/videos/{job}").status == 200
    worker.ask("DELETE", FAULTS)
    assert worker.get("/health").status == 200


def test_out_of_memory(worker: MemoryWorker) -> None:
    """
    A size that no GPU holds fails that request alone.
    """
    huge = {"prompt": "x", "width": 60000, "height": 60000}
    assert worker.finish(worker.post(GENERATIONS, huge)).status == 500
    assert worker.finish(worker.post(GENERATIONS, SMALL)).status == 200


def test_faults_are_shown_and_cleared(worker: MemoryWorker) -> None:
    """
    GET shows what is in force with the uses left; DELETE ends it all.
    """
    set_rule(worker, path="/x", status=500, times=3)
    worker.get("/x")
    assert worker.get(FAULTS).json["rules"][0]["times"] == 2
    worker.ask("DELETE", FAULTS)
    assert worker.get(FAULTS).json == Faults().as_json()


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"rulez": []}, "rulez"),
        ({"rules": [{"stat": 1}]}, "stat"),
        ({"rules": [{"status": "x"}]}, "status"),
        ({"rules": [{"delay": -1}]}, "delay"),
        ({"rules": 3}, "rules"),
        ({"slow": 0}, "slow"),
        ([], "fault document"),
    ],
)
def test_bad_fault_documents(worker: MemoryWorker, document: object, name: str) -> None:
    """
    A wrong document changes nothing and names what is wrong.
    """
    answer = worker.ask("POST", FAULTS, json=document)
    assert answer.status == 400
    assert name in answer.detail
    with pytest.raises(ValueError, match=name):
        parse_orders(document)


def test_faults_from_settings() -> None:
    """
    Faults may be in force from the start.
    """
    worker = MemoryWorker(SimulatorSettings(faults=({"dead": True},)))
    assert worker.get("/health").status == 503


def test_journal(worker: MemoryWorker) -> None:
    """
    The log shows targets, headers and bodies as received, and the weights of each generation.
    """
    body = b"payload"
    worker.ask("POST", "/simulator/echo?a=%2F&b", data=body, headers={"X-One": "1"})
    worker.finish(worker.post(GENERATIONS, {**SMALL, "seed": 9}))
    log = worker.get("/simulator/log").json
    assert (log["requests"], log["generations_started"], log["generations_finished"]) == (2, 1, 1)
    entry = log["received"][0]
    assert (entry["method"], entry["target"]) == ("POST", "/simulator/echo?a=%2F&b")
    assert (entry["body_size"], entry["body_sha256"]) == (7, sha256(body).hexdigest())
    assert ["X-One", "1"] in entry["headers"]
    assert (entry["status"], entry["cut_off"]) == (200, False)
    (generation,) = log["generations"]
    assert generation["weights"] == worker.worker.weights.fingerprint()
    assert (generation["kind"], generation["seed"]) == ("image", 9)
    assert worker.ask("DELETE", "/simulator/log").json["requests"] == 0


def test_echo(worker: MemoryWorker) -> None:
    """
    Echo answers the body as it came.
    """
    body = bytes(range(256)) * 500
    answer = worker.ask("POST", "/simulator/echo", data=body, headers={"content-type": "a/b"})
    assert (answer.body, answer.headers["content-type"]) == (body, "a/b")


@pytest.mark.parametrize("chunked", [0, 1])
@pytest.mark.parametrize("chunk", [1, 255, 65536])
def test_bytes_of_any_size(worker: MemoryWorker, chunked: int, chunk: int) -> None:
    """
    Byte i of a made answer is i modulo 256, however it is cut.
    """
    answer = worker.get(f"/simulator/bytes?size=1000&chunk={chunk}&chunked={chunked}")
    assert answer.body == bytes(i % 256 for i in range(1000))


@pytest.mark.parametrize("query", ["size=x", "chunk=0", "size=-1"])
def test_bad_byte_counts(worker: MemoryWorker, query: str) -> None:
    """
    Sizes must be counts.
    """
    assert worker.get(f"/simulator/bytes?{query}").status == 400


def test_unknown_routes(worker: MemoryWorker) -> None:
    """
    Unknown paths and methods answer as FastAPI does, and HEAD is no GET.
    """
    nowhere = worker.get("/generate")
    assert (nowhere.status, nowhere.detail) == (404, "Not Found")
    wrong = worker.ask("PUT", GENERATIONS)
    assert (wrong.status, wrong.detail) == (405, "Method Not Allowed")
    assert wrong.headers["allow"] == "POST"
    head = worker.ask("HEAD", "/v1/models")
    assert (head.status, head.headers["allow"]) == (405, "GET")
    assert worker.get("//health").status == 404
    assert worker.get("/health").headers["server"] == "uvicorn"


def test_trailing_slash(worker: MemoryWorker) -> None:
    """
    A trailing slash is a 307 to an absolute URL on the host that the client named.
    """
    answer = worker.get("/v1/videos/?limit=1", headers={"host": "elsewhere:99"})
    assert (answer.status, answer.body) == (307, b"")
    assert answer.headers["location"] == "http://elsewhere:99/v1/videos?limit=1"
    assert worker.get("/nowhere/").status == 404


def test_pages_may_ask(worker: MemoryWorker) -> None:
    """
    A page gets wide-open CORS headers, and its preflight an OK.
    """
    page = {"origin": "http://page"}
    assert worker.get("/health", headers=page).headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in worker.get("/health").headers
    asking = {**page, "access-control-request-method": "POST"}
    answer = worker.ask("OPTIONS", GENERATIONS, headers=asking)
    assert (answer.status, answer.body) == (200, b"OK")
    assert "POST" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize("path", ["/%ff", "/%0A", "/v1%2Fmodelsx", "/v1/videos/%ff"])
def test_odd_paths(worker: MemoryWorker, path: str) -> None:
    """
    A path that no route fits, however odd, is a plain 404.
    """
    answer = worker.get(path)
    assert answer.status == 404
    assert "ot" in answer.detail
