"""
What can be read of a body whose middle was let go: of a JSON object, or of packed rollouts.

Answers with pictures in them are tens of megabytes long, and what the router wants to know of them
stands at their beginning or their end.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

from attrs import define, field

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")

INFERENCE_TIME = "inference_time_s"
# As a key of a msgpack map: a short string, or one with its length in a byte.
_NAME = INFERENCE_TIME.encode()
_PACKED_KEYS = (b"\xb0" + _NAME, b"\xd9\x10" + _NAME)
# First bytes of msgpack's numbers; smaller ones are non-negative integers themselves.
_PACKED_NUMBERS = {
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
}

# What takes longer (seconds) than thirty years was not measured.
_FOREVER = 1e9


def inference_time(fields: Mapping[str, Any]) -> float | None:
    """
    Seconds of GPU time that an answer tells in *fields*; None where that is no such number.
    """
    told = fields.get(INFERENCE_TIME)
    if isinstance(told, bool) or not isinstance(told, (int, float)):
        return None
    return float(told) if 0 <= told < _FOREVER else None


@define(eq=False)
class Excerpt:
    """
    The first and the last bytes of a body that streams by.

    Args:
        limit: Bytes kept of either end.
    """

    limit: int = 4096
    _head: bytearray = field(factory=bytearray, init=False)
    _tail: bytes = field(default=b"", init=False)
    _size: int = field(default=0, init=False)
    _ended: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes of the body.
        """
        self._size += len(data)
        if len(self._head) < self.limit:
            self._head += data[: self.limit - len(self._head)]
        self._tail = _last(self._tail, data, self.limit)

    def skip(self, count: int) -> None:
        """
        Take note of the next *count* bytes, which nobody shows; `limit` bytes at least went before.
        """
        self._size += count
        self._tail = b""

    def end(self) -> None:
        """
        Note that the body is whole; without this its last bytes are not taken for its end.
        """
        self._ended = True

    @property
    def head_complete(self) -> bool:
        """
        Whether more bytes would add nothing to what the beginning tells.
        """
        return self._ended or len(self._head) >= self.limit

    def fields(self) -> dict[str, Any]:
        """
        The top-level members of the JSON object that these bytes show from beginning to end.

        Of a whole body that fits, that is all of them; before `end`, those at the beginning. A body
        that is no JSON object has none. Of members with the same name the last one seen counts.
        """
        if not self._ended:
            return _from_head(bytes(self._head))
        unkept = self._size - len(self._head) - len(self._tail)
        if unkept <= 0:
            return _object(bytes(self._head) + self._tail[-unkept:])
        head = _from_head(bytes(self._head))
        return {**head, **_from_tail(self._tail)} if _opens(self._head) else {}


@define(eq=False)
class PackedExcerpt:
    """
    The last bytes of a msgpack body that streams by: rollouts, each a map that tells towards its
    end how long it took.

    Args:
        limit: Bytes kept.
    """

    limit: int = 4096
    head_complete = False
    _tail: bytes = field(default=b"", init=False)
    _ended: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes of the body.
        """
        self._tail = _last(self._tail, data, self.limit)

    def end(self) -> None:
        """
        Note that the body is whole; without this it tells nothing.
        """
        self._ended = True

    def fields(self) -> dict[str, Any]:
        """
        The last ``inference_time_s``, where that is a number of seconds.
        """
        if not self._ended:
            return {}
        # What stands before the last one may be of another request, or in a prompt.
        at = max(self._tail.rfind(key) for key in _PACKED_KEYS)
        if at < 0:
            return {}
        seconds = _packed_number(self._tail[self._tail.index(_NAME, at) + len(_NAME) :])
        return {} if seconds is None else {INFERENCE_TIME: seconds}


def _packed_number(packed: bytes) -> float | None:
    """
    The finite number, zero or more, that *packed* begins with.
    """
    if not packed:
        return None
    if packed[0] < 0x80:
        return packed[0]
    form = _PACKED_NUMBERS.get(packed[0])
    if form is None or len(packed) <= form.size:
        return None
    number: float = form.unpack_from(packed, 1)[0]
    return number if 0 <= number < math.inf else None


def _last(tail: bytes, data: bytes, limit: int) -> bytes:
    if len(data) >= limit:
        return data[-limit:]
    return (tail + data)[-limit:]


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _opens(head: bytes | bytearray) -> bool:
    return head.lstrip(b" \t\n\r").startswith(b"{")


def _from_head(head: bytes) -> dict[str, Any]:
    """
    The members of an object that *head* shows whole, with the comma or brace behind each.
    """
    fields: dict[str, Any] = {}
    if not _opens(head):
        return fields
    try:
        # A character that is cut at the border is left out, and broken UTF-8 is an error.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
        at = _skip(text, 0)
        while text[at] in "{,":
            name, at = _DECODER.raw_decode(text, _skip(text, at + 1))
            at = _skip(text, at)
            if not isinstance(name, str) or text[at] != ":":
                break
            value, at = _DECODER.raw_decode(text, _skip(text, at + 1))
            at = _skip(text, at)
            if text[at] not in ",}":
                break
            fields[name] = value
    except (ValueError, IndexError, RecursionError):
        pass  # the head ends within a member
    return fields


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _from_tail(tail: bytes) -> dict[str, Any]:
    """
    The members of an object that *tail*, its end, shows whole.
    """
    start = _first_name(tail)
    return {} if start is None else _object(b"{" + tail[start:])


def _first_name(tail: bytes) -> int | None:
    """
    Where the first top-level name in *tail* begins, the end of an object.

    Read backwards, JSON needs no knowledge of what came before: its end is outside of any string,
    a quote met outside closes a string, and the string opens at the next quote without a backslash
    before it.
    """
    first: int | None = None
    depth, after = 0, b""
    at = len(tail)
    while at > 0:
        at -= 1
        byte = tail[at : at + 1]
        if byte == b'"':
            at = _opening_quote(tail, at)
            if at < 1:  # cut, or perhaps an escaped quote: what stands before it is unknown
                break
            if depth == 1 and after == b":":
                first = at
        elif byte in b"}]":
            depth += 1
        elif byte in b"{[":
            depth -= 1
        if byte not in b" \t\n\r":
            after = byte
    return first


def _opening_quote(text: bytes, closing: int) -> int:
    opening = text.rfind(b'"', 0, closing)
    while opening > 0 and text[opening - 1 : opening] == b"\\":
        opening = text.rfind(b'"', 0, opening)
    return opening
