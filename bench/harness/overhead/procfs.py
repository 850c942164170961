"""
What processes have used, as Linux tells under ``/proc``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from attrs import frozen

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_MEMORY = re.compile(r"^(VmRSS|VmHWM):\s+(\d+) kB$", re.MULTILINE)


@frozen
class Usage:
    """
    What some processes have used together.

    Attributes:
        cpu: In user and kernel mode since they began (seconds).
        resident: Memory now (bytes).
        peak: The most that each had, added up (bytes).
    """

    cpu: float
    resident: int
    peak: int


@frozen
class Stat:
    """
    Attributes:
        parent: Process id of the parent.
        cpu: In user and kernel mode, its own threads only (seconds).
    """

    parent: int
    cpu: float


def read_stat(text: str, ticks: int = _TICKS) -> Stat:
    """
    ``/proc/PID/stat`` (proc(5)).

    Args:
        ticks: Clock ticks in a second.
    """
    # The second field, the name, may hold blanks and brackets; no later one does.
    fields = text.rpartition(")")[2].split()
    return Stat(int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks)


def read_memory(text: str) -> tuple[int, int]:
    """
    Resident memory now and at its peak (bytes), from ``/proc/PID/status``; a process that has ended
    has none.
    """
    found = {name: int(number) << 10 for name, number in _MEMORY.findall(text)}
    return found.get("VmRSS", 0), found.get("VmHWM", 0)


def descendants(parents: dict[int, int], ancestor: int) -> list[int]:
    """
    Children of *ancestor*, their children and so on.

    Args:
        parents: The parent of each process.
    """
    children = defaultdict(list)
    for process, parent in parents.items():
        children[parent].append(process)
    found = list(children[ancestor])
    for process in found:
        found += children[process]
    return found


def processes_below(ancestor: int) -> list[int]:
    """
    Ids of the running processes that *ancestor* started, directly or not.
    """
    parents = {}
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = read_stat((folder / "stat").read_text()).parent
    return descendants(parents, ancestor)


def usage(processes: Iterable[int]) -> Usage:
    """
    What *processes* have used together; one that is gone counts nothing.
    """
    cpu, resident, peak = 0.0, 0, 0
    for process in processes:
        with suppress(OSError):
            cpu += read_stat((PROC / str(process) / "stat").read_text()).cpu
            now, most = read_memory((PROC / str(process) / "status").read_text())
            resident, peak = resident + now, peak + most
    return Usage(cpu, resident, peak)
