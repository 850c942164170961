"""
Simulated workers and a router as processes of their own, for tests that must know which weights
each answer was made with, whoever is killed on the way.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from attrs import define, field, frozen

from tests.integration.commands import BIN, environment, fetch

MODEL = "z-image-turbo"


class Refused(Exception):
    """
    An answer was not a good one.
    """


def lasting_port() -> int:
    """
    A free TCP port that no outgoing connection gets while the process that had it is away.
    """
    choices = random.SystemRandom()
    while True:
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", choices.randrange(10_000, 32_000)))
            except OSError:
                continue
            port: int = tried.getsockname()[1]
            return port


def until(happened: Callable[[], bool], seconds: float = 60.0, pause: float = 0.02) -> None:
    """
    Return once *happened*; fail after *seconds*.
    """
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(pause)


@define(eq=False)
class Child:
    """
    A command of this package as a process that comes and goes; its log is *name*``.log``.
    """

    folder: Path
    name: str
    words: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        assert self.process is None
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / self.words[0]), *self.words[1:]],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def up(self, url: str) -> None:
        """
        Return once *url* answers; fail with the log if the process ends before.
        """
        until(lambda: self._answers(url))

    def _answers(self, url: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            fetch(url)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """
        SIGKILL, if it runs; it is gone when this returns.
        """
        if self.process is not None:
            self.process.kill()
            self.waited()

    def waited(self) -> None:
        """
        Return when the process has ended, by itself or otherwise.
        """
        assert self.process is not None
        self.process.wait(30)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process = None

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()


@frozen(kw_only=True)
class Made:
    """
    A generation as the worker's journal has it.

    Attributes:
        ids: What the answer is known by.
        life: Which life of its worker it was (from 0).
        weights: Sum of all weights and adapters that it ran with.
        sources: Where each module's weights came from.
        started: Seconds of the machine's clock; so is *ended*, None if it never did.
    """

    worker: str
    life: int
    ids: tuple[str, ...]
    prompt: str
    seed: object
    weights: str
    sources: dict[str, str]
    started: float
    ended: float | None


@frozen(kw_only=True)
class Called:
    """
    A control call as the worker's journal has it, its times as in `Made`.

    Attributes:
        started: When the GPU took it.
        before: Sum of all weights and adapters before it; *after*: behind it. Equal if it failed.
    """

    worker: str
    life: int
    path: str
    asked: dict[str, Any]
    started: float
    ended: float | None
    before: str
    after: str
    error: str | None


@define(eq=False)
class WorkerProcess:
    """
    The place of a simulated worker. Its port and its journal stay when its process goes.
    """

    folder: Path
    model: str = MODEL
    speed: float = 100.0
    port: int = field(factory=lasting_port)
    child: Child = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journal.touch()
        words = (
            *("twistd", "-n", "--pidfile=", "sglang-d-simulator", "--exit-with-stdin"),
            *("--port", f"{self.port}", "--model", self.model, "--speed", f"{self.speed}"),
            *("--pictures", "2", "--video-side", "64", "--journal", str(self.journal)),
        )
        self.child = Child(self.folder, f"worker-{self.port}", words)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def journal(self) -> Path:
        return self.folder / f"worker-{self.port}.journal"

    def start(self) -> subprocess.Popen[bytes]:
        return self.child.start()

    def up(self) -> None:
        """
        Return once it answers.
        """
        self.child.up(f"{self.url}/health")

    def kill(self) -> None:
        self.child.kill()

    def restart(self) -> None:
        """
        Kill it, and start it again; it answers a little later, with its launch weights.
        """
        self.kill()
        self.start()

    def order(self, **document: Any) -> None:
        """
        Bring a fault document into force.
        """
        fetch(f"{self.url}/simulator/faults", data=json.dumps(document).encode())

    def spoil(self, path: str, **rule: Any) -> None:
        """
        Bring a fault into force for the next request for *path*.
        """
        self.order(rules=[{"path": path, "times": 1, **rule}])

    def tell(self, path: str, document: object) -> Any:
        """
        Its own answer to a POST, behind the router's back.
        """
        return fetch(f"{self.url}{path}", data=json.dumps(document).encode())

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """
        What its journal says, with the number of the life (from 0).
        """
        life = -1
        for line in self.journal.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                continue  # it is being written
            entry = json.loads(line)
            life += entry["what"] == "launch"
            yield life, entry

    @property
    def lives(self) -> int:
        """
        How often it was started (count).
        """
        return sum(entry["what"] == "launch" for _, entry in self.lines())

    @property
    def launches(self) -> list[float]:
        """
        When each of its lives began (seconds of the machine's clock).
        """
        return [entry["at"] for _, entry in self.lines() if entry["what"] == "launch"]

    def made(self) -> list[Made]:
        """
        Every generation that its GPU took, in all its lives, in order.
        """
        found = self._entries("generation", "started")
        return [
            Made(
                worker=self.url,
                life=life,
                ids=tuple(each["ids"]),
                **{name: each[name] for name in ("prompt", "seed", "weights", "sources")},
                **{name: each[name] for name in ("started", "ended")},
            )
            for life, each in found
        ]

    def called(self, *paths: str) -> list[Called]:
        """
        Every control call that its GPU took, in all its lives, in order; those for *paths*, if any
        are given.
        """
        names = ("path", "asked", "started", "ended", "before", "after", "error")
        return [
            Called(worker=self.url, life=life, **{name: each[name] for name in names})
            for life, each in self._entries("call", "arrived")
            if each["started"] is not None and (not paths or each["path"] in paths)
        ]

    def _entries(self, what: str, since: str) -> list[tuple[int, dict[str, Any]]]:
        # The GPU does one thing at a time: an entry and its end are two lines with one beginning.
        found: dict[Any, tuple[int, dict[str, Any]]] = {}
        for life, entry in self.lines():
            if entry["what"] == what:
                found[life, entry["started"], entry[since]] = life, entry
        return list(found.values())


@define(eq=False)
class RouterProcess:
    """
    The place of a router. Its port and its state file stay when its process goes.
    """

    folder: Path
    words: tuple[str, ...]
    port: int = field(factory=lasting_port)
    child: Child = field(init=False)

    def __attrs_post_init__(self) -> None:
        words = ("sglang-d-router", "--host", "127.0.0.1", "--port", f"{self.port}", *self.words)
        self.child = Child(self.folder, f"router-{self.port}", words)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        return self.child.start()

    def up(self) -> None:
        """
        Return once it answers.
        """
        self.child.up(f"{self.url}/liveness")

    def kill(self) -> None:
        self.child.kill()

    def ask(self, path: str, document: object = None) -> Any:
        """
        Its JSON answer, which must be a good one: to a POST of *document*, or to a GET without.

        Raises:
            Refused: It is not; the text has its status and body.
        """
        data = None if document is None else json.dumps(document).encode()
        try:
            return fetch(f"{self.url}{path}", data=data)
        except HTTPError as refused:
            with refused:
                text = refused.read(500).decode("utf-8", "replace")
            raise Refused(f"{path}: {refused.code} {text}") from None

    def states(self) -> dict[str, str]:
        """
        The state of each worker, by its URL.
        """
        return {each["url"]: each["state"] for each in self.ask("/workers")["workers"]}


@define(eq=False)
class WeightsFleet:
    """
    Worker processes and the router in front of them.
    """

    workers: list[WorkerProcess]
    router: RouterProcess

    def made(self) -> dict[str, Made]:
        """
        Every generation that a GPU took, by each id that it is known by.
        """
        return {id: each for worker in self.workers for each in worker.made() for id in each.ids}

    def ready(self, seconds: float = 60.0) -> None:
        """
        Return once every worker is in service.
        """
        until(lambda: all(state == "ready" for state in self.router.states().values()), seconds)


@contextmanager
def weights_fleet(
    folder: Path, count: int, *words: str, speed: float = 100.0, model: str = MODEL
) -> Iterator[WeightsFleet]:
    """
    *count* workers and a router, all in service; nothing of them is left afterwards.

    Args:
        words: Options of the router.
        speed: Of the workers, times that of the reference GPU.
    """
    workers = [WorkerProcess(folder, model, speed) for _ in range(count)]
    urls = [worker.url for worker in workers]
    router = RouterProcess(folder, ("--worker-urls", *urls, *words))
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.up()
        router.start()
        router.up()
        fleet = WeightsFleet(workers, router)
        fleet.ready()
        yield fleet
    finally:
        router.kill()
        for worker in workers:
            worker.kill()
