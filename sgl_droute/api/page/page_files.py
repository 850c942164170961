"""
The files of the live page, as they are in the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePath

from attrs import frozen
from twisted.web.http import CACHED
from twisted.web.server import Request

from sgl_droute.api.replies import empty_reply
from sgl_droute.errors import NotFound

_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

# The page consists of these files alone, and no other page may show it in a frame.
_HEADERS = {
    b"Content-Security-Policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'"
    ),
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"same-origin",
    # A browser asks each time and is told that it has the file: another release shows at once.
    b"Cache-Control": b"no-cache",
}


@frozen
class PageFile:
    """
    One file.

    Attributes:
        kind: Its media type.
        tag: Its entity tag.
    """

    kind: bytes
    body: bytes
    tag: bytes

    def answer(self, request: Request) -> bytes:
        """
        The body of an answer with this file, or of one that says that the client has it.
        """
        empty_reply(request)
        request.setResponseCode(200)
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        if request.setETag(self.tag) is CACHED:
            request.defaultContentType = None  # there is no body that could have one
            return b""
        request.setHeader(b"Content-Type", self.kind)
        request.setHeader(b"Content-Length", b"%d" % len(self.body))
        return self.body


@cache
def page_files() -> Mapping[str, PageFile]:
    """
    All files by name; what is not among them is no part of the page.
    """
    found = {}
    for each in files("sgl_droute").joinpath("dashboard").iterdir():
        kind = _TYPES.get(PurePath(each.name).suffix)
        if kind is not None:
            body = each.read_bytes()
            tag = b'"%s"' % sha256(body).hexdigest()[:32].encode("ascii")
            found[each.name] = PageFile(kind, body, tag)
    return found


def page_file(name: str) -> PageFile:
    """
    The file of that name.

    Raises:
        NotFound: There is none.
    """
    file = page_files().get(name)
    if file is None:
        raise NotFound(f"The live page has no file {name!r}")
    return file
