"""
Which log a command gets under twistd and twist.
"""

from __future__ import annotations

import json
import signal
import syslog
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application
from twisted.application.twist._options import TwistOptions
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.scripts._twistd_unix import ServerOptions

from sgl_droute.commandline import CommandService
from sgl_droute.tap import Options


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """twistd's log takes SIGUSR1 for itself."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def logger_of(service: CommandService) -> Logger | None:
    """A logger to the log that twistd would use for *service*; None if it makes its own."""
    application = Application("test")
    service.setServiceParent(application)
    observer = application.getComponent(ILogObserver, None)
    return None if observer is None else Logger("test", observer=observer)


def under_twistd(form: str, **options: Any) -> CommandService:
    """A command whose twistd has *options*."""
    own = Options()
    own.parent = ServerOptions()
    own.parent.update(options)
    return CommandService(own, "info", MemoryReactorClock(), form)


def under_twist(form: str, own_form: str | None) -> tuple[CommandService, TwistOptions]:
    """A command whose twist was told its *own_form*, or knows no terminal."""
    own = Options()
    twist = own.parent = TwistOptions()
    twist["logFile"] = StringIO()
    if own_form is not None:
        twist.opt_log_format(own_form)
    twist.selectDefaultLogObserver()
    return CommandService(own, "info", MemoryReactorClock(), form), twist


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_file(tmp_path: Path, form: str) -> None:
    """
    Under twistd the log is in its file, in the form of the option, from the level on.
    """
    file = tmp_path / "log"
    service = under_twistd(form, logfile=str(file), nodaemon=True)
    log = logger_of(service)
    assert log is not None
    log.debug("one")
    log.info("two")
    service.set_log_level("debug")
    log.debug("three")
    lines = file.read_text().splitlines()
    if form == "json":
        assert [json.loads(line)["message"] for line in lines] == ["two", "three"]
    else:
        assert [line.split("] ")[1] for line in lines] == ["two", "three"]


def test_the_systems_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With ``--syslog`` the log is the system's, under the prefix.
    """
    told: list[object] = []
    monkeypatch.setattr(syslog, "openlog", lambda *words: told.append(words[0]))
    monkeypatch.setattr(syslog, "syslog", lambda *words: told.append(words[1]))
    log = logger_of(under_twistd("text", syslog=True, prefix="edge"))
    assert log is not None
    log.info("one")
    assert told == ["edge", "[test#info] one"]


def test_a_log_of_ones_own() -> None:
    """
    What ``--logger`` names is left alone.
    """
    service = under_twistd("json", logger="some.thing")
    assert logger_of(service) is None
    service.set_log_level("debug")


@pytest.mark.parametrize(
    ("form", "own_form", "expected"),
    [
        ("text", None, "json"),
        ("text", "text", "text"),
        ("text", "json", "json"),
        ("json", "text", "json"),
    ],
)
def test_twist(form: str, own_form: str | None, expected: str) -> None:
    """
    Under twist the log is JSON if either says so, and twist says so by itself where there is no
    terminal; the level is the router's.
    """
    service, twist = under_twist(form, own_form)
    assert twist["logLevel"] is LogLevel.debug
    log = Logger("test", observer=twist["fileLogObserverFactory"](twist["logFile"]))
    log.debug("one")
    log.info("two")
    service.set_log_level("debug")
    log.debug("three")
    lines = twist["logFile"].getvalue().splitlines()
    assert len(lines) == 2
    assert all((line[0] == "{") is (expected == "json") for line in lines)


def test_the_end(tmp_path: Path) -> None:
    """
    What is kept to be written together is written when the reactor has stopped.
    """
    file = tmp_path / "log"
    own = Options()
    own.parent = ServerOptions()
    own.parent.update(logfile=str(file), nodaemon=True)
    reactor = MemoryReactorClock()
    log = logger_of(CommandService(own, "info", reactor, "text"))
    assert log is not None
    log.info("{log_prepared}", log_prepared="done 200")
    assert file.read_text() == ""
    for call, words, options in reactor.triggers["after"]["shutdown"]:
        call(*words, **options)
    assert file.read_text().endswith("[test#info] done 200\n")
