"""
`bench/simulate.py`: its command line, and the real scheduler in virtual time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.harness.virtual.arms import COSTS, Arm, arms
from bench.harness.virtual.options import read_settings
from bench.harness.virtual.scale import burst, scale
from bench.harness.virtual.study import played
from bench.harness.virtual.workloads import Workload, workloads
from sgl_droute.fleet.selection import ALGORITHMS

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "simulate.py"
BY_NAME = {workload.name: workload for workload in workloads()}


def p99(workload: Workload, algorithm: str, slots: int, costs: str, seeds: int = 3) -> float:
    arm = Arm(algorithm, slots, costs)
    return sum(played(arm, workload, workload.made(seed, 1000), seed).p99 for seed in range(seeds))


def test_everything_by_default() -> None:
    """
    All workloads, all algorithms, with slots and without; 20 seeds of 4000 requests.
    """
    settings = read_settings("simulate.py", [])
    assert {workload.group for workload in settings.workloads} == set("abcde")
    assert settings.algorithms == tuple(ALGORITHMS)
    assert settings.slots == (0, 1)
    assert (settings.seeds, settings.requests) == (20, 4000)
    quick = read_settings("simulate.py", ["--quick", "--seeds", "2"])
    assert quick.seeds == 2
    assert quick.requests < settings.requests


def test_workloads_by_letter_or_name() -> None:
    """
    A letter takes the group, a name one of it; fleets are those of (a) and (b).
    """
    settings = read_settings("simulate.py", ["--workload", "b", "c-32", "--workers", "6"])
    assert [workload.name for workload in settings.workloads] == ["b-6", "c-32"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--workload", "f"], "no workload 'f'"),
        (["--seeds", "0"], "at least 1"),
        (["--workers", "1"], "at least 2"),
        (["--slots", "-1"], "--slots"),
        (["--json", "/nowhere/at/all.json"], "no folder"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    With status 2 and the reason.
    """
    with pytest.raises(SystemExit) as stopped:
        read_settings("simulate.py", words)
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err


def test_knowledge_is_an_arm_where_it_matters() -> None:
    """
    Without slots, only least-work looks at costs.
    """
    made = arms(["random", "least-work"])
    assert [arm.costs for arm in made if arm.algorithm == "random" and not arm.slots] == ["exact"]
    for slots in (0, 1):
        known = [arm.costs for arm in made if arm.algorithm == "least-work" and arm.slots == slots]
        assert known == list(COSTS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["b-4", "c-32-batch", "c-32-batch-jobs", "d", "e"])
def test_scheduler_serves_everybody(name: str, algorithm: str) -> None:
    """
    Every request of every workload is served or its client leaves, whatever is known of it.
    """
    workload = BY_NAME[name]
    for arm in arms([algorithm]):
        made = played(arm, workload, workload.made(0, 300), 0)
        assert made.refused == 0
        assert made.over_bound >= 1 - 1e-9
        assert made.left == 0 or name == "e"


def test_least_work_has_the_shorter_tail() -> None:
    """
    On few workers under load, and more so where some are slow.
    """
    even, uneven = BY_NAME["a-8-0.85"], BY_NAME["b-8"]
    assert p99(even, "least-work", 0, "exact") < 0.9 * p99(even, "least-request", 0, "exact")
    assert p99(uneven, "least-work", 0, "exact") < 0.75 * p99(uneven, "least-request", 0, "exact")


def test_batch_header_ends_a_batch_evenly() -> None:
    """
    Longest first, the workers end within a few percent of the lower bound; in order of arrival
    they do not.
    """
    arm = Arm("least-work", 1, "exact")
    named, plain = BY_NAME["c-32-batch"], BY_NAME["c-32"]
    seeds = range(10)
    even = [played(arm, named, named.made(seed, 0), seed).over_bound for seed in seeds]
    rough = [played(arm, plain, plain.made(seed, 0), seed).over_bound for seed in seeds]
    assert sum(even) / 10 < 1.06
    assert sum(rough) / 10 > 1.1


def test_scale_and_burst_are_measured() -> None:
    """
    Times in the scheduler are part of the whole; a line of the asked length waits.
    """
    arm = Arm("least-work", 1, "exact")
    long = scale(arm, 400, 20)
    assert long.events >= 800
    assert long.inside > 0
    calls = {each.call: each for each in burst(arm, 50, 10, 2, 30)}
    assert set(calls) == {"submit", "finish"}
    assert calls["finish"].count == 30
    assert 0 < calls["finish"].median <= calls["finish"].p99 <= calls["finish"].worst


def test_script_writes_what_it_prints(tmp_path: Path) -> None:
    """
    Tables on standard output, the same as JSON, and a picture.
    """
    made = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--workload", "c-32-batch", "a-4-0.7"),
            *("--seeds", "2", "--requests", "100", "--processes", "1"),
            *("--json", "out.json", "--plot", "out.png"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert "| least-work" in made.stdout
    assert "not measured" in made.stdout
    whole = json.loads((tmp_path / "out.json").read_text())
    assert [each["name"] for each in whole["workloads"]] == ["a-4-0.7", "c-32-batch"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
