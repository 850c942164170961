"""
A fleet whose weights are updated while it works, and the truth about what each picture was made
with.
"""

from __future__ import annotations

import json as jsons
import os
from collections.abc import Iterable
from typing import Any

from attrs import define, field, frozen

from sgl_droute.fleet.loras import SET
from sgl_droute.fleet.weights import DISK, TENSOR
from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.journal import Call, Generation
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.weights import Weights
from tests.memory import Client, MemoryRouter, Reply
from tests.run import WRITING, Run

# Whether tests are to try more, for longer.
LONG = bool(os.environ.get("SGL_DROUTE_LONG_TESTS"))

IMAGES = "/v1/images/generations"
ROLLOUT = "/rollout/generate"
VIDEOS = "/v1/videos"
EDITS = "/v1/images/edits"
CHECKSUM = "/get_weights_checksum"
RELEASE = "/release_memory_occupation"
RESUME = "/resume_memory_occupation"
EPOCH = "X-Weights-Epoch"
IMAGE = {"prompt": "a red fox", "size": "64x64"}
# A picture takes 0.4 s, an update from disk 4 s, a LoRA call 1.5 s, checksums and an update from
# tensors 0.5 s, release and resume 1 s.
QUICK = SimulatorSettings(model="flux.2-klein", pictures=1)

# Doings of the router at which it may be killed.
STEPS = frozenset({WRITING, DISK, TENSOR, SET, CHECKSUM, "/stats"})


def fleet(*workers: str, **options: Any) -> MemoryRouter:
    """
    A router that has met its workers.
    """
    options = {"simulator": QUICK, "timeout": 20.0, "health_check_interval": 5.0, **options}
    router = MemoryRouter(*workers, **options)
    router.service.startService()
    router.settle()
    return router


def answered(router: MemoryRouter, client: Client, limit: float = 600.0) -> Reply:
    """
    What *client* is answered in the end.
    """
    router.until(lambda: bool(client.reply or client.failure), limit)
    assert client.reply is not None, client.failure
    return client.reply


def call(router: MemoryRouter, path: str, json: object = None, **options: Any) -> Reply:
    """
    The answer to a POST.
    """
    return answered(router, router.begin("POST", path, json=json or {}, **options))


def update(router: MemoryRouter, source: str, query: str = "", **fields: Any) -> Reply:
    """
    The answer to an update of all modules from disk.
    """
    return answered(router, updating(router, source, query, **fields))


def updating(router: MemoryRouter, source: str, query: str = "", **fields: Any) -> Client:
    """
    An update under way.
    """
    return router.begin("POST", f"{DISK}{query}", json={"model_path": source, **fields})


def tensors(router: MemoryRouter, text: str, query: str = "", **fields: Any) -> Reply:
    """
    The answer to an update from tensors.
    """
    body = {"serialized_named_tensors": [text], **fields}
    return call(router, f"{TENSOR}{query}", body)


def image(router: MemoryRouter, **headers: str) -> Client:
    """
    A picture under way.
    """
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return router.begin("POST", IMAGES, json=IMAGE, headers=given)


def epoch_of(reply: Reply) -> str:
    """
    The epoch that an answer says it was made at.
    """
    values = reply.headers.getRawHeaders(EPOCH)
    assert values is not None, reply.body
    [value] = values
    return str(value)


def url(name: str) -> str:
    return f"http://{name}:1"


def urls(names: Iterable[str]) -> list[str]:
    return [url(name) for name in names]


def weights(router: MemoryRouter) -> Any:
    """
    What ``GET /weights`` tells.
    """
    return router.ask("GET", "/weights").json


def states(router: MemoryRouter) -> dict[str, str]:
    """
    The state of each worker by the first letter of its name.
    """
    return {worker.url[7:-2]: worker.state for worker in router.service.pool}


def epochs(router: MemoryRouter) -> dict[str, int | None]:
    """
    The epoch of each worker by its name.
    """
    return {worker.url[7:-2]: worker.epoch for worker in router.service.pool}


def sources(router: MemoryRouter, name: str) -> set[str]:
    """
    Where the weights of a worker came from.
    """
    return set(router.workers[name].weights.sources.values())


def fault(router: MemoryRouter, name: str, path: str = DISK, **rule: Any) -> None:
    """
    Have a worker misbehave at the next call to *path*.
    """
    rule = {"path": path, "times": 1, **rule}
    router.workers[name].backstage.obey(parse_orders({"rules": [rule]}))


def orders(router: MemoryRouter, name: str) -> list[str]:
    """
    The calls that a worker's GPU has done, or was to do.
    """
    return [each.path for each in router.workers[name].journal.calls]


def change(router: MemoryRouter, name: str, **wish: object) -> Reply:
    """
    The answer to an operator's wish for a worker.
    """
    return router.ask("PUT", f"/workers/http%3A%2F%2F{name}%3A1", json=wish)


def restart(router: MemoryRouter, name: str) -> None:
    """
    A new process, after a health check found the old one gone.
    """
    router.kill_worker(name)
    router.wait(6)
    router.start_worker(name)


def stop(router: MemoryRouter) -> None:
    """
    Stop the router in order; `MemoryRouter.start_again` starts another one.
    """
    ended: list[object] = []
    router.service.stopService().addBoth(ended.append)
    router.until(lambda: bool(ended))
    router.kill()


