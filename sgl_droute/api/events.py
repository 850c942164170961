"""
What happens in the fleet, as a stream of events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from attrs import define, field
from twisted.web.server import Request

from sgl_droute.api.sse import Stream, Streams, message
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.happenings import Happening, Happenings
from sgl_droute.fleet.reporter import KINDS

# Events that a client is told together that has missed more (count).
_AT_ONCE = 100

_Types = tuple[str, ...]


@define(eq=False)
class Events:
    """
    Tells clients of what happens, also of what happened while they were away.

    Args:
        happenings: Told on.
        streams: Where the clients are.
    """

    happenings: Happenings
    streams: Streams
    _listeners: dict[Stream, _Types] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.happenings.watch(self._happened)

    async def stream(self, request: Request) -> None:
        """
        Answer *request* with what happens from now on; of one that comes back with an id, with
        what it missed before.

        Raises:
            BadRequest: It asks for types of events that there are not.
            NoWorker: The router is stopping.
        """
        types = _types_of(request)
        read = _last_id(request)
        stream = self.streams.open(request)
        if read:
            missed = self.happenings.after(read)
            first = [missed.reset] if missed.reset else []
            stream.begin_with(chain(map(_told, first), _told_of(missed.rest, types)))
        else:
            stream.write(_told(self.happenings.greeting()))
        self._listeners[stream] = types
        try:
            await stream.closed
        finally:
            del self._listeners[stream]

    def _happened(self, happening: Happening) -> None:
        if not self._listeners:
            return
        told = _told(happening)
        for stream, types in list(self._listeners.items()):
            if _is_of(happening.kind, types):
                stream.write(told)


def _told(happening: Happening) -> bytes:
    return message(happening.text, event=happening.kind, id=happening.id)


def _told_of(happenings: Sequence[Happening], types: _Types) -> Iterator[bytes]:
    """
    Those of *happenings* that are of *types*, some at a time.
    """
    for start in range(0, len(happenings), _AT_ONCE):
        some = happenings[start : start + _AT_ONCE]
        told = b"".join([_told(each) for each in some if _is_of(each.kind, types)])
        if told:
            yield told


def _types_of(request: Request) -> _Types:
    asked = [text.strip() for values in _values(request, b"types") for text in values.split(",")]
    types = tuple(text for text in asked if text)
    for text in types:
        if not any(_is_of(kind, (text,)) for kind in KINDS):
            known = ", ".join(KINDS)
            raise BadRequest(f"There are no events of the type {text!r}. There are: {known}")
    return types


def _is_of(kind: str, types: _Types) -> bool:
    """
    Whether *kind* is one of *types* or begins with one: ``worker.state`` is a ``worker``.
    """
    return not types or any(kind == each or kind.startswith(f"{each}.") for each in types)


def _last_id(request: Request) -> str:
    """
    Up to where a client has read. A browser that comes back by itself tells that in the header, and
    asks for the URL that it first asked for.
    """
    given = request.requestHeaders.getRawHeaders(b"last-event-id", [])
    told = [value.decode("latin-1") for value in given] + _values(request, b"last_event_id")
    return next((text for text in told if text), "")


def _values(request: Request, name: bytes) -> list[str]:
    return [value.decode("utf-8", "replace") for value in request.args.get(name, [])]
