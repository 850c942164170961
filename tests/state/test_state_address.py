"""
How a place for the state is written on the command line.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from sgl_droute.state.address import parse_state, state_path
from sgl_droute.state.opening import open_store
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.sqlite import SqliteStore
from sgl_droute.state.store import MemoryStore


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("memory:", None),
        ("sqlite:///path/router.sqlite", "/path/router.sqlite"),
        ("sqlite:////path/router.sqlite", "/path/router.sqlite"),
        ("sqlite:/path/router.sqlite", "/path/router.sqlite"),
        ("sqlite:///a%20b/c d?e#f.sqlite", "/a%20b/c d?e#f.sqlite"),
    ],
)
def test_places(text: str, path: str | None) -> None:
    """
    Three slashes or four begin an absolute path, which is taken as it is; memory has no path.
    """
    assert state_path(text) == path
    assert parse_state(text) == text


@pytest.mark.parametrize("text", ["sqlite:router.sqlite", "sqlite:./x/../router.sqlite"])
def test_relative_path(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A path without leading slashes is relative to the working directory.
    """
    monkeypatch.chdir(tmp_path)
    assert state_path(text) == str(tmp_path / "router.sqlite")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not one of memory:, sqlite:///absolute/path or sqlite:relative/path"),
        ("memory", "not one of"),
        ("memory:x", "not one of"),
        ("/var/lib/router.sqlite", "not one of"),
        ("postgresql:///x", "not one of"),
        ("sqlite", "not one of"),
        ("sqlite:", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:////", "names no file"),
        ("sqlite:///folder/", "names no file"),
        ("sqlite::memory:", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a\0b", "names no file"),
        ("sqlite:///a\ud800b", "names no file"),
        ("sqlite://host/router.sqlite", "names a host"),
    ],
)
def test_other_texts_are_refused(text: str, says: str) -> None:
    """
    Anything else is a ValueError that quotes the text and shows the forms.
    """
    with pytest.raises(ValueError, match=says):
        parse_state(text)


def test_open_store(tmp_path: Path) -> None:
    """
    The text chooses the store, and no file is made yet.
    """
    clock = Clock()
    assert isinstance(open_store("memory:", clock, job_ttl=1.0, max_owners=1), MemoryStore)
    store = open_store(f"sqlite://{tmp_path}/x.sqlite", clock, job_ttl=1.0, max_owners=1)
    assert isinstance(store, SqliteStore)
    assert (store.durable, store.place) == (True, f"{tmp_path}/x.sqlite")
    assert store.load() == Saved()
    assert list(tmp_path.iterdir()) == []


def test_memory_keeps_nothing() -> None:
    """
    A memory store takes every change and gives nothing back; it says so, and has never anything to
    write.
    """
    store = MemoryStore()
    store.startService()
    store.put_worker(SavedWorker(url="http://w:1"))
    store.put_owner(SavedOwner(kind="image", id="i", worker="http://w:1", used=0.0))
    store.put_weights("{}")
    done: list[None] = []
    store.written().addCallback(done.append)
    assert (done, store.durable, store.place) == ([None], False, "memory:")
    store.drop_worker("http://w:1")
    store.drop_owner("image", "i")
    store.stopService()
    assert store.load() == Saved()
