"""
Stopping: running answers end, idle connections close, what is late is cut.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IAddress
from twisted.logger import LogEvent, formatEvent

from tests.integration.sockets import GET
from tests.integration.strict_worker import Received, StrictConnection, StrictWorker
from tests.integration.wire import WiredRouter

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
PATIENCE = 60.0


class HeldWorker(StrictWorker):
    """
    Answers the router's own questions; what clients ask is answered by the test.

    Attributes:
        held: The connection of each request of a client, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: list[StrictConnection] = []

    def buildProtocol(self, addr: IAddress | None) -> StrictConnection:
        connection = _HeldConnection(self)
        self.connections.append(connection)
        return connection

    def answer(self, request: Received) -> bytes:
        before = len(self.requests)
        answer = super().answer(request)
        return answer if len(self.requests) == before else b""


class _HeldConnection(StrictConnection):
    def __init__(self, worker: HeldWorker) -> None:
        super().__init__(worker)
        self._held_by = worker

    def dataReceived(self, data: bytes) -> None:
        before = len(self._held_by.requests)
        super().dataReceived(data)
        self._held_by.held += [self] * (len(self._held_by.requests) - before)


def stopping(router: WiredRouter) -> list[object]:
    """
    Stop the router; the list is no longer empty when it has stopped.
    """
    stopped: list[object] = []
    router.service.stopService().addBoth(stopped.append)
    router.settle()
    return stopped


def at_rest(router: WiredRouter) -> bool:
    """
    Whether nothing is in flight nor waits for a time.
    """
    router.wait(1.0)
    in_flight = sum(worker.in_flight for worker in router.service.pool)
    return in_flight == 0 and router.clock.getDelayedCalls() == []


def told(logged: list[LogEvent]) -> list[str]:
    """
    What was logged of the stopping.
    """
    lines = [formatEvent(event) for event in logged]
    return [line for line in lines if line.startswith("stopping: ")]


@pytest.fixture
def router() -> WiredRouter:
    """A router whose worker answers when the test says so."""
    return WiredRouter(HeldWorker(), drain_timeout=PATIENCE, timeout=1e6, idle_timeout=1e6)


def answer(router: WiredRouter, data: bytes, number: int = 0) -> None:
    """
    Let the worker send *data* to the client's request of that *number*.
    """
    worker: Any = router.worker
    worker.held[number].transport.write(data)
    router.settle()


def test_a_running_answer_ends(router: WiredRouter, logged: list[LogEvent]) -> None:
    """
    An answer that has not begun is sent whole, says that it is the last one, and only then the
    router has stopped.
    """
    client = router.connect(GET)
    stopped = stopping(router)
    router.wait(PATIENCE - 1)
    assert (stopped, client.received) == ([], b"")
    answer(router, HEAD + b"fine")
    [whole] = client.answers
    assert (whole.body, whole.closes) == (b"fine", True)
    assert client.closed is not None
    assert not client.reset
    assert stopped == [None]
    assert at_rest(router)
    lines = told(logged)
    assert lines[0] == "stopping: answers running: 1; they have 60 s to end"
    assert lines[1:-1] == ["stopping: answers still running: 1"] * 5
    assert lines[-1] == "stopping: all answers have ended"


def test_a_begun_answer_ends(router: WiredRouter) -> None:
    """
    An answer that has begun before is sent to its end, and the connection closed behind it.
    """
    client = router.connect(GET)
    answer(router, HEAD + b"fi")
    stopped = stopping(router)
    answer(router, b"ne")
    assert client.received.endswith(b"\r\n\r\nfine")
    assert client.closed is not None
    assert not client.reset
    assert stopped == [None]


def test_idle_connections_close(router: WiredRouter, logged: list[LogEvent]) -> None:
    """
    Connections without a request, fresh or kept alive, are closed at once, without a word.
    """
    fresh, kept = router.connect(), router.connect(GET)
    answer(router, HEAD + b"fine")
    assert kept.closed is None
    assert stopping(router) == [None]
    for client in (fresh, kept):
        assert client.closed is not None
        assert not client.reset
    assert at_rest(router)
    assert told(logged) == []


