"""
Workers that somebody asks the router to register, and where they may be.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol

from sgl_droute.errors import BadRequest, Forbidden, NotConnected
from sgl_droute.fleet.networks import Networks
from sgl_droute.workers.addresses import OutsideNetworks, WorkerEndpoint
from sgl_droute.workers.agent import WorkerAgent
from sgl_droute.workers.connecting import Terms
from sgl_droute.workers.vetting import Vetting
from tests.workers.test_addresses import Reactor

NETWORKS = Networks(("10.0.0.0/8",), ("http://named:1",))


def begin(reactor: Reactor, url: str) -> list[Any]:
    results: list[Any] = []
    vetting = Vetting(NETWORKS, reactor, 5.0)
    Deferred.fromCoroutine(vetting.check(url)).addBoth(results.append)
    return results


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://10.0.0.1:1", None),
        ("http://worker:1", ["10.0.0.1"]),
        ("http://worker:1", ["192.0.2.1", "10.0.0.1"]),
        ("http://worker:1", []),
        ("http://named:1", None),
    ],
)
def test_workers_that_may_be_registered(url: str, addresses: list[str] | None) -> None:
    """
    One of its addresses is enough; what the operator named is not looked up, and a name without an
    address may get one.
    """
    reactor = Reactor(**({} if addresses is None else {"worker": addresses}))
    assert begin(reactor, url) == [None]


@pytest.mark.parametrize(
    ("url", "addresses", "sentence"),
    [
        ("http://192.0.2.1:1", [], "192.0.2.1 is in none of the networks"),
        ("http://[::1]:1", [], "::1 is in none of the networks"),
        (
            "http://worker:1",
            ["127.0.0.1", "::1"],
            "worker, which resolves to 127.0.0.1, ::1, is in none of the networks",
        ),
    ],
)
def test_workers_that_may_not(url: str, addresses: list[str], sentence: str) -> None:
    """
    One that is nowhere where workers may be is refused with 403 and a sentence that names it.
    """
    [failure] = begin(Reactor(worker=addresses), url)
    assert failure.check(Forbidden)
    assert failure.getErrorMessage().startswith(f"worker URL '{url}': {sentence}")


def test_a_name_of_a_blocked_address() -> None:
    """
    What is never a worker is refused as it is everywhere else.
    """
    [failure] = begin(Reactor(worker=["10.0.0.1", "169.254.169.254"]), "http://worker:1")
    assert failure.check(BadRequest)
    assert "blocked" in failure.getErrorMessage()


def test_a_name_that_is_never_resolved() -> None:
    """
    It may be registered after a while: connecting will look again.
    """
    reactor = Reactor()
    results = begin(reactor, "http://worker:1")
    assert results == []
    reactor.advance(5.0)
    assert results == [None]


def test_giving_up() -> None:
    """
    A client that hangs up meanwhile has not registered anything.
    """
    results: list[Any] = []
    checking = Deferred.fromCoroutine(Vetting(NETWORKS, Reactor(), 5.0).check("http://worker:1"))
    checking.addBoth(results.append)
    checking.cancel()
    [failure] = results
    assert failure.check(CancelledError)


def test_a_name_that_comes_to_mean_another_address() -> None:
    """
    What a name resolves to is looked at for each connection, which goes to permitted addresses
    only.
    """
    reactor = Reactor(worker=["10.0.0.1"])
    assert begin(reactor, "http://worker:1") == [None]
    reactor.nameResolver.table["worker"] = ["127.0.0.1", "10.0.0.2"]
    WorkerEndpoint(reactor, "http://worker:1", 6.0, NETWORKS).connect(Factory.forProtocol(Protocol))
    assert reactor.tried == [("10.0.0.2", 1)]
    reactor.nameResolver.table["worker"] = ["127.0.0.1", "192.0.2.1"]
    failures: list[Any] = []
    endpoint = WorkerEndpoint(reactor, "http://worker:1", 6.0, NETWORKS)
    endpoint.connect(Factory.forProtocol(Protocol)).addErrback(failures.append)
    [failure] = failures
    assert failure.check(OutsideNetworks)
    assert reactor.tried == [("10.0.0.2", 1)]


def test_connecting_to_an_address_outside() -> None:
    """
    A worker that was registered before the networks were what they are now is not connected to: a
    502 that says why.
    """
    reactor = Reactor()
    agent = WorkerAgent(reactor, 5.0, terms=Terms(NETWORKS))
    failures: list[Any] = []
    agent.request(b"GET", b"http://192.0.2.1:1/x").addErrback(failures.append)
    [failure] = failures
    assert failure.check(NotConnected)
    assert failure.value.why == "192.0.2.1 is in none of --add-worker-allow"
    assert reactor.tried == []
