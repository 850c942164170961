"""
The file of the flight recorder: its lines and its rotation.

It has no prompt, no body and no key: of a client and of a group it has a keyed hash. When and from
where it is written is the business of `sgl_droute.workers.recorder`.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from attrs import define, field, frozen

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.worker import Worker

VERSION = 1
MOST_BYTES = 64 << 20
_MOST_TEXT = 256  # characters of a client's or an operator's words
_MOST_MODELS = 16  # models that the work of one request is told for

# Making lines is work for Python's one lock: a thread that asks for it may have to wait for 5 ms,
# unless it is let go now and then.
_LINES_ON_END = 32
_PAUSE = 1e-4  # seconds

_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)


@frozen
class Changed:
    """A worker came (no *before*), changed, or went (no *now*)."""

    time: float
    before: Worker | None
    now: Worker | None


@frozen
class Anew:
    """A file begins, or goes on after a gap."""

    time: float
    workers: tuple[Worker, ...]
    lost: int


Entry = Event | Changed | Anew


@define(eq=False)
class Tape:
    """
    The file. Only one thread may use it at a time.

    Args:
        path: Where it is; its predecessor is beside it, with ``.1`` behind its name.
        offset: Wall clock minus the clock of the events (seconds).
        rules: What the scheduler was told, for the reader.
        most_bytes: Size beyond which a new file begins.
    """

    path: Path
    offset: float = 0.0
    rules: Mapping[str, object] = field(factory=dict)
    most_bytes: int = MOST_BYTES
    _run: str = field(factory=lambda: secrets.token_hex(8), init=False)
    _salt: bytes = field(factory=lambda: secrets.token_bytes(16), init=False)
    _workers: dict[str, Worker] = field(factory=dict, init=False)
    _served: set[Capabilities] | None = field(default=None, init=False)

    def write(self, entries: Sequence[Entry]) -> None:
        """
        Append a line for each of *entries*.

        Raises:
            OSError: Not all were written.
        """
        file, size = self._opened()
        try:
            for number, entry in enumerate(entries, 1):
                if not number % _LINES_ON_END:
                    time.sleep(_PAUSE)
                line = self._line(entry)
                if size and size + len(line) > self.most_bytes:
                    file.close()
                    os.replace(self.path, f"{self.path}.1")
                    file, size = self._opened()
                if not size and not isinstance(entry, Anew):
                    size += file.write(self._header(entry.time))
                size += file.write(line)
        finally:
            file.close()

    def _opened(self) -> tuple[BinaryIO, int]:
        file = self.path.open("a+b")
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # what was written last broke off
                size += file.write(b"\n")
        return file, size

    def _line(self, entry: Entry) -> bytes:
        if isinstance(entry, Changed):
            self._served = None
            return _encoded(self._changed(entry))
        if isinstance(entry, Anew):
            self._served = None
            self._workers = {worker.url: worker for worker in entry.workers}
            lost = {"event": "lost", "t": _rounded(entry.time), "count": entry.lost}
            return self._header(entry.time) + (_encoded(lost) if entry.lost else b"")
        return _encoded(self._happened(entry))

    def _header(self, at: float) -> bytes:
        return _encoded(
            {
                "event": "recording",
                "version": VERSION,
                "t": _rounded(at),
                "offset": _rounded(self.offset),
                "run": self._run,
                "rules": self.rules,
                "workers": [_worker(worker) for worker in self._workers.values()],
            }
        )

    def _changed(self, entry: Changed) -> dict[str, object]:
        at = _rounded(entry.time)
        if entry.now is None:
            url = entry.before.url if entry.before is not None else ""
            self._workers.pop(url, None)
            return {"event": "gone", "t": at, "url": url}
        self._workers[entry.now.url] = entry.now
        return {"event": "worker", "t": at, **_worker(entry.now)}

    def _happened(self, event: Event) -> dict[str, object]:
        line: dict[str, object] = {
            "event": event.name,
            "t": _rounded(event.time),
            "job": event.job.id,
        }
        if event.name == "submitted":
            line.update(self._asked(event.job))
        if event.worker is not None:
            line["worker"] = event.worker
        for name, value in (("start", event.start), ("end", event.end), ("took", event.took)):
            if value is not None and math.isfinite(value):
                line[name] = _rounded(value)
        if event.reason:
            line["outcome" if event.name == "ended" else "reason"] = event.reason[:_MOST_TEXT]
        return line

    def _asked(self, job: Job) -> dict[str, object]:
        """
        What a replay has to know of *job*; times are seconds after its arrival.
        """
        want = job.want
        asked: dict[str, object] = {
            "want": {
                "word": want.word,
                "abilities": sorted(want.abilities),
                "strict": want.strict,
                "model": None if want.model is None else want.model[:_MOST_TEXT],
                "session": want.session,
                "slot": want.slot,
                "kind": want.kind,
            },
            "length": _rounded(job.length),
            "work": self._work(job),
            "priority": job.priority,
        }
        for name, text in (("client", job.client), ("group", job.group)):
            if text:
                asked[name] = self._hashed(text)
        if job.batch is not None:
            asked["batch"] = job.batch[:_MOST_TEXT]
        for name, at in (
            ("deadline", job.deadline),
            ("expires", job.expires),
            ("hand_over", job.hand_over),
        ):
            if at is not None and math.isfinite(at):
                asked[name] = _rounded(at - job.submitted)
        return asked

    def _work(self, job: Job) -> dict[str, float]:
        """
        Work by model, for the models that may get it; the empty name stands for an unknown one.
        """
        if self._served is None:
            self._served = {worker.capabilities for worker in self._workers.values()}
        models = {served.model for served in self._served if job.want.allows(served)}
        work = {model or "": job.demand.work(model) for model in list(models)[:_MOST_MODELS]}
        return {model: amount for model, amount in work.items() if amount is not None}

    def _hashed(self, text: str) -> str:
        encoded = text.encode(errors="surrogatepass")
        return blake2b(encoded, key=self._salt, digest_size=6).hexdigest()


def _worker(worker: Worker) -> dict[str, object]:
    served = worker.capabilities
    return {
        "url": worker.url,
        "model": served.model,
        "names": sorted(served.names),
        "abilities": None if served.abilities is None else sorted(served.abilities),
        "replicas": served.replicas,
        "concurrency": worker.concurrency,
        "speed": worker.speed,
        "eligible": worker.eligible,
    }


def _rounded(seconds: float) -> float:
    return round(seconds, 6)


def _encoded(line: Mapping[str, object]) -> bytes:
    return _ENCODER.encode(line).encode() + b"\n"
