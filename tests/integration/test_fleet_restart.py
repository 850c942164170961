"""
A router that is stopped, killed and started again: whom it knows, and whose ids are whose.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest_twisted

from sgl_droute.state.opening import open_store
from sgl_droute.state.saved import Saved
from tests.errors import unknown
from tests.integration.commands import free_port
from tests.integration.fleet import (
    IMAGE,
    MESH,
    VIDEO,
    Fleet,
    Station,
    ask,
    finished,
    made,
    pause,
    routed,
    router_process,
    standing,
)
from tests.integration.sockets import eventually, reactor
from tests.memory import Reply

WAN = "wan2.1-t2v-1.3b"


def state(folder: Path) -> str:
    return f"sqlite:///{folder}/router.sqlite"


async def written(folder: Path, holds: Callable[[Saved], bool]) -> None:
    """
    Return once the state file is such that a router may be killed; that takes it a second at most,
    where the machine lets it.
    """
    await eventually(lambda: holds(read_state(folder)))


def read_state(folder: Path) -> Saved:
    return open_store(state(folder), reactor, job_ttl=86400.0, max_owners=100).load()


def reads(station: Station, path: str) -> int:
    """
    How often the worker was asked for *path*.
    """
    return station.asked.count(f"GET {path}")


async def one_made(fleet: Fleet, collection: str, wish: dict[str, Any]) -> tuple[str, Station]:
    """
    The id of something new, and its worker.
    """
    before = [len(station.asked) for station in fleet.stations]
    id = await made(fleet, collection, wish)
    after = [len(station.asked) for station in fleet.stations]
    [owner] = [s for s, a, b in zip(fleet.stations, before, after, strict=True) if b > a]
    return id, owner


@pytest_twisted.ensureDeferred
async def test_with_a_state_file(tmp_path: Path) -> None:
    """
    After a restart with a state file every id goes straight to its owner; nobody else is asked.
    """
    async with standing("cosmos3", "cosmos3", "hunyuan3d") as stations:
        async with routed(stations, state=state(tmp_path)) as fleet:
            owners = {}
            for create, collection, wish, tail in (
                ("/v1/videos", "/v1/videos", VIDEO, ""),
                ("/v1/videos", "/v1/videos", VIDEO, ""),
                ("/v1/images/generations", "/v1/images", IMAGE, "/content"),
                ("/v1/meshes", "/v1/meshes", MESH, ""),
            ):
                id, owner = await one_made(
                    fleet, create, {**wish, **({"response_format": "url"} if tail else {})}
                )
                owners[f"{collection}/{id}{tail}"] = owner
        assert len({owner.url for owner in owners.values()}) > 1
        async with routed(stations, state=state(tmp_path)) as fleet:
            for station in stations:
                station.worker.journal.clear()
            for path, owner in owners.items():
                assert (await fleet.ask("GET", path)).status == 200
                assert [reads(each, path) for each in stations] == [
                    int(each is owner) for each in stations
                ]


@pytest_twisted.ensureDeferred
async def test_without_a_state_file() -> None:
    """
    After a restart without a state file an id is looked for on all workers once, and remembered.
    """
    async with standing(WAN, WAN, WAN) as stations:
        async with routed(stations) as fleet:
            id, owner = await one_made(fleet, "/v1/videos", VIDEO)
        async with routed(stations) as fleet:
            path = f"/v1/videos/{id}"
            for station in stations:
                station.worker.journal.clear()
            record = await finished(fleet, path)
            assert record["id"] == id
            others = [each for each in stations if each is not owner]
            assert [reads(each, path) for each in others] == [1, 1]
            assert (await fleet.ask("GET", f"{path}/content")).body[4:8] == b"ftyp"
            assert (await fleet.ask("DELETE", path)).json["status"] == "deleted"
            assert all(len(each.asked) == 1 for each in others)


@pytest_twisted.ensureDeferred
async def test_an_id_that_nobody_has() -> None:
    """
    404 only when every registered worker said no, draining, sleeping and quarantined ones too, and
    they are not asked again at once.
    """
    async with standing(WAN, WAN, WAN) as stations, routed(stations) as fleet:
        _, draining, dead = stations
        await fleet.ask("POST", "/release_memory_occupation")
        await fleet.ask("PUT", f"/workers/{draining.id}", json={"draining": True})
        await fleet.ask("PUT", f"/workers/{dead.id}", json={"is_dead": True})
        shown = [(await fleet.shown(station))["state"] for station in stations]
        assert shown == ["sleeping", "draining", "dead"]
        for path, kind in (("/v1/videos/x", "video"), ("/v1/meshes/x", "mesh")):
            for _ in range(3):
                answer = await fleet.ask("GET", path)
                assert (answer.status, answer.error) == (404, unknown(kind))
            assert [reads(station, path) for station in stations] == [1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_a_silent_worker_in_a_search() -> None:
    """
    While one worker does not answer, an id that nobody else has is 503 with its name and nothing is
    remembered; an id that another has is found without it.
    """
    async with standing(WAN, WAN) as stations:
        there, silent = stations
        async with routed(stations) as fleet:
            await fleet.ask("PUT", f"/workers/{silent.id}", json={"draining": True})
            found = await made(fleet, "/v1/videos", VIDEO)
            await fleet.ask("PUT", f"/workers/{silent.id}", json={"draining": False})
            await fleet.ask("PUT", f"/workers/{there.id}", json={"draining": True})
            lost = await made(fleet, "/v1/videos", VIDEO)
        async with routed(stations, health_check_timeout=2.0) as fleet:
            silent.order(rules=[{"path": "/v1/videos", "hang": True}])
            assert (await fleet.ask("GET", f"/v1/videos/{found}")).status == 200
            answer = await fleet.ask("GET", f"/v1/videos/{lost}")
            assert answer.status == 503
            assert silent.url in answer.json["error"]
            assert there.url not in answer.json["error"]
            silent.worker.faults.clear()
            assert (await fleet.ask("GET", f"/v1/videos/{lost}")).json["id"] == lost


@pytest_twisted.ensureDeferred
async def test_an_owner_that_was_killed() -> None:
    """
    While the owner of an id is down, requests for it are 503 and name it, and others are served.
    Once it is back without its memory, the id is unknown.
    """
    async with standing(WAN, WAN) as stations, routed(stations) as fleet:
        videos = [await one_made(fleet, "/v1/videos", VIDEO) for _ in range(2)]
        (lost, killed), (kept, _) = videos
        await killed.stop()
        for path in (f"/v1/videos/{lost}", f"/v1/videos/{lost}/content"):
            answer = await fleet.ask("GET", path)
            assert answer.status == 503
            assert killed.url in answer.json["error"]
        assert (await fleet.ask("GET", f"/v1/videos/{kept}")).status == 200
        killed.start()
        gone = await fleet.ask("GET", f"/v1/videos/{lost}")
        assert gone.status == 404
        again = await fleet.ask("GET", f"/v1/videos/{lost}")
        assert (again.status, again.error) == (404, unknown("video"))


@pytest_twisted.ensureDeferred
async def test_an_owner_that_was_removed() -> None:
    """
    What a removed worker holds is unknown, until the worker is registered again.
    """
    async with standing(WAN, WAN) as stations, routed(stations) as fleet:
        id, owner = await one_made(fleet, "/v1/videos", VIDEO)
        await finished(fleet, f"/v1/videos/{id}")
        await fleet.ask("DELETE", f"/workers/{owner.id}")
        for _ in range(2):
            answer = await fleet.ask("GET", f"/v1/videos/{id}")
            assert (answer.status, answer.error) == (404, unknown("video"))
        await fleet.ask("POST", f"/workers?url={owner.url}")
        assert (await fleet.ask("GET", f"/v1/videos/{id}")).json["id"] == id


@pytest_twisted.ensureDeferred
async def test_kill_9(tmp_path: Path) -> None:
    """
    A router that was killed comes back with its workers in their order, their quarantine, drain and
    disabled flags, the LoRA set, and the owners of ids, and gives the set to a new worker; the
    sleep of a fleet survives too.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def call(method: str, path: str, **kwargs: Any) -> Reply:
        answer = await ask(url, method, path, **kwargs)
        assert answer.status == 200, answer.body
        return answer

    async def states(expected: list[str]) -> None:
        for _ in range(250):
            shown = (await call("GET", "/workers")).json["workers"]
            if [worker["state"] for worker in shown] == expected:
                assert [worker["url"] for worker in shown] == [each.url for each in stations]
                return
            await pause()
        raise AssertionError(shown)

    async with standing(WAN, WAN, WAN, WAN, WAN) as stations:
        first, drained, dead, disabled, late = stations
        urls = [station.url for station in stations[:-1]]
        words = ("--port", str(port), "--state", state(tmp_path))
        async with router_process(tmp_path, *words, "--worker-urls", *urls) as process:
            await call("POST", "/workers", json={"url": late.url})
            await states(["ready"] * 5)
            lora = {"lora_nickname": "ink", "lora_path": "me/ink"}
            await call("POST", "/v1/set_lora", json=lora)
            made = [(await call("POST", "/v1/videos", json=VIDEO)).json["id"] for _ in range(5)]
            await call("PUT", f"/workers/{drained.id}", json={"draining": True})
            await call("PUT", f"/workers/{dead.id}", json={"is_dead": True})
            await call("PUT", f"/workers/{disabled.id}", json={"disabled": True})
            flags = [
                # draining, dead, disabled, in the order of the workers
                (False, False, False),
                (True, False, False),
                (False, True, False),
                (False, False, True),
                (False, False, False),
            ]
            await written(  # what came before the flags is written with them or before
                tmp_path,
                lambda saved: (
                    [(each.draining, each.dead, each.disabled) for each in saved.workers] == flags
                ),
            )
            process.kill()
        owners = {job.id: each for each in stations for job in each.videos}
        assert sorted(owners) == sorted(made)
        await late.stop()
        late.start()
        async with router_process(tmp_path, *words) as process:
            await states(["ready", "draining", "dead", "disabled", "ready"])
            adapters = [each.worker.weights.adapters() for each in (first, late)]
            assert adapters[0] == adapters[1]
            for station in stations:
                station.worker.journal.clear()
            for id in made:
                if owners[id] is not late:
                    await call("GET", f"/v1/videos/{id}")
                    assert [each for each in stations if reads(each, f"/v1/videos/{id}")] == [
                        owners[id]
                    ]
            await call("POST", "/release_memory_occupation")
            await states(["sleeping", "draining", "dead", "disabled", "sleeping"])
            await written(
                tmp_path, lambda saved: saved.workers[0].asleep and saved.workers[-1].asleep
            )
            process.kill()
        async with router_process(tmp_path, *words):
            await states(["sleeping", "draining", "dead", "disabled", "sleeping"])
            refused = await ask(url, "POST", "/v1/videos", json=VIDEO)
            assert refused.status == 503
            assert "sleeping" in refused.json["error"]
            await call("POST", "/resume_memory_occupation")
            await states(["ready", "draining", "dead", "disabled", "ready"])
            assert not any(each.worker.weights.sleeping for each in stations)
