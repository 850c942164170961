"""
What clients wish in headers: read as it is meant, and refused where it means nothing.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from attrs import frozen
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers

from sgl_droute.api.wishes import Wishes, wishes_of
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.capabilities import RequiredEpoch

HOME = IPv4Address("TCP", "10.1.2.3", 40000)


@frozen
class Head:
    """
    As much of a request as wishes are read from.
    """

    requestHeaders: Headers
    address: Any = HOME

    def getClientAddress(self) -> Any:
        return self.address


def wishes(headers: dict[str, str | list[str]], address: Any = HOME, now: float = 100.0) -> Wishes:
    lists = {name: [v] if isinstance(v, str) else v for name, v in headers.items()}
    request: Any = Head(Headers(lists), address)
    return wishes_of(request, max_priority=10, now=now)


def refusal(headers: dict[str, str | list[str]]) -> str:
    with pytest.raises(BadRequest) as refused:
        wishes(headers)
    return str(refused.value)


def test_no_wishes() -> None:
    """
    A request without such headers has none, and its client is known by its address.
    """
    assert wishes({"Host": "router", "Content-Type": "application/json"}) == Wishes("ip:10.1.2.3")


def test_all_wishes() -> None:
    """
    Every header is read, however its name is written.
    """
    headers: dict[str, str | list[str]] = {
        "x-priority": "3",
        "X-DEADLINE-MS": "2500",
        "x-rollout-batch": "step-7",
        "X-Rollout-Size": "512",
        "X-Rollout-Group": "prompt/1",
        "X-Router-Why": "1",
        "X-Client-Id": "trainer",
        "x-require-epoch": ">=8",
    }
    epoch = RequiredEpoch(8)
    assert wishes(headers) == Wishes("id:trainer", 3, 102.5, "step-7", 512, "prompt/1", True, epoch)


@given(st.integers())
@example(10**4000)
@example(-(10**18))
def test_priorities_are_bounded(number: int) -> None:
    """
    A priority beyond the bounds is brought to the nearest.
    """
    assert wishes({"X-Priority": f"{number}"}).priority == max(-10, min(10, number))
    assert wishes({"X-Priority": f"{number:+}"}).priority == max(-10, min(10, number))


@pytest.mark.parametrize(
    "text",
    ["", "high", "1.5", "1e3", "0x1", "1_0", "--1", "+", "١", "1,2", "9" * 5000],  # noqa: RUF001
)
def test_no_priority(text: str) -> None:
    """
    What is no whole number is refused, and the refusal names the header and shows the value.
    """
    told = refusal({"X-Priority": text})
    assert told.startswith("X-Priority must be a whole number, not '")
    assert text.encode().decode("latin-1")[:100] in told
    assert len(told) < 200


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 0.001), ("1500", 1.5), ("0.5", 0.0005), (".5", 0.0005), ("30000.", 30.0)],
)
def test_deadlines(text: str, seconds: float) -> None:
    """
    A deadline counts from now, in milliseconds.
    """
    assert wishes({"X-Deadline-Ms": text}, now=50.0).deadline == pytest.approx(50 + seconds)


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-5", "+5", "nan", "inf", "1e3", ".", "soon", "9" * 400, "1 000"]
)
def test_no_deadline(text: str) -> None:
    """
    A deadline that is no time ahead is refused.
    """
    told = refusal({"X-Deadline-Ms": text})
    assert told.startswith("X-Deadline-Ms must be a number of milliseconds above 0, not '")


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("=7", RequiredEpoch(7, exact=True)),
        (">=7", RequiredEpoch(7)),
        ("  >= \t 7 ", RequiredEpoch(7)),
        ("= 0", RequiredEpoch(0, exact=True)),
        (">=999999999999999", RequiredEpoch(999_999_999_999_999)),
    ],
)
def test_epochs(text: str, epoch: RequiredEpoch) -> None:
    """
    An epoch is required exactly or at least, with spaces or without.
    """
    assert wishes({"X-Require-Epoch": text}).epoch == epoch


@pytest.mark.parametrize(
    "text",
    [
        *("", "7", "=", ">=", ">7", "> =7", "==7", "<=7", "=x", "=1.0", "=1, =2", "=7-8"),
        *("=-1", ">=-1", "=+1", "=٧", "=" + "9" * 16, ">=" + "9" * 5000),  # noqa: RUF001
    ],
)
def test_no_epochs(text: str) -> None:
    """
    What names no epoch is refused, and so is a number that no fleet will reach.
    """
    told = refusal({"X-Require-Epoch": text})
    assert told.startswith("X-Require-Epoch must be =N or >=N with a weights epoch N, not '")
    assert len(told) < 200


@pytest.mark.parametrize("header", ["X-Rollout-Batch", "X-Rollout-Group", "X-Client-Id"])
@pytest.mark.parametrize("text", ["", "a b", "a" * 201, "größe", "a\tb"])
def test_no_names(header: str, text: str) -> None:
    """
    Names are short and of visible characters.
    """
    assert refusal({header: text}).startswith(f"{header} must be 1 to 200 visible ASCII characters")
    wishes({header: "!" * 200})


@pytest.mark.parametrize("text", ["0", "1000001", "-1", "2.5", "many", ""])
def test_no_sizes(text: str) -> None:
    """
    The size of a batch is a count.
    """
    told = refusal({"X-Rollout-Size": text, "X-Rollout-Batch": "b"})
    assert told.startswith("X-Rollout-Size must be ")
    assert repr(text) in told


def test_a_size_of_nothing() -> None:
    """
    A size is the size of a batch.
    """
    assert refusal({"X-Rollout-Size": "5"}) == "X-Rollout-Size needs X-Rollout-Batch beside it"


@pytest.mark.parametrize(
    "header",
    [
        "X-Priority",
        "X-Deadline-Ms",
        "X-Rollout-Batch",
        "X-Rollout-Size",
        "X-Rollout-Group",
        "X-Router-Why",
        "X-Require-Epoch",
        "X-Client-Id",
    ],
)
def test_twice(header: str) -> None:
    """
    A header that is there twice says two things, and is refused.
    """
    told = refusal({"X-Rollout-Batch": "b", header: ["1", "1"]})
    assert told == f"{header} is given 2 times"


@pytest.mark.parametrize(
    ("text", "why"),
    [("1", True), ("true", True), ("Yes", True), ("0", False), ("false", False), ("", False)],
)
def test_why(text: str, why: bool) -> None:
    """
    Whoever asks why says so in plain words.
    """
    assert wishes({"X-Router-Why": text}).why is why


def test_clients() -> None:
    """
    A client is known by its key, else by the name it gives, else by its address; keys never show.
    """
    headers: dict[str, str | list[str]] = {"Authorization": "Bearer sk-1", "X-Client-Id": "me"}
    client = wishes(headers).client
    assert client == "key:" + sha256(b"Bearer sk-1").hexdigest()[:12]
    assert client != wishes({"Authorization": "Bearer sk-2"}).client
    assert wishes({"X-Client-Id": "me"}).client == "id:me"
    assert wishes({}, IPv6Address("TCP", "::1", 1)).client == "ip:::1"
    assert wishes({}, UNIXAddress(b"/run/socket")).client == "ip:"
    assert wishes({"Authorization": ["a", "b"]}).client.startswith("key:")


@given(
    st.sampled_from(
        [
            "X-Priority",
            "X-Deadline-Ms",
            "X-Rollout-Batch",
            "X-Rollout-Size",
            "X-Rollout-Group",
            "X-Require-Epoch",
        ]
    ),
    st.binary(max_size=30),
)
def test_any_value_is_read_or_refused(header: str, value: bytes) -> None:
    """
    No value of a header breaks anything.
    """
    headers = Headers({b"X-Rollout-Batch": [b"b"]})
    headers.setRawHeaders(header.encode(), [value])
    request: Any = Head(headers)
    with suppress(BadRequest):
        assert wishes_of(request, max_priority=10, now=0.0).client == "ip:10.1.2.3"
