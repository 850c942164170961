"""
What a simulated worker received and did, for tests that must prove it.

Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from attrs import AttrsInstance, Factory, asdict, define

LONGEST = 2000


@define
class Received:
    """
    One request. Times are seconds of the worker's clock.

    Attributes:
        target: The request target as sent, escapes and query included.
        headers: Name and value of each header line, in order.
        status: Status of the answer; None before it, and when there was none.
        ended: When the last byte was handed to the connection or the client was gone.
        cut_off: Whether the connection ended before the answer did.
    """

    number: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    body_size: int
    body_sha256: str
    started: float
    ended: float | None = None
    status: int | None = None
    cut_off: bool = False


@define
class Generation:
    """
    One piece of GPU work for a generation.

    Attributes:
        ids: What its answer is known by: ``id`` of an image, video or mesh, each ``request_id`` of
            a rollout.
        weights: Sum of all weights and adapters that it ran with.
        sources: Where each module's weights came from when it ran.
    """

    kind: str
    prompt: str
    seed: object
    ids: tuple[str, ...] = ()
    weights: str = ""
    sources: Mapping[str, str] = Factory(dict)
    started: float = 0.0
    duration: float = 0.0
    ended: float | None = None
    failed: bool = False


@define
class Call:
    """
    One weight, LoRA, memory or ``/stats`` call on its way through the line of the generations.

    Attributes:
        path: Of its route.
        asked: What its body says, tensors left out.
        arrived: When it joined the line.
        started: When the GPU took it; None if it never did. Whatever it changes, it changes at its
            end.
        before: Sum of all weights and adapters when it was about to act.
        after: The same when it had acted.
        error: Why nothing, or not all, was done.
    """

    path: str
    asked: Mapping[str, object]
    arrived: float
    started: float | None = None
    ended: float | None = None
    before: str = ""
    after: str = ""
    error: str | None = None


Keep = Callable[[str, Mapping[str, object]], object]


def keep_nothing(kind: str, entry: Mapping[str, object]) -> None:
    """
    Stands in where no file is kept.
    """


@define
class Journal:
    """
    The last requests, generations and control calls, and counts of all.

    Attributes:
        keep: Called with ``generation`` or ``call`` and the entry when the GPU takes it, and again
            when it is over.
    """

    requests: int = 0
    generations_started: int = 0
    generations_finished: int = 0
    received: deque[Received] = Factory(lambda: deque(maxlen=LONGEST))
    generations: deque[Generation] = Factory(lambda: deque(maxlen=LONGEST))
    calls: deque[Call] = Factory(lambda: deque(maxlen=LONGEST))
    keep: Keep = keep_nothing

    def request(self, entry: Received) -> Received:
        self.requests += 1
        entry.number = self.requests
        self.received.append(entry)
        return entry

    def generation(self, entry: Generation) -> Generation:
        self.generations_started += 1
        self.generations.append(entry)
        self.keep("generation", asdict(entry))
        return entry

    def finished(self, entry: Generation, now: float, *, failed: bool = False) -> None:
        self.generations_finished += 1
        entry.ended, entry.failed = now, failed
        self.keep("generation", asdict(entry))

    def call(self, entry: Call) -> Call:
        self.calls.append(entry)
        return entry

    def call_began(self, entry: Call, now: float) -> None:
        if entry.started is None:
            entry.started = now
        self.keep("call", asdict(entry))

    def call_ended(self, entry: Call, now: float, error: str | None) -> None:
        entry.ended, entry.error = now, error
        self.keep("call", asdict(entry))

    def clear(self) -> None:
        self.requests = self.generations_started = self.generations_finished = 0
        self.received.clear()
        self.generations.clear()
        self.calls.clear()

    def as_json(self, last: int = LONGEST) -> dict[str, object]:
        """
        The counts, and at most *last* entries of each kind.
        """
        return {
            "requests": self.requests,
            "generations_started": self.generations_started,
            "generations_finished": self.generations_finished,
            "received": _shown(self.received, last),
            "generations": _shown(self.generations, last),
            "calls": _shown(self.calls, last),
        }


def _shown(entries: Sequence[AttrsInstance], last: int) -> list[dict[str, object]]:
    return [asdict(entry) for entry in list(entries)[max(0, len(entries) - last) :]]
