"""
Which URLs a webhook may have.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.errors import BadRequest
from sgl_droute.fleet.webhook_hosts import Hosts, split_webhook_url


@pytest.mark.parametrize(
    ("url", "base", "target"),
    [
        ("http://h", "http://h", "/"),
        ("https://H.Example.com:443/a/b?c=/d%20#"[:-1], "https://h.example.com", "/a/b?c=/d%20"),
        ("HTTP://h.:80?x", "http://h", "/?x"),
        ("http://[::1]:8080/", "http://[::1]:8080", "/"),
        ("http://0x7f.1/p?q=http://x", "http://127.0.0.1", "/p?q=http://x"),
    ],
)
def test_split(url: str, base: str, target: str) -> None:
    """
    The base is in the one spelling that it has, and the target as it came.
    """
    assert split_webhook_url(url) == (base, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/a",
        "ftp://h/a",
        "http:///a",
        "http://user@h/a",
        "http://user:secret@h/a",
        "http://allowed\\@h/a",
        "http://h/a#b",
        "http://h/a b",
        "http://h/a\r\nX: y",
        "http://h/é",
        "http://h:0/",
        "http://h:70000/",
        "http://169.254.169.254/latest",
        "http://2852039166/",
        "http://[::ffff:169.254.1.1]/",
        "http://metadata.google.internal/",
        "http://[fe80::1]/",
        "http://h/" + "a" * 2048,
        "//h/a",
    ],
)
def test_urls_that_nobody_calls(url: str) -> None:
    """
    Other schemes, credentials, fragments, characters that no URL has, and the addresses that are
    never a worker either are refused.
    """
    with pytest.raises(BadRequest, match="X-Webhook-Url"):
        split_webhook_url(url)


@given(st.text())
def test_any_text(text: str) -> None:
    """
    Any text is split into what a request line can hold, or refused.
    """
    try:
        base, target = split_webhook_url(f"http://h{text}")
    except BadRequest:
        return
    assert base.startswith("http://h")
    assert "@" not in base
    assert target.startswith("/")
    assert target.isascii()
    assert not set(target) & set(" \r\n\t#")


ALLOWED = Hosts.of(["Hooks.example.com.", "*.inside.example", "10.0.0.0/8", "192.0.2.7", "[::1]"])


@pytest.mark.parametrize(
    ("base", "allowed"),
    [
        ("http://hooks.example.com", True),
        ("https://hooks.example.com:8443", True),
        ("http://example.com", False),
        ("http://x.hooks.example.com", False),
        ("http://a.inside.example", True),
        ("http://a.b.inside.example:1", True),
        ("http://inside.example", False),
        ("http://notinside.example", False),
        ("http://a.inside.example.org", False),
        ("http://10.1.2.3:80", True),
        ("http://11.1.2.3", False),
        ("http://192.0.2.7", True),
        ("http://192.0.2.8", False),
        ("http://[::1]:9", True),
        ("http://[::2]", False),
    ],
)
def test_hosts(base: str, allowed: bool) -> None:
    """
    A name is itself, a pattern all names below it, and a network the addresses in it.
    """
    assert ALLOWED.have(base) == allowed
    assert not Hosts().have(base)


@pytest.mark.parametrize(
    "text", ["*", "*.", "a.*.b", "10.0.0.1/8", "h:80", "http://h", "h/x", "", "a b", "é.com"]
)
def test_hosts_that_make_no_sense(text: str) -> None:
    """
    A text that allows nothing is an error that shows it.
    """
    with pytest.raises(ValueError, match="is no host name"):
        Hosts.of([text])
