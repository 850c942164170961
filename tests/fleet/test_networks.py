"""
Where workers may be that the router is asked to register.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.networks import ANYWHERE, Networks, parse_network

PRIVATE = Networks(("10.0.0.0/8", "fd00::/8"), ("http://192.0.2.1:1",))
STRANGER = "http://worker:1"


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("127.0.0.1", False),
        ("fd12::1", True),
        ("fe00::1", False),
        ("::1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("64:ff9b::10.1.2.3", False),  # where it leads is for the network's operator to say
        ("2002:a01:203::1", False),
        ("fd12::1%eth0", True),
    ],
)
def test_addresses(address: str, permitted: bool) -> None:
    """
    An address is permitted if one of the networks has it; a mapped one is the IPv4 address.
    """
    assert PRIVATE.among(STRANGER, [address]) == ([address] if permitted else [])


def test_without_networks() -> None:
    """
    Without networks any address is permitted, and there is nothing to look at.
    """
    assert not ANYWHERE.limit(STRANGER)
    assert ANYWHERE.among(STRANGER, ["127.0.0.1", "::1"]) == ["127.0.0.1", "::1"]


def test_of_several_addresses_those_that_are_permitted() -> None:
    """
    A name may have other addresses besides; they are not used.
    """
    assert PRIVATE.among(STRANGER, ["::1", "10.0.0.1", "127.0.0.1"]) == ["10.0.0.1"]


def test_workers_that_the_operator_named() -> None:
    """
    They may have any address, and so may those that the router itself has started.
    """
    networks = Networks(("10.0.0.0/8",), ("http://192.0.2.1:1",))
    for url in ("http://192.0.2.1:1", "http://127.0.0.1:2"):
        networks.trust("http://127.0.0.1:2")
        assert not networks.limit(url)
        assert networks.among(url, ["198.51.100.7"]) == ["198.51.100.7"]
    assert networks.limit("http://192.0.2.1:2")


def test_other_networks_from_now_on() -> None:
    """
    Networks and names are set anew when the configuration is read again.
    """
    networks = Networks(("10.0.0.0/8",), ("http://a:1",))
    networks.networks = ("192.0.2.0/24",)  # type: ignore[assignment]
    networks.named = ("http://b:1",)  # type: ignore[assignment]
    assert networks.among("http://a:1", ["10.0.0.1", "192.0.2.9"]) == ["192.0.2.9"]
    assert networks.among("http://b:1", ["10.0.0.1"]) == ["10.0.0.1"]
    networks.networks = ()
    assert networks.among("http://a:1", ["10.0.0.1"]) == ["10.0.0.1"]


def test_networks_of_mapped_addresses() -> None:
    """
    They are IPv4 networks in another spelling.
    """
    assert parse_network("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert parse_network("::/0") == ip_network("::/0")
    assert not Networks(("::/0",)).have(ip_address("10.0.0.1"))


@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_mapped_addresses_are_ipv4(network: int, length: int, number: int) -> None:
    """
    Whatever the network, a mapped address is permitted exactly if the IPv4 address is.
    """
    networks = Networks((f"{IPv4Address(network)}/{length}",))
    plain, mapped = IPv4Address(number), IPv6Address((0xFFFF << 32) | number)
    expected = plain in ip_network(f"{IPv4Address(network)}/{length}", strict=False)
    assert networks.have(plain) == networks.have(mapped) == expected
