"""
``/simulator``: what no real worker has. Faults, the journal, and answers of any size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from io import SEEK_END
from typing import IO

from attrs import define

from sgl_droute.simulator.engine import Engine
from sgl_droute.simulator.faults import Orders, parse_orders
from sgl_droute.simulator.replies import Reply, detail, json_reply

OCTETS = "application/octet-stream"
PATTERN = bytes(range(256)) * 256
DEFAULT_CHUNK = 64 * 1024


def pattern(size: int, chunk: int) -> Iterator[bytes]:
    """
    *size* bytes in pieces of *chunk*; byte number i is i modulo 256.
    """
    block = PATTERN * (chunk // len(PATTERN) + 2)
    for start in range(0, size, chunk):
        offset = start % 256
        yield block[offset : offset + min(chunk, size - start)]


def ignore_refusal(seconds: float) -> None:
    """
    Stands in where there is no port to close.
    """


@define(eq=False)
class Backstage:
    """
    The simulator's own routes.

    Attributes:
        refuse_for: Closes the port for so many seconds.
    """

    engine: Engine
    refuse_for: Callable[[float], None] = ignore_refusal

    async def faults(self) -> Reply:
        return json_reply(self.engine.faults.as_json())

    async def set_faults(self, body: bytes) -> Reply:
        try:
            orders = parse_orders(json.loads(body))
        except ValueError as error:
            raise detail(400, f"faults: {error}") from error
        self.obey(orders)
        return json_reply(self.engine.faults.as_json())

    async def clear_faults(self) -> Reply:
        self.engine.faults.clear()
        self.engine.gpu.revive()
        return json_reply(self.engine.faults.as_json())

    def obey(self, orders: Orders) -> None:
        """
        Bring the faults in *orders* into force.
        """
        engine = self.engine
        engine.faults.obey(orders)
        if engine.faults.dead is None:
            engine.gpu.revive()
        else:
            engine.die()
        if orders.refuse_for:
            self.refuse_for(orders.refuse_for)

    async def log(self, query: Mapping[str, str]) -> Reply:
        last = query.get("last", "2000")
        if not last.isdecimal():
            raise detail(400, f"last must be a count, got '{last}'")
        return json_reply(self.engine.journal.as_json(int(last)))

    async def clear_log(self) -> Reply:
        self.engine.journal.clear()
        return json_reply(self.engine.journal.as_json())

    async def sized(self, query: Mapping[str, str]) -> Reply:
        size, chunk = _count(query, "size", 1024), _count(query, "chunk", DEFAULT_CHUNK)
        if not 1 <= chunk <= 1 << 24:
            raise detail(400, "chunk must be between 1 and 16777216")
        chunked = query.get("chunked", "0") in ("1", "true")
        return Reply(200, OCTETS, pattern(size, chunk), {}, None if chunked else size)

    async def echo(self, content: IO[bytes], headers: list[tuple[str, str]]) -> Reply:
        """
        The body as it came; the request's headers as JSON in ``x-simulator-headers``.
        """
        kind = next((value for name, value in headers if name.lower() == "content-type"), OCTETS)
        shown = json.dumps(headers)
        size = content.seek(0, SEEK_END)
        content.seek(0)
        body = iter(lambda: content.read(DEFAULT_CHUNK), b"")
        return Reply(200, kind, body, {"x-simulator-headers": shown}, size)


def _count(query: Mapping[str, str], name: str, default: int) -> int:
    given = query.get(name, str(default))
    if not given.isdecimal():
        raise detail(400, f"{name} must be a count, got '{given}'")
    return int(given)
