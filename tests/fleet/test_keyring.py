"""
Key files: what they may say, what is told of mistakes, and which key one is.
"""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.keyring import Key, Keyring, keyring, parse_keys

HEX = sha256(b"secret").hexdigest()
DIGEST = sha256(b"secret").digest()


def line_of(name: str, key: bytes, *options: str) -> str:
    return " ".join([name, f"sha256:{sha256(key).hexdigest()}", *options])


def test_a_file() -> None:
    """
    Each line is a key, with what it may; comments and empty lines are none.
    """
    text = "\n".join(
        [
            "# keys of the studio",
            "",
            line_of("web", b"a", "in_flight=8", "rate=30/m", "burst=10", "share=3", "files=yes"),
            f"BATCH sha256:{HEX.upper()}  # at night",
        ]
    )
    web, batch = parse_keys(text, "keys")
    assert web == Key(
        name="web",
        digest=sha256(b"a").digest(),
        in_flight=8,
        rate=0.5,
        burst=10,
        share=3.0,
        files=True,
    )
    assert batch == Key(name="BATCH", digest=DIGEST)


@pytest.mark.parametrize(
    ("rate", "per_second", "burst"),
    [("5", 5.0, 5), ("2.5/s", 2.5, 3), ("30/m", 0.5, 1), ("0.5/m", 0.5 / 60, 1)],
)
def test_rates(rate: str, per_second: float, burst: int) -> None:
    """
    A rate is per second unless it says per minute; without a burst that is what a second gives.
    """
    (key,) = parse_keys(line_of("a", b"a", f"rate={rate}"), "keys")
    assert key.rate == pytest.approx(per_second)
    assert key.burst == burst


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a", "behind the name there must be sha256: and 64 hexadecimal digits"),
        ("a sk-secret", "behind the name there must be sha256: and 64 hexadecimal digits"),
        (f"a sha256:{HEX}0", "behind the name there must be sha256: and 64 hexadecimal digits"),
        (f"-a sha256:{HEX}", "a name has 1 to 64 letters, digits, dots, dashes or underscores"),
        (f"a sha256:{HEX} burts=3", "burts= is no option of a key; did you mean burst=?"),
        (f"a sha256:{HEX} inflight=3", "inflight= is no option of a key; did you mean in_flight=?"),
        (f"a sha256:{HEX} burst", "burst= is no option of a key; did you mean burst=?"),
        (
            f"a sha256:{HEX} colour=red",
            "colour= is no option of a key; known are in_flight, rate, burst, share, files",
        ),
        (f"a sha256:{HEX} rate=1 rate=2", "rate is there twice"),
        (f"a sha256:{HEX} burst=3", "burst makes no sense without rate"),
        (f"a sha256:{HEX} in_flight=0", "in_flight must be a whole number, 1 or more"),
        (f"a sha256:{HEX} in_flight=1.5", "in_flight must be a whole number, 1 or more"),
        (f"a sha256:{HEX} rate=0", "rate must be a number above 0, with /s or /m behind it"),
        (f"a sha256:{HEX} rate=1/h", "rate must be a number above 0, with /s or /m behind it"),
        (f"a sha256:{HEX} share=1001", "share must be at most 1000"),
        (f"a sha256:{HEX} files=true", "files must be yes or no"),
    ],
)
def test_mistakes(line: str, problem: str) -> None:
    """
    A mistake is told with its file, its line and the nearest word that is known.
    """
    with pytest.raises(ValueError, match="keys") as told:
        parse_keys(f"# first\n{line}\n", "/etc/keys")
    assert str(told.value) == f"/etc/keys, line 2: {problem}"


def test_no_key_is_told() -> None:
    """
    What may be a key in the wrong place is not repeated.
    """
    for line in ("sk-secret=1", f"a sha256:{HEX} sk-secret-1=x", "a sk-secret"):
        with pytest.raises(ValueError, match="line 1") as told:
            parse_keys(line, "keys")
        assert "secret" not in str(told.value)


def test_no_keys_at_all() -> None:
    """
    An empty file, perhaps one that is being written, is a mistake and does not mean that nobody
    has a key.
    """
    with pytest.raises(ValueError, match=r"^keys: there is no key in it$"):
        parse_keys("# none\n", "keys")


@pytest.mark.parametrize(
    ("second", "problem"),
    [(line_of("a", b"b"), "name"), (line_of("b", b"a"), "digest")],
)
def test_twice(second: str, problem: str) -> None:
    """
    A name stands for one key, and a key for one name.
    """
    with pytest.raises(ValueError, match=f"keys, line 3: the {problem} of line 1 once more"):
        parse_keys(line_of("a", b"a") + "\n\n" + second, "keys")


def test_the_same_in_both_files() -> None:
    """
    A name or a key must not be in both files: nobody could tell what it may.
    """
    mine = parse_keys(line_of("a", b"a"), "api")
    same_name, same_key = (
        parse_keys(line_of(*each), "admin") for each in [("a", b"b"), ("b", b"a")]
    )
    with pytest.raises(ValueError, match="admin key a: a key of that name is among"):
        keyring(b"x", mine, same_name)
    with pytest.raises(ValueError, match="admin key b: the same key is among"):
        keyring(b"x", mine, same_key)


@given(st.lists(st.binary(), unique=True, max_size=6), st.binary(), st.binary(min_size=1))
def test_find(known: list[bytes], presented: bytes, secret: bytes) -> None:
    """
    A key is found if and only if it is known, whatever the secret.
    """
    keys = [Key(name=f"k{n}", digest=sha256(each).digest()) for n, each in enumerate(known)]
    ring = keyring(secret, keys[::2], keys[1::2])
    found = ring.find(presented)
    assert (found is not None) == (presented in known)
    for number, each in enumerate(known):
        it = ring.find(each)
        assert it is not None
        assert (it.name, it.admin) == (f"k{number}", number % 2 == 1)


def test_which_files_there_are() -> None:
    """
    A ring knows which kinds of keys are asked for.
    """
    key = [Key(name="a", digest=DIGEST)]
    assert not Keyring(b"x").asks
    assert keyring(b"x", key, None).asks
    assert not keyring(b"x", key, None).management
    assert not keyring(b"x", None, key).inference
    assert keyring(b"x", None, key).asks


def test_nothing_of_a_key_is_shown() -> None:
    """
    Neither digests nor the secret are in what a log would show.
    """
    ring = keyring(b"the secret of it", [Key(name="a", digest=DIGEST)], None)
    assert "digest" not in repr(ring)
    assert "secret" not in repr(ring)
