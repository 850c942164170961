"""
The limits of keys: requests under way, and requests of late.
"""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sgl_droute.errors import TooManyRequests
from sgl_droute.fleet.keyring import Key
from sgl_droute.fleet.quotas import Entry, Quotas

BASE = Key(name="web", digest=b"")
# As the reactor tells the time: seconds since 1970.
START = 1.7e9


def refusal(quotas: Quotas, key: Key, now: float) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as refused:
        quotas.enter(key, now)
    return refused.value


def test_without_limits() -> None:
    """
    A key without limits may make any number of requests, which are counted.
    """
    quotas = Quotas()
    entries = [quotas.enter(BASE, START) for _ in range(100)]
    assert quotas.in_flight("web") == 100
    for entry in entries:
        entry.leave()
    assert quotas.in_flight("web") == 0
    assert quotas.in_flight("nobody") == 0


def test_in_flight() -> None:
    """
    One request more than may be under way is refused, until one has ended.
    """
    quotas, key = Quotas(), evolve(BASE, in_flight=2)
    first, _ = quotas.enter(key, START), quotas.enter(key, START)
    error = refusal(quotas, key, START)
    assert str(error) == "Key web has 2 of 2 requests under way"
    assert (error.status, error.reason) == (429, "too_many_in_flight")
    assert error.headers == {"Retry-After": "1"}
    first.leave()
    quotas.enter(key, START)
    assert quotas.in_flight("web") == 2


def test_nobody_leaves_twice() -> None:
    """
    To leave twice is an error, and makes no room.
    """
    quotas, key = Quotas(), evolve(BASE, in_flight=2)
    entry, _ = quotas.enter(key, START), quotas.enter(key, START)
    entry.leave()
    with pytest.raises(ValueError, match="ended before"):
        entry.leave()
    assert quotas.in_flight("web") == 1


def test_rate() -> None:
    """
    After a burst the rate lets requests in one by one; Retry-After tells when.
    """
    quotas, key = Quotas(), evolve(BASE, rate=0.5, burst=3)
    for _ in range(3):
        quotas.enter(key, START)
    error = refusal(quotas, key, START + 0.5)
    assert str(error) == "Key web has made all requests that its rate allows for now"
    assert (error.status, error.reason) == (429, "rate_limited")
    assert error.headers == {"Retry-After": "2"}  # 1.5 s, rounded up
    assert error.fields == {"retry_after": 2}
    refusal(quotas, key, START + 1.9)
    quotas.enter(key, START + 2.0)
    refusal(quotas, key, START + 2.0)


def test_a_refused_request_costs_nothing() -> None:
    """
    Who is refused for one limit uses nothing of the other.
    """
    quotas, key = Quotas(), evolve(BASE, in_flight=1, rate=1.0, burst=2)
    entry = quotas.enter(key, START)
    for _ in range(5):
        assert refusal(quotas, key, START).reason == "too_many_in_flight"
    entry.leave()
    quotas.enter(key, START).leave()
    for _ in range(5):
        assert refusal(quotas, key, START).reason == "rate_limited"
    assert quotas.in_flight("web") == 0


def test_limits_that_change() -> None:
    """
    What a key has used stays when its limits change, and what was gained is cut to the new burst.
    """
    quotas = Quotas()
    wide, narrow = evolve(BASE, rate=1.0, burst=10), evolve(BASE, rate=1.0, burst=2)
    quotas.enter(wide, START)
    for _ in range(2):
        quotas.enter(narrow, START + 10)
    refusal(quotas, narrow, START + 10)
    quotas.enter(BASE, START + 10)
    refusal(quotas, evolve(BASE, in_flight=4), START + 10)
    for _ in range(2):  # a key that had no rate begins with its burst
        quotas.enter(narrow, START + 10)
    refusal(quotas, narrow, START + 10)