@given(st.integers(1, len(GET) - 1))
def test_a_request_that_is_arriving(place: int) -> None:
    """
    A request of which a part has arrived is served.
    """
    router = WiredRouter(HeldWorker(), drain_timeout=PATIENCE)
    client = router.connect(GET[:place])
    stopped = stopping(router)
    client.send(GET[place:])
    assert stopped == []
    answer(router, HEAD + b"fine")
    [whole] = client.answers
    assert (whole.body, whole.closes) == (b"fine", True)
    assert stopped == [None]


def test_requests_in_line() -> None:
    """
    Requests that wait for others to end get their turn.
    """
    router = WiredRouter(HeldWorker(), drain_timeout=PATIENCE, max_connections=1)
    clients = [router.connect(GET) for _ in range(3)]
    stopped = stopping(router)
    for number, client in enumerate(clients):
        assert stopped == []
        answer(router, HEAD + b"fine", number)
        assert [each.body for each in client.answers] == [b"fine"]
    assert stopped == [None]


@pytest.mark.parametrize("begun", [b"", HEAD + b"fi"])
@pytest.mark.parametrize("timeout", [0.0, 0.5, PATIENCE])
def test_late_answers_are_cut(begun: bytes, timeout: float, logged: list[LogEvent]) -> None:
    """
    An answer that has not ended in time is cut by a reset: nobody takes it for a whole one. With a
    time-out of 0 that is at once.
    """
    router = WiredRouter(HeldWorker(), drain_timeout=timeout, timeout=1e6, idle_timeout=1e6)
    client, idle = router.connect(GET), router.connect()
    answer(router, begun)
    stopped = stopping(router)
    if timeout:
        router.wait(timeout - 0.25, step=0.25)
        assert (stopped, client.closed) == ([], None)
        router.wait(0.25, step=0.25)
    assert client.reset
    assert idle.closed is not None
    assert stopped == [None]
    assert at_rest(router)
    assert told(logged)[-1] == "stopping: answers cut: 1"


def test_a_client_that_hangs_up(router: WiredRouter) -> None:
    """
    Nobody waits for an answer whose client has gone.
    """
    client = router.connect(GET)
    stopped = stopping(router)
    client.transport.abortConnection()
    router.settle()
    assert stopped == [None]
    assert at_rest(router)


def test_health_checks_go_on() -> None:
    """
    Workers are checked until the last answer has ended, and not after.
    """
    router = WiredRouter(HeldWorker(), health_check_interval=10.0, timeout=1e6)
    client = router.connect(GET)
    stopped = stopping(router)
    before = _checks(router)
    router.wait(20.0)
    assert _checks(router) == before + 2
    answer(router, HEAD + b"fine")
    assert [each.body for each in client.answers] == [b"fine"]
    assert stopped == [None]
    assert at_rest(router)


def _checks(router: WiredRouter) -> int:
    return sum(each.raw.count(b"GET /health ") for each in router.worker.connections)


def test_a_weight_update_ends(router: WiredRouter) -> None:
    """
    A call to the whole fleet whose client waits is carried to its end.
    """
    body = b'{"model_path":"p"}'
    client = router.connect(
        b"POST /update_weights_from_disk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    stopped = stopping(router)
    router.wait(PATIENCE - 1)
    assert stopped == []
    answer(router, b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"success":true}')
    [result] = client.answers[0].json["results"]
    assert result["body"] == {"success": True}
    assert stopped == [None]


@pytest.mark.parametrize("again", ["meanwhile", "afterwards"])
def test_stopped_twice(router: WiredRouter, again: str, logged: list[LogEvent]) -> None:
    """
    Whoever stops a router that is stopping or has stopped waits for the same end.
    """
    router.connect(GET)
    stops = [stopping(router)]
    if again == "meanwhile":
        stops.append(stopping(router))
        assert stops == [[], []]
    answer(router, HEAD + b"fine")
    if again == "afterwards":
        stops.append(stopping(router))
    assert stops == [[None], [None]]
    assert told(logged)[1:] == ["stopping: all answers have ended"]


def test_every_site_of_the_router(router: WiredRouter) -> None:
    """
    Connections of every site that the router made are waited for.
    """
    sites = [router.service.site() for _ in range(2)]
    clients = [router.connect(GET, site) for site in sites]
    stopped = stopping(router)
    for number in range(2):
        assert stopped == []
        answer(router, HEAD + b"fine", number)
    assert [each.body for client in clients for each in client.answers] == [b"fine"] * 2
    assert stopped == [None]
