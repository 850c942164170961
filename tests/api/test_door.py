"""
The door: which key opens which route, and that no key goes further.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from sgl_droute.api.entry.access import Access, entered
from sgl_droute.api.entry.door import ANYBODY, Caller, Door, caller_of
from sgl_droute.api.telemetry.account import Account
from sgl_droute.api.wishes import wishes_of
from sgl_droute.errors import BadRequest, Forbidden, RouterError, TooManyRequests, Unauthorized
from sgl_droute.fleet.keyring import Key, Keyring, keyring
from sgl_droute.log_lines import masked

WEB = Key(name="web", digest=sha256(b"web-key").digest(), share=3.0)
FILES = Key(name="files", digest=sha256(b"files-key").digest(), files=True)
ROOT = Key(name="root", digest=sha256(b"root-key").digest())
SECRET = b"a secret of the process"
OPEN = Keyring(SECRET)
BOTH = keyring(SECRET, [WEB, FILES], [ROOT])
API_ONLY = keyring(SECRET, [WEB, FILES], None)
ADMIN_ONLY = keyring(SECRET, None, [ROOT])

PLAIN_CHALLENGE = 'Bearer realm="sgl-droute"'
INVALID = 'Bearer realm="sgl-droute", error="invalid_token"'


@define(eq=False)
class Asking:
    """
    As much of a request as the door looks at.
    """

    requestHeaders: Headers
    caller: Any = ANYBODY
    arrival: Any = None
    ended: Deferred[None] = field(factory=Deferred)

    def getClientAddress(self) -> Any:
        return None

    def notifyFinish(self) -> Deferred[None]:
        return self.ended


@define
class Visit:
    """
    One request at a door.
    """

    door: Door
    headers: Mapping[str, str | list[str]] = field(factory=dict)
    account: Account = field(
        factory=lambda: Account(id="", method="GET", path="/", began=0.0), init=False
    )
    request: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        lists = {n: [v] if isinstance(v, str) else v for n, v in self.headers.items()}
        self.request = Asking(Headers(lists))

    def admit(self, access: Access) -> Caller:
        return self.door.admit(self.request, access, self.account)

    def refused(self, access: Access) -> RouterError:
        with pytest.raises(RouterError) as refused:
            self.admit(access)
        return refused.value


def door_of(ring: Keyring, *, file_fields: bool = False) -> Door:
    return Door(Clock().seconds, ring, file_fields)


def visit(ring: Keyring, **headers: str | list[str]) -> Visit:
    """
    A request with *headers*, written with underscores.
    """
    return Visit(door_of(ring), {name.replace("_", "-"): v for name, v in headers.items()})


def bearer(key: str) -> str:
    return f"Bearer {key}"


# What a key opens, by the keys that are configured.
YES, WHO, WRONG, NO = "let in", PLAIN_CHALLENGE, INVALID, "forbidden"
TABLE = [
    (OPEN, None, (YES, YES, YES)),
    (OPEN, "unknown", (YES, YES, YES)),
    (BOTH, None, (YES, WHO, WHO)),
    (BOTH, "unknown", (YES, WRONG, WRONG)),
    (BOTH, "web-key", (YES, YES, NO)),
    (BOTH, "root-key", (YES, YES, YES)),
    (API_ONLY, None, (YES, WHO, NO)),
    (API_ONLY, "unknown", (YES, WRONG, NO)),
    (API_ONLY, "web-key", (YES, YES, NO)),
    (API_ONLY, "root-key", (YES, WRONG, NO)),
    (ADMIN_ONLY, None, (YES, YES, WHO)),
    (ADMIN_ONLY, "unknown", (YES, YES, WRONG)),
    (ADMIN_ONLY, "web-key", (YES, YES, WRONG)),
    (ADMIN_ONLY, "root-key", (YES, YES, YES)),
]


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
@pytest.mark.parametrize(("ring", "key", "outcomes"), TABLE)
def test_what_a_key_opens(
    ring: Keyring, key: str | None, outcomes: tuple[str, str, str], header: str
) -> None:
    """
    Whatever keys are configured, each opens what it is for and nothing else, in either header.
    """
    value = bearer(key or "") if header == "Authorization" else key
    for access, expected in zip(Access, outcomes, strict=True):
        came = Visit(door_of(ring), {header: value} if key and value else {})
        if expected == YES:
            came.admit(access)
            continue
        error = came.refused(access)
        if expected == NO:
            assert type(error) is Forbidden
        else:
            assert type(error) is Unauthorized
            assert error.headers == {"WWW-Authenticate": expected}


def test_what_is_told() -> None:
    """
    A refusal says in one sentence what is wrong, and names a key by its name only. The log has it
    whole: nothing in it looks like a key.
    """
    told = [
        (
            visit(BOTH),
            Access.INFERENCE,
            "This needs a key: Bearer KEY in Authorization, or KEY in X-Api-Key",
        ),
        (visit(BOTH, X_Api_Key="unknown"), Access.INFERENCE, "The key is not known"),
        (
            visit(BOTH, X_Api_Key="web-key"),
            Access.ADMIN,
            "Key web is for generations; this needs one for the fleet",
        ),
        (
            visit(API_ONLY, X_Api_Key="web-key"),
            Access.ADMIN,
            "This needs a key for the fleet, and there are none (--admin-keys)",
        ),
        (
            visit(BOTH, Authorization="Basic d2ViOmtleQ=="),
            Access.INFERENCE,
            "Authorization must be Bearer and a key, X-Api-Key a key",
        ),
    ]
    for came, access, sentence in told:
        assert str(came.refused(access)) == masked(sentence) == sentence


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic d2ViOmtleQ=="},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearerweb-key"},
        {"Authorization": "Bearer web-key, Bearer web-key"},
        {"Authorization": "Bearer web key"},
        {"Authorization": "web-key"},
        {"Authorization": ""},
        {"Authorization": ["Bearer web-key", "Basic d2ViOmtleQ=="]},
        {"Authorization": "Bearer " + "x" * 1025},
        {"X-Api-Key": ""},
        {"X-Api-Key": "web key"},
        {"X-Api-Key": "web-key", "Authorization": "Basic d2ViOmtleQ=="},
    ],
)
def test_malformed(headers: dict[str, str | list[str]]) -> None:
    """
    What is not a key where one belongs is 401, with the challenge.
    """
    error = Visit(door_of(BOTH), headers).refused(Access.INFERENCE)
    assert type(error) is Unauthorized
    assert error.headers == {"WWW-Authenticate": PLAIN_CHALLENGE}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer web-key", "X-Api-Key": "root-key"},
        {"Authorization": ["Bearer web-key", "Bearer root-key"]},
        {"X-Api-Key": ["web-key", "unknown"]},
    ],
)
def test_two_keys(headers: dict[str, str | list[str]]) -> None:
    """
    Two different keys are 400: whatever was meant, it was not both.
    """
    error = Visit(door_of(BOTH), headers).refused(Access.INFERENCE)
    assert type(error) is BadRequest
    assert str(error) == "The request brings different keys"


def test_the_same_key_twice() -> None:
    """
    The same key in both headers is one key; the scheme is read in any case.
    """
    came = visit(BOTH, Authorization="bEaReR  web-key", X_Api_Key=["web-key", "web-key"])
    assert came.admit(Access.INFERENCE).key == WEB


ANY_KEYS = st.sampled_from(["web-key", "root-key", "unknown", "", "Basic x", "a b", "\xff"])


@given(
    st.sampled_from([BOTH, API_ONLY, ADMIN_ONLY]),
    st.sampled_from(list(Access)),
    st.lists(ANY_KEYS, max_size=2),
    st.lists(ANY_KEYS, max_size=2),
    st.booleans(),
)
def test_no_key_goes_further(
    ring: Keyring, access: Access, bearers: list[str], plain: list[str], upgrade: bool
) -> None:
    """
    Once keys are configured neither header gets past the door, whether the request is let in or
    not, and whatever else it asks for; all other headers do.
    """
    others = (
        {"Upgrade": ["websocket"], "Connection": ["upgrade"]} if upgrade else {"Accept": ["*/*"]}
    )
    lists = {"Authorization": [bearer(key) for key in bearers], "X-Api-Key": plain}
    door = door_of(ring)
    asking: Any = Asking(Headers({**{n: v for n, v in lists.items() if v}, **others}))
    account = Account(id="", method="GET", path="/", began=0.0)
    with suppress(RouterError):
        door.leave(door.admit(asking, access, account))
    assert dict(asking.requestHeaders.getAllRawHeaders()) == dict(
        Headers(others).getAllRawHeaders()
    )


def test_open_routers_pass_everything_on() -> None:
    """
    Without keys the headers are not the router's: they go on as they came, and nobody is known.
    """
    came = visit(OPEN, Authorization=["Basic x", "Bearer y"], X_Api_Key="z")
    before = list(came.request.requestHeaders.getAllRawHeaders())
    for access in Access:
        assert came.admit(access) is ANYBODY
    assert list(came.request.requestHeaders.getAllRawHeaders()) == before
    assert (came.account.key, came.account.client) == (None, "")


def test_who_it_is() -> None:
    """
    The account, the line and whoever asks know the caller by the name of its key.
    """
    came = visit(BOTH, Authorization=bearer("web-key"), X_Client_Id="somebody")
    caller = came.admit(Access.INFERENCE)
    assert (came.account.key, came.account.client) == ("web", "key:web")
    assert caller_of(came.request) is caller
    wishes = wishes_of(came.request, max_priority=1, now=0.0)
    assert (wishes.client, wishes.share) == ("key:web", 3.0)


def test_strangers_are_told_apart() -> None:
    """
    Where generations need no key, clients that send different ones are different clients still.
    """
    clients = []
    for key in ("mine", "yours"):
        came = visit(ADMIN_ONLY, Authorization=bearer(key), X_Client_Id="same")
        came.admit(Access.INFERENCE)
        clients.append(wishes_of(came.request, max_priority=1, now=0.0).client)
        assert came.account.key is None
    assert clients[0] != clients[1]
    assert all(client.startswith("key:") for client in clients)
    nobody = visit(ADMIN_ONLY, X_Client_Id="same")
    nobody.admit(Access.INFERENCE)
    assert wishes_of(nobody.request, max_priority=1, now=0.0).client == "id:same"


@pytest.mark.parametrize("ring", [OPEN, BOTH])
def test_pages_of_other_sites(ring: Keyring) -> None:
    """
    What a page of another site makes a browser ask is refused on routes for operators, with keys
    and without, and nowhere else.
    """
    for site in ("cross-site", "Cross-Site", ["none", "cross-site"]):
        came = visit(ring, Sec_Fetch_Site=site, X_Api_Key="root-key")
        assert type(came.refused(Access.ADMIN)) is Forbidden
        visit(ring, Sec_Fetch_Site=site, X_Api_Key="root-key").admit(Access.INFERENCE)
    for site in ("same-origin", "same-site", "none"):
        visit(ring, Sec_Fetch_Site=site, X_Api_Key="root-key").admit(Access.ADMIN)


def test_limits() -> None:
    """
    A key over its limit is refused with 429 until a request of it has ended, each one once; others
    are not concerned.
    """
    door = door_of(keyring(SECRET, [evolve(WEB, in_flight=1), FILES], [ROOT]))
    web = {"X-Api-Key": "web-key"}
    first = Visit(door, web)
    with entered(door, first.request, Access.INFERENCE, first.account):
        error = Visit(door, web).refused(Access.INFERENCE)
        assert type(error) is TooManyRequests
        assert (error.reason, error.headers["Retry-After"]) == ("too_many_in_flight", "1")
        Visit(door, {"X-Api-Key": "files-key"}).admit(Access.INFERENCE)
        assert door.quotas.in_flight("web") == 1
    again = Visit(door, web)
    caller = again.admit(Access.INFERENCE)
    door.leave(caller)
    with pytest.raises(ValueError, match="before"):
        door.leave(caller)


def test_a_key_that_may_not_counts_nothing() -> None:
    """
    A request that is refused for what it asks is none under way.
    """
    door = door_of(BOTH)
    Visit(door, {"X-Api-Key": "web-key"}).refused(Access.ADMIN)
    assert door.quotas.in_flight("web") == 0


def test_new_keys() -> None:
    """
    Other keys hold from the next request on, and what was used of limits stays.
    """
    limited = evolve(WEB, in_flight=1)
    door = door_of(keyring(SECRET, [limited], None))
    held = Visit(door, {"X-Api-Key": "web-key"}).admit(Access.INFERENCE)
    changed = evolve(limited, digest=sha256(b"new-key").digest())
    door.use(keyring(SECRET, [changed], None))
    assert type(Visit(door, {"X-Api-Key": "web-key"}).refused(Access.INFERENCE)) is Unauthorized
    assert type(Visit(door, {"X-Api-Key": "new-key"}).refused(Access.INFERENCE)) is TooManyRequests
    door.leave(held)
    Visit(door, {"X-Api-Key": "new-key"}).admit(Access.INFERENCE)


@pytest.mark.parametrize(
    ("ring", "headers", "status"),
    [
        (OPEN, {}, None),
        (ADMIN_ONLY, {}, None),
        (BOTH, {}, 401),
        (BOTH, {"X-Api-Key": "unknown"}, 401),
        (BOTH, {"X-Api-Key": "web-key", "Authorization": "Bearer root-key"}, 400),
        (BOTH, {"X-Api-Key": "web-key"}, None),
        (BOTH, {"Authorization": "Bearer root-key"}, None),
        (API_ONLY, {"Authorization": "Bearer root-key"}, 401),
    ],
)
def test_before_the_body(
    ring: Keyring, headers: dict[str, str | list[str]], status: int | None
) -> None:
    """
    By its head alone a request is refused that would be let in nowhere; it is not under way yet,
    and its headers are left for the door.
    """
    came = Visit(door_of(ring), headers)
    before = list(came.request.requestHeaders.getAllRawHeaders())
    error = came.door.early(came.request)
    assert (error and error.status) == status
    assert list(came.request.requestHeaders.getAllRawHeaders()) == before
    assert came.door.quotas.in_flight("web") == 0


@pytest.mark.parametrize("how", ["admitted", "refused", "gone", "broken"])
def test_while_a_body_comes(how: str) -> None:
    """
    From its head on a large request counts for the limit of its key, until it is at the door or
    has ended.
    """
    door = door_of(keyring(SECRET, [evolve(WEB, in_flight=1)], [ROOT]))
    coming, other = (Visit(door, {"X-Api-Key": "web-key"}) for _ in range(2))
    assert door.early(coming.request) is None
    error = door.early(other.request)
    assert type(error) is TooManyRequests
    assert error.reason == "too_many_in_flight"
    if how == "admitted":
        door.leave(coming.admit(Access.INFERENCE))
    elif how == "refused":
        coming.refused(Access.ADMIN)
    elif how == "gone":
        coming.request.ended.callback(None)
    else:
        coming.request.ended.errback(ConnectionLost())
    assert door.early(other.request) is None
    other.admit(Access.INFERENCE)


@pytest.mark.parametrize(
    ("ring", "key", "setting", "may"),
    [
        (OPEN, None, False, True),
        (BOTH, "web-key", False, False),
        (BOTH, "web-key", True, True),
        (BOTH, "files-key", False, True),
        (BOTH, "root-key", False, True),
        (ADMIN_ONLY, None, False, True),
        (ADMIN_ONLY, "root-key", False, True),
    ],
)
def test_who_may_name_files(ring: Keyring, key: str | None, setting: bool, may: bool) -> None:
    """
    Keys for generations may not name files on workers, unless they or all of them are let.
    """
    door = door_of(ring, file_fields=setting)
    came = Visit(door, {"X-Api-Key": key} if key else {})
    came.admit(Access.INFERENCE)
    assert door.names_files_freely(came.request) == may


@given(st.binary(max_size=40), st.sampled_from(list(Access)))
@example(b"web-key", Access.ADMIN)
@example(b"Bearer web-key", Access.INFERENCE)
def test_any_header_value(value: bytes, access: Access) -> None:
    """
    Whatever the headers hold, a request is let in with a known key or refused in order.
    """
    door = door_of(BOTH)
    account = Account(id="", method="GET", path="/", began=0.0)
    clean = value.replace(b"\r", b"").replace(b"\n", b"")
    asking: Any = Asking(Headers({b"Authorization": [clean], b"X-Api-Key": [clean]}))
    try:
        caller = door.admit(asking, access, account)
    except (Unauthorized, Forbidden, BadRequest):
        return
    assert access is Access.OPEN or caller.key is not None


def test_who_may_stay() -> None:
    """
    Whoever was let in may stay as long as its key is one that may as much, whatever its limits are;
    who has none, as long as none is asked for.
    """
    came = visit(BOTH, X_Api_Key="root-key")
    came.admit(Access.ADMIN)
    other = Key(name="other", digest=sha256(b"other-key").digest())
    for ring, stays in (
        (BOTH, True),
        (keyring(SECRET, None, [other, evolve(ROOT, name="renamed", in_flight=1)]), True),
        (keyring(SECRET, [WEB], [other]), False),
        (keyring(SECRET, [ROOT], [other]), False),
        (OPEN, False),
    ):
        came.door.use(ring)
        assert came.door.still_admits(came.request) is stays
    nobody = visit(OPEN)
    nobody.admit(Access.ADMIN)
    assert nobody.door.still_admits(nobody.request)
    nobody.door.use(API_ONLY)
    assert not nobody.door.still_admits(nobody.request)
