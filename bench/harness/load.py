"""
When requests are sent: as fast as the concurrency allows, or at their times of arrival.

What sending one means, and over which network, is given from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bench.harness.summary import Outcome, Record
from bench.harness.together import together
from bench.harness.workload import Prompt

Send = Callable[[Prompt], Coroutine[Deferred[Any], Any, Outcome]]


@define(eq=False)
class Load:
    """
    Sends a workload once and keeps a record of each request.

    Args:
        send: Sends one request; must not fail.
        on_record: Called after each request.
    """

    clock: IReactorTime
    send: Send
    on_record: Callable[[Record], object] = lambda record: None
    _records: list[Record] = field(factory=list, init=False)
    _began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self.clock.seconds()

    async def closed_loop(self, prompts: Iterable[Prompt], concurrency: int) -> list[Record]:
        """
        Keep *concurrency* requests under way: each answer makes room for the next request.
        """
        waiting = iter(prompts)
        await together(self._lane(waiting) for _ in range(concurrency))
        return self._records

    async def open_loop(self, prompts: Iterable[Prompt], concurrency: int) -> list[Record]:
        """
        Send each request at its time of arrival, or later when *concurrency* are under way; the
        wait for that counts in its latency.
        """
        slots = DeferredSemaphore(concurrency)
        await together(self._arriving(prompt, slots) for prompt in prompts)
        return self._records

    async def _lane(self, waiting: Iterator[Prompt]) -> None:
        for prompt in waiting:
            await self._one(prompt, self._now())

    async def _arriving(self, prompt: Prompt, slots: DeferredSemaphore) -> None:
        await deferLater(self.clock, max(0.0, prompt.arrival - self._now()))
        await slots.acquire()
        try:
            await self._one(prompt, prompt.arrival)
        finally:
            slots.release()

    async def _one(self, prompt: Prompt, arrived: float) -> None:
        sent = self._now()
        outcome = await self.send(prompt)
        record = Record(
            prompt=prompt, arrived=arrived, sent=sent, finished=self._now(), outcome=outcome
        )
        self._records.append(record)
        self.on_record(record)

    def _now(self) -> float:
        return self.clock.seconds() - self._began
