"""
Clients of event streams in memory, on a site of the router or on a stock one.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen
from klein import Klein
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.server import Site

from sgl_droute.api.dispatch import RouterResource
from sgl_droute.api.entry.cors import Cors
from sgl_droute.api.entry.door import Door
from sgl_droute.api.http.site import RouterSite
from sgl_droute.api.sse import Stream
from sgl_droute.api.telemetry.account import Accounts
from sgl_droute.fleet.keyring import Keyring
from tests.integration.wire import joined


@frozen
class Heard:
    """One event as a client reads it."""

    event: str
    id: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


def heard(text: str) -> list[Heard]:
    """
    The whole events in *text*, as the HTML standard has them read.
    """
    events = []
    for block in text.split("\n\n")[:-1]:
        lines = [line.partition(": ") for line in block.split("\n") if not line.startswith(":")]
        fields: dict[str, list[str]] = {}
        for name, _, value in lines:
            fields.setdefault(name, []).append(value)
        if fields:
            event, id = (fields.get(name, [""])[-1] for name in ("event", "id"))
            events.append(Heard(event, id, "\n".join(fields.get("data", []))))
    return events


class Listener(Protocol):
    """
    A client connection that keeps what it reads, and may stop reading.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.closed: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = reason

    @property
    def head(self) -> str:
        return self.received.partition(b"\r\n\r\n")[0].decode()

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    @property
    def whole(self) -> bool:
        """Whether the answer has come to its end."""
        return self.received.endswith(b"\r\n0\r\n\r\n")

    @property
    def text(self) -> str:
        """What came of the answer's body so far."""
        rest, body = self.received.partition(b"\r\n\r\n")[2], b""
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return body.decode()

    @property
    def events(self) -> list[Heard]:
        return heard(self.text)


class Stage:
    """
    What answers at ``/s``, on a clock.

    Args:
        handler: Answers a request, by way of the stream that it returns or waits for.
        stock: Whether the site is Twisted's own.

    Attributes:
        codes: How requests ended.
    """

    def __init__(self, handler: Any, clock: Clock, *, stock: bool = False) -> None:
        self.clock = clock
        self.codes: list[str] = []
        accounts = Accounts(clock.seconds)
        accounts.watch(lambda account: self.codes.append(account.code))
        routes = Klein()

        @routes.route("/s", methods=["GET"])
        async def answered(request: Any) -> None:
            await handler(request)

        api = type("Api", (), {"routes": routes, "access": {}})
        resource = RouterResource(api, accounts, Door(clock.seconds, Keyring(b"")), Cors())
        self.site: Site
        if stock:
            self.site = Site(resource, reactor=clock)
        else:
            self.site = RouterSite(
                clock, resource, max_body_size=1000, read_timeout=60.0, idle_timeout=60.0
            )

    def ask(
        self,
        target: str = "/s",
        *,
        method: str = "GET",
        headers: str = "",
        reading: bool = True,
    ) -> Listener:
        """
        A client that has asked for *target*; one that reads nothing yet unless it is *reading*.
        """
        listener = Listener()
        channel: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 2))
        joined(self.clock, listener, channel)
        if not reading:
            listener.transport.pauseProducing()
        request = f"{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"
        listener.transport.write(request.encode())
        self.settle()
        return listener

    def settle(self) -> None:
        """
        Let everything happen that needs no time.
        """
        for _ in range(100):
            self.clock.advance(0)


def sizes(stream: Stream, count: int, size: int) -> None:
    """
    Send *count* events of *size* bytes of data.
    """
    for _ in range(count):
        stream.send("x" * size)
