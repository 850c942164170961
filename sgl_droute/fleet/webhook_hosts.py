"""
Which URLs a webhook may have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from attrs import frozen

from sgl_droute.errors import BadRequest
from sgl_droute.fleet.urls import normalise_worker_url, parse_host_address

HEADER = "X-Webhook-Url"

_LONGEST_URL = 2048
_URL = re.compile(r"(?P<base>[^/?#]*//[^/?#]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@frozen
class Hosts:
    """
    The hosts that webhooks may go to.

    Attributes:
        names: Host names.
        domains: Names that begin with a dot: any name that ends with one of them.
        networks: Networks of addresses that a URL may have in the place of a name.
    """

    names: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Hosts:
        """
        What *texts* allow: host names, ``*.example.com`` for all names below one, or networks such
        as ``10.0.0.0/8``.

        Raises:
            ValueError: One of them is nothing of the kind.
        """
        names, domains, networks = set(), [], []
        for text in texts:
            name = text.strip().lower().removesuffix(".")
            try:
                networks.append(ip_network(name.strip("[]")))
                continue
            except ValueError:
                pass
            if not _NAME.fullmatch(name.removeprefix("*.")):
                raise ValueError(f"{text!r} is no host name, no *.domain and no network")
            if name.startswith("*."):
                domains.append(name[1:])
            else:
                names.add(name)
        return cls(frozenset(names), tuple(domains), tuple(networks))

    def have(self, base: str) -> bool:
        """
        Whether the host of *base*, a normalised base URL, is one of them.
        """
        host = host_of(base)
        address = parse_host_address(host)
        if address is not None:
            return any(address in network for network in self.networks)
        return host in self.names or any(host.endswith(domain) for domain in self.domains)


def host_of(url: str) -> str:
    """
    The host of a normalised URL; an IPv6 address without its brackets.
    """
    authority = url.partition("://")[2].partition("/")[0]
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def split_webhook_url(text: str) -> tuple[str, str]:
    """
    The normalised base URL and the request target of a webhook's URL. Which hosts there may be is
    told by `sgl_droute.fleet.urls` and `Hosts`.

    Raises:
        BadRequest: It is no URL that may be called.
    """
    sound = text.isascii() and text.isprintable() and not set(text) & set(' "<>\\')
    parts = _URL.fullmatch(text) if sound and len(text) <= _LONGEST_URL else None
    if parts is None:
        raise BadRequest(
            f"{HEADER} must be a URL of at most {_LONGEST_URL} characters, without a fragment"
        )
    base = normalise_worker_url(parts["base"], HEADER)
    return base, (parts["path"] or "/") + (parts["query"] or "")
