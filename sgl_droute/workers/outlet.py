"""
Writing to a connection with as few steps as it takes.

A transport's own ``write`` copies into its buffer and sends when the reactor comes round again. An
outlet gives the bytes to the socket at once; only what that does not take goes through the buffer,
and meanwhile the source of the bytes is asked to pause.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from socket import AF_INET, AF_INET6, IPPROTO_TCP, socket
from typing import Any

from twisted.internet.interfaces import IPullProducer, IPushProducer
from zope.interface import implementer

# Bytes that the kernel takes for a peer beyond what is on its way there. Left to itself it takes
# megabytes for each of a thousand clients that read nothing. Linux and macOS have the option, and
# Python has its name from 3.12 on.
_UNSENT = 1 << 17
_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)


@implementer(IPushProducer, IPullProducer)
class Outlet:
    """
    The one way to write to *transport*, as soon as there is an outlet for it.

    Attributes:
        source: Where the bytes come from: asked to pause while some wait, and to resume then.
    """

    __slots__ = ("_socket", "_transport", "full", "source")

    def __init__(self, transport: Any) -> None:
        self.source: Any = None
        self.full = False
        self._transport = transport
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        # TLS has a handle too, which is no socket: its bytes are not the connection's.
        self._socket = handle if isinstance(handle, socket) else None
        _bound_unsent(getattr(transport, "transport", transport))
        if self._socket is None:
            transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """
        Send *data* behind all that was written before.
        """
        if self._socket is None or self.full:
            self._transport.write(data)
            return
        try:
            sent = self._socket.send(data)
        except OSError:
            sent = 0  # it takes nothing now, or never again: the transport finds out
        if sent < len(data):
            self._transport.write(data[sent:] if sent else data)
            self._wait()

    def release(self) -> None:
        """
        Have no more to do with the transport's producers: before closing, or giving it away. What
        is written after this is sent in order all the same.
        """
        self.source = None
        if self._socket is None or self.full:
            self._transport.unregisterProducer()

    def _wait(self) -> None:
        self._transport.registerProducer(self, False)
        self.pauseProducing()

    # From the transport.

    def pauseProducing(self) -> None:
        """The transport's buffer is filling."""
        self.full = True
        if self.source is not None:
            self.source.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        if not self.full:
            return  # a transport greets a pull producer with this
        self.full = False
        if self._socket is not None:
            self._transport.unregisterProducer()
        if self.source is not None:
            self.source.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost, which its protocol learns too."""


def _bound_unsent(tcp: Any) -> None:
    """
    Have the kernel take no more for *tcp* than it is about to send; below TLS too.
    """
    handle = tcp.getHandle() if hasattr(tcp, "getHandle") else None
    if (
        _NOTSENT_LOWAT is not None
        and isinstance(handle, socket)
        and handle.family in (AF_INET, AF_INET6)
    ):
        with suppress(OSError):  # an old kernel
            handle.setsockopt(IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT)
