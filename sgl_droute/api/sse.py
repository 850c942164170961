"""
Answers that go on: server-sent events (the event stream of the HTML standard, section 9.2).

What is sent, and when, is up to whoever opened the stream.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from sgl_droute.api.replies import abort, empty_reply
from sgl_droute.api.telemetry.account import account_of
from sgl_droute.errors import NoWorker
from sgl_droute.workers.unsent import unsent_bytes

log = Logger()

# Seconds between two comments, which show both ends that the other one is there.
BEAT = 15.0
_COMMENT = b": \n\n"
# Beats for which a client may take no byte of what waits for it.
_PATIENCE = 4
# Bytes that may wait for a client.
MOST_BEHIND = 4 << 20

_LINE_END = re.compile(r"\r\n|\r|\n")


def message(data: str, *, event: str = "", id: str = "") -> bytes:
    """
    One event as bytes, for `Stream.write`.

    Args:
        data: Any text; half a surrogate pair becomes a question mark.
        event: Its type, in one line; a client takes it for "message" if it is empty.
        id: What a client comes back with as ``Last-Event-ID``, in one line.
    """
    lines = _LINE_END.split(data) if "\n" in data or "\r" in data else [data]
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    text = head + "".join([f"data: {line}\n" for line in lines]) + "\n"
    return text.encode("utf-8", "replace")


@implementer(IPushProducer)
class Stream:
    """
    An answer that events are sent in until it ends; a handler waits for `closed`.

    Attributes:
        closed: Fires when the stream has ended, however: the router stops, or the client left or
            was cut. Cancelling it ends the stream too.
    """

    def __init__(self, request: Request, streams: Streams) -> None:
        self.closed: Deferred[None] = Deferred(lambda _: self._leave())
        self._request = request
        self._streams = streams
        self._first: Iterator[bytes] = iter(())
        self._waiting: deque[bytes] = deque()
        self._behind = 0
        self._paused = False
        self._unsent: int | None = None
        self._stuck = 0

    def send(self, data: str, *, event: str = "", id: str = "") -> None:
        """
        Send an event, see `message`; nothing happens once the stream has ended.
        """
        if self in self._streams.open_now:
            self.write(message(data, event=event, id=id))

    def write(self, event: bytes) -> None:
        """
        Send what `message` gave. A client that is further behind than `MOST_BEHIND` is cut.
        """
        if self not in self._streams.open_now:
            return
        if not self._paused:
            self._request.write(event)
            return
        self._waiting.append(event)
        self._behind += len(event)
        if self._behind > MOST_BEHIND:
            self._cut()

    def begin_with(self, events: Iterator[bytes]) -> None:
        """
        As `write`, of much at once: *events*, one or some of what `message` gave at a time, are
        asked for as the client takes them, before all that is written from now on.
        """
        self._first = events
        if not self._paused:
            self._go_on()

    def end(self) -> None:
        """
        End the answer as it should; what waits for a client that is behind is dropped.
        """
        self._leave()
        self._fire()

    def beat(self) -> None:
        """
        Show that both ends are there: send a comment, or cut a client that takes nothing. One that
        may not listen any more has its stream ended.
        """
        if not self._streams.may_listen(self._request):
            self.end()
            return
        if not self._paused:
            self._request.write(_COMMENT)
            return
        before, self._unsent = self._unsent, unsent_bytes(self._request.transport)
        self._stuck = self._stuck + 1 if self._unsent == before else 0
        if self._stuck >= _PATIENCE:
            self._cut()

    def begin(self) -> None:
        """
        Send the head of the answer.
        """
        self._request.registerProducer(self, True)
        self._request.notifyFinish().addErrback(self._client_left)
        self._request.write(b"")

    # From the client's transport.

    def pauseProducing(self) -> None:
        self._paused = True
        self._stuck = 0
        self._unsent = unsent_bytes(self._request.transport)

    def resumeProducing(self) -> None:
        self._paused = False
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost, which the request tells too."""

    def _go_on(self) -> None:
        """
        Write what waits, until the client has enough.
        """
        while not self._paused and (events := next(self._first, b"")):
            self._request.write(events)
        while self._waiting and not self._paused:
            event = self._waiting.popleft()
            self._behind -= len(event)
            self._request.write(event)

    # Endings.

    def _cut(self) -> None:
        # The connection's loss ends the handler, as if the client had left.
        log.info("an event stream was cut: its client is {bytes} bytes behind", bytes=self._behind)
        self._leave()
        abort(self._request)

    def _client_left(self, _: Failure) -> None:
        self._leave()
        # Whoever waits is about to be cancelled, and must not take it for the stream's own end.
        self._streams.clock.callLater(0, self._fire)

    def _leave(self) -> None:
        if self not in self._streams.open_now:
            return
        self._streams.left(self)
        self._first = iter(())
        self._waiting.clear()
        if self._request.channel is not None:
            self._request.unregisterProducer()

    def _fire(self) -> None:
        if not self.closed.called:
            self.closed.callback(None)


@define(eq=False)
class Streams:
    """
    All event streams of a router.

    Args:
        clock: Provides the time.

    Attributes:
        may_listen: Whether who made a request may listen; asked with each comment, since keys
            change.
        open_now: Those that have not ended, in the order in which they were opened.
    """

    clock: Any
    may_listen: Callable[[Request], bool] = field(default=lambda request: True, init=False)
    open_now: dict[Stream, None] = field(factory=dict, init=False)
    _beats: LoopingCall = field(init=False)
    _stopping: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._beats = LoopingCall(self._beat)
        self._beats.clock = self.clock

    def open(self, request: Request) -> Stream:
        """
        Begin to answer *request* with events; an answer to HEAD has ended already.

        Raises:
            NoWorker: The router is stopping.
        """
        if self._stopping:
            raise NoWorker("The router is stopping", reason="stopping")
        empty_reply(request)
        request.setResponseCode(200)
        account_of(request).status = 200
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Accel-Buffering", b"no")
        stream = Stream(request, self)
        if request.method == b"HEAD":
            stream.end()
            return stream
        self.open_now[stream] = None
        if not self._beats.running:
            self._beats.start(BEAT, now=False)
        stream.begin()
        return stream

    def left(self, stream: Stream) -> None:
        """
        Note that *stream* has ended.
        """
        self.open_now.pop(stream, None)
        if not self.open_now and self._beats.running:
            self._beats.stop()

    def close(self) -> None:
        """
        End all streams, and open no other.
        """
        self._stopping = True
        for stream in list(self.open_now):
            stream.end()

    def _beat(self) -> None:
        for stream in list(self.open_now):
            if stream in self.open_now:
                stream.beat()
