"""
``kill -9`` of the router at any moment of an update of weights, in front of workers whose journals
tell what every answer was made with.

A longer one: ``WEIGHTS_KILLS=300 WEIGHTS_SEED=7 pytest -s`` with this file. The seed is printed.
"""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from sgl_droute.workers.refitting import MODES
from tests.integration.commands import fetch
from tests.integration.weights_clients import (
    UPDATE,
    Clients,
    Fence,
    asking,
    check_fence,
    check_order,
    proven,
)
from tests.integration.weights_fleet import (
    Refused,
    WeightsFleet,
    WorkerProcess,
    until,
    weights_fleet,
)

KILLS = int(os.environ.get("WEIGHTS_KILLS", "30"))
SEED = int(os.environ.get("WEIGHTS_SEED", "1"))

# An update takes a worker a fifth of a second, a picture some hundredths.
SPEED = 20.0
WORKERS = 3
CLIENTS = 6
OPTIONS = ("--health-check-interval", "0.2", "--health-check-failure-threshold", "1000000")

# Seconds until the fleet is back at work, on a machine that has much else to do.
PATIENCE = 30.0
# Seconds that a worker told to be slow is busy before the update.
BUSY = 0.4

TROUBLES: dict[str, dict[str, Any]] = {
    "slow": {"busy": BUSY},
    "fails": {"status": 500},
    "fails after all": {"status": 500, "work": True},
    "refuses": {"status": 400, "body": {"success": False, "message": "no"}},
    "cuts": {"drop": True},
    "cuts after all": {"drop": True, "work": True},
}
# Of these the GPU, and so the journal, learns nothing.
UNSEEN = ("fails", "refuses", "cuts")
OPEN = "nobody knows whether it took"


@frozen(kw_only=True)
class Round:
    """
    An update, and what befalls it.

    Attributes:
        share: When the router is killed: the part of the update's usual time; 1 is its end.
        trouble: What goes wrong at one worker; none of `TROUBLES` for nothing.
        proven: Whether checksums of the epoch before are known.
        restarted: Whether a worker is restarted too: before the router is, or behind it.
        resolution: What an operator does where the router needs one.
    """

    mode: str
    verify: bool
    share: float
    trouble: str
    proven: bool
    restarted: str
    resolution: str


