"""
The tables that users read.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.harness.measure import Measured
from bench.harness.options import read_settings
from bench.harness.report import report
from bench.harness.summary import Outcome, Record, Result
from bench.harness.workload import Prompt, Shape


def result(algorithm: str, latencies: Sequence[float], bound: float | None) -> Result:
    prompt = Prompt(index=0, text="a fox", seed=0, shape=Shape())
    records = tuple(
        Record(
            prompt=prompt,
            arrived=0.0,
            sent=0.0,
            finished=latency,
            outcome=Outcome(status=200, inference_time=1.0),
        )
        for latency in latencies
    )
    return Result(
        algorithm=algorithm,
        duration=max(latencies),
        records=records,
        served={"http://w:1": len(records)},
        bound=bound,
    )


def reported(results: Sequence[Result], *words: str) -> list[str]:
    settings = read_settings("bench.py", words, compare=True)
    return report(settings, Measured(fleet="simulated", results=tuple(results))).splitlines()


def test_arms_are_compared_with_the_first() -> None:
    """
    Ratios of percentiles and makespan, the makespan over its bound, and the time without work.
    """
    results = [result("random", [1, 2, 8], 4.0), result("least-work@1", [1, 1, 6], 4.0)]
    lines = reported(results)
    at = next(number for number, line in enumerate(lines) if "makespan s" in line)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[at : at + 4]]
    assert rows[0][1:4] == ["makespan s", "over bound", "idle %"]
    assert rows[0][4:] == ["p50 ratio", "p99 ratio", "makespan ratio"]
    assert rows[2] == ["random", "8.00", "2.000", "62.5", "1.000", "1.000", "1.000"]
    assert rows[3] == ["least-work@1", "6.00", "1.500", "50.0", "0.500", "0.749", "0.750"]


def test_one_arm_has_nothing_to_be_compared_with() -> None:
    """
    Its table has no ratios.
    """
    assert "ratio" not in "".join(reported([result("random", [1, 2], None)]))


def test_what_is_unknown_is_left_open() -> None:
    """
    Workers whose durations nobody knows have no shortest possible time.
    """
    lines = reported([result("random", [1, 2], None), result("round-robin", [2, 2], None)])
    row = next(line for line in lines if line.startswith("| random") and "1.000 |" in line[30:])
    assert row.split("|")[3].strip() == "-"


def test_header_tells_what_routers_knew() -> None:
    """
    A reader has to know whether an algorithm that learns had something to learn from.
    """
    results = [result("least-work", [1], None)]
    assert "start knowing nothing" in reported(results)[0]
    assert "taught by 20 requests" in reported(results, "--router-warmup", "20")[0]
    plain = ("--algorithms", "round-robin,random")
    assert "routers" not in reported(results, *plain)[0]


def test_header_tells_the_seeds() -> None:
    """
    Each repetition has a workload of its own.
    """
    results = [result("random", [1], None)]
    assert reported(results, "--seed", "7")[0].endswith("seed 7")
    assert reported(results, "--seed", "7", "--repeat", "3")[0].endswith("seeds 7 to 9")
