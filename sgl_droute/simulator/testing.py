"""
A simulated worker without sockets, on a clock that tests move.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.iweb import IResponse

from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.worker import SimulatedWorker

STEPS = 200


@define(eq=False)
class Answer:
    """
    What a worker has said to one request so far.

    Attributes:
        status: None before the head of the answer.
        body: None before the end of the answer.
        failure: What the client saw instead of an answer.
    """

    status: int | None = None
    headers: dict[str, str] = field(factory=dict)
    body: bytes | None = None
    failure: object = None

    @property
    def json(self) -> Any:
        assert self.body is not None
        return json.loads(self.body)

    @property
    def detail(self) -> Any:
        return self.json["detail"]


@define(eq=False)
class MemoryWorker:
    """
    A worker, its clock, and a client for it.
    """

    settings: SimulatorSettings
    clock: Clock = field(factory=Clock)
    worker: SimulatedWorker = field(init=False)
    treq: Any = field(init=False)  # a StubTreq, whose methods no type names

    def __attrs_post_init__(self) -> None:
        self.worker = SimulatedWorker(self.clock, self.settings)
        self.treq = StubTreq(self.worker.resource())

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """
        Send a request. Without more time, only what needs no GPU is answered.
        """
        options.setdefault("allow_redirects", False)
        answer = Answer()
        sent: Deferred[IResponse] = self.treq.request(method, f"http://worker{path}", **options)
        sent.addCallback(self._read, answer)
        sent.addErrback(lambda failure: setattr(answer, "failure", failure.value))
        self.advance(0.0)
        return answer

    def get(self, path: str, **options: Any) -> Answer:
        return self.ask("GET", path, **options)

    def post(self, path: str, document: object = None, **options: Any) -> Answer:
        """
        POST *document* as JSON.
        """
        if document is not None:
            options["json"] = document
        return self.ask("POST", path, **options)

    def advance(self, seconds: float) -> None:
        """
        Let *seconds* pass, and deliver what they bring.
        """
        self.clock.advance(seconds)
        self.treq.flush()

    def finish(self, answer: Answer, limit: float = 3600.0) -> Answer:
        """
        Let time pass until *answer* is whole.
        """
        for _ in range(STEPS):
            if answer.body is not None or answer.failure is not None:
                return answer
            self.advance(limit / STEPS)
        raise AssertionError(f"no answer within {limit} s")

    def _read(self, response: Any, answer: Answer) -> Deferred[None]:
        answer.status = response.code
        answer.headers = {
            name.decode().lower(): values[-1].decode()
            for name, values in response.headers.getAllRawHeaders()
        }
        read: Deferred[bytes] = self.treq.content(response)
        return read.addCallback(lambda body: setattr(answer, "body", body))
