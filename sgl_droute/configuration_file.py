"""
The file of a router's configuration, in TOML: options by their names, and a table for each worker
that more is to be said of than its URL.

Which options there are is written in `sgl_droute.options`; that others than the file may decide, in
`sgl_droute.configuration`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen

from sgl_droute.fleet.worker import Concurrency
from sgl_droute.options import OPTIONS, Option, nearest, parse_worker
from sgl_droute.settings import parse_concurrency
from sgl_droute.text_files import text_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORKERS = "workers"

_MOST_AT_ONCE = 1_000_000
_SLOWEST, _FASTEST = 0.001, 1000.0

_TABLE = re.compile(r"\s*\[\[\s*workers\s*\]\]")


@frozen
class WorkerEntry:
    """
    What is said of one worker; None for what is not.

    Attributes:
        url: Its normalised base URL.
        concurrency: Generations that it may be given at once: a count, 0 for any number, ``auto``
            for one per replica.
        speed: How fast it is, where 1 is the usual speed of its model.
        disabled: Whether it gets no work at all.
    """

    url: str
    concurrency: Concurrency | None = None
    speed: float | None = None
    disabled: bool | None = None


@frozen
class FileContents:
    """
    What a file says.

    Attributes:
        values: The values of options, by name.
        workers: What it says of workers, each once.
    """

    values: Mapping[str, Any] = field(factory=dict)
    workers: tuple[WorkerEntry, ...] = ()


def read_file(path: str) -> FileContents:
    """
    What the file at *path* says. Paths in it begin in its folder.

    Raises:
        ValueError: It cannot be read, or says something that cannot be; one sentence that names
            the file and, where that is known, the line.
    """
    text = text_of(path)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise ValueError(f"{path}: {problem}") from problem
    return _Reader(path, text).contents(document)


@frozen
class _Reader:
    """
    Reads one file, and knows where its errors are.
    """

    path: str
    text: str

    def contents(self, document: Mapping[str, Any]) -> FileContents:
        values: dict[str, Any] = {}
        for key, value in document.items():
            if key == WORKERS:
                continue
            with self._at(key):
                option = _option(key, value)
                if option.name in values:
                    raise ValueError(f"{key} is there twice, with - and with _")
                values[option.name] = option.from_toml(value, key, os.path.dirname(self.path))
        with self._at(WORKERS):
            tables = _tables(document.get(WORKERS, []))
        entries: dict[str, WorkerEntry] = {}
        for number, table in enumerate(tables, 1):
            entry = self._entry(number, table)
            with self._at("url", number):
                if entry.url in entries:
                    raise ValueError(f"worker {entry.url} is there twice")
            entries[entry.url] = entry
        return FileContents(values, tuple(entries.values()))

    def _entry(self, number: int, table: Mapping[str, Any]) -> WorkerEntry:
        facts: dict[str, Any] = {}
        for key, value in table.items():
            with self._at(key, number):
                if key not in _FACTS:
                    raise ValueError(_unknown_fact(key))
                facts[key] = _FACTS[key](value)
        with self._at(WORKERS, number):
            if "url" not in facts:
                raise ValueError("a worker without url")
            return WorkerEntry(**facts)

    @contextmanager
    def _at(self, key: str, table: int = 0) -> Iterator[None]:
        """
        Have errors within name the place of *key* in the worker of that number, or before all
        tables.
        """
        try:
            yield
        except ValueError as problem:
            line = _line_of(self.text, key, table)
            where = self.path if line is None else f"{self.path}, line {line}"
            raise ValueError(f"{where}: {problem}") from problem


def _option(key: str, value: Any) -> Option:
    option = OPTIONS.get(key.replace("-", "_"))
    if option is None:
        if isinstance(value, dict):
            raise ValueError(
                f"there is no table {key}: options stand in none, workers in [[workers]]"
            )
        known = [each.spelling for each in OPTIONS.values()]
        hint = nearest(key.replace("_", "-"), [*known, WORKERS])
        raise ValueError(f"there is no option {key}{hint}")
    return option


def _unknown_fact(key: str) -> str:
    if key.replace("-", "_") in OPTIONS:
        return f"{key} is an option of the router: it belongs before the first [[workers]]"
    return f"a worker has no {key}{nearest(key, list(_FACTS))}"


def _tables(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError("workers must be tables, each below [[workers]]; URLs alone: worker-urls")
    return value


def _line_of(text: str, key: str, table: int) -> int | None:
    """
    Where *key* most likely stands in a document, as TOML files are usually written.
    """
    name = rf"""["']?{re.escape(key)}["']?\s*"""
    key_or_table = re.compile(rf"\s*({name}[.=]|\[+\s*{name}[\].])")
    workers = 0
    for number, line in enumerate(text.splitlines(), 1):
        workers += bool(_TABLE.match(line))
        if workers == table and key_or_table.match(line):
            return number
    return None


# What a worker may have, and how it is read.


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"url must be a text: {value!r}")
    return parse_worker(value)[0]


def _concurrency(value: Any) -> Concurrency:
    wrong = f'concurrency must be a count from 0 to {_MOST_AT_ONCE}, or "auto": {value!r}'
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(wrong)
    try:
        read = parse_concurrency(str(value))
    except ValueError:
        raise ValueError(wrong) from None
    if read != "auto" and read > _MOST_AT_ONCE:
        raise ValueError(wrong)
    return read


def _speed(value: Any) -> float:
    wrong = f"speed must be a number from {_SLOWEST:g} to {_FASTEST:g}: {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(wrong)
    try:
        speed = float(value)
    except (ValueError, OverflowError):
        raise ValueError(wrong) from None
    if not _SLOWEST <= speed <= _FASTEST:
        raise ValueError(wrong)
    return speed


def _disabled(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"disabled must be true or false: {value!r}")
    return value


_FACTS: dict[str, Callable[[Any], Any]] = {
    "url": _url,
    "concurrency": _concurrency,
    "speed": _speed,
    "disabled": _disabled,
}
