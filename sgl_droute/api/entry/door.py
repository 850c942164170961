"""
The door: which request may come in, by the key that it brings.

What routes need is told by `sgl_droute.api.entry.access`, what keys there are by
`sgl_droute.fleet.keyring`, and which limits they have by `sgl_droute.fleet.quotas`. A key goes no
further than this: it is taken from the request before a handler sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from attrs import define, field, frozen
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from sgl_droute.api.entry.access import Access
from sgl_droute.api.telemetry.account import Account
from sgl_droute.errors import BadRequest, Forbidden, RouterError, Unauthorized
from sgl_droute.fleet.keyring import Key, Keyring
from sgl_droute.fleet.quotas import Arrival, Entry, Quotas

_AUTHORIZATION = b"Authorization"
_API_KEY = b"X-Api-Key"
_SITE = b"Sec-Fetch-Site"
_CHALLENGE = 'Bearer realm="sgl-droute"'
# RFC 6750 2.1, with what else is visible: keys may have been made by anything.
_BEARER = re.compile(rb"bearer +([!-~]{1,1024})", re.IGNORECASE)
_PLAIN = re.compile(rb"[!-~]{1,1024}")


@frozen(eq=False)
class Caller:
    """
    Who was let in.

    Attributes:
        client: Who it is in line; empty where its key does not tell.
        key: The key that it brought; None without one that is known.
        entry: What is counted until the request ends.
    """

    client: str = ""
    key: Key | None = None
    entry: Entry | None = None

    @property
    def share(self) -> float:
        """Turns that it has in line for one of a usual client."""
        return 1.0 if self.key is None else self.key.share

    @property
    def files(self) -> bool:
        """Whether its requests may name files on a worker."""
        return self.key is None or self.key.admin or self.key.files


ANYBODY = Caller()


def caller_of(request: Request) -> Caller:
    """
    Who makes *request*; `ANYBODY` if no door has let it in.
    """
    caller: Caller = getattr(request, "caller", ANYBODY)
    return caller


@define(eq=False)
class Door:
    """
    Lets requests in.

    Args:
        now: The reactor's clock (seconds).
        keyring: The keys that are known.
        file_fields: Whether all keys for generations may name files on workers.
    """

    now: Callable[[], float]
    keyring: Keyring
    file_fields: bool = False
    quotas: Quotas = field(factory=Quotas, init=False)

    def use(self, keyring: Keyring) -> None:
        """
        Know other keys from now on; what those that stay have used of their limits stays too.
        """
        self.keyring = keyring
        self.quotas.keep(key.name for key in keyring.keys)

    def admit(self, request: Request, access: Access, account: Account) -> Caller:
        """
        As `sgl_droute.api.entry.access.Doorkeeper.admit`; `caller_of` has the caller from here on.

        Raises:
            BadRequest: It brings two keys.
            Unauthorized: It needs a key and has none that is known.
            Forbidden: Its key is not one for this, nobody may do it, or a page of another site
                made a browser ask.
            TooManyRequests: A limit of its key is reached.
        """
        arrival: Arrival | None = getattr(request, "arrival", None)
        if arrival is not None:
            arrival.end()
        headers = request.requestHeaders
        if access is Access.ADMIN and headers.hasHeader(_SITE):
            _check_site(headers)
        if not self.keyring.asks:
            return ANYBODY
        if access is Access.OPEN:
            _take_key(headers)
            return ANYBODY
        try:
            caller = self._caller(headers, access)
        finally:
            _take_key(headers)
        account.client = caller.client
        if caller.key is not None:
            account.key = caller.key.name
        made: Any = request
        made.caller = caller
        return caller

    def leave(self, caller: object) -> None:
        """
        As `sgl_droute.api.entry.access.Doorkeeper.leave`.
        """
        if isinstance(caller, Caller) and caller.entry is not None:
            caller.entry.leave()

    def early(self, request: Request) -> RouterError | None:
        """
        Why *request*, of which only the head is there, is let in nowhere; None if it may be, which
        counts for its key until its body is there or it has ended.

        Its headers stay as they are.
        """
        try:
            key = self._known(request.requestHeaders, self.keyring.inference)
            if key is not None:
                arrival = self.quotas.arrive(key, self.now())
                made: Any = request
                made.arrival = arrival
                request.notifyFinish().addBoth(lambda _: arrival.end())
        except RouterError as error:
            return error
        return None

    def still_admits(self, request: Request) -> bool:
        """
        Whether *request*, which was let in, has a key that may as much now as it might then; none,
        where none is asked for.
        """
        had = caller_of(request).key
        if had is None:
            return not self.keyring.asks
        keys = self.keyring.keys
        return any(key.digest == had.digest and key.admin >= had.admin for key in keys)

    def names_files_freely(self, request: Request) -> bool:
        """
        As `sgl_droute.api.entry.access.Doorkeeper.names_files_freely`.
        """
        return self.file_fields or caller_of(request).files

    def _caller(self, headers: Headers, access: Access) -> Caller:
        ring = self.keyring
        if access is Access.ADMIN and not ring.management:
            raise Forbidden("This needs a key for the fleet, and there are none (--admin-keys)")
        asked = ring.inference if access is Access.INFERENCE else ring.management
        key = self._known(headers, asked)
        if key is None:
            return Caller(_stranger(headers))
        if access is Access.ADMIN and not key.admin:
            raise Forbidden(f"Key {key.name} is for generations; this needs one for the fleet")
        return Caller(f"key:{key.name}", key, self.quotas.enter(key, self.now()))

    def _known(self, headers: Headers, asked: bool) -> Key | None:
        """
        The key that *headers* bring; None without one that is known, if none is *asked* for.
        """
        given, sound = _given(headers)
        if asked:
            if not sound:
                wrong = "Authorization must be Bearer and a key, X-Api-Key a key"
                raise _unauthorized(wrong)
            if not given:
                raise _unauthorized(
                    "This needs a key: Bearer KEY in Authorization, or KEY in X-Api-Key"
                )
            if len(given) > 1:
                raise BadRequest("The request brings different keys")
        key = self.keyring.find(given[0]) if sound and len(given) == 1 else None
        if asked and key is None:
            raise _unauthorized("The key is not known", ', error="invalid_token"')
        return key


def _given(headers: Headers) -> tuple[list[bytes], bool]:
    """
    The different keys in *headers*, and whether nothing but keys is where they belong.
    """
    bearers = [_BEARER.fullmatch(each) for each in headers.getRawHeaders(_AUTHORIZATION, [])]
    plain = [_PLAIN.fullmatch(each) for each in headers.getRawHeaders(_API_KEY, [])]
    keys = [found[1] for found in bearers if found] + [found[0] for found in plain if found]
    return list(dict.fromkeys(keys)), None not in bearers and None not in plain


def _take_key(headers: Headers) -> None:
    headers.removeHeader(_AUTHORIZATION)
    headers.removeHeader(_API_KEY)


def _stranger(headers: Headers) -> str:
    """
    What tells clients apart by what they bring, where no key is asked for.
    """
    brought = headers.getRawHeaders(_AUTHORIZATION)
    return f"key:{digest_of(brought)}" if brought else ""


def digest_of(values: Sequence[bytes]) -> str:
    """
    A short name for the client that sends *values* as its ``Authorization``, which is secret.
    """
    return sha256(b",".join(values)).hexdigest()[:12]


def _check_site(headers: Headers) -> None:
    values = headers.getRawHeaders(_SITE, [])
    if any(value.strip().lower() == b"cross-site" for value in values):
        raise Forbidden("Pages of other sites may not manage the fleet")


def _unauthorized(text: str, error: str = "") -> Unauthorized:
    return Unauthorized(text, headers={"WWW-Authenticate": _CHALLENGE + error})
