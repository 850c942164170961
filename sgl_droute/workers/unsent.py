"""
How far a peer is behind with what was written to it.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any


def unsent_bytes(transport: Any) -> int | None:
    """
    Bytes that the kernel still holds for the peer of *transport*; None where it does not tell.

    The transport's own buffer is no measure: it empties into the kernel's in large steps, minutes
    apart for a slow peer.
    """
    handle = getattr(getattr(transport, "transport", transport), "socket", None)
    if handle is None:
        return None
    try:
        answer = fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):
        return None
    count: int = struct.unpack("i", answer)[0]
    return count
