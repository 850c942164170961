"""
What was simulated, as a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.harness.plot import colour, picture
from bench.harness.virtual.arms import COSTS, Arm
from bench.harness.virtual.figures import Figures
from bench.harness.virtual.study import Result

_MARKERS = dict(zip(COSTS, ("o", "^", "s"), strict=True))
_TICKS = (0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10, 20, 50)


def draw(results: Sequence[Result], path: Path) -> None:
    """
    Write a PNG: p99 of all arms over that of least-request without slots, and makespan over lower
    bound for batches; on log scales, as random choices are far off.
    """
    batches = [result for result in results if result.workload.group == "c"]
    others = [result for result in results if result.workload.group != "c"]
    panels = [(shown, batch) for shown, batch in ((others, False), (batches, True)) if shown]
    with picture(path, 14, 4.6 * len(panels), font=9) as figure:
        grid = figure.subplots(len(panels), 1, squeeze=False)
        for axes, (shown, batch) in zip(grid[:, 0], panels, strict=True):
            _panel(axes, shown, batch)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)


def _panel(axes: Any, results: Sequence[Result], batch: bool) -> None:
    arms = list(results[0].arms)
    algorithms = list(dict.fromkeys(arm.algorithm for arm in arms))
    for place, arm in enumerate(arms):
        own = colour(algorithms.index(arm.algorithm))
        axes.plot(
            [number + 0.8 * ((place + 0.5) / len(arms) - 0.5) for number in range(len(results))],
            [_value(result, batch)(result.arms[arm]) for result in results],
            linestyle="none",
            marker=_MARKERS[arm.costs],
            markersize=5,
            color=own,
            markerfacecolor=own if arm.slots else "white",
            label=_label(arm),
        )
    axes.axhline(1.0, color="black", linewidth=0.8)
    for number in range(1, len(results)):
        axes.axvline(number - 0.5, color="lightgrey", linewidth=0.6)
    axes.set_yscale("log")
    axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.3)
    values = [_value(each, batch)(figures) for each in results for figures in each.arms.values()]
    axes.set_ylim(min(1.0, *values) * 0.93, max(values) * 1.07)
    axes.set_xticks(range(len(results)), [result.workload.name for result in results])
    axes.set_title("Makespan / lower bound" if batch else "p99 / least-request without slots")


def _value(result: Result, batch: bool) -> Callable[[Figures], float]:
    if batch:
        return lambda figures: figures.over_bound
    plain = result.of("least-request", 0) or next(iter(result.arms.values()))
    return lambda figures: figures.p99 / plain.p99


def _label(arm: Arm) -> str:
    matters = arm.slots or arm.algorithm == "least-work"
    return arm.name if matters else arm.name.removesuffix(f", {arm.costs}")
