"""
How a place for the state is written: ``memory:`` or ``sqlite:`` and a path.
"""

from __future__ import annotations

import os

_FORMS = "memory:, sqlite:///absolute/path or sqlite:relative/path"


def parse_state(text: str) -> str:
    """
    *text*, if `state_path` can read it.

    Raises:
        ValueError: It cannot.
    """
    state_path(text)
    return text


def state_path(text: str) -> str | None:
    """
    The absolute path of the file that *text* names; None for ``memory:``.

    As in a ``file:`` URL, three slashes begin an absolute path: ``sqlite:///var/lib/router.sqlite``
    is ``/var/lib/router.sqlite``. A fourth slash, which other programs ask for, changes nothing.
    Without slashes the path is relative to the working directory: ``sqlite:router.sqlite``.
    Nothing in the path is decoded or expanded.

    Raises:
        ValueError: The text has another form, or its path cannot be that of a file.
    """
    if text == "memory:":
        return None
    scheme, colon, path = text.partition(":")
    if not colon or scheme != "sqlite":
        raise ValueError(f"{text!r} is not one of {_FORMS}")
    if path.startswith("//") and not path.startswith("///"):
        raise ValueError(f"{text!r} names a host; a file is {_FORMS.partition(', ')[2]}")
    if path.strip("/") in ("", ":memory:") or path.endswith("/") or not _is_a_path(path):
        raise ValueError(f"{text!r} names no file; it is one of {_FORMS}")
    if path.startswith("/"):
        path = "/" + path.lstrip("/")  # the system gives two leading slashes a meaning of its own
    return os.path.abspath(path)


def _is_a_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
