"""
How workers and routers are started: commands, ports, GPUs. Nothing is started here.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.arm import Arm
from bench.harness.fleet import how_simulated, sglang_command, shared_out, simulator_command
from bench.harness.machine import GPU, visible_gpus
from bench.harness.options import Settings, read_settings
from bench.harness.ports import (
    WorkerPorts,
    free_port,
    is_free,
    unasked_ports,
    worker_ports,
)
from bench.harness.router import router_command

PORTS = WorkerPorts(http=30000, master=31000, scheduler=32000)


def read(*words: str) -> Settings:
    return read_settings("bench.py", words, compare=False)


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@given(
    count=st.integers(1, 16),
    base=st.integers(1024, 40000),
    taken=st.sets(st.integers(0, 200), max_size=60),
)
def test_ports_are_never_shared(count: int, base: int, taken: set[int]) -> None:
    """
    No two workers meet on a port, the one above each HTTP port included, and none was taken.
    """
    busy = {base + offset for offset in taken}
    ports = worker_ports(count, base, lambda port: port not in busy)
    used = [port for own in ports for port in (own.http, own.http + 1, own.master, own.scheduler)]
    assert len(set(used)) == len(used) == 4 * count
    assert not busy & set(used)


def test_ports_run_out() -> None:
    """
    Where nothing is free the bench says so.
    """
    with pytest.raises(ValueError, match="not enough free ports for 2 workers"):
        worker_ports(2, 30000, lambda port: False)


def test_a_free_port_stays_free() -> None:
    """
    Free ports are all different and can be listened on, and the system does not give them to those
    who ask for any: whoever does so many times gets none of them.
    """
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50
    assert all(is_free(port) for port in ports)
    with ExitStack() as stack:
        servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(200)]
        given = {stack.enter_context(server).getsockname()[1] for server in servers}
        clients = [socket.create_connection(server.getsockname()) for server in servers]
        given |= {stack.enter_context(client).getsockname()[1] for client in clients}
    if min(given) < 11_000:
        pytest.skip("the system chooses from nearly all ports")
    assert min(given) > max(ports)


@pytest.mark.parametrize(
    ("first_given", "first", "last"),
    [
        (32768, 10_000, 29_999),
        (20_000, 10_000, 19_999),
        (10_500, 10_000, 29_999),
        (1024, 10_000, 29_999),
    ],
)
def test_ports_that_only_those_get_who_ask(first_given: int, first: int, last: int) -> None:
    """
    They end where the system's own choice begins; where that leaves too few it is put up with.
    """
    ports = unasked_ports(first_given)
    assert (ports[0], ports[-1]) == (first, last)


def test_sglang_command() -> None:
    """
    A real worker gets ports of its own, must not move to others, and counts its generations.
    """
    settings = read("--model", "qwen-image", "--num-gpus-per-worker", "2")
    command = sglang_command(settings, PORTS, Path("/tmp/out"))
    assert command[:2] == ["sglang", "serve"]
    assert option(command, "--model-path") == "Qwen/Qwen-Image"
    assert option(command, "--port") == "30000"
    assert option(command, "--strict-ports") == "true"
    assert option(command, "--master-port") == "31000"
    assert option(command, "--scheduler-port") == "32000"
    assert option(command, "--num-gpus") == "2"
    assert "--enable-metrics" in command


def test_extra_arguments_come_last() -> None:
    """
    So that they win over the bench's own.
    """
    settings = read("--worker-extra-args", "--a 'b c'", "--router-extra-args=--verbose")
    assert sglang_command(settings, PORTS, Path("/tmp/out"))[-2:] == ["--a", "b c"]
    assert router_command(settings, Arm("random"), ["http://w:1"], 1)[-1] == "--verbose"


def test_simulator_command() -> None:
    """
    A simulated worker has its own speed and seed and ends with the bench.
    """
    settings = read("--speed", "10", "--worker-speeds", "1,0.5", "--seed", "7")
    command = simulator_command(settings, 1, 0.5)
    assert "--exit-with-stdin" in command
    assert {"--speed=5", "--seed=8", "--model=qwen-image"} <= set(command)


def test_large_loads_do_not_wait_in_the_router() -> None:
    """
    The router's limit of connections is never below the concurrency of the load.
    """
    command = router_command(read("--max-concurrency", "5000"), Arm("random"), [], 1)
    assert "--max-connections=5000" in command


def test_router_gets_the_limit_of_its_arm() -> None:
    """
    What the arm does not say is left to the router.
    """
    limits = [
        [word for word in router_command(read(), arm, [], 1) if "concurrency" in word]
        for arm in (Arm("random"), Arm("least-work", 0), Arm("least-work", "auto"))
    ]
    assert limits == [[], ["--worker-concurrency=0"], ["--worker-concurrency=auto"]]


def test_gpus_are_shared_out() -> None:
    """
    Each worker gets GPUs of its own; too few are an error, none found is left to sglang.
    """
    found = [GPU(str(number), "H100") for number in range(4)]
    assert shared_out(found, 2, 2) == ["0,1", "2,3"]
    assert shared_out([], 2, 2) == []
    with pytest.raises(ValueError, match="6 GPUs, this machine has 4"):
        shared_out(found, 3, 2)


def test_visible_gpus() -> None:
    """
    ``CUDA_VISIBLE_DEVICES`` limits and orders the GPUs.
    """
    listing = "0, NVIDIA H100\n1, NVIDIA A100\n"
    assert visible_gpus(listing, None) == [GPU("0", "NVIDIA H100"), GPU("1", "NVIDIA A100")]
    assert visible_gpus(listing, "1") == [GPU("1", "NVIDIA A100")]
    assert visible_gpus(listing, "GPU-5e1f") == [GPU("GPU-5e1f", "")]
    assert visible_gpus(listing, "") == []
    assert visible_gpus("", "0") == []


def test_simulation_is_explained() -> None:
    """
    Simulating says why, and refuses a model that it does not know; a running fleet is never
    simulated.
    """
    assert how_simulated(read("--simulate")) == "asked for"
    assert how_simulated(read("--no-simulate")) is None
    assert how_simulated(read("--skip-workers", "--worker-urls", "http://w:1")) is None
    with pytest.raises(ValueError, match="none of"):
        how_simulated(read("--simulate", "--model", "somebody/unheard-of"))
