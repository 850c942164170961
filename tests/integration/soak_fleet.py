"""
The fleet of a soak: simulated worker processes behind faulty proxies, killed, stopped and started
again.
"""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from attrs import define, field
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from tests.integration.commands import BIN, environment, free_port
from tests.integration.faultproxy import FaultProxy
from tests.integration.faults import (
    ANSWER,
    BODY,
    CONNECT,
    HEAD,
    HEAD_END,
    REQUEST,
    UPLOAD,
    Fault,
)
from tests.integration.fleet import ask, pause
from tests.integration.sockets import reactor

AT_THE_PORT = (Fault.REFUSED, Fault.UNREACHABLE)
_IN_AN_EXCHANGE = [fault for fault in Fault if fault not in AT_THE_PORT]
# Junk inside a body that has a length is a body like any other: nobody could tell.
_UNNOTICED = {(Fault.GARBAGE, HEAD_END), (Fault.GARBAGE, BODY)}
# So is the end of a body without a length; simulated workers give none of these.
_MOMENTS = (CONNECT, REQUEST, UPLOAD, ANSWER, HEAD, HEAD_END, BODY)


@define(eq=False)
class Post:
    """
    A simulated worker's place: its process comes and goes, its port and its proxies stay.

    Attributes:
        proxies: One for each router.
    """

    folder: Path
    port: int = field(factory=free_port)
    proxies: list[FaultProxy] = field(factory=list)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """
        Start the worker, if it is not running.
        """
        if self.process is not None:
            return
        words = (
            *("twistd", "-n", "--pidfile=", "sglang-d-simulator"),
            *("--port", str(self.port), "--model", "cosmos3", "--speed", "1000"),
            *("--pictures", "2", "--video-side", "64", "--output-path", str(self.folder)),
            "--exit-with-stdin",
        )
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def until_up(self) -> None:
        """
        Return once the worker, which was started, answers.
        """
        for _ in range(600):
            try:
                await ask(f"http://127.0.0.1:{self.port}", "GET", "/health")
            except ConnectError:
                await pause(0.1)
            else:
                return
        raise AssertionError(f"no worker at {self.port}")

    def kill(self) -> None:
        """
        Let the worker be gone at once, if it is there.
        """
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)


@define(eq=False)
class Weather:
    """
    What happens to the fleet in a storm.

    Attributes:
        happened: How often what happened (count).
    """

    posts: list[Post]
    random: Random
    happened: Counter[str] = field(factory=Counter)
    _over: bool = False

    async def faults(self, proxy: FaultProxy) -> None:
        """
        Let things go wrong at one proxy until the storm is over.
        """
        while not self._over:
            before = proxy.struck
            name = await self._something(proxy)
            for _ in range(20):
                await deferLater(reactor, self.random.uniform(0.0, 0.1))
                if proxy.struck > before:
                    break
            await deferLater(reactor, self.random.uniform(0.0, 0.5))
            self.happened[name] += proxy.struck - before
            await proxy.heal()

    async def losses(self) -> None:
        """
        Kill and stop workers, one after the other, until the storm is over.
        """
        while not self._over:
            post = self.random.choice(self.posts)
            if self.random.random() < 0.5:
                self.happened["worker: SIGKILL, started again"] += 1
                post.kill()
                await deferLater(reactor, self.random.uniform(0.0, 1.0))
                post.start()
                await deferLater(reactor, self.random.uniform(1.5, 3.0))
            else:
                self.happened["worker: SIGSTOP, SIGCONT"] += 1
                post.signal(signal.SIGSTOP)
                await deferLater(reactor, self.random.uniform(0.1, 3.0))
                post.signal(signal.SIGCONT)
                await deferLater(reactor, self.random.uniform(0.0, 1.0))

    def clear_up(self) -> None:
        """
        Let the storm be over.
        """
        self._over = True

    async def _something(self, proxy: FaultProxy) -> str:
        drawn = self.random.random()
        if drawn < 0.1:
            fault = self.random.choice(AT_THE_PORT)
            await proxy.arm(fault, CONNECT)
            return f"{fault.name} {CONNECT}"
        fault, moment = self.random.choice(_IN_AN_EXCHANGE), self.random.choice(_MOMENTS)
        if drawn < 0.3 and fault is not Fault.GARBAGE:
            proxy.strike(fault)
            return f"{fault.name} on all connections"
        if (fault, moment) not in _UNNOTICED:
            await proxy.arm(fault, moment)
        return f"{fault.name} {moment}"


@contextmanager
def posted(folder: Path, count: int) -> Iterator[list[Post]]:
    """
    So many running workers; their files are in *folder*.
    """
    posts = [Post(folder) for _ in range(count)]
    try:
        for post in posts:
            post.start()
        yield posts
    finally:
        for post in posts:
            post.kill()
