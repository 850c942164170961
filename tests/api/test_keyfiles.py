"""
The files that keys are in: read at start, and whenever they change.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

from sgl_droute.api.entry.door import Door
from sgl_droute.api.entry.keyfiles import KeyFiles, KeySources
from sgl_droute.fleet.keyring import Keyring


def entry(name: str, key: str) -> str:
    return f"{name} sha256:{sha256(key.encode()).hexdigest()}\n"


def write(path: Path, text: str) -> None:
    """
    Put *text* in the place of the file at once, as an editor does.
    """
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def problems(logged: list[LogEvent]) -> list[str]:
    return [str(each["problem"]) for each in logged if each["log_level"] is LogLevel.error]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    return Door(clock.seconds, Keyring(b""))


@pytest.fixture
def api(tmp_path: Path) -> Path:
    path = tmp_path / "api"
    path.write_text(entry("web", "web-key"))
    return path


def names(door: Door) -> list[str]:
    return [key.name for key in door.keyring.keys]


def test_both_files(tmp_path: Path, api: Path, door: Door, clock: Clock) -> None:
    """
    The keys of both files are known at once.
    """
    admin = tmp_path / "admin"
    admin.write_text(entry("root", "root-key"))
    KeyFiles(door, KeySources(str(api), str(admin)), clock)
    web, root = door.keyring.find(b"web-key"), door.keyring.find(b"root-key")
    assert web is not None
    assert root is not None
    assert (web.admin, root.admin) == (False, True)


def test_no_files(door: Door, clock: Clock) -> None:
    """
    Without files nothing needs a key.
    """
    KeyFiles(door, KeySources(), clock)
    assert not door.keyring.asks


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"web sha256:1\n", "{path}, line 1: behind the name there must be sha256: and 64 hex"),
        (b"", "{path}: there is no key in it"),
        (b"\xff", "{path}: not UTF-8"),
        (b"#" * ((1 << 20) + 1), "{path}: larger than 1048576 bytes"),
        (None, "{path}: No such file or directory"),
    ],
)
def test_a_broken_file_at_start(
    api: Path, door: Door, clock: Clock, content: bytes | None, problem: str
) -> None:
    """
    A router does not start with keys that it cannot read: one line says why.
    """
    if content is None:
        api.unlink()
    else:
        api.write_bytes(content)
    with pytest.raises(ValueError, match="api") as told:
        KeyFiles(door, KeySources(api=str(api)), clock)
    assert str(told.value).startswith(problem.format(path=api))
    assert "\n" not in str(told.value)


def test_a_pipe_is_no_file(tmp_path: Path, door: Door, clock: Clock) -> None:
    """
    What might never end is not read.
    """
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: not a file"):
        KeyFiles(door, KeySources(api=str(tmp_path / "pipe")), clock)


def test_one_name_in_both_files(tmp_path: Path, api: Path, door: Door, clock: Clock) -> None:
    """
    What is wrong between the files is told too.
    """
    admin = tmp_path / "admin"
    admin.write_text(entry("web", "root-key"))
    with pytest.raises(ValueError, match="admin: admin key web: a key of that name is among"):
        KeyFiles(door, KeySources(str(api), str(admin)), clock)


def test_a_change(api: Path, door: Door, clock: Clock, logged: list[LogEvent]) -> None:
    """
    A changed file holds within a second, once it runs; one that stays is not read again.
    """
    files = KeyFiles(door, KeySources(api=str(api)), clock)
    write(api, entry("new", "new-key"))
    clock.advance(2.0)
    assert names(door) == ["web"]
    files.startService()
    clock.advance(1.0)
    assert names(door) == ["new"]
    ring = door.keyring
    clock.pump([1.0] * 3)
    assert door.keyring is ring
    files.stopService()
    write(api, entry("late", "late-key"))
    clock.pump([1.0] * 3)
    assert names(door) == ["new"]
    assert [each["count"] for each in logged if "count" in each] == [1]


def test_in_place(api: Path, door: Door, clock: Clock) -> None:
    """
    A file of the same length, written in place, is a changed one.
    """
    files = KeyFiles(door, KeySources(api=str(api)), clock)
    files.startService()
    api.write_text(entry("net", "net-key"))
    os.utime(api, ns=(1, 1))
    clock.advance(1.0)
    assert names(door) == ["net"]
    files.stopService()


def test_a_broken_change(api: Path, door: Door, clock: Clock, logged: list[LogEvent]) -> None:
    """
    A file that breaks or goes away changes nothing and is told once; when it is well again it
    holds.
    """
    files = KeyFiles(door, KeySources(api=str(api)), clock)
    files.startService()
    write(api, "web sha256:1\n")
    clock.pump([1.0] * 5)
    assert names(door) == ["web"]
    assert len(problems(logged)) == 1
    assert problems(logged)[0].startswith(f"{api}, line 1: ")
    api.unlink()
    clock.pump([1.0] * 5)
    assert names(door) == ["web"]
    assert problems(logged)[1:] == [f"{api}: No such file or directory"]
    write(api, entry("new", "new-key"))
    clock.pump([1.0] * 5)
    assert names(door) == ["new"]
    assert len(problems(logged)) == 2
    files.stopService()


def test_reload(tmp_path: Path, api: Path, door: Door, clock: Clock) -> None:
    """
    A reload reads at once, other files if told so; what is broken is an error and changes nothing.
    """
    files = KeyFiles(door, KeySources(api=str(api)), clock)
    write(api, entry("new", "new-key"))
    files.reload()
    assert names(door) == ["new"]
    other = KeySources(admin=str(tmp_path / "admin"))
    with pytest.raises(ValueError, match="No such file"):
        files.reload(other)
    assert files.sources.api == str(api)
    (tmp_path / "admin").write_text(entry("root", "root-key"))
    files.reload(other)
    assert names(door) == ["root"]
    assert not door.keyring.inference


def test_used_limits_stay(api: Path, door: Door, clock: Clock) -> None:
    """
    A key that stays keeps what it has used of its limits.
    """
    files = KeyFiles(door, KeySources(api=str(api)), clock)
    key: Any = door.keyring.find(b"web-key")
    door.quotas.enter(key, 0.0)
    write(api, entry("web", "web-key") + entry("more", "more-key"))
    files.reload()
    assert door.quotas.in_flight("web") == 1
