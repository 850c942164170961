"""
What each key has used of its limits: requests under way, and requests of late.

It knows no clock: the time is an argument, in seconds that do not run backwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import define, field

from sgl_droute.errors import TooManyRequests
from sgl_droute.fleet.keyring import Key

# What rounding may take from a request's worth without its being missed.
_ROUNDING = 1e-6


@define(eq=False)
class Quota:
    """
    What one key has used.

    Attributes:
        in_flight: Requests under way (count).
        arriving: Large requests of which the head is there and the body is not (count).
        tokens: Requests that it may make at once, when `at` is now.
        at: When that was counted (seconds).
    """

    in_flight: int = 0
    arriving: int = 0
    tokens: float = math.inf
    at: float = 0.0

    def fill(self, key: Key, now: float) -> None:
        """
        Have what the time since `at` has given it, up to the burst of *key*.
        """
        if key.rate:
            gained = max(0.0, now - self.at) * key.rate
            self.tokens = min(float(key.burst), self.tokens + gained)
        else:
            self.tokens = math.inf
        self.at = now


@define(eq=False)
class Entry:
    """
    One request of a key, until it ends.
    """

    _quota: Quota | None

    def leave(self) -> None:
        """
        Note its end.

        Raises:
            ValueError: It has ended before.
        """
        quota, self._quota = self._quota, None
        if quota is None:
            raise ValueError("The request has ended before")
        quota.in_flight -= 1


@define(eq=False)
class Arrival:
    """
    One large request of a key, until its body is there or does not come any more.
    """

    _quota: Quota | None

    def end(self) -> None:
        """
        Note that; once more does nothing.
        """
        quota, self._quota = self._quota, None
        if quota is not None:
            quota.arriving -= 1


@define(eq=False)
class Quotas:
    """
    What the keys have used of their limits, by their names.
    """

    _quotas: dict[str, Quota] = field(factory=dict, init=False)

    def enter(self, key: Key, now: float) -> Entry:
        """
        Count a request of *key*.

        Raises:
            TooManyRequests: A limit is reached, and nothing is counted. Behind ``Retry-After`` the
                rate lets one request in; when one under way ends is not known: it is a second.
        """
        quota = self._quota(key, now)
        _check_in_flight(key, quota.in_flight)
        if key.rate or quota.tokens < math.inf:
            quota.fill(key, now)
            if quota.tokens < 1 - _ROUNDING:
                raise _refused(
                    f"Key {key.name} has made all requests that its rate allows for now",
                    "rate_limited",
                    math.ceil((1 - _ROUNDING / 2 - quota.tokens) / key.rate),
                )
            quota.tokens -= 1
        quota.in_flight += 1
        return Entry(quota)

    def arrive(self, key: Key, now: float) -> Arrival:
        """
        Count a large request of *key* while its body is on its way.

        Raises:
            TooManyRequests: With those under way there are as many as there may be, and nothing is
                counted.
        """
        quota = self._quota(key, now)
        _check_in_flight(key, quota.in_flight + quota.arriving)
        quota.arriving += 1
        return Arrival(quota)

    def _quota(self, key: Key, now: float) -> Quota:
        if key.name not in self._quotas:
            self._quotas[key.name] = Quota(at=now)
        return self._quotas[key.name]

    def in_flight(self, name: str) -> int:
        """
        Requests under way with the key *name* (count).
        """
        quota = self._quotas.get(name)
        return 0 if quota is None else quota.in_flight

    def keep(self, names: Iterable[str]) -> None:
        """
        Forget what other keys than these have used, unless they have requests under way.
        """
        kept = set(names)
        self._quotas = {
            name: quota
            for name, quota in self._quotas.items()
            if name in kept or quota.in_flight or quota.arriving
        }


def _check_in_flight(key: Key, count: int) -> None:
    if key.in_flight and count >= key.in_flight:
        raise _refused(
            f"Key {key.name} has {count} of {key.in_flight} requests under way",
            "too_many_in_flight",
            1,
        )


def _refused(text: str, reason: str, seconds: int) -> TooManyRequests:
    after = max(1, seconds)
    return TooManyRequests(
        text,
        reason=reason,
        headers={"Retry-After": str(after)},
        fields={"retry_after": after},
    )
