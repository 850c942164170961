"""
Ports for workers and routers that are started here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import islice

from attrs import frozen

# From the first HTTP port on: far enough apart for more workers than one machine has GPUs.
_MASTER = 1000
_SCHEDULER = 2000
_SCHEDULER_STEP = 16
_LAST = 65535


@frozen(kw_only=True)
class WorkerPorts:
    """
    The ports of one ``sglang serve`` process.

    Attributes:
        http: Its API; the port above is used too, by its request broker.
        master: For the torch process group.
        scheduler: For the first of its GPU processes.
    """

    http: int
    master: int
    scheduler: int


def worker_ports(count: int, base: int, free: Callable[[int], bool]) -> list[WorkerPorts]:
    """
    Ports for *count* workers on one machine, all different.

    Args:
        base: The first HTTP port to try.
        free: Whether a port can be had.

    Raises:
        ValueError: There are not enough.
    """
    pairs = (port for port in range(base, base + _MASTER - 1, 2) if free(port) and free(port + 1))
    masters = filter(free, range(base + _MASTER, base + _SCHEDULER))
    schedulers = filter(free, range(base + _SCHEDULER, _LAST, _SCHEDULER_STEP))
    triples = zip(pairs, masters, schedulers, strict=False)
    ports = [WorkerPorts(http=a, master=b, scheduler=c) for a, b, c in islice(triples, count)]
    if len(ports) < count or base + _SCHEDULER > _LAST:
        raise ValueError(f"not enough free ports for {count} workers from {base} on")
    return ports


def is_free(port: int) -> bool:
    """
    Whether *port* can be listened on now, on all addresses of this machine.
    """
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """
    A port of loopback that nobody listens on now.
    """
    with socket.create_server(("127.0.0.1", 0)) as trial:
        port: int = trial.getsockname()[1]
    return port


def listening_sockets(count: int) -> Iterator[socket.socket]:
    """
    Sockets that listen on free ports of loopback; the caller closes them.
    """
    return (socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(count))
