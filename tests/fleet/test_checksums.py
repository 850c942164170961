"""
Checksums say who has other weights, and nothing where they cannot be compared.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.checksums import Likeness, Weighed, compared

NAMES = ("a", "b", "c", "d", "e")


def weighed(name: str, history: str | None = "", /, **sums: str) -> Weighed:
    return Weighed(f"http://{name}:1", sums, history)


def vaes(values: str) -> list[Weighed]:
    """
    Workers with such sums of their VAEs, a letter each.
    """
    return [weighed(name, vae=value) for name, value in zip(NAMES, values, strict=False)]


def url(name: str) -> str:
    return f"http://{name}:1"


def test_the_history_counts_for_transformers() -> None:
    """
    The sum of a transformer holds for the LoRA calls behind it, that of anything else for any.
    """
    one = weighed("a", "h", transformer="1", transformer_2="2", vae="3")
    assert one.known == {
        "transformer": ("1", "h"),
        "transformer_2": ("2", "h"),
        "vae": ("3", ""),
    }


def test_nothing_known_of_a_transformer() -> None:
    """
    Of a worker whose LoRA calls are not known, the sum of the transformer is no measure for others;
    nor is that of a module that it does not have.
    """
    assert weighed("a", None, transformer="1", vae="3", critic="not_found").known == {
        "vae": ("3", "")
    }


def test_alike() -> None:
    """
    A worker all of whose sums are known is the same, one with another sum is different, and one of
    which not all can be compared is an open question.
    """
    known = {"transformer": ("1", "h"), "vae": ("3", "")}
    assert weighed("a", "h", transformer="1", vae="3").likeness(known) is Likeness.SAME
    assert weighed("a", "h", vae="3").likeness(known) is Likeness.SAME
    assert weighed("a", "h", transformer="2", vae="3").likeness(known) is Likeness.DIFFERENT
    assert weighed("a", None, transformer="2", vae="4").likeness(known) is Likeness.DIFFERENT
    assert weighed("a", "g", transformer="2", vae="3").likeness(known) is Likeness.OPEN
    assert weighed("a", "h", vae="3", critic="5").likeness(known) is Likeness.OPEN
    assert weighed("a", "h").likeness(known) is Likeness.OPEN
    assert weighed("a", "h", vae="3").likeness({}) is Likeness.OPEN


def test_an_equal_sum_is_proof() -> None:
    """
    The same sum under other LoRA calls, or such as nobody knows, is proof all the same.
    """
    known = {"transformer": ("1", "h")}
    for history in ("g", "", None):
        assert weighed("a", history, transformer="1").likeness(known) is Likeness.SAME


def test_what_differs() -> None:
    """
    The modules that differ are named, and not those that cannot be compared or are not told.
    """
    known = {"transformer": ("1", "h"), "vae": ("3", ""), "text_encoder": ("4", "")}
    assert weighed("a", "h", transformer="2", vae="5").differing(known) == ["transformer", "vae"]
    assert weighed("a", "g", transformer="2", vae="3").differing(known) == []


def test_the_minority_differs() -> None:
    """
    Whoever has another sum than most is named with the module, and most are the measure.
    """
    result = compared(vaes("xyx"))
    assert result.differing == {url("b"): ["vae"]}
    assert result.known == {"vae": ("x", "")}
    assert result.agreed
    assert result.incomparable == {}


def test_no_majority() -> None:
    """
    Where half have one sum and half another, all of them differ and there is no measure.
    """
    for values in ("xy", "xxyy", "xxyz"):
        result = compared(vaes(values))
        assert set(result.differing) == {url(name) for name in NAMES[: len(values)]}
        assert result.known == {}
        assert not result.agreed


def test_transformers_compare_with_the_same_history() -> None:
    """
    Different LoRA calls make no difference, and the larger group is the measure.
    """
    result = compared(
        [
            weighed("a", "h", transformer="1"),
            weighed("b", "h", transformer="1"),
            weighed("c", "g", transformer="2"),
            weighed("d", "g", transformer="2"),
            weighed("e", "g", transformer="2"),
        ]
    )
    assert result.differing == result.incomparable == {}
    assert result.known == {"transformer": ("2", "g")}
    assert result.agreed


def test_what_cannot_be_compared() -> None:
    """
    A worker that alone has its LoRA calls, or of which nobody knows them, is told as not comparable
    in its transformer, and is not held to differ for that.
    """
    result = compared(
        [
            weighed("a", "h", transformer="1", vae="3"),
            weighed("b", "g", transformer="2", vae="3"),
            weighed("c", None, transformer="1", vae="3"),
        ]
    )
    assert result.incomparable == {url(name): ["transformer"] for name in "abc"}
    assert result.differing == {}
    assert result.known == {"vae": ("3", "")}
    assert result.agreed


def test_a_module_that_is_not_there() -> None:
    """
    That a worker has no such module is no sum of it.
    """
    result = compared([weighed(name, critic="not_found") for name in "abc"])
    assert (result.known, result.differing, result.incomparable) == ({}, {}, {})


def test_alone() -> None:
    """
    A worker that is compared with nobody is its own measure.
    """
    result = compared([weighed("a", "h", transformer="1", vae="3")])
    assert result.known == {"transformer": ("1", "h"), "vae": ("3", "")}
    assert result.agreed
    assert result.differing == result.incomparable == {}


def test_nobody_compared() -> None:
    """
    Nobody agrees with everybody.
    """
    result = compared([])
    assert result.agreed
    assert not result.known
    assert not result.differing


@given(st.lists(st.sampled_from("xyz"), min_size=2, max_size=5))
def test_majorities(values: list[str]) -> None:
    """
    A strict majority, and nothing less, decides, whatever the order.
    """
    value, count = Counter(values).most_common(1)[0]
    result = compared(vaes("".join(values)))
    urls = [url(name) for name in NAMES[: len(values)]]
    assert result.agreed == (2 * count > len(values))
    for each, own in zip(urls, values, strict=True):
        assert (each in result.differing) == (not result.agreed or own != value)
    assert result.known == ({"vae": (value, "")} if result.agreed else {})


@given(
    st.lists(
        st.tuples(st.sampled_from("xy"), st.sampled_from("xy"), st.sampled_from(["", "h", None])),
        max_size=5,
    )
)
def test_likeness_agrees_with_the_comparison(many: list[tuple[str, str, str | None]]) -> None:
    """
    Where there are majorities, who is different from what most have is among those that differ.
    """
    workers = [
        weighed(name, history, transformer=one, vae=two)
        for name, (one, two, history) in zip(NAMES, many, strict=False)
    ]
    result = compared(workers)
    for each in workers:
        differing = result.differing.get(each.url, [])
        assert set(each.differing(result.known)) <= set(differing)
        assert not set(differing) & set(result.incomparable.get(each.url, []))
