"""
Worker URLs: one spelling each, and never a metadata service.
"""

from __future__ import annotations

import ipaddress
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.errors import BadRequest
from sgl_droute.fleet.urls import is_blocked_address, normalise_worker_url

METADATA = 0xA9FEA9FE  # 169.254.169.254


@pytest.mark.parametrize(
    ("given_url", "kept"),
    [
        ("http://localhost:30000", "http://localhost:30000"),
        ("HTTP://LocalHost:30000/", "http://localhost:30000"),
        ("http://host", "http://host"),
        ("http://host:80", "http://host"),
        ("https://host:443/", "https://host"),
        ("https://host:80", "https://host:80"),
        ("http://host.example.:30000", "http://host.example:30000"),
        ("http://worker_1:30000", "http://worker_1:30000"),
        ("http://127.1:30000", "http://127.0.0.1:30000"),
        ("http://0x7f000001:30000", "http://127.0.0.1:30000"),
        ("http://[::1]:30000", "http://[::1]:30000"),
        ("http://[0:0:0:0:0:0:0:1]:30000", "http://[::1]:30000"),
        ("http://[::ffff:10.0.0.1]:30000", "http://10.0.0.1:30000"),
    ],
)
def test_one_spelling(given_url: str, kept: str) -> None:
    """
    Case, a trailing slash or dot, the default port and odd spellings of an address do not matter.
    """
    assert normalise_worker_url(given_url) == kept
    assert normalise_worker_url(kept) == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:30000",
        "localhost",
        "ftp://host",
        "http://",
        "http:///path",
        "http://host/path",
        "http://host//",
        "http://host?",
        "http://host?a=b",
        "http://host#",
        "http://host/#x",
        "http://user@host",
        "http://user:secret@host",
        "http://host:0",
        "http://host:65536",
        "http://host:abc",
        "http://host:-1",
        "http://ho st",
        "http://host\r\nX: y",
        "http://host\\@evil",
        "http://1.2.3.4.5",
        "http://256.1.1.1",
        "http://[::1",
        "http://[::g]",
        "http://-host",
        "http://host..example",
        "http://\uff11\uff12\uff17.0.0.1",
        "http://%31%32%37.0.0.1",
        "http://169%2e254%2e169%2e254",
        "http://127.0.0.1%25:3",
        "http://127.0.0.1%eth0:3",
        "http://" + "a" * 64,
        "http://" + "a." * 127 + "aa",
        "http://" + "a" * 3000,
    ],
)
def test_refused(url: str) -> None:
    """
    What is not scheme, host and port, or could be read in two ways, is refused with a sentence.
    """
    with pytest.raises(BadRequest) as refused:
        normalise_worker_url(url)
    assert refused.value.status == 400
    assert "secret" not in str(refused.value)


BLOCKED = [
    "http://169.254.169.254",
    "http://169.254.169.254.:80",
    "http://2852039166",
    "http://0xa9fea9fe",
    "http://0XA9FEA9FE",
    "http://025177524776",
    "http://0251.0376.0251.0376",
    "http://0xa9.0xfe.0xa9.0xfe",
    "http://169.254.43518",
    "http://169.16689662",
    "http://[::ffff:169.254.169.254]",
    "http://[::ffff:a9fe:a9fe]",
    "http://[::169.254.169.254]",
    "http://[::ffff:0:169.254.169.254]",
    "http://[64:ff9b::169.254.169.254]",
    "http://[2002:a9fe:a9fe::1]",
    "http://[fd00:ec2::254]",
    "http://[FD00:0EC2:0:0:0:0:0:254]",
    "http://100.100.100.200",
    "http://1684301000",
    "http://169.254.0.1",
    "http://[fe80::1]",
    "http://[fe80::1%25eth0]",
    "http://[febf::1]",
    "http://metadata.google.internal",
    "http://METADATA.google.internal.:80",
    "https://metadata.goog",
]


@pytest.mark.parametrize("url", BLOCKED)
def test_blocked(url: str) -> None:
    """
    Metadata services and link-local addresses are refused in every spelling, with the word blocked.
    """
    with pytest.raises(BadRequest, match="blocked"):
        normalise_worker_url(url)


def _part(value: int, base: str) -> str:
    return {"d": f"{value}", "o": f"0{value:o}", "x": f"0x{value:x}", "X": f"0X{value:X}"}[base]


@st.composite
def _spelt(draw: st.DrawFn, address: int) -> str:
    count = draw(st.integers(1, 4))
    heads = [(address >> (24 - 8 * place)) & 0xFF for place in range(count - 1)]
    tail = address & ((1 << (32 - 8 * (count - 1))) - 1)
    return ".".join(_part(each, draw(st.sampled_from("doxX"))) for each in [*heads, tail])


@given(_spelt(METADATA))
def test_metadata_address_in_any_spelling(host: str) -> None:
    """
    No way of writing an IPv4 address that the system understands gets round the block.
    """
    with pytest.raises(BadRequest, match="blocked"):
        normalise_worker_url(f"http://{host}:80")


@given(st.ip_addresses(v=4).flatmap(lambda ip: st.tuples(st.just(ip), _spelt(int(ip)))))
def test_spellings_of_an_address_are_one_worker(case: tuple[ipaddress.IPv4Address, str]) -> None:
    """
    Every spelling of an IPv4 address becomes the dotted one, or is refused like the dotted one.
    """
    address, host = case
    if is_blocked_address(address):
        with pytest.raises(BadRequest, match="blocked"):
            normalise_worker_url(f"http://{host}:1")
    else:
        assert normalise_worker_url(f"http://{host}:1") == f"http://{address}:1"


@given(st.text(alphabet=string.printable, max_size=40))
def test_any_text(text: str) -> None:
    """
    Whatever is given, the answer is a URL that stays as it is, or a `BadRequest`.
    """
    for url in (text, f"http://{text}"):
        try:
            kept = normalise_worker_url(url)
        except BadRequest:
            continue
        assert normalise_worker_url(kept) == kept
        assert kept.startswith(("http://", "https://"))
        assert not set(kept.partition("://")[2]) & set("/?#@\\ \r\n")
