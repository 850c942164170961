"""
The fleet's LoRA set: every worker has it before it gets work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.commands import free_port, running
from tests.integration.fleet import IMAGE, Fleet, ask, pause, routed, running_fleet, standing

MODEL = "z-image-turbo"
INK = {"lora_nickname": "ink", "lora_path": "me/ink", "strength": 0.5}
SET = "POST /v1/set_lora"
CHECKSUM = "POST /get_weights_checksum"
WORK = "POST /v1/images/generations"


async def until_served(fleet: Fleet, served: Callable[[], Any], *, refused: bool = False) -> None:
    """
    Traffic of two clients until *served*; every answer is good.

    Args:
        refused: Whether to be told that all workers lack their adapters is good as well.
    """
    ending = False

    async def client() -> None:
        while not ending:
            answer = await fleet.ask("POST", "/v1/images/generations", json=IMAGE)
            stale = answer.status == 503 and "stale" in answer.json["error"]
            assert answer.status == 200 or (refused and stale), answer.body

    running = [Deferred.fromCoroutine(client()) for _ in range(2)]
    try:
        for _ in range(500):
            happened = served()
            if await happened if hasattr(happened, "__await__") else happened:
                break
            await pause()
        else:
            raise AssertionError("it was never served")
    finally:
        ending = True
        await gatherResults(running)


OLD = ("/v1/set_lora", {**INK, "lora_nickname": "old"})
NEW = ("/v1/set_lora", INK)
MERGED = ("/v1/merge_lora_weights", {"strength": 0.7})
UNMERGED: tuple[str, Any] = ("/v1/unmerge_lora_weights", {})


@pytest.mark.parametrize(
    ("calls", "replayed"),
    [((OLD, NEW), (NEW,)), ((OLD, NEW, MERGED), (NEW, MERGED)), ((NEW, UNMERGED), (NEW, UNMERGED))],
    ids=["set", "merged", "unmerged"],
)
@pytest_twisted.ensureDeferred
async def test_a_worker_that_joins_later(
    calls: tuple[tuple[str, Any], ...], replayed: tuple[tuple[str, Any], ...]
) -> None:
    """
    A worker that joins a fleet with adapters gets the shortest list of calls that leads to them,
    has its checksums asked for, and not one request before; what it then makes is made with the
    same weights as elsewhere.
    """
    async with standing(MODEL, MODEL) as stations:
        first, late = stations
        async with routed(stations[:1], health_check_interval=0.05) as fleet:
            for path, body in calls:
                assert (await fleet.ask("POST", path, json=body)).status == 200
            first.worker.journal.generations.clear()
            late.order(rules=[{"path": "/v1/set_lora", "delay": 0.2}])
            added = await fleet.ask("POST", "/workers", json={"url": late.url})
            assert added.json["worker"]["state"] == "stale"
            await until_served(fleet, lambda: late.worker.journal.generations)
            before = late.asked[: late.asked.index(WORK)]
            assert before == [*(f"POST {path}" for path, _ in replayed), CHECKSUM]
            assert _active(late) == _active(first)
            weights = [
                {each.weights for each in station.worker.journal.generations}
                for station in stations
            ]
            assert weights[0] == weights[1]
            assert len(weights[0]) == 1


def _active(station: Any) -> Any:
    return station.worker.weights.adapters()["active"]


@contextmanager
def worker_process(folder: Path, port: int) -> Iterator[Popen[str]]:
    """
    A simulated worker as a process of its own.
    """
    words = ("--port", str(port), "--model", MODEL, "--speed", "1000", "--pictures", "2")
    with running("twistd", "-n", "--pidfile=", "sglang-d-simulator", *words, cwd=folder) as process:
        yield process


@pytest_twisted.ensureDeferred
async def test_a_worker_that_was_killed(tmp_path: Path) -> None:
    """
    A worker that was killed under traffic and started again on its port gets the adapters before
    any request.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options: dict[str, Any] = {
        "health_check_interval": 0.1,
        # A worker takes its time to start.
        "health_check_failure_threshold": 1000,
    }

    async def log() -> list[str]:
        answer = await ask(url, "GET", "/simulator/log")
        return [f"{each['method']} {each['target']}" for each in answer.json["received"]]

    async def works() -> bool:
        try:
            return WORK in await log()
        except Exception:  # it is not up yet
            return False

    async with standing(MODEL) as stations, routed(stations, **options) as fleet:
        with worker_process(tmp_path, port) as process:
            await fleet.ask("POST", "/workers", json={"url": url})
            await until_served(fleet, works)
            told = await fleet.ask("POST", "/v1/set_lora", json=INK)
            assert [each["status_code"] for each in told.json["results"]] == [200, 200]
            process.kill()
        with worker_process(tmp_path, port):
            await until_served(fleet, works)
            lines = await log()
            assert SET in lines[: lines.index(WORK)]
            adapters = (await ask(url, "GET", "/v1/list_loras")).json
            assert adapters == stations[0].worker.weights.adapters()


