"""
Ports for workers and routers that are started here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from random import SystemRandom

from attrs import frozen

# From the first HTTP port on: far enough apart for more workers than one machine has GPUs.
_MASTER = 1000
_SCHEDULER = 2000
_SCHEDULER_STEP = 16
_LAST = 65535

# Tells the ports that Linux gives to whoever asks for any one.
_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
# In other systems and by default in Linux they begin here or above.
_FIRST_GIVEN = 32768
# Above many services, and below the port that routers and workers have by default.
_FREE = range(10_000, 30_000)
_ENOUGH = 1000


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
    A port that nobody listens on now, and another one each time.

    It is none of those that the system itself chooses from: between now and the caller's use, such
    a port could become that of any connection on this machine, or of a server on port 0.
    """
    return next(_free_ports)


def unasked_ports(first_given: int) -> range:
    """
    Ports that only those get who ask for that very one, or any if these are too few to choose from.

    Args:
        first_given: The first of those that the system chooses from.
    """
    ports = range(_FREE.start, min(_FREE.stop, first_given))
    return ports if len(ports) >= _ENOUGH else _FREE


def _in_turn() -> Iterator[int]:
    first_given = int(_GIVEN.read_text().split()[0]) if _GIVEN.exists() else _FIRST_GIVEN
    ports = list(unasked_ports(first_given))
    # An order of its own for each process, whatever seed a test sets.
    SystemRandom().shuffle(ports)
    return filter(is_free, cycle(ports))


_free_ports = _in_turn()


def listening_sockets(count: int) -> Iterator[socket.socket]:
    """
    Sockets that listen on free ports of loopback; the caller closes them.
    """
    return (socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(count))