def rounds(chance: random.Random, count: int) -> Iterator[Round]:
    """
    *count* of them. Kills are spread evenly over the time of each mode.
    """
    each = -(-count // len(MODES))
    shares = {
        mode: chance.sample([1.2 * (n + chance.random()) / each for n in range(each)], each)
        for mode in MODES
    }
    for number in range(count):
        mode = MODES[number % len(MODES)]
        yield Round(
            mode=mode,
            verify=chance.random() < 0.3,
            share=shares[mode][number // len(MODES)],
            trouble=chance.choice([*TROUBLES, "missing", *[""] * 5]),
            proven=chance.random() < 0.6,
            restarted=chance.choice(["before", "after", *[""] * 6]),
            resolution=chance.choice(["retry", "accept", "abandon", "update"]),
        )


@define(eq=False)
class Update:
    """
    One update as its caller sees it.

    Attributes:
        checkpoint: What is loaded.
        told: The answer, if there was one.
    """

    fleet: WeightsFleet
    checkpoint: str
    mode: str
    verify: bool
    told: Any = None
    _thread: threading.Thread = field(init=False)

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def ended(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _ask(self) -> None:
        options = f"mode={self.mode}&verify={str(self.verify).lower()}"
        asked = {"model_path": self.checkpoint}
        with suppress(OSError, http.client.HTTPException, Refused):  # the router is killed
            self.told = self.fleet.router.ask(f"{UPDATE}?{options}", asked)


@define(eq=False)
class Driver:
    """
    Takes a fleet through one round after the other.

    Attributes:
        clients: At work all the time.
        number: That of the last checkpoint.
        usual: By mode, how long an update takes here (seconds).
        phases: At what the kills came (count).
        operated: What operators had to do (count).
        fences: The fenced updates.
        history: By epoch, the checkpoint that the router says it comes from.
    """

    fleet: WeightsFleet
    clients: Clients
    number: int = 0
    usual: dict[str, float] = field(factory=dict)
    phases: Counter[str] = field(factory=Counter)
    operated: Counter[str] = field(factory=Counter)
    fences: list[Fence] = field(factory=list)
    history: dict[int, set[str]] = field(factory=dict)

    def update(self, mode: str, *, verify: bool = False, missing: bool = False) -> Update:
        self.number += 1
        checkpoint = f"checkpoints/{'missing-' * missing}{self.number}"
        return Update(self.fleet, checkpoint, mode, verify)

    def whole(self, mode: str) -> None:
        """
        Make an update that nothing befalls.
        """
        update = self.update(mode)
        began = time.monotonic()
        update.begin()
        update.ended()
        self.usual[mode] = time.monotonic() - began
        assert update.told["consistent"], update.told
        if mode == "fenced":
            self.fences.append(Fence(update.checkpoint, time.time()))

    def broken(self, plan: Round, chance: random.Random) -> None:
        """
        Make an update and kill the router in it.
        """
        if not plan.proven:
            self.whole("broadcast")
        victim = chance.choice(self.fleet.workers)
        if plan.trouble in TROUBLES:
            victim.spoil(UPDATE, **TROUBLES[plan.trouble])
        update = self.update(plan.mode, verify=plan.verify, missing=plan.trouble == "missing")
        seconds = plan.share * (self.usual[plan.mode] + BUSY * (plan.trouble == "slow"))
        update.begin()
        time.sleep(seconds / 2)
        unlucky = chance.choice(self.fleet.workers)
        if plan.restarted == "before":
            unlucky.restart()
        time.sleep(seconds / 2)
        killed = time.time()
        self.fleet.router.kill()
        if plan.mode == "fenced":
            exempt = [
                *[victim.url] * (plan.trouble in UNSEEN),
                *[unlucky.url] * (plan.restarted == "before"),
            ]
            self.fences.append(Fence(update.checkpoint, killed, frozenset(exempt)))
        update.ended()
        if plan.restarted == "after":
            unlucky.restart()
        self.phases[self._phase(update, killed)] += 1
        for worker in self.fleet.workers:
            worker.up()
            fetch(f"{worker.url}/simulator/faults", method="DELETE")
        self.fleet.router.start()
        self.fleet.router.up()
        if update.told is not None:
            assert self.fleet.router.ask("/weights")["epoch"] >= update.told["epoch"]
        self.settle(plan)
        print(f"  {update.checkpoint} {plan} {update.told and update.told['epoch']}", flush=True)

    def settle(self, plan: Round) -> None:
        """
        Return once the whole fleet is at work, without an operator wherever that is promised.
        """
        needs: list[str] = []

        def settled() -> bool:
            shown = self.fleet.router.ask("/weights")
            self._note(shown)
            behind = [each for each in shown["workers"] if each["state"] != "current"]
            reasons = {each["reason"] or "" for each in behind}
            known = any(each["checksum"] for each in shown["models"])
            if shown["interrupted"] and not known and all(OPEN in each for each in reasons):
                needs.append("operator")
            return bool(needs) or not (behind or shown["interrupted"])

        try:
            until(settled, PATIENCE)
        except AssertionError:
            raise AssertionError(f"{plan}: {self.fleet.router.ask('/weights')}") from None
        if needs:
            self._operate(plan.resolution)
        self.fleet.ready(PATIENCE)
        began = time.time()
        until(lambda: bool(self.clients.claims) and self.clients.claims[-1].when > began)

    def _operate(self, resolution: str) -> None:
        self.operated[resolution] += 1
        try:
            if resolution != "update":
                self.fleet.router.ask("/weights/resolve", {"action": resolution})
        except Refused as refused:
            self.operated[str(refused)] += 1
        shown = self.fleet.router.ask("/weights")
        if resolution == "abandon":
            aside = [each for each in shown["workers"] if each["state"] != "current"]
            for each in aside:
                self._worker(each["url"]).restart()
            # What the router learns in its last half second may be lost with it.
            self.fleet.ready(PATIENCE)
            time.sleep(1.0)
        elif shown["interrupted"] or any(each["state"] != "current" for each in shown["workers"]):
            update = self.update("broadcast")
            update.begin()
            update.ended()
            assert update.told["consistent"], update.told

    def _worker(self, url: str) -> WorkerProcess:
        return next(each for each in self.fleet.workers if each.url == url)

    def _phase(self, update: Update, killed: float) -> str:
        calls = [
            each
            for worker in self.fleet.workers
            for each in worker.called(UPDATE)
            if each.asked["model_path"] == update.checkpoint and each.started <= killed
        ]
        if not calls:
            return "before the first call"
        running = any(each.ended is None or each.ended > killed for each in calls)
        if running or len(calls) < WORKERS:
            return "between"
        return "after the last answer" if update.told is None else "when it was told"

    def _note(self, shown: Any) -> None:
        for each in shown["history"]:
            checkpoint = each["body"].split('"')[3]
            for epoch in each["epochs"].values():
                self.history.setdefault(epoch, set()).add(checkpoint)


def test_the_router_is_killed_in_updates(tmp_path: Path) -> None:
    """
    Whenever the router is killed, no answer tells another epoch than that of the weights it was
    made with: answers of one epoch come from the same weights, those of a later epoch from no
    earlier update, and what the router tells of its updates agrees. Behind a fence nobody works.
    The fleet is back at work without an operator, but where no checksums are known.
    """
    chance = random.Random(SEED)
    print(f"WEIGHTS_SEED={SEED} WEIGHTS_KILLS={KILLS}")
    state = f"sqlite:///{tmp_path}/router.sqlite"
    with (
        weights_fleet(tmp_path, WORKERS, "--state", state, *OPTIONS, speed=SPEED) as fleet,
        asking(fleet.router.url, CLIENTS) as clients,
    ):
        driver = Driver(fleet, clients)
        until(lambda: len(clients.claims) > CLIENTS)
        for mode in MODES:
            driver.whole(mode)
        try:
            for each in rounds(chance, KILLS):
                driver.broken(each, chance)
        finally:
            checkpoints = proven(fleet, list(clients.claims))
        print(dict(driver.phases), dict(driver.operated), dict(clients.refusals), driver.usual)
        check_order(checkpoints)
        assert sum(check_fence(fleet, each) for each in driver.fences) > KILLS // 6
        told = {epoch: driver.history[epoch] for epoch in checkpoints if epoch in driver.history}
        assert told == {epoch: {checkpoints[epoch]} for epoch in told}
        assert driver.phases["between"] > KILLS // 4
        assert "Traceback" not in fleet.router.child.log
