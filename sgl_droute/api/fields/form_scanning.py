"""
Which field of a form names a file on a worker: forms of any length, read in steps.

Parsers of forms differ in what they make of odd ones, and a field that one of them sees must be
seen here. So a form that is not spelled as clients spell it is an error, whatever it might mean.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from attrs import define, frozen

from sgl_droute.api.fields.scanning import STRIDE, Read, Steps, judged
from sgl_droute.fleet.naming import Meaning, meaning

# What workers take: Starlette's limits for a text, for parts, and for URL-encoded fields.
MOST_TEXT = 1 << 20
MOST_PARTS = 2000
MOST_FIELDS = 1000
LARGEST_URLENCODED = 1 << 22
_MOST_HEADERS = 1 << 13

_TYPE = re.compile(r"multipart/form-data *((?:; *[a-z]+=(?:[^\s\";]+|\"[^\"\\]*\") *)+)", re.I)
_PARAMETER = re.compile(r"; *([a-z]+)=(?:([^\s\";]+)|\"([^\"\\]*)\")", re.I)
# RFC 2046 5.1.1.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *([^\r\n\0]*)")
_DISPOSITION = re.compile(
    rb"form-data *((?:; *[a-z]+\*?=(?:[0-9A-Za-z_.\[\]%'*-]+|\"[^\"\\]*\") *)+)", re.I
)
_OF_DISPOSITION = re.compile(rb"; *([a-z]+\*?)=(?:([^\s\";]+)|\"([^\"\\]*)\")", re.I)
_PARAMETERS = frozenset({b"name", b"filename", b"filename*"})
_SLASHES = re.compile(r"[/\\\0]|%2f|%5c|%00", re.I)


def boundary_of(content_type: str) -> bytes:
    """
    The boundary in the header of a form with parts.

    Raises:
        ValueError: The header is not spelled as clients spell it.
    """
    found = _TYPE.fullmatch(content_type.strip(" \t"))
    if found is None:
        raise ValueError("its Content-Type is not multipart/form-data and a boundary")
    given = [
        (name.lower(), plain or quoted) for name, plain, quoted in _PARAMETER.findall(found[1])
    ]
    parameters: dict[str, str] = dict(given)
    if len(parameters) < len(given) or not parameters.keys() <= {"boundary", "charset"}:
        raise ValueError("its Content-Type has other parameters than one boundary")
    if parameters.get("charset", "utf-8").lower() != "utf-8":
        raise ValueError("its charset is not utf-8")
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise ValueError("its boundary is none")
    return boundary.encode("ascii")


def multipart_steps(read: Read, boundary: bytes) -> Steps[str | None]:
    """
    The first field that names a file; None if none does.

    Raises:
        ValueError: It is not spelled as clients spell forms, or has more than workers take.
    """
    form = _Form(read, b"--" + boundary)
    yield from form.begin()
    for _ in range(MOST_PARTS):
        part = yield from form.head()
        text = yield from form.body(keep=not part.is_file)
        if any(_SLASHES.search(each) for each in part.filenames):
            return "filename"
        means = meaning(part.name)
        if part.is_file and means is Meaning.PATH:
            return part.name
        found = None if part.is_file else (yield from judged(text, means, part.name))
        if found is not None:
            return found
        if (yield from form.has_ended()):
            return None
    raise ValueError(f"it has more than {MOST_PARTS} parts")


def urlencoded_steps(body: bytes) -> Steps[str | None]:
    """
    As `multipart_steps`, of a URL-encoded form.
    """
    if len(body) > LARGEST_URLENCODED:
        raise ValueError(f"a URL-encoded form of more than {LARGEST_URLENCODED} bytes")
    if b";" in body:
        # Some take it for an ampersand.
        raise ValueError("a URL-encoded form with a semicolon that is not encoded")
    fields = body.split(b"&", MOST_FIELDS)
    if len(fields) > MOST_FIELDS:
        raise ValueError(f"it has more than {MOST_FIELDS} fields")
    for each in fields:
        name, _, value = (unquote_plus(part) for part in each.decode("latin-1").partition("="))
        found = yield from judged(value, meaning(name), name)
        if found is not None:
            return found
        yield
    return None


@frozen
class _Part:
    """
    What one part of a form is called.

    Attributes:
        is_file: Whether it is a file; without a plain ``filename`` some take it for a text.
        filenames: What its file may be called.
    """

    name: str
    is_file: bool
    filenames: tuple[str, ...]


@define(eq=False)
class _Form:
    """
    A form that is being read.
    """

    read: Read
    delimiter: bytes
    data: bytes = b""

    def begin(self) -> Steps[None]:
        yield from self._have(len(self.delimiter) + 2)
        self._skip(self.delimiter + b"\r\n")

    def head(self) -> Steps[_Part]:
        """
        What the next part is called.
        """
        while (end := self.data.find(b"\r\n\r\n")) < 0:
            if len(self.data) > _MOST_HEADERS or not self._more():
                raise ValueError("a part without headers, or with too many")
            yield
        if end > _MOST_HEADERS:
            raise ValueError("a part with too many headers")
        head, self.data = self.data[:end], self.data[end + 4 :]
        return _part(head)

    def body(self, *, keep: bool) -> Steps[str]:
        """
        The text of the part; nothing of it unless it is to *keep*.
        """
        kept, before = bytearray(), b""
        while True:
            found = self.data.find(self.delimiter)
            end = found if found >= 0 else max(0, len(self.data) - len(self.delimiter) + 1)
            part, self.data = self.data[:end], self.data[end:]
            before = (before + part)[-2:]
            if keep:
                kept += part
            if len(kept) > MOST_TEXT + 2:
                raise ValueError(f"a text of more than {MOST_TEXT} bytes")
            if found >= 0:
                break
            if not self._more():
                raise ValueError("it ends within a part")
            yield
        if before != b"\r\n":
            raise ValueError("its boundary within a line")
        self.data = self.data[len(self.delimiter) :]
        return _decoded(bytes(kept[:-2]))

    def has_ended(self) -> Steps[bool]:
        """
        Whether that was the last part.
        """
        yield from self._have(2)
        if not self.data.startswith(b"--"):
            self._skip(b"\r\n")
            return False
        yield from self._have(5)
        if self.data not in (b"--", b"--\r\n"):
            raise ValueError("something behind its end")
        return True

    def _have(self, count: int) -> Steps[None]:
        while len(self.data) < count and self._more():
            yield

    def _skip(self, expected: bytes) -> None:
        if not self.data.startswith(expected):
            raise ValueError("its boundary is not followed by a line's end")
        self.data = self.data[len(expected) :]

    def _more(self) -> bool:
        read = self.read(STRIDE)
        self.data += read
        return bool(read)


def _part(head: bytes) -> _Part:
    dispositions = []
    for line in head.split(b"\r\n"):
        header = _HEADER.fullmatch(line)
        if header is None:
            raise ValueError("a part with a malformed header")
        if header[1].lower() == b"content-disposition":
            dispositions.append(header[2])
    found = _DISPOSITION.fullmatch(dispositions[0]) if len(dispositions) == 1 else None
    given = _OF_DISPOSITION.findall(found[1]) if found else []
    parameters = {name.lower(): _decoded(plain or quoted) for name, plain, quoted in given}
    sound = len(parameters) == len(given) and parameters.keys() <= _PARAMETERS
    if b"name" not in parameters or not sound:
        raise ValueError("a part that is not named as clients name them")
    name = parameters.pop(b"name")
    return _Part(name, b"filename" in parameters, tuple(parameters.values()))


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
