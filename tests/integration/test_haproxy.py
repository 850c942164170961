"""
The router's verdicts beside those of a real HAProxy: where they differ, and why.
"""

# ruff: noqa: E501 (one reason, one line)

from __future__ import annotations

import shutil

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet.defer import Deferred

from tests.integration.corpus import CASES, MAX_BODY
from tests.integration.haproxy import Verdict, program_version, running_haproxy
from tests.integration.smuggling import SMUGGLED
from tests.integration.wire import WiredRouter

PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
# Other versions judge some cases otherwise; the router may be laxer than none of them.
VERSION = "2.6"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="haproxy is not installed")

ALL = {case.name: case.data for case in (*CASES, *SMUGGLED)}


@frozen
class Differ:
    """
    Cases that HAProxy judges otherwise.

    Attributes:
        there: HAProxy's verdict.
        reason: Why the router's, which the case tells, is not the same.
    """

    there: Verdict
    reason: str
    names: tuple[str, ...]


REFUSED, ONE, TWO, THREE = (Verdict(0, True), *(Verdict(n, False) for n in (1, 2, 3)))
ONE_THEN_REFUSED = Verdict(1, True)

LAXER = (
    Differ(REFUSED, "RFC 9112 3.2.2: the authority of a target is cut off and never used, so that it need not be the Host", ("absolute http", "absolute https", "absolute upper case", "absolute without path", "absolute with query only", "absolute ipv6", "absolute and another host")),
    Differ(REFUSED, "RFC 9110 6.5.1: trailers go no further, whatever they are", ("forbidden trailer",)),
    Differ(REFUSED, "500 header lines are taken here, 100 there", ("many headers",)),
    Differ(REFUSED, "RFC 9110 7.8: an upgrade that cannot be had is ignored; there, a handshake must have its key", ("websocket in http/1.0", "websocket to the router")),
)  # fmt: skip

STRICTER = (
    Differ(Verdict(0, False), "HTTP/2 is not spoken here", ("http/2 preface",)),
    Differ(ONE, "HTTP/1.0 and HTTP/1.1 are spoken here, nothing else", ("http/1.2", "http/2.0")),
    Differ(ONE, "RFC 9112 3: single spaces in the request line, one empty line before it", ("two spaces", "tabs", "two empty lines first")),
    Differ(TWO, "RFC 9112 3: one empty line before the request line", ("two empty lines between requests",)),
    Differ(ONE, "RFC 9112 2.2: lines end in CR LF", ("bare LF first", "bare LF behind the request line", "bare LF behind a header", "bare LF everywhere", "te.te: behind LF", "0.cl: LF behind")),
    Differ(TWO, "RFC 9112 2.2: lines end in CR LF", ("bare LF behind the headers", "LF in a value", "LF between requests")),
    Differ(ONE, "RFC 9112 5.2: folded headers are not read, where HAProxy joins them", ("folded", "folded with a tab", "folded to nothing", "coding folded", "te.te: space first", "te.te: tab first", "te.te: folded into another", "0.cl: folded")),
    Differ(TWO, "RFC 9112 5.2: folded headers are not read, where HAProxy joins them", ("0.cl: space first", "0.cl: expectation folded", "host folded")),
    Differ(ONE, "RFC 9110 5.5: no control characters in values", ("nul in a value", "control character in a value", "escape in a value", "delete in a value", "form feed in a value")),
    Differ(ONE, "RFC 9112 3.2: targets that cannot go to a worker", ("absolute without authority", "absolute file", "get asterisk", "delete in target")),
    Differ(TWO, "RFC 9112 3.2: targets that cannot go to a worker", ("asterisk of another method",)),
    Differ(ONE, "routes are matched with the decoded path", ("path not utf-8", "encoded LF", "encoded CR LF", "encoded nul")),
    Differ(TWO, "routes are matched with the decoded path", ("cl.0: path not utf-8", "absolute with encoded CR LF")),
    Differ(ONE, "RFC 9112 3.2: one Host, and a sound one", ("no host", "asterisk without host", "two hosts", "host with path", "host with user", "host with bad port", "host with two ports", "host list", "host with space", "host in obs-text")),
    Differ(TWO, "RFC 9112 3.2: one Host, and a sound one", ("host in other case twice", "host with a tab", "host with a nul", "host with a fragment", "absolute without host")),
    Differ(ONE, "RFC 9112 6.3 rule 5: one length, once, where HAProxy takes equal ones for one", ("two lengths that agree", "length list", "cl.cl: agree in other case")),
    Differ(ONE, "RFC 9112 6.1: a length beside chunks is refused, where HAProxy drops it and closes", ("length and chunks", "chunks and length", "length zero and chunks", "te.cl: length inside the first chunk", "te.te: chunked, then empty", "te.te: empty, then chunked", "te.te: chunked, comma", "http/1.0 kept alive, both framings")),
    Differ(ONE, "RFC 9112 6.1: no chunks in HTTP/1.0", ("coding in http/1.0", "http/1.0 kept alive, coded")),
    Differ(ONE, "RFC 9112 7.1: sizes are digits, lines of chunks end in CR LF", ("size before a space", "size before a space and extension", "size too large", "bare LF behind a chunk", "bare LF behind a size", "bare LF behind an extension", "nul in an extension")),
    Differ(TWO, "RFC 9112 7.1: sizes are digits, lines of chunks end in CR LF", ("bare LF behind the last size", "bare LF at the end", "last chunk, LF in the extension", "size before a tab", "last size before a space")),
    Differ(TWO, "RFC 9112 2.2: lines end in CR LF, those of trailers too", ("bare LF behind a trailer",)),
    Differ(ONE, "bounded here", ("oversize extension", "chunks that grow over the limit")),
    Differ(TWO, "HTTP/1.0 connections are not kept here", ("http/1.0 kept alive",)),
    Differ(ONE, "a route of the router, not a worker's", ("a route's other method",)),
    Differ(ONE_THEN_REFUSED, "a route of the router, not a worker's", ("other method, more than announced",)),
    Differ(TWO, "a route of the router, not a worker's", ("cl.0: other method", "te.0: other method")),
    Differ(THREE, "a route of the router, not a worker's", ("good, other method, good",)),
)  # fmt: skip

