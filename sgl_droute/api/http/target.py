"""
What a request asks for, in the only form that may go on to a worker.

Pure text: reads request lines and `Host`, writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from sgl_droute.errors import BadRequest, MethodNotAllowed

# An authority is never looked up here (RFC 3986 3.2.2): enough to refuse spaces, user names, lists
# and control characters.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(:[0-9]*)?")
_VISIBLE = re.compile(rb"[!-~]+")
_ALLOW = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def admitted(method: bytes, target: bytes, version: bytes, hosts: Sequence[bytes]) -> bytes:
    """
    The `origin_form` of a request's target; *hosts* are the values of its ``Host`` headers.

    Raises:
        RouterError: As `origin_form`, `check_host` and `check_path`.
    """
    reduced = origin_form(method, target)
    check_host(hosts, version)
    check_path(reduced)
    return reduced


def origin_form(method: bytes, target: bytes) -> bytes:
    """
    The raw path and query of a request target, or ``*`` for ``OPTIONS *`` (RFC 9112 3.2).

    Absolute-form is cut down to its path and query; the authority in it is never used.

    Raises:
        MethodNotAllowed: A CONNECT: the router opens no tunnels to addresses that clients name.
        BadRequest: Any other target. Behind a worker's URL ``@evil:1/x`` would name another host.
    """
    if not _VISIBLE.fullmatch(target):
        raise BadRequest("The request target holds a character that it may not")
    if method == b"CONNECT":
        raise MethodNotAllowed("CONNECT is not served here", headers={"Allow": _ALLOW})
    if target.startswith(b"/"):
        return _without_fragment(target)
    if target == b"*" and method == b"OPTIONS":
        return target
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
        if not authority or not _HOST.fullmatch(authority):
            raise BadRequest("The request target's authority is malformed")
        path = rest[len(authority) :]
        return _without_fragment(path if path.startswith(b"/") else b"/" + path)
    raise BadRequest("The request target must begin with /")


def check_path(target: bytes) -> None:
    """
    Refuse a path that routes cannot be matched against.

    Raises:
        BadRequest: The decoded path is not UTF-8, or holds a line break or NUL.
    """
    path = unquote_to_bytes(target.partition(b"?")[0])
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("The path is not UTF-8") from None
    if any(character in text for character in "\r\n\0"):
        raise BadRequest("The path holds a line break or NUL")


def check_host(hosts: Sequence[bytes], version: bytes) -> None:
    """
    Refuse a request whose ``Host`` is missing, doubled or malformed (RFC 9112 3.2).

    Raises:
        BadRequest: As said; HTTP/1.0 may leave it out.
    """
    if len(hosts) > 1:
        raise BadRequest("More than one Host header")
    if not hosts and version == b"HTTP/1.1":
        raise BadRequest("Missing Host header")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadRequest("Malformed Host header")


def below_mount(target: bytes, depth: int) -> tuple[bytes, bytes]:
    """
    *target* cut behind its first *depth* path segments: the prefix, and the target below it.
    """
    path, question, query = target.partition(b"?")
    segments = path.split(b"/", depth + 1)
    prefix = b"/".join(segments[: depth + 1])
    return prefix, b"/" + b"".join(segments[depth + 1 :]) + question + query


def _without_fragment(target: bytes) -> bytes:
    if b"#" in target:
        raise BadRequest("The request target must not hold a fragment")
    return target
