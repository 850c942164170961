"""
What was measured, as a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.harness.summary import Result, summarise

# Told apart with any colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
FIGURES = ("mean", "p50", "p95", "p99")
_MOST_NAMED_WORKERS = 12
_MOST_NAMED_BARS = 16


def draw(results: Sequence[Result], title: str, path: Path) -> None:
    """
    Write a PNG with the latency distribution and the workers' shares; for several arms also with
    their figures side by side.
    """
    several = len(results) > 1
    with picture(path, 13.5 if several else 10, 4.4) as figure:
        figure.suptitle(fill(title, 160 if several else 120), fontsize=10)
        axes = figure.subplots(1, 3 if several else 2)
        _distribution(axes[0], results)
        if several:
            _figures(axes[1], results)
        _shares(axes[-1], results)


@contextmanager
def picture(path: Path, width: float, height: float, *, font: float = 10) -> Iterator[Figure]:
    """
    A figure of so many inches, to be filled within the context and then written to *path* as PNG.
    """
    with matplotlib.rc_context(
        {"font.size": font, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
        yield figure
        figure.savefig(path)


def bars(
    axes: Any,
    names: Sequence[str],
    arms: Sequence[Sequence[float]],
    label: str | Callable[[float], str] | None,
) -> None:
    """
    A group of bars for each of *names*, with one for each of *arms* in its colour.

    Args:
        arms: The heights of each, in the order of the names.
        label: How heights are written above the bars; None leaves that out.
    """
    width = 0.8 / max(len(arms), 2)
    for at, heights in enumerate(arms):
        offset = (at - (len(arms) - 1) / 2) * width
        places = [place + offset for place in range(len(names))]
        drawn = axes.bar(places, heights, width, color=colour(at))
        if label is not None:
            axes.bar_label(drawn, fmt=label, fontsize=7, padding=2)
    axes.set_xticks(range(len(names)), names)


def colour(number: int) -> str:
    """
    That of an arm, by its place among all.
    """
    return COLOURS[number % len(COLOURS)]


def staircase(axes: Any, number: int, ascending: Sequence[float], label: str) -> None:
    """
    The share of the values of arm *number* that lie at or below each value.
    """
    steps = [rank / len(ascending) for rank in range(1, len(ascending) + 1)]
    axes.step([0.0, *ascending], [0.0, *steps], where="post", label=label, color=colour(number))
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _distribution(axes: Any, results: Sequence[Result]) -> None:
    for at, result in enumerate(results):
        if result.latencies:
            throughput = summarise(result).throughput or 0.0
            label = f"{result.algorithm}, {throughput:.2f} req/s"
            staircase(axes, at, result.latencies, label)
    axes.set(title="Latency distribution", xlabel="seconds", ylabel="share of requests")
    axes.set_xlim(left=0)
    if len(results) == 1:
        _mark_percentiles(axes, results[0])
    axes.legend(loc="lower right", frameon=True, framealpha=0.8, edgecolor="none")


def _mark_percentiles(axes: Any, result: Result) -> None:
    summary = summarise(result)
    styles = {"p50": "--", "p95": "-.", "p99": ":"}
    for name, style in styles.items():
        value = getattr(summary, name)
        if value is not None:
            label = f"{name} {value:.2f} s"
            axes.axvline(value, linestyle=style, color="black", linewidth=1, label=label)


def _figures(axes: Any, results: Sequence[Result]) -> None:
    summaries = [summarise(result) for result in results]
    heights = [[getattr(each, name) or 0.0 for name in FIGURES] for each in summaries]
    bars(axes, FIGURES, heights, "%.2f")
    axes.set(title="Latency", ylabel="seconds")


def _shares(axes: Any, results: Sequence[Result]) -> None:
    workers = list(results[0].served)
    parts = [summarise(result).shares for result in results]
    heights = [[100 * (each[worker] or 0.0) for worker in workers] for each in parts]
    names = [str(number) for number in range(len(workers))]
    bars(axes, names, heights, "%.1f" if len(workers) * len(results) <= _MOST_NAMED_BARS else None)
    if len(workers) > _MOST_NAMED_WORKERS:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter("{x:.0f}")
    unknown = any(count is None for result in results for count in result.served.values())
    title = "Share per worker" + (" (not told by the workers)" if unknown else "")
    axes.set(title=title, xlabel="worker", ylabel="% of generations")
