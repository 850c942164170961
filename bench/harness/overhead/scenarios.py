"""
What is measured: the list of scenarios. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

KB = 1 << 10
MB = 1 << 20

# What the router is set against.
PEERS = ("nginx", "haproxy")

# Seconds between the router's health checks; a window of this length holds one round of them.
HEALTH_INTERVAL = 10
MOST_WAITING = 9000
# Descriptors of a router besides two for each request in flight.
_OTHER_FILES = 512


@frozen(kw_only=True)
class Scenario:
    """
    One load, the same for every proxy.

    Attributes:
        name: As ``--only`` takes it.
        group: Name of several that belong together; ``--only`` takes it too.
        size: Bytes of each answer, or of each request body for an upload.
        connections: Client connections that send without a pause (count).
        workers: Worker addresses behind the proxy (count).
        waiting: Requests that are held open through the proxy meanwhile (count).
        window: Seconds of one measurement where they matter; None leaves them to the options.
    """

    name: str
    group: str
    size: int = KB
    connections: int = 32
    upload: bool = False
    workers: int = 1
    waiting: int = 0
    window: int | None = None

    @property
    def path(self) -> str:
        """
        What is asked of the backend.
        """
        if self.upload:
            return "/upload"
        return f"/{self.size // KB}k"

    @property
    def in_flight(self) -> int:
        """
        Requests that a proxy has at once (count).
        """
        return self.connections + self.waiting


def scenarios(open_files: int) -> tuple[Scenario, ...]:
    """
    All of them, in the order of measurement.

    Args:
        open_files: Hard limit of a process; it bounds the requests in flight, which take two
            descriptors each (count).
    """
    return (
        *(_answers(connections) for connections in (1, 32, 256)),
        Scenario(name="2m-4", group="large", size=2 * MB, connections=4),
        Scenario(name="64m-4", group="large", size=64 * MB, connections=4),
        Scenario(name="upload-4", group="upload", size=MB, connections=4, upload=True),
        *(_fleet(workers) for workers in (1, 10, 100, 1000)),
        *(_waiting(count) for count in _counts(most_waiting(open_files))),
        Scenario(name="hold", group="hold", connections=0, waiting=most_waiting(open_files)),
    )


def chosen(known: Sequence[Scenario], names: Iterable[str]) -> tuple[Scenario, ...]:
    """
    Those of *known* that *names* or whose group they name; all when there are no names.

    Raises:
        ValueError: A name is neither.
    """
    wanted = set(names)
    unknown = wanted - {each.name for each in known} - {each.group for each in known}
    if unknown:
        raise ValueError(f"no scenario is called {', '.join(sorted(unknown))}")
    return tuple(each for each in known if not wanted or {each.name, each.group} & wanted)


def most_waiting(open_files: int) -> int:
    """
    Requests that a process with *open_files* descriptors can hold open, 9000 at most (count).
    """
    return max(1, min(MOST_WAITING, (open_files - _OTHER_FILES) // 2))


def _answers(connections: int) -> Scenario:
    return Scenario(name=f"1k-{connections}", group="answers", connections=connections)


def _fleet(workers: int) -> Scenario:
    return Scenario(name=f"fleet-{workers}", group="fleet", workers=workers, window=HEALTH_INTERVAL)


def _waiting(count: int) -> Scenario:
    return Scenario(name=f"waiting-{count}", group="waiting", waiting=count)


def _counts(most: int) -> list[int]:
    return [*(count for count in (1, 100, 1000) if count < most), most]
