"""
What the flight recorder wrote, read back.

Lines that are cut, of unknown events or with unknown fields are passed over and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field, fields

from bench.harness.replay.recording import Asked, Change, NoRecording, Present, Recording
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.capabilities import Capabilities, Want
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.workers.tape import VERSION

_BROKEN = (KeyError, TypeError, ValueError, AttributeError, BadRequest)


def read(paths: Sequence[Path]) -> Recording:
    """
    What is in the files at *paths*, of which any may come first.

    Raises:
        NoRecording: One of them is none, or there is no job in them.
        OSError: One of them cannot be read.
    """
    reader = _Reader()
    for path in sorted(paths, key=_began):
        reader.read(_lines(path))
    if not reader.recording.jobs:
        names = ", ".join(str(path) for path in paths)
        raise NoRecording(f"{names}: there is no job in this recording")
    return _from_zero(reader.recording)


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """
    The lines of a file, None for one that is not whole.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            line = None
            with suppress(ValueError, RecursionError):
                line = json.loads(text)
            yield line if isinstance(line, dict) else None


def _began(path: Path) -> float:
    """
    When a recording begins, on the wall clock.
    """
    for line in _lines(path):
        if line is not None and line.get("event") == "recording":
            if line.get("version") != VERSION:
                version = line.get("version")
                raise NoRecording(f"{path}: is of version {version!r}, and this reads {VERSION}")
            with suppress(*_BROKEN):
                return float(line["t"]) + float(line["offset"])
        elif line is not None and "event" not in line:
            break
    raise NoRecording(f"{path}: is not what the option --record writes")


@define(eq=False)
class _Reader:
    recording: Recording = field(factory=Recording)
    _run: str | None = None
    _offset: float = 0.0
    _present: dict[str, Present] = field(factory=dict)
    _jobs: dict[str, Asked] = field(factory=dict)

    def read(self, lines: Iterable[dict[str, Any] | None]) -> None:
        for line in lines:
            if line is None:
                self.recording.passed_over["broken"] += 1
                continue
            try:
                self._line(line)
            except _BROKEN:
                self.recording.passed_over["broken"] += 1

    def _line(self, line: dict[str, Any]) -> None:
        name = line["event"]
        if name == "recording":
            self._header(line)
        elif self._run is None:
            self.recording.passed_over["broken"] += 1
        elif name == "lost":
            self.recording.passed_over["lost"] += int(line["count"])
        elif name == "worker":
            self._worker(self._at(line), _present(line))
        elif name == "gone":
            self._gone(self._at(line), normalise_worker_url(line["url"]))
        elif name == "submitted":
            self._submitted(_asked(line, self._at(line)))
        elif name not in ("bound", "unreached", "ended", "abandoned", "cancelled", *_UNUSED):
            self.recording.passed_over["of unknown events"] += 1
        elif line["job"] not in self._jobs:
            self.recording.passed_over["of jobs that came before"] += 1
        else:
            self._happened(self._jobs[line["job"]], line)

    def _header(self, line: dict[str, Any]) -> None:
        offset, run = float(line["offset"]), str(line["run"])
        present = [_present(each) for each in line["workers"]]
        if run != self._run:
            self._jobs = {}
        self._offset, self._run = offset, run
        self.recording.rules = dict(line.get("rules") or {})
        at = self._at(line)
        for url in set(self._present) - {each.url for each in present}:
            self._gone(at, url)
        for each in present:
            self._worker(at, each)

    def _worker(self, at: float, now: Present) -> None:
        if self._present.get(now.url) != now:
            self._present[now.url] = now
            self.recording.changes.append(Change(at, now.url, now))

    def _gone(self, at: float, url: str) -> None:
        if self._present.pop(url, None) is not None:
            self.recording.changes.append(Change(at, url, None))

    def _submitted(self, job: Asked) -> None:
        self._jobs[job.id] = job
        if job.want.slot:
            self.recording.jobs.append(job)
        else:
            self.recording.passed_over["jobs that take no GPU time"] += 1

    def _happened(self, job: Asked, line: dict[str, Any]) -> None:
        name = line["event"]
        if name == "bound":
            worker = normalise_worker_url(line["worker"])
            start, end = _number(line.get("start")), _number(line.get("end"))
            job.worker = worker
            job.predicted = None if start is None or end is None else max(0.0, end - start)
        elif name == "unreached":
            job.worker = job.predicted = None
        elif name == "ended":
            if line.get("outcome") == "well":
                job.took = _number(line.get("took"))
        elif name in ("abandoned", "cancelled"):
            job.left = max(0.0, self._at(line) - job.at)

    def _at(self, line: dict[str, Any]) -> float:
        return float(line["t"]) + self._offset


# What becomes of these jobs in the replay is for the replay to say.
_UNUSED = ("refused", "dropped")


def _present(line: dict[str, Any]) -> Present:
    abilities, model = line.get("abilities"), line.get("model")
    concurrency = line.get("concurrency")
    return Present(
        normalise_worker_url(line["url"]),
        Capabilities(
            abilities=None if abilities is None else frozenset(map(str, abilities)),
            model=None if model is None else str(model),
            names=frozenset(map(str, line.get("names") or ())),
            replicas=max(1, int(line.get("replicas") or 1)),
        ),
        concurrency="auto" if concurrency == "auto" else _whole(concurrency),
        speed=_number(line.get("speed")) or None,
        eligible=bool(line.get("eligible", True)),
    )


def _asked(line: dict[str, Any], at: float) -> Asked:
    work = {str(model): _number(amount) for model, amount in (line.get("work") or {}).items()}
    return Asked(
        id=str(line["job"]),
        at=at,
        want=_want(line.get("want") or {}),
        work={model: amount for model, amount in work.items() if amount},
        length=_number(line.get("length")) or 0.0,
        priority=int(line.get("priority") or 0),
        client=str(line.get("client") or ""),
        batch=_text(line.get("batch")),
        group=_text(line.get("group")),
        deadline=_number(line.get("deadline")),
        expires=_number(line.get("expires")),
        hand_over=_number(line.get("hand_over")),
    )


def _want(line: dict[str, Any]) -> Want:
    known = {name: line[name] for name in (each.name for each in fields(Want)) if name in line}
    return Want(**{**known, "abilities": frozenset(map(str, known.get("abilities") or ()))})


def _number(value: object) -> float | None:
    """
    Seconds or units, 0 or more.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < float("inf") else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _from_zero(recording: Recording) -> Recording:
    """
    *recording* on a clock that is 0 when its first job arrives.
    """
    recording.jobs.sort(key=lambda job: job.at)
    first = recording.jobs[0].at
    for job in recording.jobs:
        job.at -= first
    changes = sorted(recording.changes, key=lambda change: change.at)
    recording.changes = [Change(each.at - first, each.url, each.now) for each in changes]
    return recording
