"""
Which headers cross the router.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http_headers import Headers

from sgl_droute.workers.headers import to_client, to_worker

NAMES = st.sampled_from(
    [b"X-A", b"X-B", b"Cookie", b"Accept", b"Keep-Alive", b"TE", b"Upgrade", b"Trailer", b"Host"]
)
VALUES = st.binary(max_size=8).map(lambda raw: raw.translate(None, b"\r\n\0").strip(b" \t"))


def for_worker(headers: Headers) -> dict[bytes, list[bytes]]:
    out = to_worker(headers, client="10.0.0.1", scheme=b"http", host=b"r", request_id=b"1")
    return {name.lower(): list(values) for name, values in out.getAllRawHeaders()}


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12), st.lists(NAMES, max_size=4))
def test_what_may_cross_crosses_in_order(
    pairs: list[tuple[bytes, bytes]], named: list[bytes]
) -> None:
    """
    End-to-end headers keep their values and order; hop-by-hop ones and those named by Connection
    never cross.
    """
    headers = Headers()
    for name, value in pairs:
        headers.addRawHeader(name, value)
    for name in named:
        headers.addRawHeader(b"Connection", name + b", close")
    out = for_worker(headers)
    stopped = {b"keep-alive", b"te", b"upgrade", b"trailer", b"host", b"connection"}
    stopped |= {name.lower() for name in named}
    for name in {name.lower() for name, _ in pairs}:
        if name in stopped:
            assert name not in out
        else:
            assert out[name] == [value for each, value in pairs if each.lower() == name]


def test_the_headers_given_are_left_alone() -> None:
    """
    The client's own record is not changed.
    """
    headers = Headers({b"X-A": [b"1"], b"Connection": [b"x-a"]})
    before = headers.copy()
    for_worker(headers)
    assert headers == before


def test_a_client_without_an_address() -> None:
    """
    A client on a UNIX socket adds nothing to X-Forwarded-For.
    """
    out = to_worker(Headers(), client="", scheme=b"http", host=b"", request_id=b"1")
    assert not out.hasHeader(b"x-forwarded-for")
    assert not out.hasHeader(b"x-forwarded-host")


@pytest.mark.parametrize(
    ("location", "rewritten"),
    [
        (b"http://w:1/a?b", b"https://public/pre/a?b"),
        (b"HTTP://W:1/a", b"https://public/pre/a"),
        (b"http://w:1", b"https://public/pre"),
        (b"http://w:1?x", b"https://public/pre?x"),
        (b"http://w:10/a", b"http://w:10/a"),
        (b"http://w:1.evil/a", b"http://w:1.evil/a"),
        (b"http://other/a", b"http://other/a"),
        (b"/relative", b"/relative"),
        (b"https://w:1/a", b"https://public/pre/a"),
        (b"ftp://w:1/a", b"ftp://w:1/a"),
    ],
)
def test_locations(location: bytes, rewritten: bytes) -> None:
    """
    Only a Location at the worker's own address is put right.
    """
    out = to_client(
        Headers({b"Location": [location]}), worker=b"http://w:1", client_base=b"https://public/pre"
    )
    assert out.getRawHeaders(b"location") == [rewritten]
