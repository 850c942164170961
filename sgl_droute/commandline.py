"""
What the commands of this package have in common: errors in one line, a version, logs, ports,
signals.

Which options there are is written in the taps.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

from twisted.application.app import ServerOptions
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    textFileLogObserver,
)
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from sgl_droute.log_lines import Form
from sgl_droute.logs import FORMS, ProcessLog, Put, form_for_syslog, to_file, to_syslog
from sgl_droute.open_files import open_files_limit
from sgl_droute.options import nearest

log = Logger()

# Objects made, less those that went, between two rounds of the garbage collector (count). Nearly
# all go by themselves; what rings hold until the next round is some MB at most.
_ALLOCATIONS = 10_000


class CommandOptions(usage.Options):
    """
    Options whose errors end the program with exactly one line on stderr: stock twistd prints its
    whole help, or a traceback.
    """

    command: str

    def parseOptions(self, options: list[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as problem:
            self.fail(f"{problem}{self._meant_by(str(problem))}")

    def fail(self, problem: object) -> NoReturn:
        """
        End the program with one line that names the command and *problem*.
        """
        raise SystemExit(one_line(self.command, problem))

    def _meant_by(self, problem: str) -> str:
        """
        Which option was probably meant by one that is none, for the end of *problem*.
        """
        wrong = re.fullmatch(r"option (--\S+) not recognized", problem)
        known = [f"--{name.rstrip('=')}" for name in self.longOpt]
        return "" if wrong is None else nearest(wrong[1], known)

    def parseArgs(self, *words: str) -> None:
        if words:
            raise usage.UsageError(f"unexpected word {words[0]!r}")

    def opt_version(self) -> NoReturn:
        """Print the version of this package and exit."""
        print(f"{self.command} {version('sgl-droute')}")
        sys.exit(0)


def one_line(command: str, problem: object) -> str:
    """
    *problem* in one line, behind the name of the command.
    """
    text = str(problem).removeprefix("Parameter type enforcement failed: ")
    return f"{command}: {' '.join(text.split())}"


class CommandService(MultiService):
    """
    The top service of a command: what it cannot listen on ends the program with one line, its log
    level holds for the whole process, and so does what `end_at_second_signal` says.

    Its services stop one after the other, the last one added first: who is added later may use
    those before it to the end.

    Args:
        options: Its command and, in ``parent``, the options of twistd or twist.
        level: Events below it are not logged: a name of `twisted.logger.LogLevel`.
        reactor: The one that will run.
        log_format: What its log looks like: a key of `sgl_droute.logs.FORMS`.

    Attributes:
        on_hangup: Called at SIGHUP, which ends the process if this is None.
    """

    on_hangup: Callable[[], object] | None = None

    def __init__(
        self, options: CommandOptions, level: str, reactor: Any, log_format: str = "text"
    ) -> None:
        super().__init__()
        self._options = options
        self._reactor = reactor
        self._level = level
        self._log_format = log_format
        self._process_log: ProcessLog | None = None
        parent = getattr(options, "parent", None)
        if parent is not None and "logLevel" in parent:
            # twist reads these after this service is made. Its own format is text on a terminal.
            if parent.get("logFormat") == "json":
                self._log_format = "json"
            parent["logLevel"] = LogLevel.debug
            parent["fileLogObserverFactory"] = self._log_to_stream

    def set_log_level(self, level: str) -> None:
        """
        Log nothing below *level* from now on. A log that somebody else made, with ``--logger``,
        stays as it is.

        Raises:
            InvalidLogLevelError: It is no name of a level.
        """
        self._level = level
        if self._process_log is not None:
            self._process_log.set_level(level)

    def setServiceParent(self, parent: Any) -> None:
        # twistd starts its log after this call and takes the observer that it finds here.
        if isinstance(parent, Componentized) and isinstance(self._options.parent, ServerOptions):
            self._log_to(parent, self._options.parent)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        with _one_line_errors(self._options):
            super().privilegedStartService()

    def startService(self) -> None:
        with _one_line_errors(self._options):
            super().startService()
        # Services start before the reactor does, and it sets its own signal handlers then.
        self._reactor.callWhenRunning(end_at_second_signal, self._reactor)
        if self.on_hangup is not None:
            self._reactor.callWhenRunning(call_at_hangup, self._reactor, self.on_hangup)
        self._reactor.callWhenRunning(spare_the_collector)

    def stopService(self) -> Deferred[None]:
        """
        The result comes when the last service has stopped, well or not.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_in_turn())

    async def _stop_in_turn(self) -> None:
        for service in reversed(list(self)):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                log.failure("{service} did not stop well", service=service)

    def _log_to(self, application: Componentized, twistd: ServerOptions) -> None:
        if twistd.get("logger"):
            return
        if twistd.get("syslog"):
            put, form = to_syslog(twistd["prefix"]), form_for_syslog(self._log_format)
        else:
            from twisted.scripts._twistd_unix import UnixAppLogger

            chosen = UnixAppLogger(twistd)._getLogObserver()
            put, form = to_file(chosen), FORMS[self._log_format]
        application.setComponent(ILogObserver, self._log_with(form, put))

    def _log_to_stream(self, stream: Any) -> ProcessLog:
        chosen: FileLogObserver = textFileLogObserver(stream)
        return self._log_with(FORMS[self._log_format], to_file(chosen))

    def _log_with(self, form: Form, put: Put) -> ProcessLog:
        made = self._process_log = ProcessLog(form, put, self._level, self._reactor)
        self._reactor.addSystemEventTrigger("after", "shutdown", made.flush)
        atexit.register(made.flush)
        return made


