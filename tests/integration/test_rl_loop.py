"""
The RL loop of ``docs/`` against real processes that are killed in the middle of it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from tests.integration.commands import environment
from tests.integration.weights_fleet import Made, WeightsFleet, until, weights_fleet

SCRIPT = Path(__file__).parents[2] / "docs" / "rl_loop.py"
MODEL = "qwen-image"
# A sample takes an eighth of a second.
SPEED = 4.0
SAMPLES = 24
STEPS = 3
# What does not run yet waits in the router, for any worker.
SLOTS = ("--worker-concurrency", "1", "--health-check-interval", "0.2")
PATIENT = (*SLOTS, "--health-check-failure-threshold", "1000")
STRICT = (*SLOTS, "--health-check-failure-threshold", "2")


def example() -> Any:
    """
    The script as a module.
    """
    spec = spec_from_file_location("rl_loop", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ran(fleet: WeightsFleet, halfway: Callable[[int], None]) -> list[list[Any]]:
    """
    The samples of each step of a loop, all proven.
    """
    loop = example()
    batches: list[list[Any]] = loop.train(
        loop.Fleet(fleet.router.url, patience=60.0), STEPS, SAMPLES, halfway
    )
    assert len(batches) == STEPS
    prove(fleet, batches)
    return batches


def prove(fleet: WeightsFleet, batches: list[list[Any]]) -> None:
    """
    Every sample is of its step's one epoch, and its worker made it with that step's weights.
    """
    made = fleet.made()
    epochs = []
    for step, batch in enumerate(batches, 1):
        [epoch] = {sample.epoch for sample in batch}
        epochs.append(epoch)
        assert len({sample.seed for sample in batch}) == SAMPLES
        for sample in batch:
            [answer] = msgpack.unpackb(sample.data)
            generation = made[answer["request_id"]]
            assert (generation.prompt, generation.seed) == (sample.prompt, sample.seed)
            assert generation.prompt.endswith(f"take {step}")
    assert epochs == sorted(set(epochs))
    for generation in made.values():  # those that nobody got an answer of, too
        _, _, take = generation.prompt.rpartition(" ")
        assert set(generation.sources.values()) == {f"checkpoints/step-{take}"}


def lost(batches: list[list[Any]]) -> list[int]:
    """
    How many samples of each step were asked for more than once.
    """
    return [sum(sample.attempts > 1 for sample in batch) for batch in batches]


@pytest.mark.parametrize(
    "words", [PATIENT, (*STRICT, "--readmit-after", "2")], ids=["never quarantined", "readmitted"]
)
def test_a_worker_is_killed_and_comes_back(words: tuple[str, ...], tmp_path: Path) -> None:
    """
    A worker that is killed in the middle of a rollout costs its samples in flight a second request,
    and no more; started again, it makes samples only after the router has brought it up to date.
    """
    with weights_fleet(tmp_path, 3, *words, speed=SPEED, model=MODEL) as fleet:
        first, victim, last = fleet.workers

        def reborn() -> list[Made]:
            return [each for each in victim.made() if each.life == 1]

        def halfway(step: int) -> None:
            if step == 2:
                # So there is something that it has not finished, and the others leave it the rest.
                for each in (victim, first, last):
                    each.order(slow=200)
                victim.restart()
                until(lambda: len(reborn()) > 0, 120.0)
                for each in (first, last):
                    each.order(slow=1)

        again = lost(ran(fleet, halfway))
        assert again[1] > 0
        assert (again[0], again[2]) == (0, 0)
        assert {each.prompt[-1] for each in reborn()} == {"2", "3"}
    assert "Traceback" not in fleet.router.child.log


def test_the_router_is_killed(tmp_path: Path) -> None:
    """
    A router that is killed in the middle of a rollout and started again on its state goes on at the
    epoch it had: samples are asked for again, none is of other weights.
    """
    words = (*PATIENT, "--state", f"sqlite:///{tmp_path}/router.sqlite")
    with weights_fleet(tmp_path, 2, *words, speed=SPEED, model=MODEL) as fleet:

        def halfway(step: int) -> None:
            if step == 2:
                fleet.router.kill()
                fleet.router.start()

        again = lost(ran(fleet, halfway))
        assert again[1] > 0
        assert (again[0], again[2]) == (0, 0)


def test_the_command(tmp_path: Path) -> None:
    """
    As a command it tells each phase in a line, goes on without the worker that its kill command
    ends, and is done with a status of 0.
    """
    with weights_fleet(tmp_path, 2, *STRICT, speed=SPEED, model=MODEL) as fleet:
        process = fleet.workers[0].child.process
        assert process is not None
        words = ("--router", fleet.router.url, "--steps", "3", "--samples", "8")
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *words, "--kill-command", f"kill -9 {process.pid}"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        *lines, last = done.stdout.splitlines()
        phases = [line.split()[2] for line in lines]
        assert phases == ["wake", "refit", "verify", "rollout", "sleep"] * 3
        assert all("samples 8" in line for line in lines if "rollout" in line)
        assert last.startswith("24 samples")


def test_a_checkpoint_that_nobody_can_load(tmp_path: Path) -> None:
    """
    A checkpoint that every worker refuses ends the loop at once, in words.
    """
    loop = example()
    with (
        weights_fleet(tmp_path, 2, *PATIENT, speed=SPEED, model=MODEL) as fleet,
        pytest.raises(loop.Failed, match="No safetensors files"),
    ):
        loop.Fleet(fleet.router.url).refit("missing")
