"""
How an event becomes a line of log, as text or as JSON, and what is never in one: secrets, and
characters that would begin another line or paint over this one.

Pure: where lines go is the business of `sgl_droute.logs`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from os import PathLike
from typing import Any, Protocol

from twisted.logger import LogEvent, LogLevel, formatEvent, formatTime
from twisted.python.failure import Failure

Form = Callable[[LogEvent], str]

# Characters kept of a message or of one field, and of a traceback: a worker may answer with much.
_LONGEST = 8192
_LONGEST_TRACEBACK = 65536
_DEEPEST = 4

# Control characters, whatever else ends a line somewhere, what turns the direction of writing, and
# halves of surrogate pairs, which have no UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_UNPRINTABLE_IN_TRACEBACK = re.compile(
    _UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f")
)
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_SECRET_NAMES = "authorization|x[-_]api[-_]key|cookie"
_HIDDEN = "***"
_SECRETS = re.compile(
    rf"""
    (?P<header> (?:{_SECRET_NAMES}) (?: ['"]?\s*[:=] | ['"]\s*, ) \s*[\[(]*\s*b?['"]? ) [^'"\r\n]+
    | (?P<scheme> \b(?:bearer|basic)[ ]+ ) [\w.~+/=-]{{6,}}
    | (?P<url> :// ) [^/\s@'"]*@
    | (?P<field> \b(?:api[-_]?key|token|secret|password|passwd|signature)= ) [^&\s'"]+
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SECRET_FIELD = re.compile(
    rf"(.*[-_])?({_SECRET_NAMES}|api_?key|token|secret|password)", re.IGNORECASE
)
# What stands before the host in a request target that is no path: ``user:password@host:443``.
_USER = re.compile(r"\A(?:[^/]*//)?[^/]*@")

# What Twisted's older logging adds to its events.
_LEGACY = frozenset(
    {"message", "time", "system", "format", "isError", "why", "failure", "logLevel", "printed"}
)
_UNTELLABLE = object()


class Prepared(Protocol):
    """
    What an event holds as ``log_prepared`` when its line is made in a quicker way.

    Its text holds no secret, and nothing that would have to be escaped.
    """

    @property
    def message(self) -> str:
        """The most important of it, for people."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What the event tells: plain values without secrets; those that are None are left out."""

    def __str__(self) -> str: ...


def text_line(event: LogEvent) -> str:
    """
    *event* as ``time [logger#level] message``, without an end of line; empty if it says nothing.

    The traceback of a failure follows in lines that begin with a tab, as no other line does.
    """
    when = _local(int(event.get("log_time") or 0))
    system = event.get("log_system")
    if system is None:
        system = f"{event.get('log_namespace') or '-'}#{_level(event)}"
    prepared = event.get("log_prepared")
    if prepared is not None:
        return f"{when} [{system}] {prepared}"
    message, traceback = _message(event), _traceback(event)
    if not (message or traceback):
        return ""
    line = f"{when} [{escaped(str(system))}] {escaped(message)}"
    return f"{line}\n\t{_indented(traceback)}" if traceback else line


def bare_line(event: LogEvent) -> str:
    """
    *event* as in `text_line`, without its time: for a system's log, which has the time itself.
    """
    return text_line(event).partition(" ")[2]


def json_line(event: LogEvent) -> str:
    """
    *event* as one JSON object in ASCII: ``time`` (UTC, in milliseconds), ``level``, ``logger``,
    ``message``, the event's own fields, and ``traceback`` with the traceback of a failure; empty if
    it says nothing.

    Fields whose values are not plain are left out.
    """
    now = event.get("log_time") or 0.0
    second = int(now)
    told: dict[str, Any] = {
        "time": f"{_utc(second)}.{int((now - second) * 1000):03d}Z",
        "level": _level(event),
        "logger": event.get("log_namespace") or "-",
    }
    prepared = event.get("log_prepared")
    if prepared is not None:
        told["message"] = prepared.message
        there = {name: value for name, value in prepared.fields.items() if value is not None}
        return _encode({**told, **there})
    told["message"], traceback = _message(event), _traceback(event)
    if not (told["message"] or traceback):
        return ""
    if traceback:
        told["traceback"] = traceback
    legacy = "isError" in event
    for name, value in event.items():
        if not (name.startswith("log_") or name in told or (legacy and name in _LEGACY)):
            _put(told, name, value)
    return _encode(told)


def masked(text: str) -> str:
    """
    *text* without the values of credentials: those of headers such as ``Authorization`` and
    ``X-Api-Key``, of ``Bearer ...``, of fields such as ``token=...``, and what stands before an
    ``@`` in a URL.
    """
    return _SECRETS.sub(_hide, text)


def masked_target(target: str) -> str:
    """
    A request target without a user's name and password.
    """
    if "@" not in target:
        return target
    return target if target[:1] == "/" else _USER.sub(f"{_HIDDEN}@", target)


def escaped(text: str) -> str:
    """
    *text* in one line: what is not printable is spelled as Python would, a new line as a backslash
    and an n.
    """
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_escape, text)


def _hide(match: re.Match[str]) -> str:
    if match["url"]:
        return f"://{_HIDDEN}@"
    return f"{match['header'] or match['scheme'] or match['field']}{_HIDDEN}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _NAMED.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _clean(text: str, longest: int = _LONGEST) -> str:
    if len(text) <= longest:
        return masked(text)
    return f"{masked(text[:longest])}... ({len(text)} characters)"


def _level(event: LogEvent) -> str:
    return str(getattr(event.get("log_level"), "name", LogLevel.info.name))


def _message(event: LogEvent) -> str:
    return _clean(formatEvent(event))


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        return ""
    try:
        text = failure.getTraceback()
    except Exception as problem:
        text = f"(no traceback: {type(problem).__name__})"
    return _clean(text.rstrip(), _LONGEST_TRACEBACK)


def _indented(traceback: str) -> str:
    return _UNPRINTABLE_IN_TRACEBACK.sub(_escape, traceback).replace("\n", "\n\t")


def _put(told: dict[str, Any], name: str, value: object, depth: int = 0) -> None:
    plain = _HIDDEN if _SECRET_FIELD.fullmatch(name) else _plain(value, depth)
    if plain is not _UNTELLABLE:
        told[name] = plain


def _plain(value: object, depth: int) -> object:
    """
    What JSON has for *value*; `_UNTELLABLE` if it has nothing.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 64 else _clean(hex(value), 80)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, (str, BaseException, PathLike)):
        return _clean(_shown(value))
    if depth == _DEEPEST:
        return _UNTELLABLE
    if isinstance(value, Mapping):
        out: dict[str, Any] = {}
        for name, each in value.items():
            _put(out, _clean(_shown(name)), each, depth + 1)
        return out
    if isinstance(value, (list, tuple, set, frozenset)):
        each_plain = [_plain(each, depth + 1) for each in value]
        return [each for each in each_plain if each is not _UNTELLABLE]
    return _UNTELLABLE


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@lru_cache(maxsize=4)
def _local(second: int) -> str:
    return formatTime(second)


@lru_cache(maxsize=4)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
