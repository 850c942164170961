"""
What a replay showed, as a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness.plot import bars, picture, staircase
from bench.harness.replay.outcome import Outcome
from bench.harness.replay.report import figures


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """
    Write a PNG with the distribution of the latencies, their figures and makespan side by side,
    and the idle share.
    """
    with picture(path, 15, 4.4) as figure:
        figure.suptitle(title, fontsize=10)
        axes = figure.subplots(1, 4, width_ratios=[2, 1.6, 1, 1])
        _distribution(axes[0], outcomes)
        _figures(axes[1], outcomes, ("p50", "p99"))
        axes[1].set(title="Latency", ylabel="seconds")
        _figures(axes[2], outcomes, ("makespan",))
        axes[2].set(title="Makespan", ylabel="seconds")
        _figures(axes[3], outcomes, ("idle",), scale=100)
        axes[3].set(title="Idle", ylabel="% of the replicas' time")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=len(outcomes),
            frameon=False,
        )


def _distribution(axes: Any, outcomes: Sequence[Outcome]) -> None:
    for at, outcome in enumerate(outcomes):
        staircase(axes, at, outcome.latencies, outcome.algorithm)
    axes.set(title="Latency distribution", xlabel="seconds, log scale", ylabel="share of jobs done")
    if any(outcome.latencies for outcome in outcomes):
        axes.set_xscale("log")


def _figures(
    axes: Any, outcomes: Sequence[Outcome], names: Sequence[str], scale: float = 1
) -> None:
    heights = [[scale * (figures(each)[name] or 0.0) for name in names] for each in outcomes]
    bars(axes, names, heights, _short)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
