"""
Accounts of requests for tests of those who watch them.
"""

from __future__ import annotations

from typing import Any

from sgl_droute.api.telemetry.account import Account

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def an_account(**changed: Any) -> Account:
    """
    A generation that went well, and ends at 101.22 s.
    """
    given: dict[str, Any] = {
        "id": "8f14e45f",
        "method": "POST",
        "path": "/v1/images/generations",
        "route": "/v1/images/generations",
        "began": 100.0,
        "ready": 100.001,
        "bound": 100.0134,
        "answered": 101.2171,
        "status": 200,
        "bytes_in": 812,
        "bytes_out": 81204,
        "worker": "http://w1:30000",
        "tries": 1,
        "epoch": "3",
        "client": "key:alice",
        "key": "alice",
        "address": "10.0.0.7",
        "kind": "image",
        "job": "6512bd43",
    }
    return Account(**{**given, **changed})
