"""
How many generations a worker has finished, from its ``/metrics``. Pure.
"""

from __future__ import annotations

import re

_SAMPLE = re.compile(r"sglang:diffusion_requests_total\{([^}]*)\}\s+(\S+)")


def generations(metrics: str) -> int:
    """
    Generations finished since the worker started, failed ones too, its own warm-up not.

    Args:
        metrics: Prometheus text; a counter appears in it with the first request.
    """
    return sum(
        int(float(value))
        for labels, value in _SAMPLE.findall(metrics)
        if 'is_warmup="true"' not in labels.lower()
    )
