"""
How low an ordering gets: one line before all workers, with exact knowledge and no router between.

These are marks to compare the scheduler with, not ways to run a fleet: some serve their figure at
the cost of everything else.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from bench.harness.summary import percentile
from bench.harness.virtual.workloads import Request

# Who is next: of those that wait, the request with the smallest key.
Order = Callable[[Request], tuple[float, ...]]


def alone(requests: Sequence[Request]) -> list[float]:
    """
    The ends if nobody ever waited, which no ordering beats on workers of speed 1.
    """
    return [request.at + request.seconds for request in requests]


def one_line(requests: Sequence[Request], speeds: Sequence[float], order: Order) -> list[float]:
    """
    The ends when a worker takes the next one in *order* as soon as it is free; the fastest of the
    free workers first.
    """
    ends = [0.0] * len(requests)
    idle = [(-speed, number) for number, speed in enumerate(speeds)]
    heapq.heapify(idle)
    busy: list[tuple[float, tuple[float, int]]] = []
    waiting: list[tuple[tuple[float, ...], int]] = []
    coming = 0
    while coming < len(requests) or waiting:
        now = min(
            busy[0][0] if busy else float("inf"),
            requests[coming].at if coming < len(requests) else float("inf"),
        )
        while busy and busy[0][0] <= now:
            heapq.heappush(idle, heapq.heappop(busy)[1])
        while coming < len(requests) and requests[coming].at <= now:
            heapq.heappush(waiting, (order(requests[coming]), coming))
            coming += 1
        while idle and waiting:
            worker = heapq.heappop(idle)
            number = heapq.heappop(waiting)[1]
            ends[number] = now + requests[number].seconds / -worker[0]
            heapq.heappush(busy, (ends[number], worker))
    return ends


def references(
    requests: Sequence[Request], speeds: Sequence[float]
) -> Mapping[str, Sequence[float]]:
    """
    The ends of *requests* by the name of each reference.
    """
    largest = percentile(sorted(request.seconds for request in requests), 99.1)
    orders: dict[str, Order] = {
        "one line, first come first served": lambda request: (request.at,),
        "one line, shortest first": lambda request: (request.seconds,),
        "one line, head start of own duration": lambda request: (request.at - request.seconds,),
        "one line, largest 0.9 % last": lambda request: (request.seconds > largest, request.at),
    }
    ends: dict[str, Sequence[float]] = {
        name: one_line(requests, speeds, order) for name, order in orders.items()
    }
    return {**ends, "nobody ever waits": alone(requests)}
