"""
Opening a TCP or TLS connection to a worker.

It knows names and addresses and refuses those that may not be; whose certificates count is known
to `sgl_droute.workers.tls`, HTTP to `sgl_droute.workers.agent`.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectingCancelledError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectingTimedOut
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from sgl_droute.fleet.networks import ANYWHERE, Networks
from sgl_droute.fleet.urls import is_blocked_address


class BlockedAddress(Exception):
    """A worker's name resolves to an address that is never a worker."""


class OutsideNetworks(Exception):
    """A worker has no address that it may have."""


@implementer(IResolutionReceiver)
@define(eq=False)
class _Resolved:
    """Collects what a name resolves to."""

    done: Deferred[list[str]] = field(factory=Deferred)
    hosts: list[str] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, (IPv4Address, IPv6Address)):
            self.hosts.append(address.host)

    def resolutionComplete(self) -> None:
        if not self.done.called:
            self.done.callback(self.hosts)


@implementer(IStreamClientEndpoint)
@frozen(eq=False)
class WorkerEndpoint:
    """
    Connects to a worker by its base URL, one address after the other.

    Stock `HostnameEndpoint` waits 0.3 s between addresses, also after a refusal, so that every
    connection to a ``localhost`` that listens on 127.0.0.1 only would pay it; and it connects to
    whatever a name resolves to.

    Args:
        reactor: Provides TCP, time and a name resolver.
        url: Base URL of the worker, normalised.
        timeout: Seconds for all addresses together.
        networks: Where workers may be.
        tls: Makes the TLS connection, of an ``https`` URL.
    """

    reactor: Any
    url: str
    timeout: float
    networks: Networks = ANYWHERE
    tls: IOpenSSLClientConnectionCreator | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        host, port = host_and_port(self.url)
        deadline = self.reactor.seconds() + self.timeout
        hosts = self._permitted(host, await addresses_of(self.reactor, host, port, self.timeout))
        for position, address in enumerate(hosts):
            left = max(0.001, deadline - self.reactor.seconds())
            endpoint = self._endpoint(address, port, left / (len(hosts) - position))
            if self.tls is not None:
                endpoint = wrapClientTLS(self.tls, endpoint)
            try:
                return await endpoint.connect(factory)
            except (CancelledError, ConnectingCancelledError) as problem:
                # Not a failure of this address: nobody waits for the connection any more.
                raise CancelledError from problem
            except Exception:
                if position == len(hosts) - 1:
                    raise
        raise DNSLookupError(f"{host} has no address")

    def _endpoint(self, address: str, port: int, timeout: float) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self.reactor, address, port, timeout=timeout)

    def _permitted(self, host: str, hosts: list[str]) -> list[str]:
        """
        Those of *hosts* that may be connected to: the check at registration may have seen another
        address of that name, or other networks.
        """
        permitted = self.networks.among(self.url, hosts)
        if hosts and not permitted:
            found = "" if hosts == [host] else f" resolves to {', '.join(hosts)}, which"
            raise OutsideNetworks(f"{host}{found} is in none of --add-worker-allow")
        return permitted


def host_and_port(url: str) -> tuple[str, int]:
    """
    Where the base URL of a worker leads; an IPv6 address without its brackets.
    """
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


async def addresses_of(reactor: Any, host: str, port: int, timeout: float) -> list[str]:
    """
    The addresses of *host*, which may be one itself. Those of a name are checked once more, since
    the check at registration saw the name only.

    Args:
        reactor: Provides time and a name resolver.
        timeout: Seconds.

    Raises:
        BlockedAddress: One of them is never a worker.
        TimeoutError: It took longer.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    resolved = _Resolved()
    reactor.nameResolver.resolveHostName(resolved, host, port)
    resolved.done.addTimeout(timeout, reactor, onTimeoutCancel=connecting_timed_out)
    hosts = await resolved.done
    for found in hosts:
        if is_blocked_address(ipaddress.ip_address(found.partition("%")[0])):
            raise BlockedAddress(f"{host} resolves to {found}, which is blocked")
    return hosts


def connecting_timed_out(_: object, seconds: float) -> Failure:
    """
    For `Deferred.addTimeout`: fails as a connection attempt does that takes too long.
    """
    return Failure(ConnectingTimedOut(string=f"not within {seconds:g} s"))
