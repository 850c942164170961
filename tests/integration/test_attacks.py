"""
Thousands of clients that behave badly at a running router, beside one that wants its answers.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define

from tests.integration.answers import Answer, assert_well_told, parse_answers
from tests.integration.commands import fetch, free_port, memory_of, once_up, running
from tests.integration.swarm import Manner, many_files, swarm

SIZE = 2000
# Seconds: the router's limits, and for how long good clients ask.
READ, IDLE, ATTACK = 2, 2, 4.0

ROUTER = ("twistd", "-n", "--pidfile=", "sglang-d-router", "--log-level", "warn")
SIMULATOR = ("twistd", "-n", "--pidfile=", "sglang-d-simulator")
HEAD = b"GET /server_info HTTP/1.1\r\nHost: h\r\n"
LIVENESS = b"GET /liveness HTTP/1.1\r\nHost: h\r\n\r\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, uses epoll")


@define
class Target:
    """
    A router process under attack.
    """

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def in_flight(self) -> int:
        workers = fetch(f"{self.url}/workers")["workers"]
        return sum(worker["active_requests"] for worker in workers)

    def answer_times(
        self, seconds: float, enough: Callable[[], bool] = lambda: True
    ) -> list[float]:
        """
        How long each request took of those sent one after the other for *seconds* at least, and
        until *enough*, each on a connection of its own; one that fails raises.
        """
        times: list[float] = []
        end = time.monotonic() + seconds
        while (begun := time.monotonic()) < end or not enough():
            assert begun < end + 30, "it never was enough"
            assert fetch(f"{self.url}/server_info")["version"]
            times.append(time.monotonic() - begun)
        return times


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A router with short limits in front of a simulated worker."""
    worker, port = free_port(), free_port()
    folder = tmp_path / "worker"
    folder.mkdir()
    words = (
        *(*ROUTER, "--port", str(port), "--worker-urls", f"http://127.0.0.1:{worker}"),
        *("--read-timeout", str(READ), "--idle-timeout", str(IDLE), "--max-connections", "5000"),
    )
    with many_files(4 * SIZE) as enough:
        if not enough:
            pytest.skip("too few open files are allowed")
        with (
            running(*SIMULATOR, "--port", str(worker), cwd=folder),
            running(*words, cwd=tmp_path) as process,
        ):
            once_up(f"http://127.0.0.1:{worker}/health")
            once_up(f"http://127.0.0.1:{port}/server_info")
            yield Target(port, process.pid)
    assert "Traceback" not in (tmp_path / "log").read_text()


def eventually(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """
    Return once *happened*; fail after *seconds*.
    """
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


# What each client does, and what becomes of it while it is there.
ATTACKS: dict[str, tuple[Manner, set[int | str]]] = {
    "slow headers": (Manner(first=HEAD + b"X: ", drip=b"y"), {408}),
    "header after header": (Manner(first=HEAD, drip=b"X: y\r\n"), {408}),
    "slow bodies": (
        Manner(first=b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n", drip=b"y"),
        {408},
    ),
    "slow chunks": (
        Manner(
            first=b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
            drip=b"1\r\ny\r\n",
        ),
        {408},
    ),
    "idle": (Manner(), set()),
    "idle after an answer": (Manner(first=LIVENESS), set()),
    "half-closed": (Manner(half_closes=True), {"closed"}),
    "half-closed inside a head": (Manner(first=HEAD, half_closes=True), {"closed"}),
    # More than the kernel's buffers hold, so that the router sees it.
    "answers never read": (
        Manner(
            first=b"GET /simulator/bytes?size=30000000 HTTP/1.1\r\nHost: h\r\n\r\n", reads=False
        ),
        {"reset"},
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(attack: str, target: Target) -> None:
    """
    While 2000 clients behave badly all good requests are answered, not much later than else, and
    memory is bounded: 64 KiB for each. The bad ones are told or cut when their time is over, and
    leave nothing.
    """
    manner, fate = ATTACKS[attack]
    left = 0 if fate else SIZE
    calm = target.answer_times(1.0)
    files, memory = target.open_files, memory_of(target.pid)
    with swarm(target.port, manner, SIZE) as attackers:
        pressed = target.answer_times(ATTACK, lambda: attackers.ended.total() >= SIZE - left)
        most = memory_of(target.pid)
        assert attackers.opened == SIZE
        assert set(attackers.ended) == fate
    if manner.reads:  # the others keep the worker busy too, until they are cut
        assert statistics.median(pressed) < 20 * statistics.median(calm) + 0.1
    assert max(pressed) < 15
    assert most - memory < SIZE << 16, f"{(most - memory) >> 20} MiB more"
    eventually(lambda: target.in_flight == 0)
    eventually(lambda: target.open_files <= files + 5)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def liveness(client: socket.socket) -> int | None:
    """
    The status of an answer on *client*, which may be used again if it is 200; None without one.
    """
    client.sendall(LIVENESS)
    received = b""
    while not parse_answers(received)[0]:
        if not (data := client.recv(1 << 16)):
            return None
        received += data
    return parse_answers(received)[0][0].status


def told(client: socket.socket) -> list[Answer]:
    """
    All that *client* is told, without asking, until it is closed.
    """
    received = b""
    while data := client.recv(1 << 16):
        received += data
    answers, rest = parse_answers(received)
    assert rest == b""
    return answers


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Target]:
    """A router that takes 50 clients at once."""
    port = free_port()
    words = (*ROUTER, "--port", str(port), "--max-clients", "50")
    with running(*words, cwd=tmp_path) as process:
        once_up(f"http://127.0.0.1:{port}/liveness")
        yield Target(port, process.pid)


def test_one_client_too_many(small: Target) -> None:
    """
    The client beyond ``--max-clients`` is told so and closed at once; when another leaves, the next
    gets in.
    """
    clients = [connected(small.port) for _ in range(50)]
    assert [liveness(client) for client in clients] == [200] * 50
    for _ in range(3):
        with connected(small.port) as beyond:
            [answer] = told(beyond)
        assert answer.status == 503
        assert answer.closes
        assert_well_told(answer)
    assert [liveness(client) for client in clients] == [200] * 50
    clients.pop().close()

    def gets_in() -> bool:
        client = connected(small.port)
        try:
            if liveness(client) == 200:
                clients.append(client)
                return True
        except ConnectionError:
            pass
        client.close()
        return False

    eventually(gets_in)
    assert not gets_in()
    for client in clients:
        client.close()


def test_far_too_many_clients(small: Target) -> None:
    """
    However many come beyond the limit: each is told or closed, and those inside are served.
    """
    clients = [connected(small.port) for _ in range(50)]
    assert [liveness(client) for client in clients] == [200] * 50
    files = small.open_files
    with many_files(4 * SIZE) as enough:
        if not enough:
            pytest.skip("too few open files are allowed")
        with swarm(small.port, Manner(first=LIVENESS), SIZE) as beyond:
            for _ in range(20):
                assert [liveness(client) for client in clients] == [200] * 50
            eventually(lambda: beyond.ended.total() == SIZE)
            assert set(beyond.ended) <= {503, "closed", "reset"}
            assert beyond.ended[503] > 0
    assert [liveness(client) for client in clients] == [200] * 50
    eventually(lambda: small.open_files <= files)
    for client in clients:
        client.close()