# HAProxy 2.6 judges these now one way, now another, whatever else it is doing; the router refuses.
UNSTEADY = {
    "trailer behind a space",
    "trailer folded",
    "trailer in obs-text",
    "trailer that is a request to a url",
    "trailer with a nul",
    "trailer with space before the colon",
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """HAProxy's verdicts, each case on a connection of its own to one process."""
    folder = tmp_path_factory.mktemp("haproxy")

    async def judged() -> dict[str, Verdict]:
        assert PROGRAM is not None
        async with running_haproxy(PROGRAM, folder) as haproxy:
            verdicts = await haproxy.verdicts(ALL)
            assert haproxy.worker.unreadable == []
            return verdicts

    verdicts: dict[str, Verdict] = pytest_twisted.blockon(Deferred.fromCoroutine(judged()))
    return verdicts


@pytest.fixture(scope="module")
def ours() -> dict[str, Verdict]:
    """The router's verdicts."""
    return {name: verdict(data) for name, data in ALL.items()}


def verdict(data: bytes) -> Verdict:
    """
    What the router makes of *data*; its own good answers count as passed.
    """
    client = WiredRouter(max_body_size=MAX_BODY).connect(data)
    final = [status for status in client.statuses if status >= 200]
    return Verdict(sum(status < 400 for status in final), any(status >= 400 for status in final))


def table(differences: tuple[Differ, ...]) -> dict[str, Verdict]:
    return {name: differ.there for differ in differences for name in differ.names}


def is_laxer(one: Verdict, other: Verdict) -> bool:
    """
    Whether *one* passes what *other* does not.
    """
    return one.passed > other.passed or (other.refused and not one.refused)


def test_no_laxer_than_haproxy(theirs: dict[str, Verdict], ours: dict[str, Verdict]) -> None:
    """
    Whatever HAProxy refuses, the router refuses as well, but for stated reasons.
    """
    laxer = {name for name in ALL if is_laxer(ours[name], theirs[name])}
    assert laxer - set(table(LAXER)) == set()


def test_differences_from_haproxy(theirs: dict[str, Verdict], ours: dict[str, Verdict]) -> None:
    """
    The verdicts differ in the stated cases and in no other, but for those where HAProxy's is open.
    """
    assert PROGRAM is not None
    if (version := program_version(PROGRAM)) != VERSION:
        pytest.skip(f"the table is for haproxy {VERSION}, this is {version}")
    steady = set(ALL) - UNSTEADY
    differ = {name: theirs[name] for name in steady if ours[name] != theirs[name]}
    assert differ == table((*LAXER, *STRICTER))
    laxer = {name for name in differ if is_laxer(ours[name], theirs[name])}
    assert laxer == set(table(LAXER))


def test_the_table_names_each_case_once() -> None:
    """
    A case stands in one row, and is one of the corpus.
    """
    names = [*UNSTEADY, *(name for differ in (*LAXER, *STRICTER) for name in differ.names)]
    assert len(names) == len(set(names))
    assert set(names) <= set(ALL)
