"""
The REST worker API: workers as objects that come, change and go.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from sgl_droute.api import worker_object
from sgl_droute.api.worker_object import worker_id_of
from sgl_droute.fleet.worker import Probe, Worker
from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.settings import SimulatorSettings
from tests.memory import Client, MemoryRouter, Reply

IMAGE = {"prompt": "a red fox", "size": "64x64"}
VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
LORA = {"lora_nickname": "fox", "lora_path": "loras/fox"}
# A tiny video takes 7.7 s.
VIDEOS = SimulatorSettings(model="fastwan", speed=0.001)


def path_of(name: str) -> str:
    return f"/workers/{quote(f'http://{name}:1', safe='')}"


def shown(router: MemoryRouter, name: str) -> dict[str, Any]:
    answer = router.ask("GET", path_of(name))
    assert answer.status == 200
    worker: dict[str, Any] = answer.json["worker"]
    return worker


def put(router: MemoryRouter, name: str, **wishes: object) -> Reply:
    return router.ask("PUT", path_of(name), json=wishes)


def answered(router: MemoryRouter, client: Client) -> Reply:
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    return client.reply


def started(*workers: str, **options: Any) -> MemoryRouter:
    router = MemoryRouter(*workers, **options)
    router.service.startService()
    router.settle()
    return router


def fault(router: MemoryRouter, name: str, **rule: Any) -> None:
    router.workers[name].backstage.obey(parse_orders({"rules": [rule]}))


def restart(router: MemoryRouter, name: str) -> None:
    router.stop_worker(name)
    router.start_worker(name)


def targets(router: MemoryRouter, name: str) -> list[str]:
    return [each.target for each in router.workers[name].engine.journal.received]


# Coming.


@pytest.mark.parametrize(
    "parts",
    [
        {"path": "?url=http://b:1"},
        {"path": "?url=HTTP%3A%2F%2FB%3A1%2F"},
        {"path": "", "json": {"url": "http://b:1/"}},
    ],
)
def test_create(parts: dict[str, Any]) -> None:
    """
    A worker is registered by query or JSON, once however often; the answer is the worker.
    """
    router = MemoryRouter("a", "b", registered=("a",))
    parts = dict(parts)
    path = parts.pop("path")
    for _ in range(2):
        answer = router.ask("POST", f"/workers{path}", **parts)
        assert answer.status == 200
        assert answer.json["status"] == "success"
        assert answer.json["worker"]["url"] == "http://b:1"
    listed = router.ask("GET", "/workers")
    assert listed.json == {"workers": [shown(router, "a"), shown(router, "b")]}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "Name the worker"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "url is missing"),
        (b'{"url": null}', "url must be a string"),
        (b'{"url": "http://b:1", "weight": 2}', "Unknown fields: weight"),
        (b'{"url": "http://169.254.169.254"}', "blocked"),
        (b'{"url": "ftp://b:1"}', "must begin with http"),
    ],
)
def test_create_from_bad_input(body: bytes, sentence: str) -> None:
    """
    What names no worker is a 400 with a sentence, and registers nobody.
    """
    router = MemoryRouter("a")
    answer = router.ask("POST", "/workers", data=body)
    assert answer.status == 400
    assert sentence in answer.json["error"]
    assert len(router.service.pool) == 1


def test_nobody() -> None:
    """
    An empty fleet is an empty list.
    """
    assert MemoryRouter().ask("GET", "/workers").json == {"workers": []}


# The worker object.


def test_a_worker_that_is_known() -> None:
    """
    A worker in service is shown with every field, and each has its own type.
    """
    router = started("a", simulator=SimulatorSettings(model="cosmos3", dp_size=2))
    assert shown(router, "a") == {
        "worker_id": "http%3A%2F%2Fa%3A1",
        "display_id": "a:1",
        "url": "http://a:1",
        "state": "ready",
        "active_requests": 0,
        "jobs": 0,
        "sessions": 0,
        "is_dead": False,
        "is_sleeping": False,
        "draining": False,
        "disabled": False,
        "consecutive_failures": 0,
        "last_error": None,
        "video_support": True,
        "capabilities": ["image", "video"],
        "model": "nvidia/Cosmos3-Nano",
        "weights_epoch": 0,
        "is_stale": False,
        "weights": None,
        "replicas": 2,
        "concurrency": None,
        "speed": None,
        "learned": None,
    }


def test_what_was_learned() -> None:
    """
    What is known of a worker's speed is shown as it is given; nothing known is null.
    """
    worker = Worker(url="http://a:1", serial=1)
    assert worker_object.shown(worker, {"image": {"samples": 3}})["learned"] == {
        "image": {"samples": 3}
    }
    assert worker_object.shown(worker, {})["learned"] is None


def test_a_worker_that_is_not_known_yet() -> None:
    """
    What a worker has not told is null, and one that was not checked yet is joining.
    """
    worker = shown(MemoryRouter("a"), "a")
    assert worker["state"] == "joining"
    unknown = [worker[name] for name in ("video_support", "capabilities", "model", "weights")]
    assert unknown == [None] * 4


def test_no_video() -> None:
    """
    ``video_support`` is false, not null, for a worker known to make pictures only.
    """
    router = started("a")
    assert shown(router, "a")["video_support"] is False
    assert shown(router, "a")["capabilities"] == ["image"]


def test_counts() -> None:
    """
    Open requests and unfinished jobs are counted while they last.
    """
    router = started("a", simulator=VIDEOS)
    router.ask("POST", "/v1/videos", json=VIDEO)
    stats = router.begin("GET", "/stats")
    assert (shown(router, "a")["active_requests"], shown(router, "a")["jobs"]) == (1, 1)
    answered(router, stats)
    router.wait(10)
    assert (shown(router, "a")["active_requests"], shown(router, "a")["jobs"]) == (0, 0)


def test_weights() -> None:
    """
    The weights of the last update that a worker took are shown; after a restart, once it has taken
    that again.
    """
    router = started("a")
    client = router.begin("POST", "/update_weights_from_disk", json={"model_path": "new/path"})
    assert answered(router, client).status == 200
    assert shown(router, "a")["weights"] == "new/path"
    refused = router.begin("POST", "/update_weights_from_disk", json={"model_path": "missing"})
    answered(router, refused)
    assert shown(router, "a")["weights"] == "new/path"
    router.stop_worker("a")
    router.wait(10)
    router.start_worker("a")
    assert shown(router, "a")["is_stale"] is True
    router.wait(10)
    assert (shown(router, "a")["weights"], shown(router, "a")["is_stale"]) == ("new/path", False)
    assert set(router.workers["a"].weights.sources.values()) == {"new/path"}


def test_failures_and_their_end() -> None:
    """
    A worker that fails its checks is suspect, then dead, with the reason; one success clears both.
    """
    router = started("a")
    fault(router, "a", path="/health", status=503, times=1)
    router.wait(10)
    suspect = shown(router, "a")
    assert (suspect["state"], suspect["consecutive_failures"]) == ("suspect", 1)
    assert "/health answered 503" in suspect["last_error"]
    router.wait(10)
    well = shown(router, "a")
    assert (well["state"], well["consecutive_failures"]) == ("ready", 0)
    assert well["last_error"] is None
    router.stop_worker("a")
    router.wait(30)
    dead = shown(router, "a")
    assert (dead["state"], dead["is_dead"], dead["consecutive_failures"]) == ("dead", True, 3)
    assert dead["last_error"] == "connection refused"


def test_sleeping() -> None:
    """
    A released worker is sleeping, a resumed one is ready.
    """
    router = started("a")
    assert answered(router, router.begin("POST", "/release_memory_occupation")).status == 200
    assert (shown(router, "a")["state"], shown(router, "a")["is_sleeping"]) == ("sleeping", True)
    assert answered(router, router.begin("POST", "/resume_memory_occupation")).status == 200
    assert (shown(router, "a")["state"], shown(router, "a")["is_sleeping"]) == ("ready", False)


@pytest.mark.parametrize(
    ("url", "display_id", "worker_id"),
    [
        ("http://a", "a:80", "http%3A%2F%2Fa"),
        ("https://a", "a:443", "https%3A%2F%2Fa"),
        ("https://a:8443", "a:8443", "https%3A%2F%2Fa%3A8443"),
        ("http://[::1]", "[::1]:80", "http%3A%2F%2F%5B%3A%3A1%5D"),
        ("http://[::1]:30000", "[::1]:30000", "http%3A%2F%2F%5B%3A%3A1%5D%3A30000"),
        ("http://worker_1.local:5", "worker_1.local:5", "http%3A%2F%2Fworker_1.local%3A5"),
    ],
)
def test_names(url: str, display_id: str, worker_id: str) -> None:
    """
    ``display_id`` is host and port; ``worker_id``, put into a path as it is, finds the worker.
    """
    router = MemoryRouter()
    created = router.ask("POST", "/workers", json={"url": url}).json["worker"]
    assert (created["display_id"], created["worker_id"]) == (display_id, worker_id)
    found = router.ask("GET", f"/workers/{worker_id}")
    assert found.json["worker"]["url"] == url


@pytest.mark.parametrize(
    "worker_id",
    [
        "http%3A%2F%2Fa%3A1",
        "http%3a%2f%2fa%3a1",
        "http://a:1",
        "http://a:1/",
        "http%3A%2F%2Fa%3A1%2F",
        "HTTP%3A//A%3A1",
        "%68ttp://%61:%31",
    ],
)
def test_spellings_of_an_id(worker_id: str) -> None:
    """
    However a client encodes a worker's URL, it names the worker.
    """
    router = MemoryRouter("a")
    assert router.ask("GET", f"/workers/{worker_id}").json["worker"]["url"] == "http://a:1"
    changed = router.ask("PUT", f"/workers/{worker_id}", json={"disabled": True})
    assert changed.json["worker"]["worker_id"] == "http%3A%2F%2Fa%3A1"
    deleted = router.ask("DELETE", f"/workers/{worker_id}")
    assert deleted.json["worker_id"] == "http%3A%2F%2Fa%3A1"
    assert len(router.service.pool) == 0


@pytest.mark.parametrize(
    "worker_id",
    ["http%3A%2F%2Fb%3A1", "a:1", "a", "http%253A%252F%252Fa%253A1", "http://a:1/x", "%C3%A9"],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_unknown_workers(method: str, worker_id: str) -> None:
    """
    What is no registered worker's id is 404 with an ``error``, and no worker hears of it.
    """
    router = MemoryRouter("a")
    body = {"json": {"disabled": True}} if method == "PUT" else {}
    answer = router.ask(method, f"/workers/{worker_id}", **body)
    assert answer.status == 404
    assert "is not registered" in answer.json["error"]
    assert targets(router, "a") == []
    assert not router.service.pool["http://a:1"].disabled


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_other_methods(method: str) -> None:
    """
    A worker is read, changed and deleted; anything else is 405.
    """
    router = MemoryRouter("a")
    answer = router.ask(method, path_of("a"))
    assert answer.status == 405
    allowed = answer.headers.getRawHeaders("allow", [""])[0]
    assert {"GET", "PUT", "DELETE"} <= set(allowed.split(", "))


# Changing.


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "Name at least one of"),
        (b'{"draining": 1}', "draining must be true or false"),
        (b'{"draining": "true"}', "draining must be true or false"),
        (b'{"disabled": true, "is_dead": null}', "is_dead must be true or false"),
        (b'{"disabled": true, "url": "http://b:1"}', "Unknown fields: url"),
        (b'{"is_dead": true, "is_sleeping": true}', "Unknown fields: is_sleeping"),
        (b'{"draining": true, "refresh_video_support": []}', "refresh_video_support must be"),
        (b'{"concurrency": -1}', "concurrency must be a count from 0 to 1000000"),
        (b'{"concurrency": 1000001}', "concurrency must be a count from 0 to 1000000"),
        (b'{"concurrency": 1.0}', "concurrency must be a count"),
        (b'{"concurrency": true}', "concurrency must be a count"),
        (b'{"concurrency": "4"}', "concurrency must be a count"),
        (b'{"concurrency": ["auto"]}', "concurrency must be a count"),
        (b'{"speed": 0}', "speed must be a number from 0.001 to 1000"),
        (b'{"speed": 0.0009}', "speed must be a number from 0.001 to 1000"),
        (b'{"speed": 1000.1}', "speed must be a number from 0.001 to 1000"),
        (b'{"speed": NaN}', "speed must be a number"),
        (b'{"speed": Infinity}', "speed must be a number"),
        (b'{"speed": false}', "speed must be a number"),
        (b'{"speed": "1"}', "speed must be a number"),
        (b'{"speed": 2, "concurrency": -1}', "concurrency must be a count"),
        (b'{"speed": 2, "draining": null}', "draining must be true or false"),
    ],
)
def test_bad_changes(body: bytes, sentence: str) -> None:
    """
    One bad field spoils them all: 400 with a sentence, and the worker is as it was.
    """
    router = MemoryRouter("a")
    before = shown(router, "a")
    answer = router.ask("PUT", path_of("a"), data=body)
    assert answer.status == 400
    assert sentence in answer.json["error"]
    assert shown(router, "a") == before
    assert targets(router, "a") == []


@pytest.mark.parametrize("field", ["draining", "disabled"])
def test_taken_out_and_back(field: str) -> None:
    """
    A draining or disabled worker gets no work and answers for what it has; false undoes it.
    """
    router = started("a", "b")
    client = router.begin("POST", "/generate", json=IMAGE)
    busy = next(name for name in "ab" if router.loads[f"http://{name}:1"])
    changed = put(router, busy, **{field: True})
    assert (changed.status, changed.json["status"]) == (200, "success")
    assert changed.json["worker"] == shown(router, busy)
    assert shown(router, busy)["state"] == field
    assert shown(router, busy)[field] is True
    before = len(targets(router, busy))
    for _ in range(3):
        assert router.ask("GET", "/server_info").status == 200
    assert len(targets(router, busy)) == before
    assert answered(router, client).status == 200
    assert put(router, busy, **{field: False}).json["worker"]["state"] == "ready"
    for _ in range(2):
        router.ask("GET", "/server_info")
    assert "/server_info" in targets(router, busy)[before:]


def test_all_taken_out() -> None:
    """
    When operators took everyone out, the 503 says so.
    """
    router = started("a", "b")
    put(router, "a", draining=True)
    put(router, "b", disabled=True)
    answer = router.ask("GET", "/server_info")
    assert answer.status == 503
    assert "1 draining, 1 disabled" in answer.json["error"]


def test_several_wishes_at_once() -> None:
    """
    All fields of one change come into force together.
    """
    router = started("a")
    worker = put(router, "a", is_dead=True, draining=True, disabled=True).json["worker"]
    assert (worker["is_dead"], worker["draining"], worker["disabled"]) == (True, True, True)
    assert worker["state"] == "dead"


@pytest.mark.parametrize("concurrency", [0, 3, 1_000_000, "auto", None])
def test_concurrency(concurrency: int | str | None) -> None:
    """
    How many generations a worker is given at once is a count, ``auto``, or null for the fleet's.
    """
    router = started("a", "b")
    put(router, "a", concurrency=7)
    changed = put(router, "a", concurrency=concurrency)
    assert (changed.status, changed.json["status"]) == (200, "success")
    assert changed.json["worker"]["concurrency"] == concurrency
    assert shown(router, "a")["concurrency"] == concurrency
    assert router.service.pool["http://a:1"].concurrency == concurrency
    assert shown(router, "b")["concurrency"] is None


@pytest.mark.parametrize("speed", [0.001, 0.5, 1, 1000, None])
def test_speed(speed: float | None) -> None:
    """
    A worker's speed is what an operator says, or with null what is learned.
    """
    router = started("a", "b")
    put(router, "a", speed=7)
    assert put(router, "a", speed=speed).json["worker"]["speed"] == speed
    assert shown(router, "a")["speed"] == speed
    assert router.service.pool["http://a:1"].speed == speed
    assert shown(router, "b")["speed"] is None


def test_settings_and_flags_at_once() -> None:
    """
    One change may hold both, and what it does not name stays as it was.
    """
    router = started("a")
    worker = put(router, "a", concurrency="auto", speed=0.5, draining=True).json["worker"]
    facets = (worker["concurrency"], worker["speed"], worker["draining"])
    assert facets == ("auto", 0.5, True)
    worker = put(router, "a", draining=False).json["worker"]
    facets = (worker["concurrency"], worker["speed"], worker["draining"])
    assert facets == ("auto", 0.5, False)


def test_quarantined_by_hand() -> None:
    """
    ``is_dead`` takes a healthy worker out for good, checks included, and says who did it.
    """
    router = started("a", "b")
    worker = put(router, "a", is_dead=True).json["worker"]
    assert (worker["state"], worker["is_dead"]) == ("dead", True)
    assert worker["last_error"] == "quarantined by an operator"
    before = targets(router, "a")
    router.wait(100)
    for _ in range(3):
        assert router.ask("GET", "/server_info").status == 200
    assert targets(router, "a") == before
    assert put(router, "a", is_dead=True).json["worker"] == shown(router, "a")


def test_recovered() -> None:
    """
    A recovered worker that answers is in service when the answer comes.
    """
    router = started("a")
    put(router, "a", is_dead=True)
    recovered = put(router, "a", is_dead=False)
    assert (recovered.status, recovered.json["status"]) == (200, "success")
    worker = recovered.json["worker"]
    assert (worker["state"], worker["is_dead"], worker["last_error"]) == ("ready", False, None)
    assert router.ask("GET", "/server_info").status == 200


def test_recovering_the_living() -> None:
    """
    A worker that is not dead is recovered already; nothing is asked of it.
    """
    router = started("a")
    before = targets(router, "a")
    recovered = put(router, "a", is_dead=False)
    assert (recovered.status, recovered.json["worker"]["state"]) == (200, "ready")
    assert targets(router, "a") == before


def test_recovering_the_unreachable() -> None:
    """
    A worker that cannot be reached stays dead: 202 with the reason. It joins when it answers.
    """
    router = started("a")
    router.stop_worker("a")
    router.wait(30)
    pending = put(router, "a", is_dead=False)
    assert (pending.status, pending.json["status"]) == (202, "pending")
    assert "still dead: connection refused" in pending.json["reason"]
    assert pending.json["worker"] == shown(router, "a")
    assert pending.json["worker"]["is_dead"] is True
    router.start_worker("a")
    router.wait(10)
    assert shown(router, "a")["state"] == "ready"


def test_recovering_one_that_hangs() -> None:
    """
    The answer waits for the health check, no longer than that may take.
    """
    router = started("a")
    put(router, "a", is_dead=True)
    fault(router, "a", path="/health", hang=True)
    client = router.begin("PUT", path_of("a"), json={"is_dead": False})
    assert client.reply is None
    router.wait(5)
    assert client.reply is not None
    assert client.reply.status == 202
    assert "no response within 5 s" in client.reply.json["reason"]


def test_recovered_with_the_fleets_adapters() -> None:
    """
    A restarted worker is recovered when it has the fleet's LoRA set, and gets no work before.
    """
    router = started("a", "b")
    assert answered(router, router.begin("POST", "/v1/set_lora", json=LORA)).status == 200
    router.stop_worker("a")
    router.wait(30)
    router.start_worker("a")
    client = router.begin("PUT", path_of("a"), json={"is_dead": False})
    assert client.reply is None
    assert shown(router, "a")["state"] == "stale"
    assert answered(router, client).json["worker"]["state"] == "ready"
    assert router.workers["a"].weights.loaded == {"fox": "loras/fox"}


@pytest.mark.parametrize("how", ["register", "recover"])
@pytest.mark.parametrize("why", ["silence", "operator"])
def test_restarted_while_quarantined(why: str, how: str) -> None:
    """
    What comes back from quarantine may be a new process: it gets the adapters before any work,
    whatever it was quarantined for.
    """
    router = started("a", "b")
    assert answered(router, router.begin("POST", "/v1/set_lora", json=LORA)).status == 200
    if why == "silence":
        fault(router, "a", path="/health", hang=True)
        router.wait(45)
    else:
        put(router, "a", is_dead=True)
    assert shown(router, "a")["is_dead"] is True
    restart(router, "a")
    if how == "register":
        client = router.begin("POST", "/workers?url=http://a:1")
    else:
        client = router.begin("PUT", path_of("a"), json={"is_dead": False})
    answered(router, client)
    router.wait(10)
    assert router.workers["a"].weights.loaded == {"fox": "loras/fox"}
    assert shown(router, "a")["state"] == "ready"


def test_recovered_and_not_brought_up() -> None:
    """
    A worker that does not take the fleet's adapters is answered for with 202 and the reason.
    """
    router = started("a", "b")
    answered(router, router.begin("POST", "/v1/set_lora", json=LORA))
    router.stop_worker("a")
    router.wait(30)
    router.start_worker("a")
    fault(router, "a", path="/v1/set_lora", status=500)
    pending = put(router, "a", is_dead=False)
    assert (pending.status, pending.json["status"]) == (202, "pending")
    assert "LoRA" in pending.json["reason"]
    assert pending.json["worker"]["state"] == "stale"


def test_a_recovery_behind_long_work() -> None:
    """
    A worker that takes its adapters only after a long video is answered for within half a minute.
    """
    router = started("a", "b")
    answered(router, router.begin("POST", "/v1/set_lora", json=LORA))
    router.stop_worker("a")
    router.wait(30)
    router.start_worker("a")
    fault(router, "a", path="/v1/set_lora", delay=100)
    client = router.begin("PUT", path_of("a"), json={"is_dead": False})
    router.wait(29)
    assert client.reply is None
    router.wait(2)
    assert client.reply is not None
    assert client.reply.status == 202
    router.wait(75)
    assert shown(router, "a")["state"] == "ready"


def test_removed_during_its_recovery() -> None:
    """
    A worker that is removed while its change is brought about is 404 in the end.
    """
    router = started("a")
    put(router, "a", is_dead=True)
    fault(router, "a", path="/health", hang=True)
    client = router.begin("PUT", path_of("a"), json={"is_dead": False})
    assert router.ask("DELETE", path_of("a")).status == 200
    assert answered(router, client).status == 404


def test_hanging_up_on_a_recovery() -> None:
    """
    The one who asked need not wait for a recovery to happen.
    """
    router = started("a")
    put(router, "a", is_dead=True)
    fault(router, "a", path="/health", delay=2, times=1)
    router.begin("PUT", path_of("a"), json={"is_dead": False}).hang_up()
    router.settle()
    router.wait(15)
    assert shown(router, "a")["state"] == "ready"


def test_refresh() -> None:
    """
    ``refresh_video_support`` asks the worker again, and answers with what it says now.
    """
    router = started("a")
    router.stop_worker("a")
    router._simulator = SimulatorSettings(model="cosmos3")
    router.start_worker("a")
    assert shown(router, "a")["video_support"] is False
    refreshed = put(router, "a", refresh_video_support=True)
    assert (refreshed.status, refreshed.json["status"]) == (200, "success")
    assert refreshed.json["worker"]["video_support"] is True
    assert refreshed.json["worker"]["model"] == "nvidia/Cosmos3-Nano"


def test_no_refresh() -> None:
    """
    False is no wish: nothing is asked.
    """
    router = started("a")
    before = targets(router, "a")
    assert put(router, "a", refresh_video_support=False).status == 200
    assert targets(router, "a") == before


def test_refreshing_the_unreachable() -> None:
    """
    A worker that does not say what it serves is 202 with the reason.
    """
    router = MemoryRouter("a")
    router.stop_worker("a")
    pending = put(router, "a", refresh_video_support=True)
    assert (pending.status, pending.json["status"]) == (202, "pending")
    assert pending.json["reason"] == "it did not tell what it serves"
    assert pending.json["worker"]["video_support"] is None


def test_a_refresh_that_told_nothing_new() -> None:
    """
    A refresh that got no answer is no success, also where the worker was known before.
    """
    router = started("a")
    router.stop_worker("a")
    pending = put(router, "a", refresh_video_support=True)
    assert (pending.status, pending.json["status"]) == (202, "pending")
    assert pending.json["worker"]["video_support"] is False


# Going.


def test_deleted_while_answering() -> None:
    """
    Without ``drain`` a worker is gone at once, and the answer that it is giving ends in peace.
    """
    router = started("a")
    client = router.begin("POST", "/generate", json=IMAGE)
    deleted = router.ask("DELETE", path_of("a"))
    assert deleted.status == 200
    gone = {"status": "success", "worker_id": "http%3A%2F%2Fa%3A1", "state": "removed"}
    assert deleted.json == gone
    assert router.ask("GET", path_of("a")).status == 404
    assert answered(router, client).status == 200
    assert router.ask("DELETE", path_of("a")).status == 404


def test_drained_and_gone() -> None:
    """
    With ``drain`` it finishes what it has, gets nothing more, and leaves by itself.
    """
    router = started("a", "b")
    clients = [router.begin("POST", "/generate", json=IMAGE) for _ in range(2)]
    deleted = router.ask("DELETE", f"{path_of('a')}?drain=true")
    assert (deleted.status, deleted.json["state"]) == (200, "draining")
    assert shown(router, "a")["state"] == "draining"
    before = len(targets(router, "a"))
    more = [router.begin("POST", "/generate", json=IMAGE) for _ in range(3)]
    for client in (*clients, *more):
        assert answered(router, client).status == 200
    assert len(targets(router, "a")) == before
    assert router.ask("GET", path_of("a")).status == 404
    assert [worker.url for worker in router.service.pool] == ["http://b:1"]


def test_draining_the_idle() -> None:
    """
    One that has nothing to finish is removed in the same moment, and the answer says so.
    """
    router = started("a")
    deleted = router.ask("DELETE", f"{path_of('a')}?drain=1")
    assert deleted.json["state"] == "removed"
    assert len(router.service.pool) == 0


def test_drained_with_a_running_video() -> None:
    """
    A worker that makes a video leaves when it is made, and what it made can still be had.
    """
    router = started("a", simulator=VIDEOS)
    video = router.ask("POST", "/v1/videos", json=VIDEO).json["id"]
    assert router.ask("DELETE", f"{path_of('a')}?drain=true").json["state"] == "draining"
    router.wait(5)
    assert shown(router, "a")["jobs"] == 1
    assert router.ask("GET", f"/v1/videos/{video}").json["status"] == "in_progress"
    router.wait(10)
    assert len(router.service.pool) == 0
    assert router.ask("GET", f"/v1/videos/{video}").json["status"] == "completed"
    assert router.ask("GET", f"/v1/videos/{video}/content").status == 200


def test_a_drain_undone() -> None:
    """
    ``draining`` false keeps a worker that was to leave.
    """
    router = started("a")
    client = router.begin("POST", "/generate", json=IMAGE)
    router.ask("DELETE", f"{path_of('a')}?drain=true")
    assert put(router, "a", draining=False).json["worker"]["state"] == "ready"
    answered(router, client)
    assert shown(router, "a")["state"] == "ready"


def test_draining_alone_does_not_remove() -> None:
    """
    A worker that only drains stays when it has finished.
    """
    router = started("a")
    client = router.begin("POST", "/generate", json=IMAGE)
    put(router, "a", draining=True)
    answered(router, client)
    assert shown(router, "a")["state"] == "draining"


def test_registered_while_it_drains() -> None:
    """
    A worker that is registered while it drains to leave is not removed behind its back.
    """
    router = started("a")
    client = router.begin("POST", "/generate", json=IMAGE)
    router.ask("DELETE", f"{path_of('a')}?drain=true")
    assert router.ask("POST", "/workers?url=http://a:1").json["status"] == "success"
    answered(router, client)
    assert "http://a:1" in router.service.pool


def test_the_dead_drain_too() -> None:
    """
    A quarantined worker with nothing to finish leaves at once.
    """
    router = started("a")
    put(router, "a", is_dead=True)
    assert router.ask("DELETE", f"{path_of('a')}?drain=true").json["state"] == "removed"


@pytest.mark.parametrize("drain", ["yes", "", "2"])
def test_bad_drain(drain: str) -> None:
    """
    What is neither true nor false is 400 and removes nobody.
    """
    router = MemoryRouter("a")
    answer = router.ask("DELETE", f"{path_of('a')}?drain={drain}")
    assert answer.status == 400
    assert "drain must be true or false" in answer.json["error"]
    assert shown(router, "a")["draining"] is False


@pytest.mark.parametrize("drain", ["false", "0", "False"])
def test_no_drain(drain: str) -> None:
    """
    False is as without it.
    """
    router = MemoryRouter("a")
    router.begin("POST", "/generate", json=IMAGE)
    assert router.ask("DELETE", f"{path_of('a')}?drain={drain}").json["state"] == "removed"


def test_back_after_leaving() -> None:
    """
    A worker that left and registers again begins anew.
    """
    router = started("a")
    put(router, "a", disabled=True)
    router.ask("DELETE", path_of("a"))
    assert router.ask("POST", "/workers?url=http://a:1").status == 200
    worker = shown(router, "a")
    assert (worker["state"], worker["disabled"]) == ("ready", False)


# All of them.


def test_health_counts() -> None:
    """
    ``/health`` counts the dead and the sleeping, and is 503 when nobody else is left.
    """
    router = started("a", "b", "c")
    assert router.ask("GET", "/health").json == {
        "status": "healthy",
        "healthy_workers": 3,
        "dead_workers": 0,
        "sleeping_workers": 0,
        "stale_workers": 0,
        "total_workers": 3,
        "weights_epoch": 0,
    }
    put(router, "a", is_dead=True)
    some = router.ask("GET", "/health")
    assert (some.status, some.json["healthy_workers"], some.json["dead_workers"]) == (200, 2, 1)
    answered(router, router.begin("POST", "/release_memory_occupation"))
    none = router.ask("GET", "/health")
    assert none.status == 503
    assert none.json == {
        "status": "unhealthy",
        "healthy_workers": 0,
        "dead_workers": 1,
        "sleeping_workers": 2,
        "stale_workers": 0,
        "total_workers": 3,
        "weights_epoch": 0,
    }


def test_both_apis_show_one_pool() -> None:
    """
    What the early calls do shows in the new ones, and the other way round.
    """
    router = MemoryRouter("a", "b", registered=("a",))
    router.ask("POST", "/add_worker?url=http://b:1")
    assert shown(router, "b")["state"] == "ready"
    router.ask("DELETE", path_of("a"))
    assert router.ask("GET", "/list_workers").json == {"urls": ["http://b:1"]}
    pool = router.service.pool
    pool.record_probe(pool["http://b:1"], Probe(healthy=False), threshold=1)
    [early] = router.ask("GET", "/health_workers").json["workers"]
    assert early["is_dead"] is shown(router, "b")["is_dead"] is True


def test_two_recover_at_once() -> None:
    """
    Whoever asks for a recovery that somebody else asks for too is told how it went.
    """
    router = started("a")
    path = f"/workers/{worker_id_of('http://a:1')}"
    router.ask("PUT", path, json={"is_dead": True})
    fault(router, "a", path="/health", delay=2)
    clients = [router.begin("PUT", path, json={"is_dead": False}) for _ in range(3)]
    for client in clients:
        answer = answered(router, client)
        assert (answer.status, answer.json["worker"]["state"]) == (200, "ready")


def test_a_recovery_whose_client_left() -> None:
    """
    A check goes on when the client that asked for it hangs up.
    """
    router = started("a")
    path = f"/workers/{worker_id_of('http://a:1')}"
    router.ask("PUT", path, json={"is_dead": True})
    fault(router, "a", path="/health", delay=2)
    router.begin("PUT", path, json={"is_dead": False}).hang_up()
    router.wait(3)
    assert shown(router, "a")["state"] == "ready"


def test_recovery_does_not_end_a_drain() -> None:
    """
    What an operator wished besides stays.
    """
    router = started("a")
    path = f"/workers/{worker_id_of('http://a:1')}"
    router.ask("PUT", path, json={"is_dead": True, "draining": True})
    answer = answered(router, router.begin("PUT", path, json={"is_dead": False}))
    assert answer.status == 202
    assert answer.json["reason"] == "it gets no work: draining"
    assert answer.json["worker"]["draining"]
