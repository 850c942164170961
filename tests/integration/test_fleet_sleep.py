"""
A fleet that sleeps and wakes while clients go on.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.fleet import (
    IMAGE,
    VIDEO,
    Fleet,
    finished,
    made,
    pause,
    routed,
    running_fleet,
    standing,
)
from tests.integration.sockets import eventually
from tests.memory import Reply

RELEASE = "/release_memory_occupation"
RESUME = "/resume_memory_occupation"
ROUNDS = 12


class Traffic:
    """
    Clients that ask for the same again and again until told to stop.
    """

    def __init__(self, fleet: Fleet, path: str, wish: dict[str, Any], clients: int = 4) -> None:
        self.answers: list[Reply] = []
        self._fleet, self._path, self._wish = fleet, path, wish
        self._ending = False
        self._running = [Deferred.fromCoroutine(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        while not self._ending:
            self.answers.append(await self._fleet.ask("POST", self._path, json=self._wish))

    async def end(self) -> None:
        self._ending = True
        await gatherResults(self._running)

    def assert_served_or_told_of_sleep(self) -> None:
        """
        No client saw anything but success and the sentence about sleep, and some saw each.
        """
        statuses = Counter(answer.status for answer in self.answers)
        assert set(statuses) == {200, 503}, statuses
        for answer in self.answers:
            if answer.status == 503:
                assert "sleeping" in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "wish"),
    [
        ("/v1/images/generations", IMAGE),
        ("/v1/videos", VIDEO),
        ("/rollout/generate", {**IMAGE, "seed": 1, "rollout_debug_mode": False}),
    ],
    ids=["images", "videos", "rollout"],
)
@pytest_twisted.ensureDeferred
async def test_sleep_under_traffic(path: str, wish: dict[str, Any]) -> None:
    """
    While a fleet sleeps and wakes again and again no client sees a worker's error, and no video
    that was accepted fails.
    """
    async with running_fleet(*["cosmos3"] * 3, simulator={"speed": 2000.0}) as fleet:
        traffic = Traffic(fleet, path, wish)
        for _ in range(ROUNDS):
            seen = len(traffic.answers)
            await eventually(lambda: len(traffic.answers) >= seen + 8)  # noqa: B023
            released = await fleet.ask("POST", RELEASE)
            assert [each["status_code"] for each in released.json["results"]] == [200] * 3
            assert all(station.worker.weights.sleeping for station in fleet.stations)
            assert (await fleet.ask("POST", path, json=wish)).status == 503
            resumed = await fleet.ask("POST", RESUME)
            assert [each["status_code"] for each in resumed.json["results"]] == [200] * 3
            assert (await fleet.ask("POST", path, json=wish)).status == 200
        await traffic.end()
        traffic.assert_served_or_told_of_sleep()
        await eventually(lambda: not any(station.worker.gpu.waiting for station in fleet.stations))
        for station in fleet.stations:
            await eventually(lambda: all(job.completed or job.error for job in station.videos))  # noqa: B023
            assert [job.error for job in station.videos if job.error] == []


@pytest_twisted.ensureDeferred
async def test_calls_that_cross() -> None:
    """
    Releases and resumes from several callers at once leave the fleet all asleep or all awake, as
    the router says, and never an error.
    """
    async with running_fleet(*["z-image-turbo"] * 3) as fleet:
        traffic = Traffic(fleet, "/v1/images/generations", {**IMAGE, "n": 1})

        async def caller(path: str) -> None:
            for _ in range(ROUNDS):
                answer = await fleet.ask("POST", path)
                assert answer.status == 200
                assert {each["status_code"] for each in answer.json["results"]} <= {200}
                await pause()

        callers = [caller(path) for path in (RELEASE, RESUME, RELEASE, RESUME)]
        await gatherResults([Deferred.fromCoroutine(each) for each in callers])
        asleep = [station.worker.weights.sleeping for station in fleet.stations]
        shown = [(await fleet.shown(station))["is_sleeping"] for station in fleet.stations]
        assert asleep == shown
        assert len(set(asleep)) == 1
        await fleet.ask("POST", RESUME)
        await traffic.end()
        assert {answer.status for answer in traffic.answers} <= {200, 503}
        for answer in traffic.answers:
            assert answer.status == 200 or "sleeping" in answer.json["error"]


@pytest_twisted.ensureDeferred
async def test_both_calls_are_idempotent() -> None:
    """
    A second release or resume is 200 with a message and reaches no worker.
    """
    async with running_fleet(*["z-image-turbo"] * 2) as fleet:
        for path, message in ((RESUME, "active"), (RELEASE, "sleeping"), (RESUME, "active")):
            for turn in range(2):
                for station in fleet.stations:
                    station.worker.journal.clear()
                answer = await fleet.ask("POST", path)
                assert answer.status == 200
                if path == RESUME and turn == 0 and not answer.json["results"]:
                    continue  # it was never asleep
                if turn:
                    assert answer.json["message"] == f"All workers are already {message}"
                    assert [station.asked for station in fleet.stations] == [[], []]
                else:
                    assert [each["status_code"] for each in answer.json["results"]] == [200, 200]


@pytest_twisted.ensureDeferred
async def test_a_sleeping_fleet() -> None:
    """
    While asleep, jobs stay readable, failing probes do not quarantine, and the health answer counts
    the sleepers; one marked dead in its sleep wakes with the others.
    """
    async with (
        standing(*["cosmos3"] * 2) as stations,
        routed(stations, health_check_interval=0.05, health_check_failure_threshold=2) as fleet,
    ):
        id = await made(fleet, "/v1/videos", VIDEO)
        await finished(fleet, f"/v1/videos/{id}")
        await fleet.ask("POST", RELEASE)
        probes = [station.probes for station in stations]
        for station in stations:
            station.order(rules=[{"path": "/health", "status": 503, "body": ""}])
        await eventually(
            lambda: all(s.probes > n + 4 for s, n in zip(stations, probes, strict=True))
        )
        assert (await fleet.ask("GET", f"/v1/videos/{id}/content")).body[4:8] == b"ftyp"
        health = await fleet.ask("GET", "/health")
        assert (health.status, health.json["sleeping_workers"], health.json["dead_workers"]) == (
            503,
            2,
            0,
        )
        for station in stations:
            station.worker.faults.clear()
        await fleet.ask("PUT", f"/workers/{stations[0].id}", json={"is_dead": True})
        woken = await fleet.ask("POST", RESUME)
        assert [each["status_code"] for each in woken.json["results"]] == [200, 200]
        assert not any(station.worker.weights.sleeping for station in stations)
        states = [(await fleet.shown(station))["state"] for station in stations]
        assert states == ["dead", "ready"]
