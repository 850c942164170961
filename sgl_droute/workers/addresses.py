"""
Opening a TCP or TLS connection to a worker.

It knows names and addresses and refuses blocked ones; HTTP is the business of
`sgl_droute.workers.agent`.
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
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from sgl_droute.fleet.urls import is_blocked_address


class BlockedAddress(Exception):
    """A worker's name resolves to an address that is never a worker."""


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
    """

    reactor: Any
    url: str
    timeout: float

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        deadline = self.reactor.seconds() + self.timeout
        hosts = await self._addresses(host, port)
        for position, address in enumerate(hosts):
            left = max(0.001, deadline - self.reactor.seconds())
            endpoint = self._endpoint(address, port, left / (len(hosts) - position))
            if parts.scheme == "https":
                endpoint = wrapClientTLS(optionsForClientTLS(host), endpoint)
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

    async def _addresses(self, host: str, port: int) -> list[str]:
        """
        The addresses of *host*; those of a name that is no address are checked again, since the
        check at registration saw the name only.
        """
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return [host]
        resolved = _Resolved()
        self.reactor.nameResolver.resolveHostName(resolved, host, port)
        resolved.done.addTimeout(self.timeout, self.reactor, onTimeoutCancel=connecting_timed_out)
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
