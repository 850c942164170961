"""
Which field of a JSON body names a file on a worker: bodies of any length, read in steps.

Texts are looked at where they stand, and nothing is built of what they are part of, so memory is
bounded. Where a body is no JSON it does not matter what is seen in it: no worker takes it either.
What names and texts mean is known to `sgl_droute.fleet.naming`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from io import BytesIO
from typing import TypeVar

from attrs import define, field

from sgl_droute.fleet.naming import WITHIN, Meaning, may_be_json, meaning, names_file, within

T = TypeVar("T")
# Work in steps; each takes a few milliseconds at most.
Steps = Generator[None, None, T]
Read = Callable[[int], bytes]

# Bytes read at once, and texts looked at in one step (count).
STRIDE = 1 << 16
TEXTS_IN_A_STEP = 1000
# Texts in one body (count): no request needs as many.
MOST_TEXTS = 1 << 20
# Bytes kept of a text: a path has less (PATH_MAX), and so has a name, however it is spelled.
HEAD = 6 * 4096
# Bytes of a text that may be JSON itself, and how deep such texts may be in each other.
LARGEST_WITHIN = 1 << 22
_DEEPEST = 8

_QUOTE = ord('"')
_LEAD = re.compile(rb'[ \t\n\r]*([^ \t\n\r"]?)[ \t\n\r]*([^ \t\n\r]?)')
_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PLAIN: dict[str, object] = {}
# What a text may lose where it is cut: half an escape, or half a character.
_MOST_CUT = 6


def judged(text: str, means: Meaning, name: str, deep: int = 0) -> Steps[str | None]:
    """
    The field that names a file: *name*, or one in JSON within its *text*; None if none does.

    Args:
        deep: How many texts it is within (count).

    Raises:
        ValueError: What is within it is too much to be looked at.
    """
    if names_file(text, means):
        return name
    if means is Meaning.PROSE or not (text and may_be_json(text)):
        return None
    if deep >= _DEEPEST or len(text) > LARGEST_WITHIN:
        raise ValueError(f"{name} has too much JSON within")
    inner = BytesIO(text.encode("utf-8", "surrogatepass"))
    return (yield from Scan(inner.read, deep + 1).steps())


def names_nothing(body: bytes) -> bool:
    """
    Whether *body*, which is small, is a JSON object that plainly names no file, as most requests
    are; to find out takes a tenth of the time. False means nothing.
    """
    try:
        return json.loads(body, object_pairs_hook=_plain) is _PLAIN
    except (ValueError, RecursionError):
        return False


def _plain(pairs: list[tuple[str, object]]) -> object:
    for name, value in pairs:
        means = meaning(name)
        if isinstance(value, str):
            if names_file(value, means) or (value and may_be_json(value)):
                raise ValueError
        elif value is _PLAIN:
            if means in WITHIN:
                raise ValueError
        elif isinstance(value, list) and (
            means is Meaning.OBJECT or any(type(each) not in (int, float) for each in value)
        ):
            raise ValueError
    return _PLAIN


@define(eq=False)
class _Watch:
    """
    A list or an object in which all texts mean the same.

    Attributes:
        depth: Brackets that are open in it, its own included (count).
    """

    means: Meaning
    name: str
    depth: int = 0


@define(eq=False)
class Scan:
    """
    One look through a JSON text.

    Args:
        read: Gives the next bytes, at most so many; none at the end.
        deep: How many texts it is within (count).
    """

    read: Read
    deep: int = 0
    _data: bytes = field(default=b"", init=False)
    _at: int = field(default=0, init=False)
    _field: tuple[str, Meaning] | None = field(default=None, init=False)
    _watches: list[_Watch] = field(factory=list, init=False)

    def steps(self) -> Steps[str | None]:
        """
        The first field that names a file; None if none does.

        Raises:
            ValueError: It ends within a text, or has more or longer ones than any request.
        """
        texts = 0
        while (yield from self._to_text()):
            raw = yield from self._text()
            if raw is None:
                return None
            text = _spelled_out(raw)
            found = yield from self._judge(text, (yield from self._lead()))
            if found is not None:
                return found
            texts += 1
            if texts > MOST_TEXTS:
                raise ValueError("it has too many texts")
            if not texts % TEXTS_IN_A_STEP:
                yield
        return None

    def _judge(self, text: str, lead: bytes) -> Steps[str | None]:
        """
        As `steps`, of one *text*, where *lead* is what comes next.
        """
        if lead[:1] == b":":
            self._named(text, lead[1:])
            return None
        direct, self._field = self._field, None
        name, means = direct or ("", Meaning.OTHER)
        if self._watches:
            means = within(self._watches[-1].means, means)
            name = name or self._watches[-1].name
        return (yield from judged(text, means, name, self.deep))

    def _named(self, name: str, value: bytes) -> None:
        """
        Take note of the field *name*, the value of which begins with *value*.
        """
        means = meaning(name)
        self._field = (name, means) if value == b'"' else None
        if value == b"[" and means is Meaning.OBJECT:
            raise ValueError(f"{name} is a list, and must be an object")
        if value in (b"[", b"{") and means in WITHIN:
            outer = self._watches[-1].means if self._watches else None
            if outer is None or (outer is Meaning.MEDIA and means is Meaning.PATH):
                self._watches.append(_Watch(means, name))

    def _to_text(self) -> Steps[bool]:
        """
        Go on behind the quote with which the next text begins; whether there is one.
        """
        while True:
            found = self._data.find(b'"', self._at)
            if self._watches:
                self._count(self._data[self._at : found if found >= 0 else None])
            if found >= 0:
                self._at = found + 1
                return True
            if not self._more():
                return False
            yield

    def _text(self) -> Steps[bytes | None]:
        """
        The text that begins here, as it is spelled; only its beginning where that is enough. None
        if it has no end.
        """
        kept, whole = bytearray(), True
        while True:
            end = self._end_of_text()
            part = self._data[self._at : end if end >= 0 else None]
            # Half an escape is left for the next bytes.
            cut = (len(part) - len(part.rstrip(b"\\"))) % 2 if end < 0 else 0
            if whole:
                kept += part[: len(part) - cut]
                whole = len(kept) <= HEAD or may_be_json(_spelled_out(bytes(kept[:HEAD])))
            if whole and len(kept) > LARGEST_WITHIN:
                raise ValueError("a text has too much JSON within")
            if end >= 0:
                self._at = end + 1
                return bytes(kept if whole else kept[:HEAD])
            if not self._more(b"\\" * cut):
                if self.deep:
                    return None
                raise ValueError("it ends within a text")
            yield

    def _end_of_text(self) -> int:
        """
        Where the quote is that ends the text; below 0 if it is not to be seen yet.
        """
        quote = self._data.find(b'"', self._at)
        if self._data.find(b"\\", self._at, quote if quote >= 0 else len(self._data)) < 0:
            return quote
        rest = _REST.match(self._data, self._at)
        end = rest.end() if rest else len(self._data)
        return end if end < len(self._data) and self._data[end] == _QUOTE else -1

    def _lead(self) -> Steps[bytes]:
        """
        The next two bytes that are no spaces; a quote is the last.
        """
        while True:
            found = _LEAD.match(self._data, self._at)
            assert found is not None
            lead = found[1] + found[2]
            if found[2] or not self._more(lead):
                return lead
            yield

    def _more(self, kept: bytes = b"") -> bool:
        """
        Go on with *kept* and the next bytes; whether there are any.
        """
        read = self.read(STRIDE)
        self._data, self._at = kept + read, 0
        return bool(read)

    def _count(self, gap: bytes) -> None:
        for bracket in gap.translate(None, _NO_BRACKETS):
            change = 1 if bracket in b"[{" else -1
            for watch in self._watches:
                watch.depth += change
            while self._watches and self._watches[-1].depth <= 0:
                self._watches.pop()


def _spelled_out(raw: bytes) -> str:
    """
    The text that is spelled *raw* in JSON, which may be cut.
    """
    if b"\\" not in raw:
        return raw.decode("utf-8", "replace")
    for cut in range(_MOST_CUT + 1):
        try:
            text: str = json.loads(b'"%b"' % raw[: len(raw) - cut])
        except ValueError:
            continue
        return text
    return raw.decode("utf-8", "replace")  # no JSON
