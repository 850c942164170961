"""
An RL loop in front of the router: wake, refit, verify, roll out, sleep, and again.

    python docs/rl_loop.py --router http://127.0.0.1:30080 --steps 3 --samples 32

Whatever happens to workers on the way, a step learns only from samples that were made with the
weights of that step. `X-Require-Epoch` tells the router which weights a sample must come from, and
`X-Weights-Epoch` on the answer says which ones it came from. A sample that is lost with its worker
is asked for again; a worker that comes back gets no work before the router has brought it up to
date.

Needs nothing but Python 3.10. Copy it, and put your own prompts, checkpoints and learning in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

# What may be better later. 0: no answer, or not all of it; 409: another update is under way.
PASSING = (0, 200, 409, 429, 500, 502, 503, 504)
SIZE = {"width": 512, "height": 512, "num_inference_steps": 8, "rollout_debug_mode": False}


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Sample(NamedTuple):
    prompt: str
    seed: int
    epoch: int  # which weights made it: how many updates the fleet had had
    data: bytes  # the worker's answer, msgpack
    attempts: int  # how often it was asked for


class Failed(Exception):
    """The loop cannot go on."""


class Fleet:
    """
    The phases of a step.

    Args:
        router: Its base URL.
        patience: Seconds for which something that fails is tried again.
        timeout: Seconds without a byte of an answer after which it counts as lost.
    """

    def __init__(self, router: str, patience: float = 600.0, timeout: float = 3600.0) -> None:
        self.router = router.rstrip("/")
        self.patience = patience
        self.timeout = timeout

    def wake(self) -> None:
        """Give the workers their GPU memory back."""
        self._insist("/resume_memory_occupation", {}, enough=done_by_some)

    def sleep(self) -> None:
        """Take the workers' GPU memory, for the training to come."""
        self._insist("/release_memory_occupation", {}, enough=done_by_some)

    def refit(self, checkpoint: str) -> int:
        """
        Load *checkpoint* while no worker works; its epoch. A worker that could not load it gets no
        work until it has caught up, which the router sees to.
        """
        path = "/update_weights_from_disk?mode=fenced&verify=true&strict=true"
        answer, _ = self._insist(path, {"model_path": checkpoint}, enough=loaded)
        epoch: int = answer.json["epoch"]
        return epoch

    def verify(self) -> list[str]:
        """Compare the workers' checksums now; those that have not the right weights."""
        answer, _ = self._insist("/weights/verify", {})
        stale: list[str] = answer.json["stale"]
        return stale

    def rollout(
        self, batch: str, epoch: int, wishes: Sequence[tuple[str, int]], halfway: Callable[[], None]
    ) -> list[Sample]:
        """
        A sample of *epoch* for each prompt and seed in *wishes*, in their order. *halfway* is
        called when half of them are there.
        """
        headers = {
            "X-Rollout-Batch": batch,
            "X-Rollout-Size": f"{len(wishes)}",
            "X-Require-Epoch": f"={epoch}",
        }
        with ThreadPoolExecutor(len(wishes)) as threads:
            asked = [threads.submit(self._sample, *wish, epoch, headers) for wish in wishes]
            for count, sample in enumerate(as_completed(asked), 1):
                sample.result()
                if count == (len(asked) + 1) // 2:
                    halfway()
            return [sample.result() for sample in asked]

    def _sample(self, prompt: str, seed: int, epoch: int, headers: Mapping[str, str]) -> Sample:
        wish = {"prompt": prompt, "seed": seed, **SIZE}
        answer, attempts = self._insist("/rollout/generate", wish, headers)
        told = answer.headers.get("X-Weights-Epoch")
        if told != f"{epoch}":
            raise Failed(f"seed {seed} was made in epoch {told}, not {epoch}")
        return Sample(prompt, seed, epoch, answer.body, attempts)

    def _insist(
        self,
        path: str,
        document: object,
        headers: Mapping[str, str] | None = None,
        enough: Callable[[Answer], bool] = lambda answer: answer.status == 200,
    ) -> tuple[Answer, int]:
        """The first answer that is *enough*, and how many it took."""
        end, attempts = time.monotonic() + self.patience, 1
        while not enough(answer := self._ask(path, document, headers or {})):
            if answer.status not in PASSING or time.monotonic() > end:
                raise Failed(f"{path}: {answer.status} {answer.body[:1000]!r}")
            time.sleep(min(float(answer.headers.get("Retry-After", 0.5)), 5.0))
            attempts += 1
        return answer, attempts

    def _ask(self, path: str, document: object, headers: Mapping[str, str]) -> Answer:
        body = json.dumps(document).encode()
        asking = Request(self.router + path, body, {"Content-Type": "application/json", **headers})
        try:
            try:
                coming = urlopen(asking, timeout=self.timeout)
            except HTTPError as error:
                coming = error
            with coming:
                return Answer(coming.status, coming.headers, coming.read())
        except (OSError, HTTPException) as error:
            return Answer(0, Message(), str(error).encode())