@pytest_twisted.ensureDeferred
async def test_a_worker_that_failed_a_call() -> None:
    """
    A worker that failed a call which others took is named in the answer and gets no work; it is
    told again until it takes it, and then works.
    """
    async with running_fleet(MODEL, MODEL, MODEL, health_check_interval=0.05) as fleet:
        *_, failing = fleet.stations
        failing.order(rules=[{"path": "/v1/set_lora", "status": 500, "body": {"detail": "no"}}])
        told = await fleet.ask("POST", "/v1/set_lora", json=INK)
        assert [each["status_code"] for each in told.json["results"]] == [200, 200, 500]
        assert (await fleet.shown(failing))["state"] == "stale"
        await until_served(fleet, lambda: failing.asked.count(SET) > 1)
        assert WORK not in failing.asked
        failing.worker.faults.clear()
        await until_served(fleet, lambda: WORK in failing.asked)
        assert (await fleet.shown(failing))["state"] == "ready"
        assert _active(failing) == _active(fleet.stations[0])


@pytest.mark.parametrize("before", [False, True], ids=["none before", "one before"])
@pytest_twisted.ensureDeferred
async def test_a_call_that_all_failed(before: bool) -> None:
    """
    Where all failed nothing has changed: all go on working, and a newcomer gets what held before.
    """
    async with standing(MODEL, MODEL, MODEL) as stations:
        *old, late = stations
        async with routed(old) as fleet:
            if before:
                await fleet.ask("POST", "/v1/set_lora", json=INK)
            for station in old:
                station.order(rules=[{"path": "/v1/set_lora", "status": 500, "times": 1}])
            told = await fleet.ask("POST", "/v1/set_lora", json={**INK, "lora_nickname": "new"})
            assert [each["status_code"] for each in told.json["results"]] == [500, 500]
            states = [(await fleet.shown(station))["state"] for station in old]
            assert states == ["ready", "ready"]
            await fleet.ask("POST", "/workers", json={"url": late.url})
            await until_served(fleet, lambda: WORK in late.asked)
            assert late.asked.count(SET) == int(before)
            assert _active(late) == _active(old[0])


@pytest_twisted.ensureDeferred
async def test_a_sleeper_that_missed_a_call() -> None:
    """
    A worker that slept through a call catches up when it is woken, before it works.
    """
    async with running_fleet(MODEL, MODEL, health_check_interval=0.05) as fleet:
        awake, asleep = fleet.stations
        await fleet.ask("PUT", f"/workers/{awake.id}", json={"is_dead": True})
        await fleet.ask("POST", "/release_memory_occupation")
        await fleet.ask("PUT", f"/workers/{awake.id}", json={"is_dead": False})
        states = [(await fleet.shown(station))["state"] for station in fleet.stations]
        assert states == ["ready", "sleeping"]
        await fleet.ask("POST", "/v1/set_lora", json=INK)
        assert SET not in asleep.asked
        await fleet.ask("POST", "/resume_memory_occupation")
        await until_served(fleet, lambda: WORK in asleep.asked)
        assert asleep.asked.index(SET) < asleep.asked.index(WORK)
        assert _active(asleep) == _active(awake)


@pytest_twisted.ensureDeferred
async def test_adapters_survive_a_restart(tmp_path: Path) -> None:
    """
    After a restart with a state file every worker is given the set before it works, those too that
    had it; without one the router knows of none.
    """
    state = f"sqlite:///{tmp_path}/router.sqlite"
    async with standing(MODEL, MODEL) as stations:
        kept, restarted = stations
        async with routed(stations, state=state) as fleet:
            await fleet.ask("POST", "/v1/set_lora", json=INK)
        await restarted.stop()
        restarted.start()
        kept.worker.journal.clear()
        async with routed(stations, state=state) as fleet:
            await until_served(
                fleet, lambda: all(WORK in each.asked for each in stations), refused=True
            )
            for station in stations:
                assert station.asked.index(SET) < station.asked.index(WORK)
            assert _active(restarted) == _active(kept)
