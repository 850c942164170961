"""
Request bodies on their way to workers, read from a spool as often as needed.

It knows files and producers; what a body means it does not look at.
"""

from __future__ import annotations

import json
import os
from io import BytesIO
from typing import Any, BinaryIO

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Cooperator
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

# What is written in one go; larger bodies are read as fast as the worker takes them.
_AT_ONCE = 1 << 16
_STEP = 1 << 17


def fields_of(body: bytes) -> dict[str, Any]:
    """
    The fields of a JSON object; none where *body* is no such thing.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


@define
class Spool:
    """
    A request body kept in a file: any number of readers, one after the other or side by side.

    Attributes:
        file: A seekable file. Whoever made it closes it.
        length: Bytes in it.
    """

    file: BinaryIO
    length: int

    @classmethod
    def of(cls, file: BinaryIO) -> Spool:
        """
        The spool of everything in *file*.
        """
        return cls(file, file.seek(0, os.SEEK_END))

    def read(self) -> bytes:
        """
        All of it; for bodies that the router itself reads.
        """
        if isinstance(self.file, BytesIO):
            return self.file.getvalue()  # no copy
        self.file.seek(0)
        return self.file.read(self.length)

    def producer(self, cooperator: Cooperator) -> IBodyProducer | None:
        """
        A fresh producer of the body; None when it is empty.
        """
        if not self.length:
            return None
        if self.length <= _AT_ONCE:
            return AtOnce(self.read())
        return FileBodyProducer(self.cursor(), cooperator, _STEP)

    def cursor(self) -> Cursor:
        """
        A file of its own to read the body from, step by step, whoever else reads it meanwhile.
        """
        return Cursor(self.file)


@define
class Cursor:
    """
    A reader of its own in a shared file; closing it leaves the file open.
    """

    file: BinaryIO
    position: int = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.file.seek(self.position)
        self.position = self.file.seek(offset, whence)
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        self.file.seek(self.position)
        data = self.file.read(size)
        self.position += len(data)
        return data

    def close(self) -> None:
        pass


@implementer(IBodyProducer)
class AtOnce:
    """A small body, written whole: a cooperative task costs more than the write."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self.data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.data)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass
