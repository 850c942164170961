"""
What was measured, as a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bench.harness.overhead.figures import Figures, Outcome, Result, figures, proxies_of
from bench.harness.overhead.scenarios import MB
from bench.harness.plot import COLOURS

# Points above and below: labels of proxies that are close together stay apart.
_LABELS = (5, -13, 5)

Value = Callable[[Figures], float]


def draw(outcome: Outcome, path: Path) -> None:
    """
    Write a PNG: cost of small and of large requests, throughput of large ones, cost and memory
    against the fleet and against the requests in flight.
    """
    with matplotlib.rc_context(
        {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(15, 8.4), dpi=100, layout="constrained")
        axes = figure.subplots(2, 3)
        small = _of(outcome, "answers")
        large = [*_of(outcome, "large"), *_of(outcome, "upload")]
        fleet, waiting = _of(outcome, "fleet"), _of(outcome, "waiting")
        _bars(axes[0][0], small, _cpu, "CPU per 1 KB answer", "microseconds, log scale")
        _bars(axes[0][1], large, _cpu_ms, "CPU per large request", "milliseconds, log scale")
        _bars(axes[0][2], large, _megabytes, "Throughput of large requests", "MB/s")
        _lines(axes[1][0], fleet, _net, "CPU per 1 KB answer, idle CPU taken off", "workers")
        _lines(axes[1][1], waiting, _cpu, "CPU per 1 KB answer", "requests that wait")
        _lines(axes[1][2], waiting, _memory, "Resident memory", "requests that wait")
        axes[1][2].set_ylabel("MB, log scale")
        axes[0][2].set(yscale="linear", ylim=(0, None))
        figure.savefig(path)


def _cpu(made: Figures) -> float:
    return made.cpu


def _cpu_ms(made: Figures) -> float:
    return made.cpu / 1e3


def _net(made: Figures) -> float:
    return made.net_cpu


def _megabytes(made: Figures) -> float:
    return made.megabytes


def _memory(made: Figures) -> float:
    return made.resident / MB


def _of(outcome: Outcome, group: str) -> list[Result]:
    return [each for each in outcome.results if each.scenario.group == group]


def _bars(axes: Any, results: Sequence[Result], value: Value, title: str, unit: str) -> None:
    axes.set(title=title, ylabel=unit)
    names = list(dict.fromkeys(each.scenario.name for each in results))
    proxies = proxies_of(results)
    if not _drawable(axes, results):
        return
    width = 0.8 / len(proxies)
    for number, proxy in enumerate(proxies):
        places, heights = [], []
        for each in results:
            made = figures(each)
            if each.proxy == proxy and made is not None:
                offset = (number - (len(proxies) - 1) / 2) * width
                places.append(names.index(each.scenario.name) + offset)
                heights.append(value(made))
        bars = axes.bar(places, heights, width, label=proxy, color=_colour(number))
        axes.bar_label(bars, fmt=_short, fontsize=8, padding=2)
    axes.set_xticks(range(len(names)), names)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.legend(framealpha=0.8, edgecolor="none")


def _lines(axes: Any, results: Sequence[Result], value: Value, title: str, along: str) -> None:
    axes.set(title=title, xlabel=f"{along}, log scale", ylabel="microseconds, log scale")
    if not _drawable(axes, results):
        return
    for number, proxy in enumerate(proxies_of(results)):
        points = [
            (each.scenario.waiting or each.scenario.workers, value(made))
            for each in results
            if each.proxy == proxy and (made := figures(each)) is not None
        ]
        if points:
            places, heights = zip(*points, strict=True)
            axes.plot(places, heights, marker="o", label=proxy, color=_colour(number))
            for place, height in points:
                axes.annotate(
                    f"{height:.0f}",
                    (place, height),
                    (0, _LABELS[number % len(_LABELS)]),
                    fontsize=8,
                    ha="center",
                    textcoords="offset points",
                )
    axes.set(xscale="log", yscale="log")
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(framealpha=0.8, edgecolor="none")


def _drawable(axes: Any, results: Sequence[Result]) -> bool:
    if any(figures(each) for each in results):
        return True
    axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    return False


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
