"""
Which addresses the workers may have that the router is asked to register.

Pure numbers: what a name resolves to is found out by `sgl_droute.workers.addresses`.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import define, field

from sgl_droute.fleet.urls import IPAddress

IPNetwork = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> IPNetwork:
    """
    The network that *text* spells; one of mapped addresses (RFC 4291 2.5.5.2) is the IPv4 one.

    Raises:
        ValueError: It spells none.
    """
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inner = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((inner, network.prefixlen - _MAPPED.prefixlen))
    return network


def _urls(urls: Iterable[str]) -> frozenset[str]:
    return frozenset(urls)


def _networks(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    return tuple(parse_network(text) for text in texts)


@define(eq=False)
class Networks:
    """
    The addresses that workers may have. Workers that the operator named may have any.

    Attributes:
        networks: Where they may be; anywhere if there is none. Set from texts such as 10.0.0.0/8.
        named: Base URLs that the command line, the environment or the configuration file names.
    """

    networks: tuple[IPNetwork, ...] = field(default=(), converter=_networks)
    named: frozenset[str] = field(default=frozenset(), converter=_urls)
    _own: set[str] = field(factory=set, init=False)

    def trust(self, url: str) -> None:
        """
        Let the worker at *url*, which the router itself has started, have any address.
        """
        self._own.add(url)

    def limit(self, url: str) -> bool:
        """
        Whether it matters which address the worker at *url* has.
        """
        return bool(self.networks) and url not in self.named and url not in self._own

    def have(self, address: IPAddress) -> bool:
        """
        Whether *address* is one that a worker may have.
        """
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)

    def among(self, url: str, hosts: Iterable[str]) -> list[str]:
        """
        Those of *hosts*, which are addresses, that the worker at *url* may be connected to at.
        """
        if not self.limit(url):
            return list(hosts)
        return [host for host in hosts if self.have(ip_address(host.partition("%")[0]))]


ANYWHERE = Networks()
