"""
Request targets and ``Host``: what may go on to a worker, and in which form.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.api.http.target import admitted, below_mount, check_host, check_path, origin_form
from sgl_droute.errors import BadRequest, MethodNotAllowed, RouterError

METHODS = st.sampled_from([b"GET", b"POST", b"OPTIONS", b"CONNECT", b"get", b"BREW"])
VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F))
PATHS = st.text(VISIBLE.replace("#", ""), max_size=40).map(lambda text: b"/" + text.encode())
AUTHORITIES = st.one_of(
    st.from_regex(rb"[a-z0-9.-]{1,20}(:[0-9]{0,5})?", fullmatch=True),
    st.ip_addresses(v=4).map(lambda ip: str(ip).encode()),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]:80".encode()),
)
# Bytes that take part in URLs, so that near misses are common.
TARGETS = st.one_of(
    st.binary(max_size=30),
    st.text("/@:?#*[]%.htps\\evil1 \r\n\t\0é", max_size=30).map(
        lambda text: text.encode("latin-1")
    ),
    st.tuples(st.sampled_from([b"http://", b"HTTPS://", b"//", b"/"]), st.binary(max_size=20)).map(
        lambda parts: b"".join(parts)
    ),
)


@given(method=METHODS, target=TARGETS)
def test_what_goes_on_is_a_path(method: bytes, target: bytes) -> None:
    """
    Whatever the target: it is refused, or what is left begins with a slash, has only visible
    characters and no fragment, and stays as it is when it is looked at again.
    """
    try:
        reduced = origin_form(method, target)
    except (BadRequest, MethodNotAllowed):
        return
    assert (method, reduced) == (b"OPTIONS", b"*") or reduced.startswith(b"/")
    assert all(0x20 < byte < 0x7F for byte in reduced)
    assert b"#" not in reduced
    assert target.endswith(reduced.lstrip(b"/"))
    assert origin_form(method, reduced) == reduced


@given(target=TARGETS)
def test_no_target_names_a_worker(target: bytes) -> None:
    """
    Behind a worker's URL, no target that goes on names another host, port or user.
    """
    try:
        reduced = origin_form(b"GET", target)
    except RouterError:
        return
    url = urlsplit("http://worker:30000" + reduced.decode("ascii"))
    assert (url.username, url.hostname, url.port) == (None, "worker", 30000)


@given(path=PATHS)
def test_paths_stay(path: bytes) -> None:
    """
    A path and its query go on byte for byte.
    """
    assert origin_form(b"GET", path) == path


@given(scheme=st.sampled_from([b"http", b"https", b"HTTP"]), authority=AUTHORITIES, path=PATHS)
def test_absolute_form(scheme: bytes, authority: bytes, path: bytes) -> None:
    """
    Of an absolute target only path and query go on, whatever its authority; the path is never
    empty.
    """
    absolute = scheme + b"://" + authority
    assert origin_form(b"GET", absolute + path) == path
    assert origin_form(b"GET", absolute) == b"/"
    assert origin_form(b"GET", absolute + b"?q") == b"/?q"


@pytest.mark.parametrize(
    "target",
    [
        *(b"", b"*", b"a", b"@evil:1/x", b"evil:80", b"?q", b"#f", b"/a#f", b"/a b", b"/\x7f"),
        *(b"/\xe9", b"\r\n/", b"/\n", b"ftp://h/", b"javascript://h/", b"http:/h/", b"http://"),
        *(b"http:///x", b"http://u@h/", b"http://h:x/", b"http://[::1/", b"http://a,b/"),
        b"http://h\\x/",
    ],
)
def test_refused_targets(target: bytes) -> None:
    """
    Neither a path nor an absolute URL with a sound authority: 400.
    """
    with pytest.raises(BadRequest):
        origin_form(b"GET", target)


def test_asterisk() -> None:
    """
    ``*`` is a target of OPTIONS only.
    """
    assert origin_form(b"OPTIONS", b"*") == b"*"
    with pytest.raises(BadRequest):
        origin_form(b"options", b"*")


@given(target=TARGETS)
def test_no_tunnels(target: bytes) -> None:
    """
    CONNECT is refused whatever it names, and told which methods there are.
    """
    with pytest.raises((MethodNotAllowed, BadRequest)) as refused:
        origin_form(b"CONNECT", target)
    if refused.type is MethodNotAllowed:
        assert "GET" in refused.value.headers["Allow"]


@given(text=st.text(), query=st.sampled_from([b"", b"?", b"?%00", b"?%ff"]))
def test_paths_that_routes_can_match(text: str, query: bytes) -> None:
    """
    Every text is a path, encoded, but for line breaks and NUL; the query is not looked at.
    """
    target = b"/" + quote(text.replace("?", ""), errors="surrogatepass").encode() + query
    sound = text.isascii() or not any(0xD800 <= ord(each) <= 0xDFFF for each in text)
    if sound and not set(text) & set("\r\n\0"):
        check_path(target)
    else:
        with pytest.raises(BadRequest):
            check_path(target)


@pytest.mark.parametrize("target", [b"/%ff", b"/%c3", b"/%c3(", b"/%ed%a0%80", b"/%c0%af"])
def test_paths_that_are_not_utf_8(target: bytes) -> None:
    """
    No text, no path: overlong forms and surrogates included.
    """
    with pytest.raises(BadRequest, match="UTF-8"):
        check_path(target)


@given(authority=AUTHORITIES, version=st.sampled_from([b"HTTP/1.0", b"HTTP/1.1"]))
def test_one_host(authority: bytes, version: bytes) -> None:
    """
    One host, with a port or without, may be there; two may not, not even equal ones.
    """
    check_host([authority], version)
    with pytest.raises(BadRequest, match="More than one"):
        check_host([authority, authority], version)


def test_no_host() -> None:
    """
    HTTP/1.1 needs a Host, which may be empty; HTTP/1.0 knew none.
    """
    check_host([], b"HTTP/1.0")
    check_host([b""], b"HTTP/1.1")
    with pytest.raises(BadRequest, match="Missing"):
        check_host([], b"HTTP/1.1")


@given(host=st.binary(max_size=12))
def test_malformed_hosts(host: bytes) -> None:
    """
    A host that could be read as a user, a path, a list or a header of its own is refused.
    """
    try:
        check_host([host], b"HTTP/1.1")
    except BadRequest:
        return
    assert not set(host) & set(b'@/\\?#, \t\r\n\0"<>')
    assert host.isascii()


def test_admitted() -> None:
    """
    A request is admitted with its target cut down, when target, host and path are all sound.
    """
    assert admitted(b"GET", b"http://h/%20?q", b"HTTP/1.1", [b"h"]) == b"/%20?q"
    for method, target, hosts in [
        (b"GET", b"@h/", [b"h"]),
        (b"CONNECT", b"h:1", [b"h"]),
        (b"GET", b"/", []),
        (b"GET", b"/%0a", [b"h"]),
    ]:
        with pytest.raises(RouterError):
            admitted(method, target, b"HTTP/1.1", hosts)


@given(
    mount=st.lists(st.text("ab.%2F", max_size=4).map(str.encode), max_size=3),
    rest=PATHS,
)
def test_below_a_mount(mount: list[bytes], rest: bytes) -> None:
    """
    A target is cut behind as many segments as the mount has, and nowhere else.
    """
    prefix = b"".join(b"/" + segment for segment in mount)
    assert below_mount(prefix + rest, len(mount)) == (prefix, rest)


@pytest.mark.parametrize(
    ("target", "depth", "parts"),
    [
        (b"/", 0, (b"", b"/")),
        (b"/x?a=/b/c", 0, (b"", b"/x?a=/b/c")),
        (b"/api", 1, (b"/api", b"/")),
        (b"/api?", 1, (b"/api", b"/?")),
        (b"/api/", 1, (b"/api", b"/")),
        (b"/api//x", 1, (b"/api", b"//x")),
        (b"/api?a=/b", 2, (b"/api", b"/?a=/b")),
    ],
)
def test_edges_of_a_mount(target: bytes, depth: int, parts: tuple[bytes, bytes]) -> None:
    """
    What is below a mount is a path again, also right at the mount; slashes in a query do not count.
    """
    assert below_mount(target, depth) == parts