def done_by_some(answer: Answer) -> bool:
    """Whether a worker did it, or none had to."""
    if answer.status != 200:
        return False
    statuses = [each["status_code"] for each in answer.json["results"]]
    return not statuses or 200 in statuses


def loaded(answer: Answer) -> bool:
    """Whether workers have new weights. Where all refused them, trying again changes nothing."""
    results = answer.json.get("results", []) if answer.status == 502 else []
    if results and all(each["status_code"] == 400 for each in results):
        raise Failed(f"no worker can load it: {answer.body.decode()}")
    return answer.status in (200, 207)


@contextmanager
def phase(step: int, name: str) -> Iterator[dict[str, object]]:
    """Prints what a phase tells of itself, and its seconds."""
    began, told = time.monotonic(), dict[str, object]()
    yield told
    notes = "  ".join(f"{key} {value}" for key, value in told.items())
    print(f"step {step}  {name:7}  {notes:38}  {time.monotonic() - began:7.2f} s", flush=True)


def train(
    fleet: Fleet, steps: int, samples: int, halfway: Callable[[int], None] = lambda step: None
) -> list[list[Sample]]:
    """The samples of each step. *halfway* is called with the step in the middle of its rollout."""
    batches = []
    for step in range(1, steps + 1):
        with phase(step, "wake"):
            fleet.wake()
        with phase(step, "refit") as told:
            epoch = told["epoch"] = fleet.refit(f"checkpoints/step-{step}")
        with phase(step, "verify") as told:
            told.update(epoch=epoch, stale=len(fleet.verify()))
        with phase(step, "rollout") as told:
            wishes = [(f"a fox, take {step}", step * 100_000 + each) for each in range(samples)]
            batch = fleet.rollout(f"step-{step}", epoch, wishes, lambda: halfway(step))  # noqa: B023
            again = sum(sample.attempts - 1 for sample in batch)
            told.update(epoch=epoch, samples=len(batch), asked_again=again)
        with phase(step, "sleep"):
            fleet.sleep()
        batches.append(batch)  # here you learn from it, and write the next checkpoint
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description="An RL loop in front of the router.")
    parser.add_argument("--router", default="http://127.0.0.1:30080", help="its base URL")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--samples", type=int, default=32, help="of each step")
    parser.add_argument("--kill-command", help="shell command in the middle of the second step")
    given = parser.parse_args()

    def halfway(step: int) -> None:
        if given.kill_command and step == 2:
            subprocess.run(given.kill_command, shell=True, check=False)

    batches = train(Fleet(given.router), given.steps, given.samples, halfway)
    told = [sorted({sample.epoch for sample in batch}) for batch in batches]
    print(f"{sum(map(len, batches))} samples; the epochs of each step's: {told}")


if __name__ == "__main__":
    main()
