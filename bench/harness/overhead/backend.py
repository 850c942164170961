"""
A small worker: holds ``/slow`` until it is told, and stands in for nginx where that is absent.

Run as ``python backend.py PORT ADDRESS...``; it needs only the standard library.

``GET /slow`` is answered after the next ``GET /release``, ``GET /held`` tells how many wait,
``POST /upload`` how many bytes came, ``GET /<n>k`` answers n KB.
"""

from __future__ import annotations

import asyncio
import re
import sys

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SIZE = re.compile(r"/(\d+)k")
_LARGEST = 64 << 10
_PART = 1 << 18


class Backend:
    """
    What it knows: who waits.
    """

    def __init__(self) -> None:
        self._held = 0
        self._told = asyncio.Event()
        self._files: dict[int, bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """
        Answer the requests of one connection, one after the other.
        """
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode("ascii")
                length = _LENGTH.search(head)
                received = await _read(reader, int(length[1]) if length else 0)
                status, body = await self._answer(path, received)
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, received: int) -> tuple[bytes, bytes]:
        if path == "/slow":
            await self._hold()
            return b"200 OK", b"held"
        if path == "/release":
            self._told.set()
            self._told = asyncio.Event()
            return b"200 OK", b""
        size = _SIZE.fullmatch(path)
        if size is not None and int(size[1]) <= _LARGEST:
            return b"200 OK", self._file(int(size[1]) << 10)
        fixed = {"/health": b'{"status":"ok"}', "/held": b"%d" % self._held}
        fixed["/upload"] = b"%d" % received
        return (b"200 OK", fixed[path]) if path in fixed else (b"404 Not Found", b"{}")

    async def _hold(self) -> None:
        self._held += 1
        try:
            await self._told.wait()
        finally:
            self._held -= 1

    def _file(self, size: int) -> bytes:
        if size not in self._files:
            self._files[size] = b"x" * size
        return self._files[size]


async def _read(reader: asyncio.StreamReader, length: int) -> int:
    left = length
    while left:
        part = await reader.read(min(left, _PART))
        if not part:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(part)
    return length


async def _main(port: int, addresses: list[str]) -> None:
    server = await asyncio.start_server(Backend().serve, addresses, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2:]))
