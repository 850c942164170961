"""
Which field of a msgpack body names a file on a worker: bodies of any length, read in steps.

As `sgl_droute.api.fields.scanning` for JSON: https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

import struct

from attrs import define

from sgl_droute.api.fields.scanning import HEAD, LARGEST_WITHIN, STRIDE, Read, Steps, judged
from sgl_droute.fleet.naming import WITHIN, Meaning, may_be_json, meaning, within

# Values in one body (count), those of lists of numbers included, and how deep they may be.
MOST_VALUES = 1 << 22
_DEEPEST = 500
_VALUES_IN_A_STEP = 1000

# Of first bytes: how many bytes behind them tell a length, and what has that length.
_LENGTHS = {
    0xC4: (1, "bin"),
    0xC5: (2, "bin"),
    0xC6: (4, "bin"),
    0xC7: (1, "ext"),
    0xC8: (2, "ext"),
    0xC9: (4, "ext"),
    0xD9: (1, "str"),
    0xDA: (2, "str"),
    0xDB: (4, "str"),
    0xDC: (2, "list"),
    0xDD: (4, "list"),
    0xDE: (2, "map"),
    0xDF: (4, "map"),
}
# Bytes behind first bytes that have none of these.
_SIZES = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}
_SIZES |= {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SIZES |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_NUMBERS = {1: struct.Struct(">B"), 2: struct.Struct(">H"), 4: struct.Struct(">I")}


@define(eq=False)
class _Frame:
    """
    A list or map of which some is still to come.

    Attributes:
        left: Values, keys included (count).
        is_map: Whether every other one is a key.
        means: What texts in it mean.
        name: What it is called.
        key: The name of the next value, in a map.
    """

    left: int
    is_map: bool
    means: Meaning | None
    name: str
    key: str | None = None


def msgpack_steps(read: Read) -> Steps[str | None]:
    """
    The first field that names a file; None if none does.

    Raises:
        ValueError: It is no msgpack, or more than any request.
    """
    source = _Source(read)
    frames = [_Frame(1, False, None, "")]
    for count in range(MOST_VALUES):
        while frames and not frames[-1].left:
            frames.pop()
        if not frames:
            return None
        if not count % _VALUES_IN_A_STEP:
            yield
        frame = frames[-1]
        frame.left -= 1
        kind, length = yield from source.value()
        if count == 0 and kind != "map":
            raise ValueError("it is no map")
        name, means = _field(frame)
        if kind in ("str", "bin"):
            text = yield from source.text(length)
            if frame.is_map and frame.key is None:
                frame.key = text
                continue
            # What no path can hold is data.
            if not (kind == "bin" and "\0" in text):
                found = yield from judged(text, means, name)
                if found is not None:
                    return found
        elif kind in ("list", "map"):
            if frame.is_map and frame.key is None:
                raise ValueError("a key that is no text")
            if kind == "list" and means is Meaning.OBJECT:
                raise ValueError(f"{name} is a list, and must be an object")
            if len(frames) > _DEEPEST:
                raise ValueError("it is too deep")
            inner = means if means in WITHIN else None
            frames.append(_Frame(length * (2 if kind == "map" else 1), kind == "map", inner, name))
        elif frame.is_map and frame.key is None:
            frame.key = ""  # a number
            continue
        frame.key = None
    raise ValueError("it has too many values")


def _field(frame: _Frame) -> tuple[str, Meaning]:
    """
    The name of the value that comes next in *frame*, and what a text would mean there.
    """
    means = Meaning.OTHER if frame.key is None else meaning(frame.key)
    return frame.key or frame.name, within(frame.means, means)


@define(eq=False)
class _Source:
    """
    The bytes of a body, one value after the other.
    """

    read: Read
    data: bytes = b""
    at: int = 0

    def value(self) -> Steps[tuple[str, int]]:
        """
        What comes next, and its length; of what has none, all is passed over.
        """
        first = (yield from self.take(1))[0]
        if first < 0x80 or first >= 0xE0:
            return "other", 0
        if first < 0x90:
            return "map", first & 0x0F
        if first < 0xA0:
            return "list", first & 0x0F
        if first < 0xC0:
            return "str", first & 0x1F
        if first in _SIZES:
            yield from self.take(_SIZES[first])
            return "other", 0
        if first not in _LENGTHS:
            raise ValueError("it is no msgpack")
        size, kind = _LENGTHS[first]
        length: int = _NUMBERS[size].unpack((yield from self.take(size)))[0]
        if kind == "ext":
            yield from self.skip(length + 1)
            return "other", 0
        return kind, length

    def text(self, length: int) -> Steps[str]:
        """
        The next *length* bytes as text; only the beginning where that is enough.
        """
        head = yield from self.take(min(length, HEAD))
        text = head.decode("utf-8", "replace")
        if length <= HEAD:
            return text
        if not may_be_json(text):
            yield from self.skip(length - HEAD)
            return text
        if length > LARGEST_WITHIN:
            raise ValueError("a text has too much JSON within")
        return (head + (yield from self.take(length - HEAD))).decode("utf-8", "replace")

    def take(self, count: int) -> Steps[bytes]:
        while len(self.data) - self.at < count:
            read = self.read(STRIDE)
            if not read:
                raise ValueError("it ends within a value")
            self.data, self.at = self.data[self.at :] + read, 0
            yield
        self.at += count
        return self.data[self.at - count : self.at]

    def skip(self, count: int) -> Steps[None]:
        while count > len(self.data) - self.at:
            count -= len(self.data) - self.at
            self.data, self.at = self.read(STRIDE), 0
            if not self.data:
                raise ValueError("it ends within a value")
            yield
        self.at += count
