"""
What was measured, as a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.figure import Figure

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
    with matplotlib.rc_context(
        {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(13.5 if several else 10, 4.4), dpi=100, layout="constrained")
        figure.suptitle(fill(title, 160 if several else 120), fontsize=10)
        axes = figure.subplots(1, 3 if several else 2)
        _distribution(axes[0], results)
        if several:
            _figures(axes[1], results)
        _shares(axes[-1], results)
        figure.savefig(path)


def _distribution(axes: Any, results: Sequence[Result]) -> None:
    for result, colour in zip(results, _colours(results), strict=True):
        latencies = result.latencies
        if not latencies:
            continue
        steps = [(rank + 1) / len(latencies) for rank in range(len(latencies))]
        throughput = summarise(result).throughput or 0.0
        label = f"{result.algorithm}, {throughput:.2f} req/s"
        axes.step([0.0, *latencies], [0.0, *steps], where="post", label=label, color=colour)
    axes.set(title="Latency distribution", xlabel="seconds", ylabel="share of requests")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
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
    for result, colour, offset in _grouped(results):
        summary = summarise(result)
        heights = [getattr(summary, name) or 0.0 for name in FIGURES]
        bars = axes.bar(
            [at + offset for at in range(len(FIGURES))], heights, _width(results), color=colour
        )
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
    axes.set_xticks(range(len(FIGURES)), FIGURES)
    axes.set(title="Latency", ylabel="seconds")


def _shares(axes: Any, results: Sequence[Result]) -> None:
    workers = list(results[0].served)
    for result, colour, offset in _grouped(results):
        parts = summarise(result).shares
        heights = [100 * (parts[worker] or 0.0) for worker in workers]
        bars = axes.bar(
            [at + offset for at in range(len(workers))], heights, _width(results), color=colour
        )
        if len(workers) * len(results) <= _MOST_NAMED_BARS:
            axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    if len(workers) <= _MOST_NAMED_WORKERS:
        axes.set_xticks(range(len(workers)), [str(number) for number in range(len(workers))])
    unknown = any(count is None for result in results for count in result.served.values())
    title = "Share per worker" + (" (not told by the workers)" if unknown else "")
    axes.set(title=title, xlabel="worker", ylabel="% of generations")


def _grouped(results: Sequence[Result]) -> list[tuple[Result, str, float]]:
    """
    Each result with its colour and its place within a group of bars.
    """
    middle = (len(results) - 1) / 2
    offsets = [(at - middle) * _width(results) for at in range(len(results))]
    return list(zip(results, _colours(results), offsets, strict=True))


def _colours(results: Sequence[Result]) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(len(results))]


def _width(results: Sequence[Result]) -> float:
    return 0.8 / max(len(results), 2)
