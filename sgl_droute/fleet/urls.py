"""
What a worker URL may look like, and which addresses are never a worker.

Pure text and numbers: resolving a name is the business of `sgl_droute.workers.addresses`, which
asks `is_blocked_address` again for what it found.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from sgl_droute.errors import BadRequest

# Cloud metadata services hand credentials to whoever asks from the machine: a router that can be
# told to fetch any URL must not fetch theirs. Link-local networks hold more of the kind.
BLOCKED_ADDRESSES = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")
)
BLOCKED_NAMES = frozenset({"metadata.google.internal", "metadata.goog"})

_MAX_URL = 2048
_NAME = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# IPv6 networks whose last 32 bits are an IPv4 address that the packet may end up at:
# compatible, mapped (RFC 4291 2.5.5), translated (RFC 2765), NAT64 (RFC 6052, RFC 8215).
_WRAPPERS = tuple(
    ipaddress.IPv6Network(text)
    for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)


def normalise_worker_url(text: str, what: str = "worker URL") -> str:
    """
    The one spelling of a worker's base URL: ``scheme://host[:port]`` in lower case.

    Host spellings that the operating system would read as an IPv4 address (decimal, octal, hex,
    fewer than four parts, as `inet_aton` does) become the dotted form; an IPv6 address its shortest
    form; the default port and a trailing dot or slash go away.

    Args:
        what: What errors call it.

    Raises:
        BadRequest: Not http(s), no host, a port outside 1-65535, or with credentials, path, query
            or fragment; with the word ``blocked`` for addresses that are never a worker.
    """
    if len(text) > _MAX_URL:
        raise BadRequest(f"{what} is longer than {_MAX_URL} characters")
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise BadRequest(f"{what} {text!r} holds a character that a URL may not")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as problem:
        raise BadRequest(f"{what} {text!r}: {problem}") from problem
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise BadRequest(f"{what} {text!r} must begin with http:// or https://")
    if "@" in parts.netloc:
        raise BadRequest(f"{what} must not hold credentials")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise BadRequest(f"{what} {text!r} must be scheme, host and port only")
    host = _normalise_host(parts.hostname or "", text, what)
    if port == 0:
        raise BadRequest(f"{what} {text!r}: port must be from 1 to 65535")
    default = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{host}" if port in (None, default) else f"{scheme}://{host}:{port}"


def is_blocked_address(address: IPAddress) -> bool:
    """
    Whether *address* is a metadata service or link-local, also inside an IPv6 address that carries
    it (compatible, mapped, translated, NAT64, 6to4, Teredo).
    """
    if address in BLOCKED_ADDRESSES or address.is_link_local:
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return False
    return any(is_blocked_address(inner) for inner in _wrapped(address))


def parse_host_address(host: str) -> IPAddress | None:
    """
    The address that *host* spells, or None when it is a name.

    IPv4 is read as `inet_aton` reads it: one to four parts, each decimal, octal (leading 0) or hex.
    """
    if ":" in host:
        return ipaddress.IPv6Address(host.strip("[]").partition("%")[0])
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *heads, tail = (_number(part) for part in parts)
    room = 256 ** (4 - len(heads))
    if any(head > 255 for head in heads) or tail >= room:
        raise ValueError(f"{host!r} is not an IPv4 address")
    value = tail
    for position, head in enumerate(heads):
        value += head << (8 * (3 - position))
    return ipaddress.IPv4Address(value)


def _normalise_host(host: str, text: str, what: str) -> str:
    host = host.lower().removesuffix(".")
    if not host:
        raise BadRequest(f"{what} {text!r} has no host")
    try:
        address = parse_host_address(host)
    except ValueError as problem:
        raise BadRequest(f"{what} {text!r}: {problem}") from problem
    if address is not None:
        if is_blocked_address(address):
            raise BadRequest(f"{what} {text!r} is blocked: {address} is never called")
        if isinstance(address, ipaddress.IPv4Address):
            return str(address)
        # A mapped address is an IPv4 one (RFC 4291 2.5.5.2): one worker, one URL.
        return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"
    if host in BLOCKED_NAMES:
        raise BadRequest(f"{what} {text!r} is blocked: {host} is never called")
    if len(host) > 253 or not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise BadRequest(f"{what} {text!r}: {host!r} is not a host name")
    return host


def _wrapped(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    inner = [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    if not any(address in network for network in _WRAPPERS):
        inner = []
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address.teredo is not None:
        inner.extend(address.teredo)
    return inner


def _number(text: str) -> int:
    if text[:2] in ("0x", "0X"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") and len(text) > 1 else 10)
