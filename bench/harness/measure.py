"""
One benchmark from its settings to its results: starts what is needed, warms up, measures, ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, evolve, frozen
from tqdm import tqdm  # type: ignore[import-untyped]

from bench.harness.children import Children
from bench.harness.client import Caller, Generations, http_client
from bench.harness.fleet import (
    Fleet,
    how_simulated,
    start_sglang,
    start_simulated,
    wait_until_healthy,
)
from bench.harness.load import Load
from bench.harness.options import Settings
from bench.harness.router import Router, start_router, workers_of
from bench.harness.summary import Record, Result, merged
from bench.harness.together import together
from bench.harness.workload import workload


class WarmupFailed(Exception):
    """A worker could not serve a request before the measurement."""


@frozen(kw_only=True)
class Measured:
    """
    Attributes:
        fleet: ``simulated``, ``sglang`` or ``running``.
        results: One per algorithm, all its measurements put together.
    """

    fleet: str
    results: tuple[Result, ...]


async def measure(reactor: Any, settings: Settings, say: Callable[[str], object]) -> Measured:
    """
    What *settings* ask for, measured. All processes that it started are gone when it returns.

    Args:
        say: Takes a line for the user.

    Raises:
        ChildFailed, WarmupFailed, ValueError: It could not be measured; the text says why.
    """
    why = how_simulated(settings)
    if why is not None:
        say(f"Workers are simulated: {why}.")
    caller = Caller(reactor, http_client(reactor, settings.max_concurrency), settings.timeout)
    with TemporaryDirectory(prefix="sgl-droute-bench-") as folder:
        children = Children(reactor, Path(folder))
        try:
            bench = _Bench(settings, caller, children, say)
            return await bench.run(simulated=why is not None)
        finally:
            await children.close()


@define(eq=False)
class _Bench:
    settings: Settings
    caller: Caller
    children: Children
    say: Callable[[str], object]

    async def run(self, *, simulated: bool) -> Measured:
        fleet = await self._fleet(simulated)
        if self.settings.warmup:
            await together(self._warm(url) for url in fleet.urls)
        rounds = []
        for _ in range(self.settings.repeat):
            results = [await self._measured(each, fleet) for each in self.settings.algorithms]
            rounds.append(results)
        return Measured(
            fleet=fleet.kind,
            results=tuple(merged(results) for results in zip(*rounds, strict=True)),
        )

    async def _fleet(self, simulated: bool) -> Fleet:
        settings = self.settings
        if settings.skip_router:
            return Fleet("running", await workers_of(self.caller, self._running_router()))
        if settings.skip_workers:
            fleet = Fleet("running", settings.worker_urls)
        elif simulated:
            fleet = start_simulated(self.children, settings)
        else:
            fleet = start_sglang(self.children, settings, self.children.folder)
        self.say(f"Waiting for {len(fleet.urls)} workers: {' '.join(fleet.urls)}")
        await wait_until_healthy(self.caller, fleet.urls, settings.startup_timeout, fleet)
        return fleet

    async def _warm(self, url: str) -> None:
        plan = evolve(self.settings.plan, count=self.settings.warmup, request_rate=None)
        generations = self._generations(url, [url])
        for prompt in workload(evolve(plan, seed=plan.seed - 1)):
            outcome = await generations.send(prompt)
            if outcome.error:
                raise WarmupFailed(f"warm-up of {url}: {outcome.error} (--warmup 0 leaves it out)")

    async def _measured(self, algorithm: str, fleet: Fleet) -> Result:
        router = await self._router(algorithm, fleet)
        before = await self._counts(fleet.urls)
        records = await self._load(router.url, algorithm, fleet.urls)
        after = await self._counts(fleet.urls)
        if router.child is not None:
            await router.child.close(self.caller.reactor)
        return Result(
            algorithm=algorithm,
            duration=max(record.finished for record in records),
            records=tuple(sorted(records, key=lambda record: record.prompt.index)),
            served=_served(fleet.urls, before, after, records),
        )

    async def _router(self, algorithm: str, fleet: Fleet) -> Router:
        if self.settings.skip_router:
            return self._running_router()
        router = start_router(self.children, self.settings, algorithm, fleet.urls)
        await wait_until_healthy(self.caller, [router.url], 60.0, router)
        return router

    def _running_router(self) -> Router:
        assert self.settings.router_url is not None
        return Router(self.settings.router_url)

    async def _load(self, url: str, algorithm: str, workers: Sequence[str]) -> list[Record]:
        settings = self.settings
        prompts = workload(settings.plan)
        with _bar(settings, algorithm, len(prompts)) as bar:

            def on_record(record: Record) -> None:
                bar.update()
                if not record.ok:
                    tqdm.write(f"request {record.prompt.index}: {record.outcome.error}", sys.stderr)

            load = Load(self.caller.reactor, self._generations(url, workers).send, on_record)
            loop = load.open_loop if settings.request_rate else load.closed_loop
            return await loop(prompts, settings.max_concurrency)

    def _generations(self, url: str, workers: Sequence[str]) -> Generations:
        settings = self.settings
        extra: dict[str, object] = {"model": settings.model}
        if settings.task == "image":
            extra["response_format"] = settings.response_format
        return Generations(self.caller, settings.task, url, workers, extra, settings.poll_interval)

    async def _counts(self, workers: Sequence[str]) -> list[int | None]:
        return await together(self.caller.generations(worker) for worker in workers)


def _served(
    workers: Sequence[str],
    before: Sequence[int | None],
    after: Sequence[int | None],
    records: Sequence[Record],
) -> dict[str, int | None]:
    """
    Generations of each worker: counted by the bench where it knows who had each request, else by
    the workers.
    """
    known = [record.outcome.worker for record in records if record.ok]
    if known and None not in known:
        return {worker: known.count(worker) for worker in workers}
    counts = zip(workers, before, after, strict=True)
    return {
        worker: None if start is None or end is None else end - start
        for worker, start, end in counts
    }


def _bar(settings: Settings, algorithm: str, total: int) -> Any:
    shown = sys.stderr.isatty() if settings.progress is None else settings.progress
    return tqdm(total=total, desc=algorithm, unit="req", disable=not shown, file=sys.stderr)
