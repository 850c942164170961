"""
What a replay showed, as a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bench.harness.plot import COLOURS
from bench.harness.replay.engine import Outcome
from bench.harness.replay.report import figures


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """
    Write a PNG with the distribution of the latencies, their figures and makespan side by side,
    and the idle share.
    """
    with matplotlib.rc_context(
        {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(15, 4.4), dpi=100, layout="constrained")
        figure.suptitle(title, fontsize=10)
        axes = figure.subplots(1, 4, width_ratios=[2, 1.6, 1, 1])
        _distribution(axes[0], outcomes)
        _bars(axes[1], outcomes, ("p50", "p99"), "Latency", "seconds")
        _bars(axes[2], outcomes, ("makespan",), "Makespan", "seconds")
        _bars(axes[3], outcomes, ("idle",), "Idle", "% of the replicas' time", scale=100)
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=len(outcomes),
            frameon=False,
        )
        figure.savefig(path)


def _distribution(axes: Any, outcomes: Sequence[Outcome]) -> None:
    for at, outcome in enumerate(outcomes):
        count = len(outcome.latencies)
        steps = [rank / count for rank in range(1, count + 1)] if count else []
        axes.step(
            outcome.latencies, steps, where="post", label=outcome.algorithm, color=_colour(at)
        )
    axes.set(title="Latency distribution", xlabel="seconds, log scale", ylabel="share of jobs done")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _bars(
    axes: Any,
    outcomes: Sequence[Outcome],
    names: Sequence[str],
    title: str,
    unit: str,
    *,
    scale: float = 1,
) -> None:
    width = 0.8 / max(len(outcomes), 2)
    for at, outcome in enumerate(outcomes):
        offset = (at - (len(outcomes) - 1) / 2) * width
        made = figures(outcome)
        bars = axes.bar(
            [place + offset for place in range(len(names))],
            [scale * (made[name] or 0.0) for name in names],
            width,
            color=_colour(at),
        )
        axes.bar_label(bars, fmt=_short, fontsize=7, padding=2)
    axes.set_xticks(range(len(names)), names)
    axes.set(title=title, ylabel=unit)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]
