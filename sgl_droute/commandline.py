"""
What the commands of this package have in common: errors in one line, a version, logs, ports.

Which options there are is written in the taps.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NoReturn

from twisted.application.app import ServerOptions
from twisted.application.service import MultiService
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import FilteringLogObserver, ILogObserver, LogLevel, LogLevelFilterPredicate
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure


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
            self.fail(problem)

    def fail(self, problem: object) -> NoReturn:
        """
        End the program with one line that names the command and *problem*.
        """
        raise SystemExit(one_line(self.command, problem))

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
    The top service of a command: what it cannot listen on ends the program with one line, and its
    log level holds for the whole process.

    Args:
        options: Its command and, in ``parent``, the options of twistd or twist.
        level: Events below it are not logged: a name of `twisted.logger.LogLevel`.
    """

    def __init__(self, options: CommandOptions, level: str) -> None:
        super().__init__()
        self._options = options
        self._level = LogLevel.lookupByName(level)
        parent = getattr(options, "parent", None)
        if parent is not None and "logLevel" in parent:
            parent["logLevel"] = self._level  # twist reads it after this service is made

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

    def _log_to(self, application: Componentized, twistd: ServerOptions) -> None:
        if twistd.get("logger") or twistd.get("syslog"):
            return
        from twisted.scripts._twistd_unix import UnixAppLogger

        chosen = UnixAppLogger(twistd)._getLogObserver()
        predicate = LogLevelFilterPredicate(defaultLogLevel=self._level)
        application.setComponent(ILogObserver, FilteringLogObserver(chosen, [predicate]))


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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft  # some systems have a hard limit that they do not grant
    return hard
