"""
The waiting line over real sockets: clients that hang up, workers that die, thousands that wait.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

from tests.integration.answers import Answer, parse_answers
from tests.integration.commands import fetch, free_port, memory_of, once_up, running
from tests.integration.fleet import Fleet, Station, ask, pause, routed, router_process, standing
from tests.integration.sockets import (
    GET,
    Connection,
    Router,
    connect,
    eventually,
    exchange,
    running_router,
)
from tests.integration.swarm import Manner, many_files, swarm
from tests.integration.websocket_peer import websocket_worker, with_websocket

IMAGES = "/v1/images/generations"
ROUTER = ("twistd", "-n", "--pidfile=", "sglang-d-router", "--log-level", "warn")
SIMULATOR = ("twistd", "-n", "--pidfile=", "sglang-d-simulator", "--pictures", "1")
# A small image takes a tenth of a second.
QUICK = 0.41

# Clients that wait at once, and what each has sent.
SIZE, BODY = int(os.environ.get("WAITING_CLIENTS", "2000")), 20_000
# What one of them may cost the router (bytes), and all bodies together.
PER_CLIENT, BODIES = 16 << 10, 40 << 20


def image(name: object, size: int = 0, *headers: str) -> bytes:
    """
    A request for a small image on a connection of its own.

    Args:
        size: Bytes of its body at least.
    """
    body = json.dumps({"prompt": f"{name}", "size": "64x64", "user": "x" * size}).encode()
    lines = (
        f"POST {IMAGES} HTTP/1.1",
        "Host: router",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


async def sent(port: int, request: bytes) -> Connection:
    """
    A client that has sent *request*.
    """
    client = await connect(port)
    client.write(request)
    return client


async def answered(client: Connection) -> Answer:
    """
    The one answer of a client.
    """
    [answer] = parse_answers(await client.until_closed(60.0))[0]
    return answer


def waiting(router: Router) -> int:
    """
    Jobs in line (count).
    """
    return len(router.service.turns.scheduler.line)


def running_jobs(router: Router) -> int:
    """
    Jobs at workers (count).
    """
    return len(router.service.turns.scheduler.floor.running)


def drawn(*stations: Station) -> list[str]:
    """
    The prompts that GPUs have begun with.
    """
    return [each.prompt for station in stations for each in station.worker.journal.generations]


@asynccontextmanager
async def held(fleet: Fleet) -> AsyncIterator[None]:
    """
    Every worker has one request within, which ends with the block and is served well.
    """
    for station in fleet.stations:
        station.order(slow=1e6)
    clients = [await sent(fleet.router.port, image("held")) for _ in fleet.stations]
    await eventually(lambda: running_jobs(fleet.router) == len(clients))
    await eventually(lambda: len(drawn(*fleet.stations)) >= len(clients))
    yield
    for station in fleet.stations:
        station.order(slow=1)
        station.finish()
    assert {(await answered(client)).status for client in clients} == {200}


# Clients.


@pytest_twisted.ensureDeferred
async def test_half_of_the_line_hangs_up() -> None:
    """
    Of fifty clients that wait half hang up: these are gone from the line at once, no worker ever
    sees their requests, and all others are served.
    """
    async with (
        standing("qwen-image", "qwen-image", speed=QUICK * 4) as stations,
        routed(stations, worker_concurrency=1) as fleet,
    ):
        router = fleet.router
        async with held(fleet):
            clients = [await sent(router.port, image(number)) for number in range(50)]
            await eventually(lambda: waiting(router) == 50)
            for client in clients[::2]:
                client.transport.abortConnection()
            await eventually(lambda: waiting(router) == 25)
        answers = [await answered(client) for client in clients[1::2]]
        assert {answer.status for answer in answers} == {200}
        await router.at_rest()
        assert running_jobs(router) == 0
        stayed = [f"{number}" for number in range(1, 50, 2)]
        assert sorted(drawn(*stations)) == sorted(["held", "held", *stayed])


@pytest_twisted.ensureDeferred
async def test_cancelled_from_elsewhere() -> None:
    """
    A client whose job another one cancels gets its answer on the spot, and its connection lives.
    """
    async with (
        standing("qwen-image", speed=QUICK) as stations,
        routed(stations, worker_concurrency=1) as fleet,
        held(fleet),
    ):
        client = await connect(fleet.router.port)
        client.write(image("waits").replace(b"Connection: close\r\n", b""))
        await eventually(lambda: waiting(fleet.router) == 1)
        [job] = (await fleet.ask("GET", "/queue")).json["waiting"]
        assert (await fleet.ask("DELETE", f"/queue/{job['id']}")).status == 200
        await client.until_received(b"cancelled")
        client.write(GET)
        await client.until_received(b"dp_size")
        statuses = [answer.status for answer in parse_answers(client.received)[0]]
        assert statuses == [409, 200]


@pytest_twisted.ensureDeferred
async def test_deadlines_and_a_full_line() -> None:
    """
    Who would be late, who became late, and who is one too many is told so on the wire.
    """
    soon = "X-Deadline-Ms: 100"
    async with (
        standing("qwen-image", speed=QUICK / 2) as stations,
        routed(stations, worker_concurrency=1, queue_size=3) as fleet,
    ):
        port = fleet.router.port
        async with held(fleet):
            answer = await answered(await sent(port, image("late", 0, soon)))
            assert (answer.status, answer.json["reason"]) == (504, "deadline")
        for _ in range(6):
            assert (await answered(await sent(port, image("teaches")))).status == 200
        answer = await answered(await sent(port, image("late", 0, soon)))
        assert (answer.status, answer.json["reason"]) == (429, "deadline")
        assert answer.headers[b"retry-after"] == b"%d" % answer.json["retry_after"]
        async with held(fleet):
            clients = [await sent(port, image(number)) for number in range(3)]
            await eventually(lambda: waiting(fleet.router) == 3)
            answer = await answered(await sent(port, image("too many")))
            assert (answer.status, answer.json["reason"]) == (503, "queue_full")
            assert answer.json["queue_position"] == 4
            assert answer.headers[b"retry-after"] == b"%d" % answer.json["retry_after"]
        assert [(await answered(client)).status for client in clients] == [200] * 3
        assert {"late", "too many"}.isdisjoint(drawn(*stations))


@pytest.mark.parametrize("size", [0, 100, 60_000, 1 << 16, (1 << 16) + 1, 1 << 20])
@pytest_twisted.ensureDeferred
async def test_bodies_of_those_who_waited(size: int) -> None:
    """
    Every byte of a request that waited arrives, and the answer is whole.
    """
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with (
        standing("qwen-image", speed=QUICK) as stations,
        routed(stations, worker_concurrency=1) as fleet,
    ):
        async with held(fleet):
            asking = Deferred.fromCoroutine(fleet.ask("POST", "/simulator/echo", data=body))
            await eventually(lambda: waiting(fleet.router) == 1)
        assert (await asking).body == body


@pytest_twisted.ensureDeferred
async def test_a_workers_own_timing_is_kept() -> None:
    """
    What a worker says in ``Server-Timing`` reaches the client beside what the router says.
    """
    async with exchange() as (_, _, client, at_worker):
        at_worker.write(
            b"HTTP/1.1 200 OK\r\nServer-Timing: gpu;dur=7\r\nContent-Length: 2\r\n\r\nok"
        )
        await client.until_received(b"\r\n\r\nok")
        told = re.findall(rb"Server-Timing: (.*)\r\n", client.received)
        assert told[0] == b"gpu;dur=7"
        assert re.fullmatch(rb"queue;dur=[0-9.]+, worker;dur=[0-9.]+", told[1])
        assert len(told) == 2


@pytest_twisted.ensureDeferred
async def test_tunnels_take_no_slot() -> None:
    """
    WebSockets open while all slots are taken; a realtime session takes its worker's slot, and what
    waits for that has its turn when the session ends.
    """
    async with (
        websocket_worker() as worker,
        running_router(worker.url, worker_concurrency=1) as router,
    ):

        def talk(session: ClientConnection) -> list[str | bytes | int]:
            session.send("mine")
            said: list[str | bytes | int] = [session.recv(20)]
            for _ in range(3):
                with connect_websocket(f"ws://127.0.0.1:{router.port}/echo") as other:
                    other.send("other")
                    said.append(other.recv(20))
            return [*said, waiting(router)]

        client = await connect(router.port)
        session = with_websocket(router.port, "/v1/realtime_video/generate", talk)
        await eventually(lambda: running_jobs(router) >= 1)
        client.write(image("waits"))
        assert await session == ["mine", "other", "other", "other", 1]
        await client.until_received(b"HTTP/1.1 ")  # the package knows GET only
        await router.at_rest()


# Workers.


@contextmanager
def processes(folder: Path, count: int, *words: str) -> Iterator[list[tuple[str, Popen[str]]]]:
    """
    Simulated workers as processes of their own, with their URLs, and up.
    """
    with ExitStack() as stack:
        found = []
        for number in range(count):
            home = folder / f"worker{number}"
            home.mkdir()
            port = free_port()
            command = (*SIMULATOR, "--port", str(port), *words)
            process = stack.enter_context(running(*command, cwd=home))
            found.append((f"http://127.0.0.1:{port}", process))
        for url, _ in found:
            once_up(f"{url}/health")
        yield found


@pytest_twisted.ensureDeferred
async def test_a_worker_dies_with_a_full_line(tmp_path: Path) -> None:
    """
    When a worker is killed, those whose requests it had get 502 and nobody repeats them; all who
    wait are served by the others, each once.
    """
    with processes(tmp_path, 3, "--speed", str(QUICK / 2)) as workers:
        urls = [url for url, _ in workers]
        async with running_router(*urls, worker_concurrency=1) as router:
            url, process = workers[1]
            await ask(url, "POST", "/simulator/faults", json={"slow": 1e6})
            clients = [await sent(router.port, image(number)) for number in range(40)]
            while not (await ask(url, "GET", "/simulator/log")).json["generations"]:
                await pause()
            assert waiting(router) > 0
            process.kill()
            process.wait()
            answers = [await answered(client) for client in clients]
            statuses = Counter(answer.status for answer in answers)
            assert statuses == {200: 39, 502: 1}
            [failed] = [answer for answer in answers if answer.status == 502]
            assert url in failed.json["error"]
            assert failed.headers[b"x-router-job"]
            await router.at_rest()
        made: Counter[str] = Counter()
        for other in (urls[0], urls[2]):
            generations = (await ask(other, "GET", "/simulator/log")).json["generations"]
            made.update(each["prompt"] for each in generations)
        assert set(made.values()) == {1}
        number = answers.index(failed)
        assert f"{number}" not in made


@pytest_twisted.ensureDeferred
async def test_all_workers_die_with_a_full_line(tmp_path: Path) -> None:
    """
    When nobody is left everybody who waits is told so, and nothing stays.
    """
    with processes(tmp_path, 2, "--speed", str(QUICK / 1000)) as workers:
        urls = [url for url, _ in workers]
        async with running_router(*urls, worker_concurrency=1) as router:
            clients = [await sent(router.port, image(number)) for number in range(20)]
            await eventually(lambda: waiting(router) == 18)
            for _, process in workers:
                process.kill()
                process.wait()
            statuses = Counter([(await answered(client)).status for client in clients])
            assert statuses == {502: 20}
            await router.at_rest()
            assert waiting(router) == running_jobs(router) == 0


# The router.


@asynccontextmanager
async def stopping_router(
    folder: Path, stations: list[Station], drain_timeout: float
) -> AsyncIterator[tuple[Popen[str], list[Connection]]]:
    """
    A router process with ten requests, one at the only worker and the others in line, that has been
    told to stop.
    """
    stations[0].order(slow=1e6)
    port = free_port()
    words = (
        *("--port", f"{port}", "--worker-urls", *(station.url for station in stations)),
        *("--worker-concurrency", "1", "--drain-timeout", f"{drain_timeout}"),
    )
    async with router_process(folder, *words) as process:
        clients = [await sent(port, image(number)) for number in range(10)]
        for _ in range(500):
            shown = (await ask(f"http://127.0.0.1:{port}", "GET", "/queue")).json
            if (shown["waiting_count"], len(drawn(*stations))) == (9, 1):
                break
            await pause()
        else:
            raise AssertionError(shown)
        process.send_signal(signal.SIGTERM)
        yield process, clients


@pytest_twisted.ensureDeferred
async def test_stopped_with_a_line_that_ends(tmp_path: Path) -> None:
    """
    A router that is told to stop serves its line to the end within ``drain_timeout``.
    """
    async with (
        standing("qwen-image", speed=QUICK * 2) as stations,
        stopping_router(tmp_path, stations, 30.0) as (process, clients),
    ):
        stations[0].order(slow=1)
        stations[0].finish()
        answers = [await answered(client) for client in clients]
        assert {answer.status for answer in answers} == {200}
        assert all(answer.closes for answer in answers)
        await eventually(lambda: process.poll() is not None, 10.0)


@pytest_twisted.ensureDeferred
async def test_stopped_with_a_line_that_does_not_end(tmp_path: Path) -> None:
    """
    What still waits after ``drain_timeout`` is cut, and the router is gone.
    """
    async with (
        standing("qwen-image", speed=QUICK) as stations,
        stopping_router(tmp_path, stations, 1.0) as (process, clients),
    ):
        for client in clients:
            await client.until_closed()
        await eventually(lambda: process.poll() is not None, 10.0)
        assert not any(b" 200 " in client.received for client in clients)
        assert drawn(*stations) == ["0"]


# Thousands.


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, uses epoll")
def test_thousands_wait(tmp_path: Path) -> None:
    """
    However many wait, and whatever they have sent: the router needs some KiB for each and a fixed
    room for their bodies, answers others meanwhile, and serves all of them.
    """
    port = free_port()
    manner = Manner(first=image("many", BODY))
    with many_files(2 * SIZE + 1000) as enough, processes(tmp_path, 1, "--speed", "1e4") as workers:
        if not enough:
            pytest.skip("too few open files are allowed")
        [(worker, _)] = workers
        url = f"http://127.0.0.1:{port}"
        words = ("--port", f"{port}", "--worker-urls", worker, "--worker-concurrency", "1")
        with running(*ROUTER, *words, cwd=tmp_path) as process:
            once_up(f"{url}/server_info")
            stuck = {"rules": [{"path": IMAGES, "times": 1, "first_byte": 3600}]}
            fetch(f"{worker}/simulator/faults", data=json.dumps(stuck).encode(), method="POST")
            with swarm(port, Manner(first=image("stuck")), 1) as first:
                until(lambda: counted(url, "running") == 1)
                before = memory_of(process.pid)
                with swarm(port, manner, SIZE) as clients:
                    until(lambda: counted(url, "waiting") == SIZE)
                    grown = memory_of(process.pid) - before
                    print(f"{SIZE} clients wait: {grown / SIZE / 1024:.1f} KiB each")
                    assert grown < SIZE * PER_CLIENT + BODIES
                    first.stop()
                    until(lambda: clients.ended.total() == SIZE)
                    assert clients.ended == {200: SIZE}
            until(lambda: counted(url, "running") == 0)
            assert memory_of(process.pid) - before < SIZE * PER_CLIENT + BODIES
        log = fetch(f"{worker}/simulator/log?last=0")
        assert log["generations_finished"] == SIZE + 1
    assert "Traceback" not in (tmp_path / "log").read_text()


def counted(url: str, what: str) -> int:
    """
    How many jobs of a router wait or run.
    """
    count: int = fetch(f"{url}/queue?limit=0")[f"{what}_count"]
    return count


def until(happened: Callable[[], bool], seconds: float = 120.0) -> None:
    """
    Return once *happened*; fail after *seconds*.
    """
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)
