"""
The log of the whole process: which events get into it, and how their lines get out.

What a line looks like is in `sgl_droute.log_lines`.
"""

from __future__ import annotations

import syslog
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from threading import Lock

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import FileLogObserver, ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from sgl_droute.log_lines import Form, bare_line, json_line, text_line

FORMS: dict[str, Form] = {"text": text_line, "json": json_line}

# What takes lines, without their ends; each with the name of its level.
Put = Callable[[Sequence[tuple[str, str]]], object]

# Seconds that lines of requests are kept to be written together, and how many at most.
_LATER = 0.1
_MOST_KEPT = 500

_RANKS = {level: rank for rank, level in enumerate(LogLevel.iterconstants())}
_INFO = _RANKS[LogLevel.info]

_PRIORITIES = {
    "debug": syslog.LOG_DEBUG,
    "info": syslog.LOG_INFO,
    "warn": syslog.LOG_WARNING,
    "error": syslog.LOG_ERR,
    "critical": syslog.LOG_ALERT,
}


@implementer(ILogObserver)
class ProcessLog:
    """
    A log observer that writes one line per event and never fails.

    Lines of requests are written together, at most 0.1 s later; any other event takes them along
    at once. When lines cannot be written, the log tells how many as soon as it can be written
    again.

    It may be called from any thread, except with events of requests.

    Args:
        form: Makes a line of an event.
        put: Takes the lines.
        level: Events below it are not logged: a name of `twisted.logger.LogLevel`.
        clock: Provides the time.
    """

    def __init__(self, form: Form, put: Put, level: str, clock: IReactorTime) -> None:
        self._form = form
        self._put = put
        self._clock = clock
        self._lines: deque[tuple[str, str]] = deque()
        self._writing = Lock()
        self._timer: IDelayedCall | None = None
        self._lost = 0
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """
        Log nothing below *level* from now on.

        Raises:
            InvalidLogLevelError: It is no name of a level.
        """
        self._least = _RANKS[LogLevel.levelWithName(level)]

    def __call__(self, event: LogEvent) -> None:
        if _RANKS.get(event.get("log_level"), _INFO) < self._least:
            return
        line = self._line(event)
        if not line:
            return
        self._lines.append((getattr(event.get("log_level"), "name", "info"), line))
        if "log_prepared" not in event or len(self._lines) >= _MOST_KEPT:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(_LATER, self._time_is_over)

    def flush(self) -> None:
        """
        Write what is not written yet.
        """
        # Another thread may be writing, or this one, below a signal handler that logs: whoever it
        # is takes this along.
        while self._lines and self._writing.acquire(blocking=False):
            try:
                self._write([self._lines.popleft() for _ in range(len(self._lines))])
            finally:
                self._writing.release()

    def _time_is_over(self) -> None:
        self._timer = None
        self.flush()

    def _write(self, lines: list[tuple[str, str]]) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            told = {"log_level": LogLevel.warn, "log_namespace": __name__, "count": lost}
            told.update(log_time=self._clock.seconds(), log_format="{count} lines were lost here")
            lines.insert(0, ("warn", self._line(told)))
        try:
            self._put(lines)
        except Exception:  # there is no other place to tell it, and traffic must go on
            self._lost = lost + len(lines) - bool(lost)

    def _line(self, event: LogEvent) -> str:
        try:
            return self._form(event)
        except Exception as problem:
            level, name = event.get("log_level"), type(problem).__name__
            told = {"log_level": level, "log_namespace": __name__, "problem": name}
            told.update(log_time=event.get("log_time"), log_format="an event broke: {problem}")
            return self._form(told)


def to_file(observer: FileLogObserver) -> Put:
    """
    What writes lines to the file of *observer*, whose own format is no longer used.
    """
    observer.formatEvent = itemgetter("text")

    def put(lines: Sequence[tuple[str, str]]) -> None:
        observer({"text": "".join([f"{line}\n" for _, line in lines])})

    return put


def to_syslog(prefix: str) -> Put:
    """
    What hands lines to the system's log, each with its priority.

    Args:
        prefix: Which program they come from.
    """
    syslog.openlog(prefix, syslog.LOG_PID, syslog.LOG_USER)

    def put(lines: Sequence[tuple[str, str]]) -> None:
        for level, text in lines:
            for line in text.split("\n"):
                syslog.syslog(_PRIORITIES[level], line)

    return put


def form_for_syslog(name: str) -> Form:
    """
    The form of that *name* for a log that knows the time itself.
    """
    return bare_line if name == "text" else FORMS[name]
