"""
Small text files that operators write: read whole, or refused with one sentence.
"""

from __future__ import annotations

import os

_LARGEST = 1 << 20


def text_of(path: str) -> str:
    """
    What is in the file at *path*: UTF-8, at most 1 MiB.

    Raises:
        ValueError: It cannot be read so; one sentence that begins with the path.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: not a file")  # to read from a pipe could take forever
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as problem:
        raise ValueError(f"{path}: {problem.strerror}") from None
    if len(data) > _LARGEST:
        raise ValueError(f"{path}: larger than {_LARGEST} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None
