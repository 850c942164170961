"""
What a simulated worker received and did, for tests that must prove it.

Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections import deque

from attrs import Factory, asdict, define

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
        weights: Sum of all weights and adapters that it ran with.
    """

    kind: str
    prompt: str
    seed: object
    weights: str
    started: float
    duration: float
    ended: float | None = None
    failed: bool = False


@define
class Journal:
    """
    The last requests and generations, and counts of all.
    """

    requests: int = 0
    generations_started: int = 0
    generations_finished: int = 0
    received: deque[Received] = Factory(lambda: deque(maxlen=LONGEST))
    generations: deque[Generation] = Factory(lambda: deque(maxlen=LONGEST))

    def request(self, entry: Received) -> Received:
        self.requests += 1
        entry.number = self.requests
        self.received.append(entry)
        return entry

    def generation(self, entry: Generation) -> Generation:
        self.generations_started += 1
        self.generations.append(entry)
        return entry

    def finished(self, entry: Generation, now: float, *, failed: bool = False) -> None:
        self.generations_finished += 1
        entry.ended, entry.failed = now, failed

    def clear(self) -> None:
        self.requests = self.generations_started = self.generations_finished = 0
        self.received.clear()
        self.generations.clear()

    def as_json(self, last: int = LONGEST) -> dict[str, object]:
        """
        The counts, and at most *last* entries of each kind.
        """
        received, generations = list(self.received), list(self.generations)
        return {
            "requests": self.requests,
            "generations_started": self.generations_started,
            "generations_finished": self.generations_finished,
            "received": [asdict(entry) for entry in received[max(0, len(received) - last) :]],
            "generations": [
                asdict(entry) for entry in generations[max(0, len(generations) - last) :]
            ],
        }