@frozen
class Sent:
    """
    A picture that a client asked for.

    Attributes:
        least: The epoch that the fleet was known to have reached then.
    """

    name: str
    client: Client
    run: Run
    least: int


@define(eq=False)
class Traffic:
    """
    Clients that ask for pictures, and what they got.

    Args:
        router: Whom they ask.
        gap: Seconds between two pictures, unless others are named.

    Attributes:
        left: The names of those whose client has hung up.
    """

    router: MemoryRouter
    gap: float = 0.25
    sent: list[Sent] = field(factory=list)
    least: int = 0
    payloads: dict[str, str] = field(factory=dict)
    left: set[str] = field(factory=set)

    def leave(self) -> None:
        """
        Have the last client hang up, if it waits still.
        """
        if self.sent and self.router.run.alive:
            last = self.sent[-1]
            if last.run is self.router.run and not (last.client.reply or last.client.failure):
                self.left.add(last.name)
                last.client.hang_up()
                self.router.settle()

    def post(self, count: int = 1, **headers: str) -> None:
        """
        Ask for so many.
        """
        for _ in range(count):
            name = f"picture {len(self.sent)}"
            given = {key.replace("_", "-"): value for key, value in headers.items()}
            body = {**IMAGE, "prompt": name}
            client = self.router.begin("POST", IMAGES, json=body, headers=given)
            self.sent.append(Sent(name, client, self.router.run, self.least))

    def wait(self, seconds: float, step: float = 0.0) -> None:
        """
        Let time pass, and ask for a picture in each step, while the router lives.
        """
        step = step or self.gap
        while seconds > 0 and self.router.run.alive:
            self.post()
            self.router.wait(step, min(step, 0.5))  # about as long as a picture takes
            seconds -= step

    def until(self, client: Client, limit: float = 300.0) -> Reply | None:
        """
        Go on until *client* is answered; None if the router was killed before.
        """
        while client.reply is None and self.router.run.alive:
            assert client.failure is None, client.failure
            assert limit > 0
            self.wait(self.gap)
            limit -= self.gap
        if client.reply is not None and "epoch" in client.reply.json:
            self.least = max(self.least, client.reply.json["epoch"])
        return client.reply

    def end(self, limit: float = 300.0) -> None:
        """
        Wait for all that were asked for in this run.
        """
        run = self.router.run
        waiting = [each.client for each in self.sent if each.run is run]
        self.router.until(lambda: all(each.reply or each.failure for each in waiting), limit)

    def check(self) -> dict[int, int]:
        """
        How many answers had each status, once it is proven of each picture that it was made once,
        with the weights of the epoch that it says, which is not older than what the fleet was known
        to have; and that each client of a router that lives is answered.
        """
        known = truth(self.router, self.payloads)
        made = generations(self.router)
        counts: dict[int, int] = {}
        for each in self.sent:
            assert len(made.get(each.name, [])) <= 1, each.name
            reply = each.client.reply
            if reply is None:
                gone = not each.run.alive or each.name in self.left
                assert gone, f"{each.name} was never answered: {each.client.failure}"
                continue
            counts[reply.status] = counts.get(reply.status, 0) + 1
            if reply.status != 200:
                continue
            told = epoch_of(reply)
            [generation] = made[each.name]
            about = f"{each.name} at {generation.started}: {told}, {generation.sources}"
            assert told.isdecimal(), about
            assert known[int(told)] == generation.weights, f"{about}; {known}"
            assert int(told) >= each.least, f"{about} after {each.least}"
        return counts


def generations(router: MemoryRouter) -> dict[str, list[Generation]]:
    """
    What all GPUs have begun with, by prompt.
    """
    found: dict[str, list[Generation]] = {}
    for process in router.processes:
        for each in process.journal.generations:
            found.setdefault(each.prompt, []).append(each)
    return found


def calls(router: MemoryRouter, *paths: str) -> list[Call]:
    """
    The control calls that GPUs have begun with, in that order.
    """
    found = [each for process in router.processes for each in process.journal.calls]
    return sorted(
        (each for each in found if each.path in paths and each.started is not None),
        key=lambda each: each.started or 0.0,
    )


def truth(router: MemoryRouter, payloads: dict[str, str] | None = None) -> dict[int, str]:
    """
    The sum of a worker's weights and adapters at each epoch, from what the updates that made them
    do to a fresh worker.

    Args:
        payloads: Tensors by what is told of their update's body.
    """
    model = QUICK.served
    made = Weights.of(model)
    sums = {0: made.fingerprint()}
    made_at = {
        each["epochs"].get(QUICK.public_name) or each["epochs"].get(""): each
        for each in weights(router)["history"]
    }
    # In order of epochs: one that a crash broke off may be made good while another is under way.
    for reached in sorted(filter(None, made_at)):
        each = made_at[reached]
        _apply(made, each["path"], each["body"], payloads or {})
        sums[reached] = made.fingerprint()
    return sums


def _apply(made: Weights, path: str, body: str, payloads: dict[str, str]) -> None:
    if path == TENSOR:
        made.update_from_tensors(jsons.dumps([payloads[body]]).encode(), None)
        return
    given = jsons.loads(body)
    if path == DISK:
        made.update(given["model_path"], given.get("target_modules"))
    elif path == SET:
        made.set_adapters(
            [given["lora_nickname"]], [given.get("lora_path")], "all", [1.0], "merged"
        )
    elif "unmerge" in path:
        made.unmerge("all")
    else:
        made.merge("all", given.get("strength", 1.0))
