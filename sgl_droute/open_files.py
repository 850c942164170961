"""
The limit of open files, and what fits below it.

A connection takes one descriptor at each end: a request in flight has one to its client and one to
its worker.
"""

from __future__ import annotations

import resource

# Listeners, logs, the state, idle connections to workers, and bodies too large for memory.
OTHER_FILES = 256

# Stands for "no limit".
_MANY = 1 << 20


def open_files_limit() -> int:
    """
    How many files this process may have open (count).
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MANY if limit == resource.RLIM_INFINITY else limit


def clients_that_fit(limit: int, max_connections: int) -> int:
    """
    Client connections (count, at least 1) below a *limit* of open files that leave
    *max_connections* to workers; these get half of it at most.
    """
    free = limit - OTHER_FILES
    return max(1, free - min(max_connections, free // 2))
