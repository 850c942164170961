"""
The log of the process: when lines are written, which, and what happens when they cannot be.
"""

from __future__ import annotations

import sys
import syslog
from collections.abc import Sequence
from io import StringIO
from threading import Thread
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import InvalidLogLevelError, LogEvent, Logger, LogLevel, textFileLogObserver

from sgl_droute.log_lines import bare_line, json_line, text_line
from sgl_droute.logs import _PRIORITIES, FORMS, ProcessLog, form_for_syslog, to_file, to_syslog


class Prepared:
    """What events of requests carry."""

    message = "done"
    fields: dict[str, Any] = {}  # noqa: RUF012

    def __str__(self) -> str:
        return "done 200"


class Paper:
    """Takes lines, unless it is full."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.writes = 0
        self.full = False

    def __call__(self, lines: Sequence[tuple[str, str]]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.writes += 1
        self.lines += [f"{level} {line}" for level, line in lines]


def message(event: LogEvent) -> str:
    return str(event.get("log_prepared") or event["log_format"].format(**event))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def process_log(paper: Paper, clock: Clock) -> ProcessLog:
    return ProcessLog(message, paper, "info", clock)


@pytest.fixture
def log(process_log: ProcessLog) -> Logger:
    return Logger("test", observer=process_log)


def test_at_once(log: Logger, paper: Paper) -> None:
    """
    An ordinary event is written before its call returns.
    """
    log.info("one")
    log.error("two")
    assert paper.lines == ["info one", "error two"]


def test_requests_together(log: Logger, paper: Paper, clock: Clock) -> None:
    """
    Lines of requests are written together within 0.1 s.
    """
    for _ in range(3):
        log.info("{log_prepared}", log_prepared=Prepared())
    clock.advance(0.09)
    assert paper.lines == []
    clock.advance(0.02)
    assert paper.lines == ["info done 200"] * 3
    assert paper.writes == 1


def test_order(log: Logger, paper: Paper) -> None:
    """
    An ordinary event takes the lines of requests before it along.
    """
    log.info("{log_prepared}", log_prepared=Prepared())
    log.warn("stopping")
    assert paper.lines == ["info done 200", "warn stopping"]


def test_many_requests(log: Logger, paper: Paper) -> None:
    """
    Lines of requests do not gather without limit between two moments of writing.
    """
    for _ in range(1001):
        log.info("{log_prepared}", log_prepared=Prepared())
    assert len(paper.lines) == 1000


def test_flush(log: Logger, paper: Paper, process_log: ProcessLog) -> None:
    """
    What is kept is written when asked for, and not once more later.
    """
    log.info("{log_prepared}", log_prepared=Prepared())
    process_log.flush()
    process_log.flush()
    assert paper.lines == ["info done 200"]


def test_level(log: Logger, paper: Paper, process_log: ProcessLog) -> None:
    """
    The level can be changed while the process runs; an unknown one changes nothing.
    """
    log.debug("one")
    process_log.set_level("debug")
    log.debug("two")
    process_log.set_level("error")
    log.warn("three")
    with pytest.raises(InvalidLogLevelError):
        process_log.set_level("loud")
    log.warn("four")
    log.critical("five")
    assert paper.lines == ["debug two", "critical five"]


def test_no_level(paper: Paper, process_log: ProcessLog) -> None:
    """
    An event that tells no level counts as info.
    """
    process_log({"log_format": "one"})
    assert paper.lines == ["info one"]


def test_a_full_disk(log: Logger, paper: Paper) -> None:
    """
    Lines that cannot be written break nothing, and are counted in the log once it can be written.
    """
    paper.full = True
    for word in ("one", "two", "three"):
        log.info(word)
    paper.full = False
    log.info("four")
    log.info("five")
    assert paper.lines == ["warn 3 lines were lost here", "info four", "info five"]


def test_a_form_that_breaks(paper: Paper, clock: Clock) -> None:
    """
    An event that cannot be told is told of.
    """

    def picky(event: LogEvent) -> str:
        if "odd" in event:
            raise KeyError("odd")
        return message(event)

    log = Logger("test", observer=ProcessLog(picky, paper, "info", clock))
    log.error("x", odd=1)
    assert paper.lines == ["error an event broke: KeyError"]


def test_a_signal_while_writing(clock: Clock) -> None:
    """
    A signal handler that logs while a line is being written loses nothing and tears no line.
    """
    written: list[str] = []

    def put(lines: Sequence[tuple[str, str]]) -> None:
        for _, line in lines:
            written.append(f"begin {line}")
            if line == "one":
                own.info("Received SIGTERM")
            written.append(f"end {line}")

    own = Logger("test", observer=ProcessLog(message, put, "info", clock))
    own.info("one")
    assert written == ["begin one", "end one", "begin Received SIGTERM", "end Received SIGTERM"]


def test_threads(log: Logger, paper: Paper) -> None:
    """
    Events of many threads are all written.
    """

    def work(name: int) -> None:
        for i in range(500):
            log.info(f"{name}.{i}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=work, args=(name,)) for name in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(before)
    assert sorted(paper.lines) == sorted(f"info {n}.{i}" for n in range(4) for i in range(500))


def test_a_file(clock: Clock) -> None:
    """
    A file gets the lines in the log's own form.
    """
    file = StringIO()
    process_log = ProcessLog(message, to_file(textFileLogObserver(file)), "info", clock)
    Logger("test", observer=process_log).info("one")
    assert file.getvalue() == "one\n"


def test_the_systems_log(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The system's log gets each line with its priority and without a time of its own.
    """
    opened: list[object] = []
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "openlog", lambda *words: opened.append(words[0]))
    monkeypatch.setattr(syslog, "syslog", lambda *words: told.append(words))
    form = form_for_syslog("text")
    log = Logger("test", observer=ProcessLog(form, to_syslog("router"), "info", clock))
    log.info("one")
    log.error("two\nthree")
    assert opened == ["router"]
    assert told == [
        (syslog.LOG_INFO, "[test#info] one"),
        (syslog.LOG_ERR, "[test#error] two\\nthree"),
    ]


def test_forms() -> None:
    """
    The forms go by the names of the option; the system's log gets no time but in JSON.
    """
    assert {"text": text_line, "json": json_line} == FORMS
    assert form_for_syslog("text") is bare_line
    assert form_for_syslog("json") is json_line


def test_all_levels_have_a_priority() -> None:
    """
    No level is without a priority in the system's log.
    """
    assert {level.name for level in LogLevel.iterconstants()} == set(_PRIORITIES)
