"""
Files of keys for tests.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def key_file(path: Path, *lines: str) -> str:
    """
    The name of a file at *path* with a key on each of *lines*: the key itself, which is its name
    too, and words such as ``files=yes``.
    """
    text = ""
    for line in lines:
        key, _, words = line.partition(" ")
        text += f"{key} sha256:{sha256(key.encode()).hexdigest()} {words}\n"
    path.write_text(text)
    return str(path)


def bearing(key: str) -> dict[str, str]:
    """
    Headers with *key*.
    """
    return {"Authorization": f"Bearer {key}"}
