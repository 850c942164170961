"""
A request body on its way into a connection, as fast as the worker takes it.

What the body is, and what follows it, is not its business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from sgl_droute.workers.outlet import Outlet


@implementer(IConsumer)
class Upload:
    """
    Has *producer* write its body to *outlet*, in chunks if it does not know its length.

    Args:
        failed: Called with a reason if the body broke off, or had another length than it said.

    Attributes:
        ended: Whether all of the body is written.
    """

    __slots__ = ("_failed", "_left", "_outlet", "_producer", "_stopped", "ended")

    def __init__(
        self, outlet: Outlet, producer: IBodyProducer, failed: Callable[[str], None]
    ) -> None:
        self.ended = False
        self._outlet = outlet
        self._producer = producer
        self._failed = failed
        self._stopped = False
        self._left: int | None = None
        if producer.length is not UNKNOWN_LENGTH:
            self._left = producer.length

    def start(self) -> None:
        """
        Begin; a small body may be written when this returns.
        """
        producing: Deferred[Any] = maybeDeferred(self._producer.startProducing, self)
        producing.addCallbacks(self._produced, self._broke)
        if self._moving:
            self.registerProducer(self._producer, True)

    def stop(self) -> None:
        """
        Write no more, if not all is written.
        """
        if self._moving:
            self._stopped = True
            self._outlet.source = None
            self._producer.stopProducing()

    @property
    def _moving(self) -> bool:
        return not (self.ended or self._stopped)

    # From the producer.

    def write(self, data: bytes) -> None:
        """
        Send a part of the body.
        """
        if not self._moving or not data:
            return
        if self._left is None:
            self._outlet.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        self._left -= len(data)
        if self._left < 0:
            self.stop()
            self._failed("the request body is longer than it said")
        else:
            self._outlet.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Have *producer* paused while the worker takes no more.
        """
        self._outlet.source = producer
        if self._outlet.full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """
        Have nobody paused.
        """
        self._outlet.source = None

    def _produced(self, _: object) -> None:
        if not self._moving:
            return
        self._outlet.source = None
        if self._left:
            self._stopped = True
            self._failed("the request body is shorter than it said")
            return
        if self._left is None:
            self._outlet.write(b"0\r\n\r\n")
        self.ended = True

    def _broke(self, failure: Failure) -> None:
        if self._moving:
            self._stopped = True
            self._outlet.source = None
            self._failed(f"the request body broke off: {failure.getErrorMessage()}")
