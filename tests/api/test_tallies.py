"""
Counts and distributions by labels, against the official parser and plain arithmetic.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from sgl_droute.api.telemetry.tallies import Spread, Tallies, Tally
from tests.api.scraping import Scrape

BOUNDS = (0.5, 1.0, 10.0)


def scraped(*tallies: Tally | Spread) -> Scrape:
    return Scrape.parsed(generate_latest(Tallies(tallies)))


def a_tally() -> Tally:
    return Tally("fruit", "Fruit.", ("kind", "worker"))


def a_spread(*labels: str) -> Spread:
    return Spread("weight", "Weights.", labels, BOUNDS)


def test_counts_by_labels() -> None:
    """
    Each combination of values is a series of its own.
    """
    tally = a_tally()
    tally.add(("pear", "a"))
    tally.add(("pear", "a"), 4)
    tally.add(("plum", "b"))
    scrape = scraped(tally)
    assert scrape.families["fruit"].type == "counter"
    assert scrape.value("fruit_total", kind="pear", worker="a") == 5
    assert scrape.value("fruit_total", kind="plum", worker="b") == 1
    assert len(list(scrape.samples())) == 2


def test_nothing_counted_yet() -> None:
    """
    A family is there before anything was counted, and without labels it is there as zeros.
    """
    scrape = scraped(a_tally(), a_spread("worker"), Spread("length", "Lengths.", (), BOUNDS))
    assert set(scrape.families) == {"fruit", "weight", "length"}
    assert scrape.value("length_count") == 0
    assert scrape.value("length_bucket", le="+Inf") == 0
    assert list(scrape.samples("weight_count")) == []


def test_what_is_gone_is_forgotten() -> None:
    """
    All series of a label's value go at once, and no others.
    """
    tally, spread, plain = a_tally(), a_spread("worker"), Spread("length", "Lengths.", (), BOUNDS)
    for worker in ("a", "b"):
        tally.add(("pear", worker))
        tally.add(("plum", worker))
        spread.add((worker,), 1)
    tally.add(("a", "b"))
    plain.add((), 1)
    Tallies((tally, spread, plain)).forget("worker", "a")
    scrape = scraped(tally, spread, plain)
    assert scrape.labels("fruit_total", "worker") == {"b"}
    assert len(list(scrape.samples("fruit_total"))) == 3
    assert scrape.labels("weight_count", "worker") == {"b"}
    assert scrape.value("length_count") == 1


@given(st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS)))
def test_buckets(values: list[float]) -> None:
    """
    A bucket has all values up to its bound, the bound included; the last one has all.
    """
    spread = a_spread()
    for value in values:
        spread.add((), value)
    scrape = scraped(spread)
    for bound in BOUNDS:
        below = sum(value <= bound for value in values)
        assert scrape.value("weight_bucket", le=str(bound)) == below
    assert scrape.value("weight_bucket", le="+Inf") == len(values)
    assert scrape.value("weight_count") == len(values)
    total = scrape.value("weight_sum")
    assert total is not None
    assert abs(total - sum(values)) < 1e-6
