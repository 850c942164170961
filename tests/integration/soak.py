"""
A soak: two routers between clients that come and go and workers that break, die and come back.

One router is a process of its own, whose memory, sockets and files show in ``/proc``; the other
runs in this process, where its delayed calls can be counted. When the storm is over both must be
as they were before it. In full length: ``python -m tests.integration.soak --minutes 10``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from subprocess import Popen
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from tests.integration.commands import free_port, memory_of
from tests.integration.faultproxy import faulty
from tests.integration.fleet import ask, router_process
from tests.integration.soak_clients import Visitors
from tests.integration.soak_fleet import Post, Weather, posted
from tests.integration.soak_holding import Holding, holding
from tests.integration.sockets import Router, eventually, reactor, running_router

OPTIONS: dict[str, Any] = {
    "timeout": 2.0,
    "connect_timeout": 0.5,
    "idle_timeout": 2.0,
    "read_timeout": 2.0,
    "health_check_interval": 0.5,
    "health_check_timeout": 1.0,
    "health_check_failure_threshold": 1_000_000,
    "job_poll_interval": 1.0,
}
# Seconds: idle connections have ended by the first, everything has at the latest by the second.
SETTLING, LONGEST = 6.0, 15.0
# The process may hold so much more memory after the storm (bytes), and grow so much more in the
# second half of a long one (bytes per minute).
GROWTH = 32 << 20
SLOPE = 2 << 20

_CALM_REQUESTS = 100
_SAMPLE_EVERY = 1.0
# A storm of so many seconds is long enough for a slope to mean something.
_LONG = 240.0


@frozen
class Plan:
    """
    One soak.

    Attributes:
        seconds: Length of the storm.
        seed: What faults come, and what clients do; not when exactly.
        clients: Clients at once, of each router (count).
    """

    seconds: float
    seed: int
    workers: int = 4
    clients: int = 12


@define(eq=False)
class Soak:
    """
    A soak under way.
    """

    plan: Plan
    posts: list[Post]
    process: Popen[str]
    inner: Router
    visitors: list[Visitors]
    weather: Weather
    log: Path
    memory: list[int] = field(factory=list)

    async def run(self) -> None:
        """
        Storm and calm.

        Raises:
            AssertionError: The routers did something wrong, or are not as they were before.
        """
        await self._all_visit()
        before = await self._settled()
        self.memory.append(memory_of(self.process.pid))
        await self._storm()
        assert not self._wrong(), "\n".join(self._wrong())
        await self._until_no_request_is_in_flight()
        await self._until_mended()
        await self._calm()
        after = await self._settled(before)
        assert after.within(before), f"{after}, and before the storm {before}"
        assert self.process.poll() is None
        assert "Traceback" not in self.log.read_text()
        self._check_memory()

    def table(self) -> str:
        """
        What happened, for people.
        """
        lines = [f"seed {self.plan.seed}, {self.plan.seconds:g} s of storm"]
        endings: Counter[tuple[str, str]] = Counter()
        for visitors in self.visitors:
            endings += visitors.score
        columns = sorted({ending for _, ending in endings})
        lines.append("requests".ljust(44) + "".join(each.rjust(8) for each in columns))
        for kind in sorted({kind for kind, _ in endings}):
            counts = [endings[kind, ending] for ending in columns]
            lines.append(kind.ljust(44) + "".join(f"{count:8}" for count in counts))
        lines.append("faults")
        for name, count in sorted(self.weather.happened.items()):
            lines.append(f"{name:44}{count:8}")
        sizes = [size >> 20 for size in self.memory] or [0]
        lines.append(f"router process: {sizes[0]} MiB before, {max(sizes)} most, {sizes[-1]} after")
        if self.plan.seconds >= _LONG:
            lines.append(f"in the second half {self._slope() / (1 << 20):+.1f} MiB per minute")
        return "\n".join(lines)

    # Steps.

    async def _all_visit(self) -> None:
        """Everything once, so that what is made once is there before it is counted."""
        for visitors in self.visitors:
            await visitors.each()
            await visitors.each()
            assert not visitors.wrong, visitors.wrong
            assert set(visitors.endings()) == {"200"}, visitors.score

    async def _storm(self) -> None:
        end = reactor.seconds() + self.plan.seconds

        async def visits(visitors: Visitors) -> None:
            while reactor.seconds() < end:
                await visitors.any()

        async def samples() -> None:
            while reactor.seconds() < end:
                await deferLater(reactor, _SAMPLE_EVERY)
                self.memory.append(memory_of(self.process.pid))

        proxies = [proxy for post in self.posts for proxy in post.proxies]
        storm = [self.weather.faults(proxy) for proxy in proxies] + [self.weather.losses()]
        clients = [visits(each) for each in self.visitors for _ in range(self.plan.clients)]
        raging = together(storm)
        await together([*clients, samples()])
        self.weather.clear_up()
        await raging
        for post in self.posts:
            post.start()

    async def _until_no_request_is_in_flight(self) -> None:
        urls = [f"http://127.0.0.1:{each.port}" for each in self.visitors]
        for _ in range(300):
            shown = [(await ask(url, "GET", "/workers")).json["workers"] for url in urls]
            busy = [each for fleet in shown for each in fleet if _busy(each)]
            if not busy:
                break
            await deferLater(reactor, 0.1)
        assert not busy, busy
        assert [worker.in_flight for worker in self.inner.service.pool] == [0] * len(self.posts)

    async def _until_mended(self) -> None:
        """Idle connections that swallow all look well, and end when they have idled long enough."""
        for post in self.posts:
            await post.until_up()
        proxies = [proxy for post in self.posts for proxy in post.proxies]
        await eventually(
            lambda: not any(link.broken for proxy in proxies for link in proxy.links), LONGEST
        )

    async def _calm(self) -> None:
        """
        After the storm every request is answered, and well.
        """
        for visitors in self.visitors:
            before = visitors.endings()

            async def visits(visitors: Visitors = visitors) -> None:
                for _ in range(_CALM_REQUESTS // 10):
                    await visitors.any(patient=True)

            await together([visits() for _ in range(10)])
            calm = visitors.endings() - before
            assert set(calm) == {"200"}, calm
        assert not self._wrong(), "\n".join(self._wrong())

    async def _settled(self, before: Holding | None = None) -> Holding:
        """
        The least that is held while idle connections have their time; with *before*, what is held
        as soon as it is no more than that, or at the end.
        """
        held = least = holding(self.process.pid)
        end = reactor.seconds() + (SETTLING if before is None else LONGEST)
        while reactor.seconds() < end and not (before and held.within(before)):
            await deferLater(reactor, 0.1)
            held = holding(self.process.pid)
            least = min(least, held, key=Holding.total)
        self.memory.append(memory_of(self.process.pid))
        return held if before else least

    # Looks.

    def _wrong(self) -> list[str]:
        sent = Counter(id for post in self.posts for each in post.proxies for id in each.ids)
        twice = [
            f"{id.decode()} was sent {sent[id]} times"
            for visitors in self.visitors
            for id in visitors.once
            if sent[id] > 1
        ]
        return twice + [wrong for visitors in self.visitors for wrong in visitors.wrong]

    def _check_memory(self) -> None:
        grown = self.memory[-1] - self.memory[0]
        assert grown < GROWTH, f"{grown >> 20} MiB more"
        if self.plan.seconds >= _LONG:
            assert self._slope() < SLOPE, f"{self._slope() / (1 << 20):.1f} MiB per minute"

    def _slope(self) -> float:
        """
        By how much the router process grew in the second half of the storm (bytes per minute).
        """
        half = self.memory[len(self.memory) // 2 :]
        return (half[-1] - half[0]) / (len(half) * _SAMPLE_EVERY / 60)


def _busy(worker: dict[str, Any]) -> bool:
    return bool(worker["active_requests"] or worker["jobs"])


def together(coroutines: list[Any]) -> Deferred[list[Any]]:
    """
    Fires when all have ended, fails when one does.
    """
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    return gatherResults(running, consumeErrors=True)


@asynccontextmanager
async def soaking(plan: Plan, folder: Path) -> AsyncIterator[Soak]:
    """
    A soak that is ready to run; its files are in *folder*.
    """
    random = Random(plan.seed)
    async with AsyncExitStack() as stack:
        posts = stack.enter_context(posted(folder, plan.workers))
        for post in posts:
            for _ in range(2):
                post.proxies.append(await stack.enter_async_context(faulty(post.port)))
        outer, inner = ([post.proxies[which].url for post in posts] for which in (0, 1))
        port = free_port()
        words = ["--port", str(port), "--worker-urls", *outer]
        for name, value in OPTIONS.items():
            words += [f"--{name.replace('_', '-')}", f"{value}"]
        process = await stack.enter_async_context(router_process(folder, *words))
        router = await stack.enter_async_context(running_router(*inner, **OPTIONS))
        visitors = [
            Visitors("outer", port, Random(random.random())),
            Visitors("inner", router.port, Random(random.random())),
        ]
        weather, log = Weather(posts, random), folder / "log"
        soak = Soak(plan, posts, process, router, visitors, weather, log)
        pool = router.service.pool
        await eventually(lambda: all(each.capabilities.names for each in pool), 60)
        await _ready(f"http://127.0.0.1:{port}")
        yield soak


async def _ready(url: str) -> None:
    for _ in range(300):
        workers = (await ask(url, "GET", "/workers")).json["workers"]
        if all(worker["model"] for worker in workers):
            return
        await deferLater(reactor, 0.1)
    raise AssertionError("the router does not know its workers")


async def soaked(plan: Plan, folder: Path) -> None:
    """
    Run a soak and print what happened.

    Raises:
        AssertionError: As `Soak.run`.
    """
    async with soaking(plan, folder) as soak:
        try:
            await soak.run()
        finally:
            print(soak.table())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the storm")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--clients", type=int, default=12, help="at once, of each router")
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    plan = Plan(given.minutes * 60, given.seed, given.workers, given.clients)
    print(f"seed {plan.seed}", flush=True)

    async def run(_: object) -> None:
        with tempfile.TemporaryDirectory() as folder:
            await soaked(plan, Path(folder))

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
