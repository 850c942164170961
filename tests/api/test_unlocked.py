"""
The warning of a router that strangers can reach.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sgl_droute.api.entry.unlocked import unlocked
from sgl_droute.settings import RouterSettings


@pytest.mark.parametrize(
    ("endpoint", "public"),
    [
        ("tcp:30080", True),
        ("tcp:30080:interface=0.0.0.0:backlog=1024", True),
        (r"tcp:30080:interface=\:\:", True),
        ("tcp:interface=0.0.0.0:port=1", True),
        ("tcp:30080:interface=203.0.113.7", False),  # an address of documentation
        ("tcp:30080:interface=8.8.8.8", True),
        ("ssl:443:privateKey=k:certKey=c", True),
        ("haproxy:tcp:30080", True),
        ("tcp:30080:interface=router.example.com", True),
        ("tcp:30080:interface=127.0.0.1", False),
        ("tcp:30080:interface=localhost", False),
        ("tcp:30080:interface=10.0.0.5", False),
        (r"tcp:30080:interface=\:\:1", False),
        (r"tcp6:30080:interface=fe80\:\:1%eth0", False),
        ("unix:/run/router.sock", False),
        ("systemd:domain=INET:index=0", False),
    ],
)
def test_which_endpoints(endpoint: str, public: bool) -> None:
    """
    An address that only the machine or a private network reaches is no reason to warn.
    """
    warning = unlocked(RouterSettings(listen=(endpoint,)))
    assert (warning is not None) == public
    if warning is not None:
        assert endpoint in warning


def test_keys(tmp_path: Path) -> None:
    """
    Keys for generations are enough; with keys for the fleet only, the warning says what is open.
    """
    file = tmp_path / "keys"
    file.touch()
    listen = ("unix:/run/router.sock", "tcp:1")
    assert unlocked(RouterSettings()) is None
    assert unlocked(RouterSettings(listen=listen)) == (
        "Listening on tcp:1 without --api-keys and --admin-keys: whoever reaches it may generate"
        " and manage the fleet"
    )
    assert unlocked(RouterSettings(listen=listen, admin_keys=str(file))) == (
        "Listening on tcp:1 without --api-keys: whoever reaches it may generate, and name files on"
        " workers"
    )
    assert unlocked(RouterSettings(listen=listen, api_keys=str(file))) is None
