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

from bench.harness.arm import Arm
from bench.harness.children import Children
from bench.harness.client import Caller, Generations, http_client
from bench.harness.expected import lower_bound
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
from bench.harness.workload import Prompt, workload


class WarmupFailed(Exception):
    """A worker could not serve a request before the measurement."""


@frozen(kw_only=True)
class Measured:
    """
    Attributes:
        fleet: ``simulated``, ``sglang`` or ``running``.
        results: One per arm, all its measurements put together.
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
        for number in range(self.settings.repeat):
            seed = self.settings.seed + number
            prompts = workload(evolve(self.settings.plan, seed=seed))
            rounds.append([await self._measured(arm, prompts, fleet) for arm in self.settings.arms])
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
        generations = self._generations(url, [url])
        for prompt in self._rehearsal(self.settings.warmup):
            outcome = await generations.send(prompt)
            if outcome.error:
                raise WarmupFailed(f"warm-up of {url}: {outcome.error} (--warmup 0 leaves it out)")

    async def _teach(self, router: Router, workers: Sequence[str]) -> None:
        prompts = self._rehearsal(self.settings.router_warmup)
        load = Load(self.caller.reactor, self._generations(router.url, workers).send)
        # More than one each, so that algorithms that look at what is in flight use all of them.
        for record in await load.closed_loop(prompts, 2 * len(workers)):
            if not record.ok:
                raise WarmupFailed(f"warm-up of the router: {record.outcome.error}")

    def _rehearsal(self, count: int) -> tuple[Prompt, ...]:
        if not count:
            return ()
        seed = self.settings.seed - 1
        return workload(evolve(self.settings.plan, count=count, request_rate=None, seed=seed))

    async def _measured(self, arm: Arm, prompts: Sequence[Prompt], fleet: Fleet) -> Result:
        router = await self._router(arm, fleet)
        await self._teach(router, fleet.urls)
        before = await self._counts(fleet.urls)
        records = await self._load(router.url, arm, prompts, fleet.urls)
        after = await self._counts(fleet.urls)
        if router.child is not None:
            await router.child.close(self.caller.reactor)
        return Result(
            algorithm=arm.name,
            duration=max(record.finished for record in records),
            records=tuple(sorted(records, key=lambda record: record.prompt.index)),
            served=_served(fleet.urls, before, after, records),
            bound=_bound(self.settings, prompts) if fleet.kind == "simulated" else None,
        )

    async def _router(self, arm: Arm, fleet: Fleet) -> Router:
        if self.settings.skip_router:
            return self._running_router()
        router = start_router(self.children, self.settings, arm, fleet.urls)
        await wait_until_healthy(self.caller, [router.url], 60.0, router)
        return router

    def _running_router(self) -> Router:
        assert self.settings.router_url is not None
        return Router(self.settings.router_url)

    async def _load(
        self, url: str, arm: Arm, prompts: Sequence[Prompt], workers: Sequence[str]
    ) -> list[Record]:
        settings = self.settings
        generations = evolve(
            self._generations(url, workers), headers=_batch_headers(settings, len(prompts))
        )
        with _bar(settings, arm.name, len(prompts)) as bar:

            def on_record(record: Record) -> None:
                bar.update()
                if not record.ok:
                    tqdm.write(f"request {record.prompt.index}: {record.outcome.error}", sys.stderr)

            load = Load(self.caller.reactor, generations.send, on_record)
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


def _batch_headers(settings: Settings, size: int) -> dict[str, str]:
    if settings.batch is None:
        return {}
    return {"X-Rollout-Batch": settings.batch, "X-Rollout-Size": str(size)}


def _bound(settings: Settings, prompts: Sequence[Prompt]) -> float:
    assert settings.known_model is not None
    return lower_bound(settings.known_model, settings.task, prompts, settings.speeds)


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
