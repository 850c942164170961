"""
``GET /events`` as clients see it.
"""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from sgl_droute.api import events
from sgl_droute.api.events import Events
from sgl_droute.api.sse import Streams
from sgl_droute.fleet.happenings import Happening, Happenings
from tests.api.streaming import Listener, Stage


class Newsroom(Stage):
    """
    Tells of what happens, at ``/s``.
    """

    def __init__(self, *, stock: bool = False, most: int = 100) -> None:
        clock = Clock()
        self.happenings = Happenings("run", clock.seconds, most)
        self.streams = Streams(clock)
        self.events = Events(self.happenings, self.streams)
        super().__init__(self.events.stream, clock, stock=stock)

    def happen(self, *kinds: str) -> None:
        for kind in kinds:
            self.happenings.add(kind, {})
        self.settle()


def kinds(client: Listener) -> list[str]:
    return [event.event for event in client.events]


def ids(client: Listener) -> list[str]:
    return [event.id for event in client.events]


@pytest.mark.parametrize("stock", [False, True], ids=["router", "stock"])
def test_what_happens_is_told(stock: bool) -> None:
    """
    A new client is told from where it reads, and then of what happens, not of what happened before.
    """
    room = Newsroom(stock=stock)
    room.happen("worker.added")
    client = room.ask()
    assert [(event.event, event.id) for event in client.events] == [("hello", "run-1")]
    room.happen("worker.state", "job.lost")
    hello, state, lost = client.events
    assert [(each.event, each.id) for each in (state, lost)] == [
        ("worker.state", "run-2"),
        ("job.lost", "run-3"),
    ]
    assert hello.json == {"type": "hello", "time": "1970-01-01T00:00:00.000Z"}
    assert lost.json == {"type": "job.lost", "time": "1970-01-01T00:00:00.000Z"}


@pytest.mark.parametrize("way", ["header", "query", "both"])
def test_a_client_comes_back(way: str) -> None:
    """
    A client that comes back gets what it missed and then goes on; what its header says counts more
    than its URL, which a browser does not change.
    """
    room = Newsroom()
    room.happen("worker.added", "worker.state", "job.lost")
    target = {"header": "/s", "query": "/s?last_event_id=run-1", "both": "/s?last_event_id=run-0"}
    headers = "" if way == "query" else "Last-Event-ID: run-1\r\n"
    client = room.ask(target[way], headers=headers)
    room.happen("job.failed")
    assert ids(client) == ["run-2", "run-3", "run-4"]


@pytest.mark.parametrize(
    ("read", "why", "lost"), [("run-1", "too_old", 2), ("old-9", "unknown", None)]
)
def test_a_client_comes_back_too_late(read: str, why: str, lost: int | None) -> None:
    """
    A client that missed what is not kept is told so first, and then gets what is.
    """
    room = Newsroom(most=2)
    room.happen(*["job.lost"] * 5)
    client = room.ask(headers=f"Last-Event-ID: {read}\r\n")
    room.happen("job.failed")
    assert kinds(client) == ["reset", "job.lost", "job.lost", "job.failed"]
    assert ids(client) == ["run-3", "run-4", "run-5", "run-6"]
    reset = client.events[0].json
    assert (reset["why"], reset["lost"], reset["kept"]) == (why, lost, 2)


def test_some_types() -> None:
    """
    A client hears of the types that it asks for, whole or by their first word; a reset is for all.
    """
    room = Newsroom(most=3)
    room.happen("worker.added", "job.lost", "queue.above", "worker.state")
    client = room.ask("/s?types=worker,job.lost&types=weights", headers="Last-Event-ID: run-0\r\n")
    room.happen("queue.below", "job.failed", "weights.update", "worker.removed")
    assert kinds(client) == [
        "reset",
        "job.lost",
        "worker.state",
        "weights.update",
        "worker.removed",
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("types", ["work", "worker.", "worker,jobs", "worker.state.x", "%ff", "*"])
def test_types_that_there_are_not(method: str, types: str) -> None:
    """
    Types that no event has are a 400 that names them and those that there are.
    """
    room = Newsroom()
    client = room.ask(f"/s?types={types}", method=method)
    assert client.status == 400
    assert not room.streams.open_now
    if method == "GET":
        answer = json.loads(client.received.partition(b"\r\n\r\n")[2])
        assert answer["reason"] == "bad_request"
        assert "worker.state" in answer["error"]


def test_no_types_are_all() -> None:
    """
    An empty list of types asks for all.
    """
    room = Newsroom()
    client = room.ask("/s?types=")
    room.happen("job.lost")
    assert kinds(client) == ["hello", "job.lost"]


def test_a_head_alone() -> None:
    """
    HEAD has the head, and nobody is told of anything then.
    """
    room = Newsroom()
    client = room.ask(method="HEAD")
    room.happen("job.lost")
    assert client.status == 200
    assert client.received.endswith(b"\r\n\r\n")


def test_clients_leave() -> None:
    """
    Of those that have left nothing stays.
    """
    room = Newsroom()
    clients = [room.ask() for _ in range(3)]
    for client in clients[:2]:
        client.transport.abortConnection()
    room.happen("job.lost")
    assert [kinds(client) for client in clients] == [["hello"], ["hello"], ["hello", "job.lost"]]
    room.streams.close()
    room.happen("job.lost")
    assert clients[2].whole
    assert room.events._listeners == {}


def test_all_that_is_kept() -> None:
    """
    A client may be sent all that is kept at once.
    """
    room = Newsroom(most=10_000)
    room.happen(*["job.lost"] * 10_000)
    client = room.ask(headers="Last-Event-ID: run-0\r\n")
    assert ids(client) == [f"run-{number}" for number in range(1, 10_001)]


def test_what_was_missed_waits_until_it_is_read() -> None:
    """
    What a client missed is made while it reads, so that many that read nothing cost little; what
    happens meanwhile comes behind it, and nothing is lost.
    """
    room = Newsroom(most=5000)
    room.happen(*["worker.state"] * 5000)
    made: list[str] = []
    spelled = events._told

    def told(happening: Happening) -> bytes:
        made.append(happening.id)
        return spelled(happening)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_told", told)
        client = room.ask(headers="Last-Event-ID: run-0\r\n", reading=False)
        room.happen("job.lost")
        assert len(made) < 2500
        client.transport.resumeProducing()
        room.settle()
    assert ids(client) == [f"run-{number}" for number in range(1, 5002)]
