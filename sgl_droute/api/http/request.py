"""
One request of a client: its body kept in a file, and refused beyond a limit.

Where its bytes come from is the business of `sgl_droute.api.http.channel`, or of another program's
site.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import parse_qs
from twisted.web.server import Request

from sgl_droute.api.http.target import origin_form
from sgl_droute.api.replies import abort, empty_reply, error_reply
from sgl_droute.api.telemetry.account import Accounts, begun
from sgl_droute.errors import BodyTooLarge, NoStorage, RouterError

log = Logger()

# A body up to this size stays in memory, a larger one goes to a temporary file.
SPOOL_IN_MEMORY = 1 << 16
DEFAULT_MAX_BODY_SIZE = 512 << 20


class RouterRequest(Request):
    """
    A request whose body is kept in a file, unparsed, and refused beyond the site's limit.

    A site of another program takes it as its ``requestFactory``; a ``max_body_size`` (bytes)
    attribute of that site is honoured.

    Attributes:
        admitted: Its target and ``Host`` have been judged, and the target is reduced.
        began: When its head was there (seconds, on the reactor's clock).
    """

    channel: Any
    began: float | None = None
    content: Any
    admitted = False
    _limit = DEFAULT_MAX_BODY_SIZE
    _size = 0
    _refused: RouterError | None = None

    @property
    def received(self) -> int:
        """Bytes of its body that have come (count)."""
        return self._size

    def gotLength(self, length: int | None) -> None:
        self._limit = getattr(self.channel.site, "max_body_size", DEFAULT_MAX_BODY_SIZE)
        if length is None or length > SPOOL_IN_MEMORY:
            self.content = SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY)  # noqa: SIM115
        else:
            self.content = BytesIO()
        if length is not None and length > self._limit:
            self._refuse_size()

    def parseCookies(self) -> None:
        """Cookies are the worker's business."""

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        self._size += len(data)
        if self._size > self._limit:
            self._refuse_size()
        else:
            self._keep(lambda: self.content.write(data))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, path, version
        if self._size and not self._refused:
            self._keep(lambda: self.content.seek(0))
        if not (self._refused or self.admitted):
            try:
                self.uri = origin_form(command, path)
            except RouterError as error:
                self._refuse(error)
        if self._refused:
            self._tell_refused(self._refused)
            return
        self.path, _, query = self.uri.partition(b"?")
        self.args = parse_qs(query, True) if query else {}
        if self.uri == b"*":
            self._answer_for_all()
        else:
            self.process()

    def process(self) -> None:
        """
        Have the site's resource answer.
        """
        self.site = self.channel.site
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            self.render(self.site.getResourceFor(self))
        except Exception:
            self.processingFailed(Failure())

    def write(self, data: bytes) -> None:
        """
        As the base; writing nothing sends the head of the answer.
        """
        super().write(data)
        if not data and hasattr(self.channel, "flush"):
            self.channel.flush()

    def processingFailed(self, reason: Failure) -> None:
        log.failure("request {path} broke", reason, path=self.path)
        if self.startedWriting:
            abort(self)
            return
        self._answer(error_reply(self, RouterError("Internal error")))

    def _answer_for_all(self) -> None:
        """Answer ``OPTIONS *``, which asks for no route."""
        body = empty_reply(self)
        accounts: Accounts | None = getattr(self.channel.site, "accounts", None)
        if accounts is not None:
            account = begun(self, accounts.now())
            account.status = self.code
            accounts.close(account)
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        self.write(body)
        self.finish()

    def _keep(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as problem:
            log.failure("a request body could not be kept")
            self._refuse(NoStorage(f"The request body could not be kept: {problem.strerror}"))

    def _refuse_size(self) -> None:
        self._refuse(BodyTooLarge(f"The request body is larger than {self._limit} bytes"))

    def _refuse(self, error: RouterError) -> None:
        self._refused = error
        with suppress(OSError):  # a full disk cannot take what is still to be flushed
            self.content.close()
        if self._refusing is not None:
            self._refusing(error)

    def _tell_refused(self, error: RouterError) -> None:
        # Channels of other programs take no answer before the request's end.
        if self._refusing is None:
            self._answer(error_reply(self, error))

    @property
    def _refusing(self) -> Callable[[RouterError], None] | None:
        """What answers at once and closes; None where the channel is another program's."""
        refuse: Callable[[RouterError], None] | None = getattr(self.channel, "refuse", None)
        return refuse
