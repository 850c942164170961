"""
The three separate ways to the workers, so that a full or slow one never makes a healthy worker look
dead.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.iweb import IAgent

from sgl_droute.workers.agent import WorkerAgent
from sgl_droute.workers.connecting import Terms
from sgl_droute.workers.deadlines import Deadlines


@frozen(eq=False)
class Roads:
    """
    What carries requests to workers.

    Attributes:
        traffic: Carries client requests.
        probes: Carries health checks.
        control: Carries calls to the whole fleet.
    """

    traffic: IAgent
    probes: IAgent
    control: IAgent

    @classmethod
    def over_tcp(
        cls, reactor: Any, connect_timeout: float, deadlines: Deadlines, terms: Terms
    ) -> Roads:
        """
        Three agents with connections of their own.
        """
        agents = (WorkerAgent(reactor, connect_timeout, deadlines, terms) for _ in range(3))
        return cls(*agents)

    def close(self) -> Deferred[Any]:
        """
        Close idle connections; the result comes when they are closed.
        """
        return gatherResults([each.close() for each in self.agents])

    @property
    def agents(self) -> list[WorkerAgent]:
        """Those that have connections of their own."""
        roads = (self.traffic, self.probes, self.control)
        return [each for each in roads if isinstance(each, WorkerAgent)]
