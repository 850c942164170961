"""
The pool: leases are given back to whom they came from, and nobody unfit gets one.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from sgl_droute.errors import NotFound, NoWorker
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.worker import Probe, Worker

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")
URLS = st.sampled_from([f"http://w{number}:30000" for number in range(5)])


def pool_of(*names: str) -> Pool:
    pool = Pool()
    for name in names:
        pool.add(f"http://{name}:1")
    return pool


def test_sequential_requests_are_shared_evenly() -> None:
    """
    Three idle workers and twelve requests in a row: 4, 4, 4.
    """
    pool = pool_of("a", "b", "c")
    served: Counter[str] = Counter()
    for _ in range(12):
        with pool.lease() as worker:
            served[worker.url] += 1
    assert set(served.values()) == {4}


def test_known_workers_are_not_added_twice() -> None:
    """
    Another spelling of a registered URL is the same worker.
    """
    pool = pool_of("a")
    assert pool.add("HTTP://A:1/").serial == pool["http://a:1"].serial
    assert len(pool) == 1


def test_a_lease_ends_with_an_error_too() -> None:
    """
    The slot comes back however the block ends.
    """
    pool = pool_of("a")
    with pytest.raises(ZeroDivisionError), pool.lease() as worker:
        raise ZeroDivisionError(worker)
    assert pool["http://a:1"].in_flight == 0


def test_a_lease_of_a_former_registration() -> None:
    """
    A worker that was removed and registered again does not inherit the end of old requests.
    """
    pool = pool_of("a")
    with pool.lease():
        pool.remove("http://a:1")
        pool.add("http://a:1")
        with pool.lease():
            assert pool["http://a:1"].in_flight == 1
    assert pool["http://a:1"].in_flight == 0


def test_why_nobody() -> None:
    """
    An empty pool and one without healthy workers are told apart.
    """
    pool = pool_of()
    with pytest.raises(NoWorker, match="No workers registered in the pool"), pool.lease():
        pass
    worker = pool.add("http://a:1")
    pool.record_probe(worker, BAD, threshold=1)
    with pytest.raises(NoWorker, match="No healthy workers available in the pool"), pool.lease():
        pass
    with pytest.raises(NoWorker, match="No healthy workers available in the pool"):
        pool.reachable()
    with pytest.raises(NoWorker, match="No healthy workers available in the pool"):
        pool_of().reachable()


def test_doubtful_workers_are_the_last_resort() -> None:
    """
    A new worker whose first check failed gets work only while nobody else is left.
    """
    pool = pool_of("loading", "well")
    pool.record_probe(pool["http://loading:1"], BAD, threshold=3)
    pool.record_probe(pool["http://well:1"], GOOD, threshold=3)
    for _ in range(3):
        with pool.lease() as worker:
            assert worker.url == "http://well:1"
    with pool.lease({"http://well:1"}) as worker:
        assert worker.url == "http://loading:1"


def test_unknown_worker() -> None:
    """
    Removing a worker that is not there is told as 404.
    """
    with pytest.raises(NotFound):
        pool_of("a").remove("http://b:1")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_next_worker_is_another(algorithm: str) -> None:
    """
    Leaving out those already tried, every worker is offered once.
    """
    pool = Pool(algorithm, Random(3))
    for number in range(10):
        pool.add(f"http://w{number}:1")
    tried: list[str] = []
    for _ in range(10):
        with pool.lease(tried) as worker:
            tried.append(worker.url)
    assert len(set(tried)) == 10
    with pytest.raises(NoWorker), pool.lease(tried):
        pass


class PoolMachine(RuleBasedStateMachine):
    """
    Any order of registrations, removals, probes and requests.
    """

    leases: Bundle[Any] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(random=Random(5))
        self.open: Counter[tuple[str, int]] = Counter()

    @rule(url=URLS)
    def add(self, url: str) -> None:
        self.pool.add(url)

    @rule(url=URLS)
    def remove(self, url: str) -> None:
        if url in self.pool:
            self.pool.remove(url)
        else:
            with pytest.raises(NotFound):
                self.pool.remove(url)

    @rule(url=URLS, probe=st.sampled_from([GOOD, BAD]))
    def probe(self, url: str, probe: Probe) -> None:
        if url in self.pool:
            self.pool.record_probe(self.pool[url], probe, threshold=2)

    @rule(url=URLS)
    def probe_of_a_former_registration(self, url: str) -> None:
        gone = Worker(url=url, serial=0)
        assert self.pool.record_probe(gone, BAD, threshold=1) is None

    @rule(target=leases, without=st.sets(URLS))
    def lease(self, without: set[str]) -> Any:
        stack = ExitStack()
        able = [each for each in self.pool if not each.dead and each.url not in without]
        try:
            worker = stack.enter_context(self.pool.lease(without))
        except NoWorker:
            assert able == []
            return multiple()
        assert worker in able
        first_choice = [each for each in able if not each.doubtful]
        assert not worker.doubtful or first_choice == []
        loads = [each.in_flight for each in first_choice or able]
        assert worker.in_flight == min(loads)
        self.open[worker.url, worker.serial] += 1
        return stack, worker

    @rule(lease=consumes(leases))
    def give_back(self, lease: tuple[ExitStack, Worker]) -> None:
        stack, worker = lease
        stack.close()
        self.open[worker.url, worker.serial] -= 1

    @invariant()
    def counts_are_true(self) -> None:
        for worker in self.pool:
            assert worker.in_flight == self.open[worker.url, worker.serial]

    @invariant()
    def order_is_registration(self) -> None:
        serials = [worker.serial for worker in self.pool]
        assert serials == sorted(serials)


TestPoolMachine = PoolMachine.TestCase
