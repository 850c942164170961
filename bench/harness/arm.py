"""
What is compared: a routing algorithm, with a limit of generations per worker or without.
"""

from __future__ import annotations

from attrs import frozen

from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.worker import Concurrency
from sgl_droute.settings import parse_concurrency


@frozen
class Arm:
    """
    Attributes:
        algorithm: A routing algorithm, or what stands for the unknown one of a running router.
        concurrency: Value of ``--worker-concurrency``; None leaves it to the router.
    """

    algorithm: str
    concurrency: Concurrency | None = None

    @property
    def name(self) -> str:
        """As `parse_arm` reads it."""
        limit = "" if self.concurrency is None else f"@{self.concurrency}"
        return self.algorithm + limit


def parse_arm(text: str) -> Arm:
    """
    The arm in ``least-work``, ``least-work@1`` or ``least-work@auto``.

    Raises:
        ValueError: There is no such algorithm or limit.
    """
    algorithm, at, limit = text.partition("@")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{algorithm!r} is none of {', '.join(ALGORITHMS)}")
    return Arm(algorithm, parse_concurrency(limit) if at else None)
