"""
Clients that ask a router for pictures all the time, whoever is killed meanwhile, and proofs of what
the answers claim of the weights that made them.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from attrs import define, field, frozen

from tests.integration.weights_fleet import Made, WeightsFleet

UPDATE = "/update_weights_from_disk"
LAUNCH = "launch"
SIZE = {"size": "512x512"}

# Seconds between two requests of a client that gets none through.
_PAUSE = 0.03


@frozen
class Claim:
    """
    One answer.

    Attributes:
        epoch: Its ``X-Weights-Epoch``.
        when: When it came (seconds since 1970).
    """

    id: str
    epoch: str | None
    when: float


@define(eq=False)
class Clients:
    """
    What clients were answered.

    Attributes:
        claims: The good answers, in order.
        refusals: The other ones, by what they said (count).
    """

    url: str
    claims: list[Claim] = field(factory=list)
    refusals: Counter[str] = field(factory=Counter)
    _numbers: Iterator[int] = field(factory=itertools.count)
    _ending: threading.Event = field(factory=threading.Event)

    def ask(self) -> None:
        """
        Ask for one picture.
        """
        wish = {"prompt": "a fox", "seed": next(self._numbers), **SIZE}
        request = Request(
            f"{self.url}/v1/images/generations",
            json.dumps(wish).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=30) as answer:
                id = json.load(answer)["id"]
                self.claims.append(Claim(id, answer.headers["X-Weights-Epoch"], time.time()))
        except HTTPError as refused:
            with refused:
                self.refusals[f"{refused.code} {refused.read(200).decode()}"] += 1
            self._ending.wait(_PAUSE)
        except (OSError, http.client.HTTPException):
            self.refusals["none"] += 1
            self._ending.wait(_PAUSE)

    def run(self) -> None:
        """
        Ask again and again, until `stop`.
        """
        while not self._ending.is_set():
            self.ask()

    def stop(self) -> None:
        self._ending.set()


@contextmanager
def asking(url: str, count: int) -> Iterator[Clients]:
    """
    *count* clients of the router at *url*, at work until the end of the block.
    """
    clients = Clients(url)
    threads = [threading.Thread(target=clients.run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.stop()
        for thread in threads:
            thread.join()


def weights_of(made: Made) -> str:
    """
    The one checkpoint that a generation ran with.
    """
    [source] = set(made.sources.values())
    return source if source.startswith("checkpoints/") else LAUNCH


def proven(fleet: WeightsFleet, claims: Iterable[Claim]) -> dict[int, str]:
    """
    By epoch the checkpoint that made its answers; fails if an answer claims another epoch than that
    of the weights it was made with.
    """
    made = fleet.made()
    sums: defaultdict[int, set[str]] = defaultdict(set)
    checkpoints: defaultdict[int, set[str]] = defaultdict(set)
    for claim in claims:
        assert claim.epoch is not None
        assert claim.epoch.isdigit(), f"{claim} tells no single epoch"
        generation = made[claim.id]
        sums[int(claim.epoch)].add(generation.weights)
        checkpoints[int(claim.epoch)].add(weights_of(generation))
    mixed = {epoch: sources for epoch, sources in checkpoints.items() if len(sources) > 1}
    assert not mixed, f"answers of one epoch were made with different weights: {mixed}"
    assert all(len(each) == 1 for each in sums.values())
    return {epoch: sources.pop() for epoch, sources in sorted(checkpoints.items())}


@frozen
class Fence:
    """
    A fenced update, as far as its router lived.

    Attributes:
        killed: When it was killed (seconds since 1970).
        exempt: URLs of the workers in whose journal the call of the update may be missing.
    """

    checkpoint: str
    killed: float
    exempt: frozenset[str] = frozenset()


def check_order(checkpoints: dict[int, str]) -> None:
    """
    Epochs follow the order of the updates, and 0 is what workers are launched with.
    """
    numbers = [
        0 if each == LAUNCH else int(each.rpartition("/")[2]) for each in checkpoints.values()
    ]
    assert numbers == sorted(numbers), checkpoints
    assert {epoch for epoch, each in checkpoints.items() if each == LAUNCH} <= {0}, checkpoints
    assert checkpoints.get(0, LAUNCH) == LAUNCH, checkpoints


def check_fence(fleet: WeightsFleet, fence: Fence) -> bool:
    """
    From the first to the last call of a fenced update no worker ran a generation, as far as its
    router lived. Whether any worker was called.
    """
    calls = [
        each
        for worker in fleet.workers
        if worker.url not in fence.exempt
        for each in worker.called(UPDATE)
        if each.asked["model_path"] == fence.checkpoint and each.started < fence.killed
    ]
    # What a worker is told again comes after the update.
    firsts = {each.worker: each for each in reversed(calls)}.values()
    if not firsts:
        return False
    began = min(each.started for each in firsts)
    ended = min(fence.killed, max(each.ended or fence.killed for each in firsts))
    for worker in fleet.workers:
        launches = worker.launches
        for each in worker.made():
            killed = launches[each.life + 1] if each.life + 1 < len(launches) else fence.killed
            over = each.ended or killed
            assert over <= began or each.started >= ended, (fence, began, ended, each)
    return True
