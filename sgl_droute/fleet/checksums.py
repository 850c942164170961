"""
Checksums of workers' weights, compared.

The sum of a transformer depends on the LoRA calls behind it, since these give its parameters other
names: it says something only between workers with the same. An equal sum is proof in any case.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import define, field, frozen

Sums = Mapping[str, str]
# By module: its sum, and the LoRA history for which it holds.
KnownSums = Mapping[str, tuple[str, str]]

_NO_SUM = "not_found"


class Likeness(Enum):
    """
    How the weights of one worker compare with known sums.
    """

    SAME = "same"
    DIFFERENT = "different"
    # What can be compared is the same, but not all of it can.
    OPEN = "open"


@frozen
class Weighed:
    """
    What one worker told of its weights.

    Attributes:
        url: Base URL of the worker.
        sums: By module.
        history: The LoRA calls behind it, as of `sgl_droute.fleet.weights.Actual`.
    """

    url: str
    sums: Sums
    history: str | None

    @property
    def known(self) -> KnownSums:
        """Its sums, as others can be compared with them."""
        return {
            name: (value, under)
            for name, value in self.sums.items()
            if value != _NO_SUM and (under := self.under(name)) is not None
        }

    def under(self, module: str) -> str | None:
        """The history for which its sum of *module* holds; None if that is not known."""
        return self.history if module.startswith("transformer") else ""

    def differing(self, known: KnownSums) -> list[str]:
        """The modules that surely differ from *known*."""
        return [
            name
            for name, (value, under) in known.items()
            if name in self.sums and self.sums[name] != value and self.under(name) == under
        ]

    def likeness(self, known: KnownSums) -> Likeness:
        """How it compares with *known*."""
        if self.differing(known):
            return Likeness.DIFFERENT
        same = [name in known and known[name][0] == value for name, value in self.sums.items()]
        return Likeness.SAME if same and all(same) else Likeness.OPEN


@define
class Comparison:
    """
    What came of comparing the workers of one model.

    Attributes:
        known: The sums that most have.
        differing: By URL, the modules in which a worker differs from most, or from any where there
            are no such most.
        incomparable: By URL, the modules that could not be compared with those of anybody.
        silent: By URL, why a worker told no checksums.
        agreed: Whether there was a strict majority wherever any differed.
    """

    known: dict[str, tuple[str, str]] = field(factory=dict)
    differing: dict[str, list[str]] = field(factory=dict)
    incomparable: dict[str, list[str]] = field(factory=dict)
    silent: dict[str, str] = field(factory=dict)
    agreed: bool = True


def compared(many: Sequence[Weighed]) -> Comparison:
    """
    Workers of the same model, compared with each other.
    """
    result = Comparison()
    largest: Counter[str] = Counter()
    groups: defaultdict[tuple[str, str | None], list[Weighed]] = defaultdict(list)
    for weighed in many:
        for module, value in weighed.sums.items():
            if value != _NO_SUM:
                groups[module, weighed.under(module)].append(weighed)
    for (module, under), group in groups.items():
        if under is None or (len(group) == 1 and len(many) > 1):
            for weighed in group:
                result.incomparable.setdefault(weighed.url, []).append(module)
            continue
        value, count = Counter(weighed.sums[module] for weighed in group).most_common(1)[0]
        majority = 2 * count > len(group)
        result.agreed = result.agreed and majority
        if majority and count > largest[module]:
            largest[module] = count
            result.known[module] = (value, under)
        for weighed in group:
            if not majority or weighed.sums[module] != value:
                result.differing.setdefault(weighed.url, []).append(module)
    return result
