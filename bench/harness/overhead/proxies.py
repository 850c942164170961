"""
What is measured, and what stands behind it: how each program is started.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from bench.harness.overhead.configs import backend_config, haproxy_config, nginx_config
from bench.harness.overhead.programs import Program, running
from bench.harness.overhead.scenarios import KB, PEERS, Scenario
from bench.harness.ports import free_port

BACKEND = Path(__file__).with_name("backend.py")
ROUTER = (sys.executable, "-m", "twisted", "--log-format=text", "sglang-d-router")
FILES = (1, 2 << 10, 64 << 10)
# Room for clients besides the waiting ones.
_MORE_CONNECTIONS = 512


@frozen(kw_only=True)
class Ground:
    """
    What all proxies stand on.

    Attributes:
        folder: For configuration files and logs; in memory where there is such a folder.
        workers: Address and port of each worker; all are one backend.
        holder: Holds the requests to ``/slow``.
        open_files: Limit of each process (count).
    """

    folder: Path
    workers: tuple[str, ...]
    holder: Program
    open_files: int


Command = Callable[[Ground, Scenario, int], list[str]]
Look = Callable[[str], str | None]


@frozen
class Proxy:
    """
    One kind of proxy.

    Attributes:
        name: For tables.
        command: What runs it for a scenario on a port.
    """

    name: str
    command: Command

    @property
    def is_router(self) -> bool:
        return self.name not in PEERS


def found(program: str) -> str | None:
    """
    Path of a program; Debian keeps some where only root looks.
    """
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def proxies(
    router_commands: Sequence[Sequence[str]], look: Look = found
) -> tuple[list[Proxy], list[str]]:
    """
    The proxies to measure, and the names of peers that are not installed.

    Args:
        router_commands: Each starts a router when its options follow.
        look: Tells where a program is.
    """
    several = len(router_commands) > 1
    routers = [
        Proxy(f"router {number}" if several else "router", router_command(command))
        for number, command in enumerate(router_commands, 1)
    ]
    paths = {peer: look(peer) for peer in PEERS}
    commands: dict[str, Callable[[str], Command]] = {
        "nginx": nginx_command,
        "haproxy": haproxy_command,
    }
    peers = [Proxy(name, commands[name](path)) for name, path in paths.items() if path]
    return [*routers, *peers], [name for name, path in paths.items() if not path]


@contextmanager
def started(proxy: Proxy, ground: Ground, scenario: Scenario) -> Iterator[Program]:
    """
    *proxy*, ready for *scenario*, until the end of the context.

    Raises:
        ProgramFailed: It does not start.
    """
    port = free_port()
    with running(proxy.name, proxy.command(ground, scenario, port), port, ground.folder) as program:
        program.wait_until_quiet()
        yield program


@contextmanager
def backend(folder: Path, workers: int, open_files: int, look: Look = found) -> Iterator[Ground]:
    """
    The backend under so many addresses of loopback, until the end of the context: nginx, or where
    it is absent the program in `backend`.

    Args:
        look: Tells where a program is.

    Raises:
        ProgramFailed: It does not start.
    """
    nginx = look("nginx")
    port = free_port()
    hosts = [loopback(number) for number in range(workers)]
    addresses = tuple(f"{host}:{port}" for host in hosts)
    if nginx is None:
        command = [sys.executable, str(BACKEND), str(port), *hosts]
        with running("backend", command, port, folder) as holder:
            yield Ground(folder=folder, workers=addresses, holder=holder, open_files=open_files)
        return
    held = free_port()
    command = [sys.executable, str(BACKEND), str(held), "127.0.0.1"]
    with running("holder", command, held, folder) as holder:
        files = _files(folder / "backend")
        text = backend_config(
            files, addresses, f"127.0.0.1:{held}", port=free_port(), open_files=open_files
        )
        with running("backend", _nginx(nginx, files, text), port, folder):
            yield Ground(folder=folder, workers=addresses, holder=holder, open_files=open_files)


def loopback(number: int) -> str:
    """
    The loopback address of worker *number*, from 0 on.
    """
    return f"127.0.{number // 254}.{number % 254 + 1}"


def router_command(command: Sequence[str]) -> Command:
    """
    A router with its defaults; only scenarios with waiting requests allow it more of them.
    """

    def make(ground: Ground, scenario: Scenario, port: int) -> list[str]:
        urls = [f"--worker-urls=http://{worker}" for worker in _workers(ground, scenario)]
        more = []
        if scenario.waiting:
            more = [f"--max-connections={scenario.waiting + _MORE_CONNECTIONS}"]
        return [*command, "--host=127.0.0.1", f"--port={port}", *more, *urls]

    return make


def nginx_command(path: str) -> Command:
    """
    nginx as in `bench.harness.overhead.configs`.
    """

    def make(ground: Ground, scenario: Scenario, port: int) -> list[str]:
        folder = ground.folder / f"nginx-{port}"
        folder.mkdir()
        workers = _workers(ground, scenario)
        return _nginx(
            path, folder, nginx_config(folder, port, workers, open_files=ground.open_files)
        )

    return make


def haproxy_command(path: str) -> Command:
    """
    HAProxy as in `bench.harness.overhead.configs`.
    """

    def make(ground: Ground, scenario: Scenario, port: int) -> list[str]:
        file = ground.folder / f"haproxy-{port}.cfg"
        connections = scenario.waiting + _MORE_CONNECTIONS
        file.write_text(haproxy_config(port, _workers(ground, scenario), connections=connections))
        return [path, "-db", "-f", str(file)]

    return make


def _workers(ground: Ground, scenario: Scenario) -> tuple[str, ...]:
    return ground.workers[: scenario.workers]


def _nginx(path: str, folder: Path, config: str) -> list[str]:
    file = folder / "nginx.conf"
    file.write_text(config)
    return [path, "-p", str(folder), "-c", str(file), "-e", "stderr"]


def _files(folder: Path) -> Path:
    folder.mkdir()
    for size in FILES:
        (folder / f"{size}k").write_bytes(b"x" * (size * KB))
    return folder
