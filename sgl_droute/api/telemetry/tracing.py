"""
Whether requests are traced with OpenTelemetry, as its environment variables say.

What a trace consists of is written in `sgl_droute.api.telemetry.spans`, which needs the ``otel``
extra.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from sgl_droute.api.telemetry.spans import Tracing

log = Logger()

_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def open_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """
    What traces requests; None if *environ*, which is the process's, names no collector or says not
    to, or if the ``otel`` extra is not installed. Its thread runs from now on.

    ``OTEL_EXPORTER_OTLP_ENDPOINT`` turns tracing on; the other variables of OpenTelemetry mean what
    they mean everywhere.
    """
    if not any(environ.get(name) for name in _ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in ("", "otlp"):
        return None
    if not all(_is_there(name) for name in _NEEDED):
        log.warn("no traces are exported: that needs pip install 'sgl-droute[otel]'")
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        log.warn("traces are exported by {ours}, not {asked}", ours=_PROTOCOL, asked=protocol)
    from sgl_droute.api.telemetry.spans import open_exporting

    return open_exporting(environ)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
