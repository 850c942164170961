"""
The life of a router process in memory, up to the step at which it is killed.
"""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class Run:
    """
    One run.

    Attributes:
        alive: Whether it goes on; nothing that it does from then on reaches anybody.
        watched: Which of its doings count as steps: paths of calls, and `WRITING`.
        steps: Those so far.
        fatal: It is killed in the step of this number; None for no step.
    """

    alive: bool = True
    watched: frozenset[str] = frozenset()
    steps: list[tuple[str, str]] = field(factory=list)
    fatal: int | None = None

    def step(self, when: str, what: str) -> bool:
        """
        Whether it is alive after this step.
        """
        if self.alive and what in self.watched:
            self.steps.append((when, what))
            self.alive = len(self.steps) != self.fatal
        return self.alive


WRITING = "writing"
