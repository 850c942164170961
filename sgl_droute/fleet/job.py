"""
A client's request as the scheduler sees it: what it needs, how long it may wait, who asks.

It knows neither HTTP nor the worker that will serve it.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define, field, frozen

from sgl_droute.fleet.capabilities import ANYTHING, Want

# What a request makes; what is learned of workers is learned for each of them.
KINDS = ("image", "edit", "video", "mesh", "rollout", "vertex", "action", "session", "other")

# Kinds of which the answer is only an id: what is made outlives the request.
JOBS = ("video", "mesh")


class Demand(Protocol):
    """How much work a request is."""

    def work(self, model: str | None) -> float | None:
        """
        Work on a worker that serves *model* (a ``model_path``; None while unknown), in units that
        compare requests of the same model only. None when nothing is known of the request: it
        counts as the average of its kind.
        """


@frozen
class Known:
    """
    The same work whatever the model.
    """

    amount: float | None = None

    def work(self, model: str | None) -> float | None:
        return self.amount


UNKNOWN = Known()


@define(eq=False, kw_only=True)
class Job:
    """
    One request, from its arrival to its end.

    Times are seconds on the clock of whoever submits it.

    Attributes:
        id: The router's own, unique.
        want: What its worker must be able to do.
        demand: How much work it is.
        submitted: When it arrived.
        priority: Higher first; 0 is usual.
        client: Who asks, for fair turns.
        share: Turns that its client has for one of a usual client.
        batch: The rollout batch it belongs to.
        group: Requests of the same group are best served by the same worker.
        deadline: When it must have ended.
        expires: When it leaves the line unserved.
        hand_over: When it is given to a worker over that worker's limit.
        without: URLs of workers that could not be reached for it.
        why: Whether the decision is to tell whom it was made among.
        length: Seconds it is expected to take on a usual worker; set when it is submitted.
        number: Its place in the order of arrival; set when it is submitted.
    """

    id: str
    want: Want = ANYTHING
    demand: Demand = UNKNOWN
    submitted: float = 0.0
    priority: int = 0
    client: str = ""
    share: float = 1.0
    batch: str | None = None
    group: str | None = None
    deadline: float | None = None
    expires: float | None = None
    hand_over: float | None = None
    without: frozenset[str] = frozenset()
    why: bool = False
    length: float = field(default=0.0, init=False)
    number: int = field(default=0, init=False)

    @property
    def kind(self) -> str:
        """What it makes, one of `KINDS`."""
        return self.want.kind