def spare_the_collector() -> None:
    """
    Take what the program consists of out of the garbage collector's rounds, which would walk over
    all of it again and again: at thousands of requests a second that was a fifth of the work.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)


def end_at_second_signal(reactor: Any) -> None:
    """
    Let the first SIGINT or SIGTERM stop *reactor*, as ever, and the next one end the process at
    once, by that signal.

    Signals that somebody else handles, or that are ignored, are left alone: SIGINT under a
    debugger, or in the background of a shell script.
    """
    stop: dict[int, Callable[[int, FrameType | None], object]] = {}
    for each in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(each)
        if callable(handler) and getattr(handler, "__self__", None) is reactor:
            stop[each] = handler

    def first(number: int, frame: FrameType | None) -> None:
        for one in stop:
            signal.signal(one, _end_at_once)
        stop[number](number, frame)

    for number in stop:
        signal.signal(number, first)


def call_at_hangup(reactor: Any, call: Callable[[], object]) -> None:
    """
    Have *call* called by *reactor* at each SIGHUP. One that comes because the terminal of the
    process has been closed ends it, as SIGTERM does.

    A SIGHUP that somebody else handles, or that is ignored, as under nohup, is left alone.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        return
    at_terminal = _at_terminal()

    def hung_up(number: int, frame: FrameType | None) -> None:
        if at_terminal and not _at_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            reactor.callFromThread(call)

    signal.signal(signal.SIGHUP, hung_up)


def _at_terminal() -> bool:
    """
    Whether standard input is a terminal that is still there.
    """
    try:
        return os.isatty(0)
    except OSError:
        return False


def _end_at_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # nothing but this ends the first process of a container


@contextmanager
def _one_line_errors(options: CommandOptions) -> Iterator[None]:
    try:
        yield
    except (CannotListenError, OSError) as problem:
        # By now twistd has put its log in the place of standard error.
        print(one_line(options.command, problem), file=sys.__stderr__)
        raise SystemExit(1) from None


def check_listen(description: str) -> None:
    """
    Try an endpoint before the program goes into the background, where errors go unread.

    Raises:
        Exception: It is no endpoint string, needs a file that is missing, or its port is taken.
    """
    endpoint = serverFromString(_Rehearsal(), description)
    if description.partition(":")[0] not in _REHEARSED:
        return  # an inherited socket would be closed behind the rehearsal
    failures: list[Failure] = []
    endpoint.listen(Factory()).addErrback(failures.append)
    for failure in failures:
        failure.raiseException()


_REHEARSED = ("tcp", "tcp6", "ssl", "unix")


class _Rehearsal:
    """A reactor for endpoints that binds TCP ports and lets them go again."""

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((interface, port))
                trial.listen()
            except OSError as problem:
                raise CannotListenError(interface or "any", port, problem) from problem

    def listenUNIX(self, address: str, factory: object, *args: object, **kwargs: object) -> None:
        folder = os.path.dirname(address) or "."
        if not os.path.isdir(folder) or not os.path.basename(address):
            raise CannotListenError(None, address, OSError(f"{folder!r} is no folder"))

    def listenSSL(
        self,
        port: int,
        factory: object,
        contextFactory: object,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        self.listenTCP(port, factory, backlog, interface)


def raise_open_files_limit() -> int:
    """
    The limit of open files (count), raised to what the system allows this process.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):  # some systems have a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return open_files_limit()
