"""
What becomes of a configuration that has changed: what can follow it does, without dropping a
request, and for the rest it is told that it needs a restart.

How a configuration is read is written in `sgl_droute.configuration`; which objects a router
consists of, in `sgl_droute.service`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs
from attrs import define, evolve, field, frozen
from twisted.logger import Logger

from sgl_droute.configuration import Configuration
from sgl_droute.configuration_file import WorkerEntry
from sgl_droute.errors import BadRequest, RouterError
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.options import OPTIONS
from sgl_droute.settings import RouterSettings

log = Logger()

# What a running router cannot change: its ports, its files, who it is to workers.
NEED_RESTART = frozenset(
    {
        "job_ttl",
        "listen",
        "log_format",
        "record",
        "simulated_workers",
        "state",
        "worker_ca",
        "worker_certificate",
    }
)

_USERINFO = re.compile(r"//[^/@\s]*@")

# An option by name, or what is made of several.
Wanted = str | Callable[[RouterSettings], Any]
Thing = TypeVar("Thing")


@define(eq=False)
class Following:
    """
    Has the parts of a router follow its settings.

    Attributes:
        settings: Those in force.
    """

    settings: RouterSettings
    _checks: list[Callable[[RouterSettings], object]] = field(factory=list, init=False)
    _followers: list[Callable[[RouterSettings], object]] = field(factory=list, init=False)

    def check(self, check: Callable[[RouterSettings], object]) -> None:
        """
        Have *check* look at settings before anything follows them; it raises `ValueError`, with one
        sentence, if they cannot be had.
        """
        self._checks.append(check)

    def call(self, follower: Callable[[RouterSettings], object]) -> None:
        """
        Have *follower* called with the settings whenever they have changed; it must not fail.
        """
        self._followers.append(follower)

    def keep(self, thing: Thing, **attributes: Wanted) -> Thing:
        """
        *thing*, whose *attributes* will be what is wanted of the settings whenever they change.
        """
        for attribute, what in attributes.items():
            self.call(_setter(thing, attribute, what))
        return thing

    def adopt(self, settings: RouterSettings) -> None:
        """
        Have all follow *settings* from now on.

        Raises:
            ValueError: They cannot be had; nothing is changed.
        """
        for check in self._checks:
            check(settings)
        self.settings = settings
        for follow in self._followers:
            try:
                follow(settings)
            except Exception:
                log.failure("a part of the router does not follow its configuration")


def _setter(thing: object, attribute: str, what: Wanted) -> Callable[[RouterSettings], None]:
    return lambda settings: setattr(thing, attribute, wanted(what, settings))


def wanted(what: Wanted, settings: RouterSettings) -> Any:
    """
    What *settings* say.
    """
    return getattr(settings, what) if isinstance(what, str) else what(settings)


@frozen
class Reloaded:
    """
    What came of reading a configuration again.

    Attributes:
        changed: Options that are in force as they were read, and were not before.
        needs_restart: Options that are not in force as they were read.
        added: URLs of workers that were registered.
        removed: URLs of workers that leave when they have done what they have.
        modified: URLs of workers of which something else is said than before.
    """

    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """
        For JSON.
        """
        return {
            "changed": _spelled(self.changed),
            "needs_restart": _spelled(self.needs_restart),
            "workers": {
                "added": list(self.added),
                "removed": list(self.removed),
                "changed": list(self.modified),
            },
        }

    def __str__(self) -> str:
        parts = (
            ("changed", _spelled(self.changed)),
            ("workers added", self.added),
            ("workers that leave", self.removed),
            ("workers changed", self.modified),
            ("needs a restart", _spelled(self.needs_restart)),
        )
        told = [f"{name}: {', '.join(names)}" for name, names in parts if names]
        return "; ".join(told) or "nothing changed"


@define(eq=False)
class Reloading:
    """
    Reads the configuration of a router again.

    Args:
        configuration: As it was read last; what is in force of it, *following* knows.
        following: The parts of the router.
        pool: The fleet.
        check: Has a new worker checked at once.
    """

    configuration: Configuration
    following: Following
    pool: Pool
    check: Callable[[Worker], object]

    def reload(self) -> Reloaded:
        """
        Read it, and have the router follow. Workers that are named no more drain and leave; those
        that the file never named are left alone, and so is what the file says as it did before.

        Raises:
            BadRequest: It cannot be read or had, for one reason; nothing is changed.
        """
        running, before = self.following.settings, self.configuration
        try:
            read = before.again()
            names = _different(running, read.settings)
            changed = {name: getattr(read.settings, name) for name in names - NEED_RESTART}
            self.following.adopt(evolve(running, **changed))
        except ValueError as problem:
            raise BadRequest(f"The configuration stays as it was: {problem}") from problem
        needs_restart = sorted(names & NEED_RESTART)
        still = {name: before.sources[name] for name in needs_restart}
        self.configuration = evolve(read, sources={**read.sources, **still})
        reloaded = Reloaded(
            tuple(sorted(changed.keys() - {"worker_urls"})),
            tuple(needs_restart),
            *self._follow_workers(before.workers, read.workers),
        )
        log.info("configuration read again: {what}", what=reloaded)
        return reloaded

    def reload_by_signal(self) -> None:
        """
        As `reload`, for nobody who waits for an answer: what is wrong is logged.
        """
        try:
            self.reload()
        except RouterError as problem:
            log.error("{problem}", problem=problem)

    def shown(self) -> dict[str, Any]:
        """
        What is in force and who said it, for JSON; of secrets only where they are.
        """
        running, read = self.following.settings, self.configuration
        waiting = _different(running, read.settings) & NEED_RESTART
        options = {}
        for name in sorted(_names()):
            shown = options[OPTIONS[name].spelling] = {
                "value": _masked(getattr(running, name)),
                "source": read.sources[name],
                "changeable": name not in NEED_RESTART,
            }
            if name in waiting:
                shown["after_restart"] = _masked(getattr(read.settings, name))
        workers = [
            attrs.asdict(entry, filter=lambda _, value: value is not None) for entry in read.workers
        ]
        return {
            "file": read.path or None,
            "options": options,
            "workers": workers,
            "needs_restart": _spelled(sorted(waiting)),
        }

    def _follow_workers(
        self, before: Iterable[WorkerEntry], now: Iterable[WorkerEntry]
    ) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        then, said = ({entry.url: entry for entry in entries} for entries in (before, now))
        added, removed, modified = [], [], []
        for url in then.keys() - said.keys():
            if url in self.pool and not self.pool[url].leaving:
                removed.append(url)
                self.pool.change(self.pool[url], _leaving)
        for url, entry in said.items():
            known = then.get(url)
            if known is None and (url not in self.pool or self.pool[url].leaving):
                added.append(url)
                self.check(self.pool.add(url))
            if url in self.pool and _say(self.pool, entry, known) and known is not None:
                modified.append(url)
        return tuple(added), tuple(sorted(removed)), tuple(modified)


def register(pool: Pool, entries: Iterable[WorkerEntry]) -> None:
    """
    Have the workers in *entries* in *pool*, and be as is said of them. Those that it knows are not
    added once more, which would end a quarantine.
    """
    for entry in entries:
        if entry.url not in pool:
            pool.add(entry.url)
        _say(pool, entry, None)


def _say(pool: Pool, entry: WorkerEntry, before: WorkerEntry | None) -> bool:
    """
    Have a worker be as *entry* says where *before* did not say so; whether there is such a thing.
    """
    then = before or WorkerEntry(entry.url)
    facts: dict[str, Any] = {
        name: _USUAL[name] if getattr(entry, name) is None else getattr(entry, name)
        for name in _USUAL
        if getattr(entry, name) != getattr(then, name)
    }
    if facts:
        pool.change(pool[entry.url], lambda worker: evolve(worker, **facts))
    return bool(facts)


# What a worker is of which nothing is said.
_USUAL = {"concurrency": None, "speed": None, "disabled": False}


def _leaving(worker: Worker) -> Worker:
    return evolve(worker, draining=True, leaving=True)


def _names() -> set[str]:
    return set(attrs.fields_dict(RouterSettings))


def _different(one: RouterSettings, other: RouterSettings) -> set[str]:
    return {name for name in _names() if getattr(one, name) != getattr(other, name)}


def _spelled(names: Iterable[str]) -> list[str]:
    return [OPTIONS[name].spelling for name in names]


def _masked(value: Any) -> Any:
    """
    *value* without what stands before the host of a URL, which may be a password.
    """
    if isinstance(value, tuple):
        return [_masked(each) for each in value]
    return _USERINFO.sub("//***@", value) if isinstance(value, str) else value
