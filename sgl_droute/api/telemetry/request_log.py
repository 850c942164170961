"""
One line of log for each request, when it has ended.

What the words in it mean is written in ``docs/logs.md``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.logger import ILogObserver, Logger, LogLevel

from sgl_droute.api.telemetry.account import DONE, Account
from sgl_droute.log_lines import escaped, masked, masked_target

# Asked for again and again by those who watch; logged at debug as long as all is well.
_PROBES = frozenset(
    {"/health", "/health_generate", "/liveness", "/metrics", "/engine_metrics", "/dashboard"}
)

_TRACE = re.compile(r"[\da-f]{2}-([\da-f]{32})-[\da-f]{16}-[\da-f]{2}")
_is_plain = re.compile(r"[!#-<>-~]+").fullmatch  # ASCII that needs no quotes
_LONGEST = 2048


@frozen(eq=False)
class RequestLine:
    """
    What is logged of one request.

    Attributes:
        fields: By name, in the order of the line; None for what there is not.
    """

    fields: Mapping[str, Any]

    @property
    def message(self) -> str:
        """``code status method path``."""
        return " ".join([str(self.fields[name] or "-") for name in _BARE])

    def __str__(self) -> str:
        """
        The message and then ``name=value`` of all else that there is, in quotes where needed.
        """
        words = []
        for name, value in self.fields.items():
            if value is None:
                if name in _BARE:
                    words.append("-")
                continue
            kind = value.__class__
            if kind is float:
                value = f"{value:.3f}"
            elif kind is str and not _is_plain(value):
                value = _quoted(value)
            words.append(str(value) if name in _BARE else f"{name}={value}")
        return " ".join(words)


class RequestLog:
    """
    Logs the accounts of requests; `note` is an observer for `Accounts.watch`.

    Each is one event: level info, or debug for what only watches the router and went well. Its
    fields are those of the line, by name; its text is the line.

    Args:
        observer: Where to log; Twisted's log if None.
    """

    def __init__(self, observer: ILogObserver | None = None) -> None:
        self._log = Logger("sgl_droute.request", observer=observer)

    def note(self, account: Account) -> None:
        """
        Log *account*, which is closed.
        """
        fields = fields_of(account)
        quiet = is_probe(account) and account.code == DONE and account.status < 400
        level = LogLevel.debug if quiet else LogLevel.info
        self._log.observer(
            {  # as `Logger.emit` would make it, at half the price
                **fields,
                "log_logger": self._log,
                "log_level": level,
                "log_namespace": self._log.namespace,
                "log_source": None,
                "log_format": "{log_prepared}",
                "log_time": time.time(),
                "log_prepared": RequestLine(fields),
            }
        )


def is_probe(account: Account) -> bool:
    """
    Whether its request only asks how the router is, or for a file of the live page.
    """
    return account.route in _PROBES or account.route.startswith("/dashboard/")


def fields_of(account: Account) -> dict[str, Any]:
    """
    What is logged of *account*, by name; None for what there is not. Times are seconds.
    """
    error, trace = account.error, account.traceparent
    identified = _TRACE.match(trace) if trace else None
    return {
        "code": account.code,
        "status": account.status or None,
        "method": account.method or None,
        "path": masked_target(account.path) or None,
        "bytes_in": account.bytes_in,
        "bytes_out": account.bytes_out,
        "queue": _rounded(account.queue),
        "work": _rounded(account.work),
        "transfer": _rounded(account.transfer),
        "total": _rounded(account.total),
        "worker": account.worker,
        "tries": account.tries or None,
        "epoch": account.epoch or None,
        "client": account.client or None,
        "address": account.address or None,
        "key": account.key,
        "kind": account.kind or None,
        "job": account.job,
        "id": account.id,
        "trace": identified[1] if identified else None,
        "error": masked(error[:_LONGEST]) if error else None,
    }


# Known by their place, not by a name.
_BARE = ("code", "status", "method", "path")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _quoted(value: str) -> str:
    text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
    return escaped(json.dumps(text, ensure_ascii=False))
