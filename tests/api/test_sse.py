"""
Event streams: what clients read, and how streams end.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from sgl_droute.api.sse import BEAT, MOST_BEHIND, Stream, Streams, message
from tests.api.streaming import Stage, heard, sizes

SITES = pytest.mark.parametrize("stock", [False, True], ids=["router", "stock"])


class Streaming(Stage):
    """
    Opens a stream for each client; `ended` are those whose handlers went on by themselves.
    """

    def __init__(self, *, stock: bool = False) -> None:
        clock = Clock()
        self.streams = Streams(clock)
        self.opened: list[Stream] = []
        self.ended: list[Stream] = []
        super().__init__(self._stream, clock, stock=stock)

    async def _stream(self, request: Any) -> None:
        stream = self.streams.open(request)
        self.opened.append(stream)
        await stream.closed
        self.ended.append(stream)


@SITES
def test_the_head_comes_at_once(stock: bool) -> None:
    """
    A client has the head before there is any event, and nobody on the way keeps what it says.
    """
    stage = Streaming(stock=stock)
    client = stage.ask()
    head = client.head.lower().split("\r\n")
    assert head[0] == "http/1.1 200 ok"
    for line in (
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "server: sgl-droute",
    ):
        assert line in head
    assert any(line.startswith("x-request-id: ") for line in head)
    assert client.text == ""


@SITES
def test_events_arrive(stock: bool) -> None:
    """
    Each event comes as it is sent, with its type and id if it has them.
    """
    stage = Streaming(stock=stock)
    client = stage.ask()
    stage.opened[0].send("{}", event="a", id="1-1")
    stage.opened[0].send("é")
    stage.settle()
    assert client.text == "id: 1-1\nevent: a\ndata: {}\n\ndata: é\n\n"


@given(st.text(alphabet="ab:\n\r \u2028é\ud800"))
def test_any_text_is_read_as_it_was_sent(data: str) -> None:
    """
    Whatever is sent arrives as one event with that data, line ends as line feeds; half a surrogate
    pair as a question mark.
    """
    (event,) = heard(message(data).decode())
    lines = data.replace("\r\n", "\n").replace("\r", "\n").replace("\ud800", "?")
    assert event.data == lines


@SITES
def test_comments_keep_all_alive(stock: bool) -> None:
    """
    Every 15 s each client gets a comment, by one timer for all; without clients there is none.
    """
    stage = Streaming(stock=stock)
    clients = [stage.ask() for _ in range(3)]
    timed = [call for call in stage.clock.getDelayedCalls() if call.getTime() == BEAT]
    assert len(timed) == 1
    for _ in range(2):
        stage.clock.advance(BEAT)
    stage.settle()
    assert [client.text for client in clients] == [": \n\n" * 2] * 3
    for client in clients:
        client.transport.abortConnection()
    stage.settle()
    assert not stage.streams.open_now
    assert not [call for call in stage.clock.getDelayedCalls() if call.getTime() == 3 * BEAT]


@SITES
def test_a_client_that_may_listen_no_more(stock: bool) -> None:
    """
    With the next comment its stream ends, also while it is behind, and the others go on.
    """
    stage = Streaming(stock=stock)
    clients = [stage.ask() for _ in range(3)]
    clients[0].transport.pauseProducing()
    sizes(stage.opened[0], 20, 1 << 15)
    welcome = stage.opened[2]._request
    stage.streams.may_listen = lambda request: request is welcome
    stage.clock.advance(BEAT)
    clients[0].transport.resumeProducing()
    stage.settle()
    assert [client.whole for client in clients] == [True, True, False]
    assert clients[1].text == ""
    assert clients[2].text == ": \n\n"
    assert list(stage.streams.open_now) == [stage.opened[2]]


@SITES
def test_a_client_leaves(stock: bool) -> None:
    """
    When a client leaves its handler is cancelled, and what is sent to it is dropped.
    """
    stage = Streaming(stock=stock)
    client, other = stage.ask(), stage.ask()
    client.transport.abortConnection()
    stage.settle()
    assert stage.codes == ["client_gone_reading"]
    assert stage.ended == []
    assert list(stage.streams.open_now) == [stage.opened[1]]
    for stream in stage.opened:
        stream.send("{}")
    stage.settle()
    assert other.text == "data: {}\n\n"


@SITES
def test_the_router_stops(stock: bool) -> None:
    """
    A stop ends every stream as an answer should end, and refuses those who come then.
    """
    stage = Streaming(stock=stock)
    clients = [stage.ask() for _ in range(2)]
    stage.opened[0].send("last")
    stage.streams.close()
    stage.settle()
    assert all(client.whole for client in clients)
    assert clients[0].text == "data: last\n\n"
    assert stage.codes == ["done", "done"]
    assert stage.ended == stage.opened
    late = stage.ask()
    assert late.status == 503
    assert b'"reason":"stopping"' in late.received


@SITES
def test_a_head_alone(stock: bool) -> None:
    """
    HEAD has the head, and no stream.
    """
    stage = Streaming(stock=stock)
    client = stage.ask(method="HEAD")
    assert "text/event-stream" in client.head
    assert client.received.endswith(b"\r\n\r\n")
    assert stage.codes == ["done"]
    assert not stage.streams.open_now


@SITES
def test_a_client_that_is_behind(stock: bool) -> None:
    """
    A client that reads nothing for a while gets all of it later, in order.
    """
    stage = Streaming(stock=stock)
    client = stage.ask()
    client.transport.pauseProducing()
    for number in range(100):
        stage.opened[0].send(str(number) + " " * 30_000)
    stage.clock.advance(BEAT)
    stage.settle()
    client.transport.resumeProducing()
    stage.settle()
    assert [event.data.strip() for event in client.events] == [str(each) for each in range(100)]
    stage.opened[0].send("again")
    stage.settle()
    assert client.events[-1].data == "again"


@SITES
def test_a_client_that_catches_up(stock: bool) -> None:
    """
    A client that was behind and has taken all may be as far behind again.
    """
    stage = Streaming(stock=stock)
    client = stage.ask()
    for _ in range(3):
        client.transport.pauseProducing()
        sizes(stage.opened[0], 48, 1 << 16)
        client.transport.resumeProducing()
        stage.settle()
    assert client.closed is None
    assert len(client.events) == 3 * 48


@SITES
def test_a_client_too_far_behind(stock: bool) -> None:
    """
    A client for which more than 4 MiB wait is cut, and the others are not.
    """
    stage = Streaming(stock=stock)
    slow, quick = stage.ask(), stage.ask()
    slow.transport.pauseProducing()
    size = 1 << 16
    for _ in range(MOST_BEHIND // size - 1):
        stage.opened[0].send("x" * size)
        stage.opened[1].send("x" * size)
        stage.settle()
    assert slow.closed is None
    sizes(stage.opened[0], 4, size)
    stage.settle()
    assert slow.closed is not None
    assert stage.codes == ["client_gone_reading"]
    assert quick.closed is None
    assert list(stage.streams.open_now) == [stage.opened[1]]
    assert len(quick.events) == MOST_BEHIND // size - 1


@SITES
def test_a_client_that_takes_nothing(stock: bool) -> None:
    """
    A client that takes no byte for a minute of what waits for it is cut.
    """
    stage = Streaming(stock=stock)
    client = stage.ask()
    client.transport.pauseProducing()
    sizes(stage.opened[0], 3, 1 << 16)
    for _ in range(3):
        stage.clock.advance(BEAT)
        stage.settle()
    assert client.closed is None
    stage.clock.advance(BEAT)
    stage.settle()
    assert client.closed is not None
    assert stage.codes == ["client_gone_reading"]


def test_a_stop_while_a_client_is_behind() -> None:
    """
    A stop does not wait for what a slow client has not taken, and its last event is a whole one.
    """
    stage = Streaming()
    client = stage.ask()
    client.transport.pauseProducing()
    sizes(stage.opened[0], 20, 1 << 15)
    stage.streams.close()
    client.transport.resumeProducing()
    stage.settle()
    assert client.whole
    assert {event.data for event in client.events} == {"x" * (1 << 15)}
    assert client.text.endswith("\n\n")
