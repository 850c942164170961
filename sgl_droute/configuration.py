"""
The configuration of a router process: what its command line, its environment and its file say, and
who decides where they differ.

How options are read is written in `sgl_droute.options` and `sgl_droute.configuration_file`, and
what becomes of a configuration that has changed in `sgl_droute.reloading`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import asdict, field, frozen
from twisted.internet.endpoints import quoteStringArgument

from sgl_droute.configuration_file import FileContents, WorkerEntry, read_file
from sgl_droute.options import OPTIONS, nearest
from sgl_droute.settings import RouterSettings

# Who said it, the last one decides; a program, which makes settings itself, has nobody beside it.
DEFAULT, FILE, ENVIRONMENT, COMMAND_LINE = "default", "file", "environment", "command line"
PROGRAM = "program"
LAYERS = (DEFAULT, FILE, ENVIRONMENT, COMMAND_LINE)

PREFIX = "SGL_DROUTE_"
CONFIG = f"{PREFIX}CONFIG"

# Connections that may wait to be accepted: a burst of clients must not find the door shut.
_BACKLOG = 1024

_PLACE = ("host", "port")


@frozen(eq=False)
class Configuration:
    """
    What a router is told in all.

    Attributes:
        settings: Every option.
        sources: Who said it, by the name of the option: one of `LAYERS`, or `PROGRAM`. Host and
            port are among them if they are listened on.
        workers: What is said of workers to register; the URLs are in the settings too.
        path: The file; empty if there is none.
        again: Reads it again; raises `ValueError` with one sentence if that cannot be.
    """

    settings: RouterSettings
    sources: Mapping[str, str]
    workers: tuple[WorkerEntry, ...] = ()
    path: str = ""
    again: Callable[[], Configuration] = field(kw_only=True)

    @classmethod
    def of(cls, settings: RouterSettings) -> Configuration:
        """
        That of a program, which reads nothing.
        """
        given = asdict(settings, recurse=False)
        sources = {
            name: DEFAULT if value == OPTIONS[name].default else PROGRAM
            for name, value in given.items()
        }
        workers = tuple(WorkerEntry(url) for url in settings.worker_urls)
        made: Configuration = cls(settings, sources, workers, again=lambda: made)
        return made


@frozen(eq=False)
class Sources:
    """
    Where a configuration is read from, as often as wanted.

    Attributes:
        given: What the command line says, by the names of options.
        environment: The variables of the process.
        path: The absolute path of a file; empty for none.
        folder: Where relative paths in the environment begin.
    """

    given: Mapping[str, Any] = field(factory=dict)
    environment: Mapping[str, str] = field(factory=dict)
    path: str = ""
    folder: str = field(factory=os.getcwd)

    def read(self) -> Configuration:
        """
        The configuration as it is now.

        Raises:
            ValueError: Somebody says something that cannot be; one sentence that tells who, where
                and what.
        """
        file = read_file(self.path) if self.path else FileContents()
        said = {
            FILE: dict(file.values),
            ENVIRONMENT: read_environment(self.environment, self.folder),
            COMMAND_LINE: dict(self.given),
        }
        workers = file.workers
        if "worker_urls" in {**said[ENVIRONMENT], **said[COMMAND_LINE]}:
            workers = ()  # lists replace each other, and these tables are such a list
        values = {name: option.default for name, option in OPTIONS.items()}
        sources = dict.fromkeys(OPTIONS, DEFAULT)
        for layer, layer_values in said.items():
            values.update(layer_values)
            sources.update(dict.fromkeys(layer_values, layer))
        if workers and sources["worker_urls"] == DEFAULT:
            sources["worker_urls"] = FILE
        _decide_where(values, sources)
        entries = {url: WorkerEntry(url) for url in values["worker_urls"]}
        entries.update((entry.url, entry) for entry in workers)
        values["worker_urls"] = tuple(entries)
        settings = RouterSettings(**values)
        return Configuration(settings, sources, tuple(entries.values()), self.path, again=self.read)


def sources_of(
    given: Mapping[str, Any], environment: Mapping[str, str], config: str | None
) -> Sources:
    """
    What to read: the file is *config*, else that of ``SGL_DROUTE_CONFIG``.

    Args:
        given: What the command line says, by the names of options.
        environment: The variables of the process.
    """
    path = environment.get(CONFIG, "") if config is None else config
    return Sources(given, environment, os.path.abspath(path) if path else "")


def read_environment(environment: Mapping[str, str], folder: str) -> dict[str, Any]:
    """
    The values of options that *environment* has, by their names.

    Raises:
        ValueError: A variable cannot have its value, or begins as ours do and is none.
    """
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable == CONFIG:
            continue
        option = OPTIONS.get(variable.removeprefix(PREFIX).lower())
        if option is None or variable != variable.upper():
            known = [CONFIG, *(variable_of(name) for name in OPTIONS)]
            hint = nearest(variable.upper(), known)
            raise ValueError(f"there is no environment variable {variable}{hint}")
        values[option.name] = option.from_text(text, variable, folder)
    return values


def variable_of(name: str) -> str:
    """
    The environment variable for the option of that name.
    """
    return PREFIX + name.upper()


def _decide_where(values: dict[str, Any], sources: dict[str, str]) -> None:
    """
    Have ``listen`` say what is in force: itself, or the host and port of whoever spoke later.
    """
    place = max((sources[name] for name in _PLACE), key=LAYERS.index)
    later = LAYERS.index(place) > LAYERS.index(sources["listen"])
    host, port = (values.pop(name) for name in _PLACE)
    if later or not values["listen"]:
        values["listen"] = (_endpoint(host, port),)
        sources["listen"] = place
    else:
        for name in _PLACE:
            del sources[name]


def _endpoint(host: str, port: int) -> str:
    return f"tcp:{port}:interface={quoteStringArgument(host)}:backlog={_BACKLOG}"
