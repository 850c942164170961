"""
Metrics for Prometheus: the router's own, and those of its workers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import define, frozen
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from twisted.internet.task import Cooperator
from twisted.web.server import Request

from sgl_droute.api.replies import whole_reply
from sgl_droute.workers.engine_metrics import EngineMetrics

Encoder = Callable[[Any], bytes]

_OPEN_METRICS = "application/openmetrics-text"
_PLAIN: tuple[Encoder, str] = choose_encoder("")

# The last line of OpenMetrics, and the lines at the beginning of a family.
_EOF = b"# EOF\n"
_HEAD = re.compile(rb"\A(#.*\n)*")

# Samples that are written without a break (count): some milliseconds.
_AT_ONCE = 500


@define(eq=False)
class Exposition:
    """
    Answers scrapes.

    Args:
        registry: The router's metrics.
        engine_metrics: Asks the workers for theirs.
        cooperator: Lets the reactor do other things while much is written.
    """

    registry: CollectorRegistry
    engine_metrics: EngineMetrics
    cooperator: Cooperator

    async def router(self, request: Request) -> bytes:
        """
        The router's metrics, in the format that the client prefers.
        """
        accepted = b",".join(request.requestHeaders.getRawHeaders(b"accept", []))
        encode, kind = encoder_for(accepted)
        return await self._exposed(request, self.registry.collect(), encode, kind)

    async def engines(self, request: Request) -> bytes:
        """
        The workers' metrics, in the text format: it is theirs.
        """
        encode, kind = _PLAIN
        return await self._exposed(request, await self.engine_metrics.scrape(), encode, kind)

    async def _exposed(
        self, request: Request, families: Iterable[Metric], encode: Encoder, kind: str
    ) -> bytes:
        parts: list[bytes] = []
        await self.cooperator.cooperate(_encoded(families, encode, parts)).whenDone()
        if kind.startswith(_OPEN_METRICS):
            parts.append(_EOF)
        return whole_reply(request, b"".join(parts), kind.encode("ascii"))


def encoder_for(accepted: bytes) -> tuple[Encoder, str]:
    """
    What writes the format that an ``Accept`` header asks for, and its ``Content-Type``; the plain
    text format where that makes no sense.
    """
    try:
        return choose_encoder(accepted.decode("ascii"))
    except (TypeError, UnicodeDecodeError):  # the former at versions that are no numbers
        return _PLAIN


@frozen
class _Alone:
    """A collector of one family."""

    family: Metric

    def collect(self) -> Iterator[Metric]:
        yield self.family


def _encoded(families: Iterable[Metric], encode: Encoder, parts: list[bytes]) -> Iterator[None]:
    """
    Put *families* into *parts*, so many samples a step.
    """
    for family in families:
        for number, piece in enumerate(_pieces(family)):
            text = encode(_Alone(piece)).removesuffix(_EOF)
            parts.append(_HEAD.sub(b"", text) if number else text)
            yield


def _pieces(family: Metric) -> Iterator[Metric]:
    """
    *family* in pieces with some of its samples each, one at least.
    """
    samples = family.samples
    for start in range(0, len(samples) or 1, _AT_ONCE):
        piece = Metric(family.name, family.documentation, family.type, family.unit)
        piece.samples = samples[start : start + _AT_ONCE]
        yield piece
