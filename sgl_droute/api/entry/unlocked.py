"""
Whether a router can be reached by strangers, and what it would let them do.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from sgl_droute.settings import RouterSettings

_PARTS = re.compile(r"(?:\\.|[^:\\])+")
_WRAPPED = ("haproxy", "txsni")
# Endpoints that listen on an address of the network.
_OVER_NETWORK = ("tcp", "tcp4", "tcp6", "ssl", "tls", "https", "http")


def unlocked(settings: RouterSettings) -> str | None:
    """
    One sentence that warns of a router that listens on a public address without keys; None where
    there is nothing to warn of.
    """
    if settings.api_keys:
        return None
    public = [each for each in settings.listen if _is_public(each)]
    if not public:
        return None
    if settings.admin_keys:
        who = "whoever reaches it may generate, and name files on workers"
        return f"Listening on {public[0]} without --api-keys: {who}"
    who = "whoever reaches it may generate and manage the fleet"
    return f"Listening on {public[0]} without --api-keys and --admin-keys: {who}"


def _is_public(endpoint: str) -> bool:
    parts = [re.sub(r"\\(.)", r"\1", part) for part in _PARTS.findall(endpoint)]
    while parts and parts[0] in _WRAPPED:
        parts = parts[1:]
    if not parts or parts[0] not in _OVER_NETWORK:
        return False  # a socket of the file system, or one that others have opened
    named = [part.partition("=")[2] for part in parts if part.startswith("interface=")]
    host = named[0].strip("[]") if named else ""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host.rstrip(".").lower() != "localhost"
    return address.is_unspecified or not address.is_private
