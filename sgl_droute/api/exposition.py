"""
Metrics for Prometheus: the router's own, and those of its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import define, frozen
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import (
    CONTENT_TYPE_PLAIN_0_0_4,
    choose_encoder,
    generate_latest,
)
from twisted.internet.task import Cooperator
from twisted.web.server import Request

from sgl_droute.api.replies import whole_reply
from sgl_droute.workers.engine_metrics import EngineMetrics

Encoder = Callable[[Any], bytes]

_PLAIN: tuple[Encoder, str] = (generate_latest, CONTENT_TYPE_PLAIN_0_0_4)

# The last line of OpenMetrics.
_EOF = b"# EOF\n"


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
        body = await self._exposed(self.registry.collect(), encode)
        return whole_reply(request, body, kind.encode("ascii"))

    async def engines(self, request: Request) -> bytes:
        """
        The workers' metrics, in the text format: it is theirs.
        """
        encode, kind = _PLAIN
        body = await self._exposed(await self.engine_metrics.scrape(), encode)
        return whole_reply(request, body, kind.encode("ascii"))

    async def _exposed(self, families: Iterable[Metric], encode: Encoder) -> bytes:
        parts: list[bytes] = []
        await self.cooperator.cooperate(_encoded(families, encode, parts)).whenDone()
        whole = b"".join(part.removesuffix(_EOF) for part in parts)
        return whole + _EOF if parts[-1].endswith(_EOF) else whole


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
    Put *families* into *parts*, one a step.
    """
    for family in families:
        parts.append(encode(_Alone(family)))
        yield