def test_keys_that_go() -> None:
    """
    What keys that are gone have used is forgotten, but not while requests of theirs are under way.
    """
    quotas, key = Quotas(), evolve(BASE, in_flight=1, rate=1.0, burst=1)
    entry = quotas.enter(key, START)
    quotas.keep([])
    assert refusal(quotas, key, START).reason == "too_many_in_flight"
    entry.leave()
    quotas.keep(["web"])
    assert refusal(quotas, key, START).reason == "rate_limited"
    quotas.keep([])
    quotas.enter(key, START)


RATES = st.one_of(
    st.floats(0.001, 1000.0),
    st.sampled_from([1 / 60, 0.1, 1 / 3, 0.5, 1.0, 7.0, 30 / 60, 100.0]),
)


@given(RATES, st.integers(1, 20), st.lists(st.floats(0.0, 5.0), max_size=60))
def test_never_more_than_the_rate(rate: float, burst: int, pauses: list[float]) -> None:
    """
    In any stretch of time no more are let in than the burst and what the rate gives in it.
    """
    quotas, key = Quotas(), evolve(BASE, rate=rate, burst=burst)
    now, let_in = START, []
    for pause in pauses:
        now += pause
        try:
            quotas.enter(key, now)
        except TooManyRequests:
            continue
        let_in.append(now)
        for number, begin in enumerate(let_in):
            assert len(let_in) - number <= burst + rate * (now - begin) + 1e-3


@given(RATES, st.integers(1, 5), st.lists(st.floats(0.0, 3.0), max_size=20))
def test_retry_after_is_exact(rate: float, burst: int, pauses: list[float]) -> None:
    """
    Who comes back after as many seconds as it was told is let in; one second sooner it is not.
    """
    quotas, key = Quotas(), evolve(BASE, rate=rate, burst=burst)
    now = START
    for pause in pauses:
        now += pause
        try:
            quotas.enter(key, now)
        except TooManyRequests as refused:
            seconds = int(refused.headers["Retry-After"])
            if seconds > 1:
                refusal(quotas, key, now + seconds - 1 - 1e-3)
            now += seconds
            quotas.enter(key, now)


class QuotasMachine(RuleBasedStateMachine):
    """
    Requests come and end in any order: never more under way than may be.
    """

    @initialize(limit=st.integers(1, 4))
    def start(self, limit: int) -> None:
        self.quotas = Quotas()
        self.key = evolve(BASE, in_flight=limit)
        self.entries: list[Entry] = []
        self.left: list[Entry] = []

    @rule()
    def come(self) -> None:
        if len(self.entries) < self.key.in_flight:
            self.entries.append(self.quotas.enter(self.key, START))
        else:
            refusal(self.quotas, self.key, START)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        self.entries.remove(entry)
        entry.leave()
        self.left.append(entry)

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="before"):
            data.draw(st.sampled_from(self.left)).leave()

    @rule(kept=st.booleans(), limit=st.integers(1, 4))
    def reload(self, kept: bool, limit: int) -> None:
        self.quotas.keep(["web"] if kept else [])
        self.key = evolve(self.key, in_flight=limit)

    @invariant()
    def all_are_counted(self) -> None:
        assert self.quotas.in_flight("web") == len(self.entries)


TestQuotasMachine = QuotasMachine.TestCase


def test_large_requests_on_their_way() -> None:
    """
    Large requests whose bodies are still to come count among themselves and with those under way,
    until each has come or ended; those that are there already are not refused for them.
    """
    quotas, key = Quotas(), evolve(BASE, in_flight=3)
    entry = quotas.enter(key, START)
    first, _ = quotas.arrive(key, START), quotas.arrive(key, START)
    with pytest.raises(TooManyRequests, match="Key web has 3 of 3 requests under way"):
        quotas.arrive(key, START)
    quotas.enter(key, START)
    first.end()
    first.end()
    entry.leave()
    quotas.arrive(key, START)
    with pytest.raises(TooManyRequests):
        quotas.arrive(key, START)
    quotas.keep([])
    with pytest.raises(TooManyRequests):
        quotas.arrive(key, START)
    for _ in range(9):
        quotas.arrive(BASE, START)
