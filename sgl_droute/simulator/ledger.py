"""
What a simulated worker did, in a file that outlives it, however it ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from attrs import define, field


@define(eq=False)
class Ledger:
    """
    Appends one JSON object per line to *path*. A line that `write` has returned from is there even
    if the process is killed at once; of the last one a part may stand, without a newline.
    """

    path: Path
    _file: BinaryIO = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Unbuffered: each line is the operating system's before the next thing happens.
        self._file = self.path.open("ab", buffering=0)

    def write(self, kind: str, entry: Mapping[str, object]) -> None:
        self._file.write(json.dumps({"what": kind, **entry}).encode() + b"\n")

    def close(self) -> None:
        self._file.close()
