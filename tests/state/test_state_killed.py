"""
``kill -9`` while state is being written.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

from attrs import frozen

from sgl_droute.state.saved import Saved
from tests.state import writer
from tests.state.hands import Bench
from tests.state.model import Model

LANES = 5
KILLS = 10  # in each lane, one after the other on the same file


@frozen
class Kill:
    """
    How one kill went.

    Attributes:
        lost: When the process was killed, the age of the oldest operation that was lost (seconds).
        stall: Longest time in which the process did nothing (seconds).
        promised: Operations of which the process was told that they were written (count).
        broken: Those of them that were lost all the same (count).
    """

    lost: float
    stall: float
    promised: int
    broken: int


def test_killed_while_writing(tmp_path: Path) -> None:
    """
    A process killed at any moment, 50 times, leaves a sound file that holds every operation up to
    some number and no part of a later one, and only operations of its last second are lost. Where
    the machine let the process stand still, it may lose that much more. Nothing is lost that the
    process was told is written.
    """
    with ThreadPoolExecutor(LANES) as lanes:
        kills = [
            kill for lane in lanes.map(partial(killed, tmp_path), range(LANES)) for kill in lane
        ]
    assert len(kills) == LANES * KILLS
    assert [kill for kill in kills if kill.lost > 1.0 + 2 * kill.stall] == []
    assert any(kill.lost for kill in kills), "the kills never lost anything: is it written at once?"
    assert sum(kill.promised for kill in kills) > KILLS
    assert [kill for kill in kills if kill.broken] == []


def killed(folder: Path, lane: int) -> list[Kill]:
    state = folder / f"{lane}.sqlite"
    chance = random.Random(lane)
    model = Model(Saved())
    number = 0
    kills = []
    for times, promised, moment in lives(state, [chance.randrange(1, 800) for _ in range(KILLS)]):
        check_integrity(state, folder / f"{lane}-copy.sqlite")
        saved = Bench(str(state), job_ttl=1e12).store.load()
        for done in range(number + 1, writer.last_operation(saved) + 1):
            writer.operate(model, done)
        number = writer.last_operation(saved)
        assert saved == model.load()
        lost = [moment - time for done, time in times.items() if done > number]
        gaps = [later - earlier for earlier, later in pairwise([*times.values(), moment])]
        broken = [done for done in promised if done > number]
        kills.append(Kill(max(lost, default=0.0), max(gaps), len(promised), len(broken)))
    return kills


def lives(state: Path, lengths: list[int]) -> Iterator[tuple[dict[int, float], set[int], float]]:
    """
    For each process on *state*, killed after about as many operations as *lengths* says: the times
    of its operations by their number, the numbers of those that it said were written, and the time
    when it was killed. Half of them are killed as soon as they say that next.
    """
    command = [sys.executable, writer.__file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for length in lengths:
            print(state, file=process.stdin, flush=True)
            times: dict[int, float] = {}
            written: set[int] = set()
            doomed = False
            for line in process.stdout:
                *what, time = line.split()
                if what == ["killed"]:
                    break
                if what[0] == "written":
                    written.add(int(what[1]))
                else:
                    times[int(what[0])] = float(time)
                due = len(times) >= length and (length % 2 or what[0] == "written")
                if due and not doomed:
                    doomed = True
                    print(file=process.stdin, flush=True)
            yield times, written, float(time)


def check_integrity(state: Path, copy: Path) -> None:
    """
    Recover a copy of the file and its journal, and check every page.
    """
    for suffix in ("", "-wal"):
        source = Path(f"{state}{suffix}")
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
        if source.exists():
            shutil.copy(source, f"{copy}{suffix}")
    if copy.exists():
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
