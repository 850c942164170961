"""
What is in a scrape, by the official parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import frozen
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@frozen(eq=False)
class Scrape:
    """
    The families of one scrape by name; counters without ``_total``.
    """

    families: dict[str, Metric]

    @classmethod
    def of(cls, families: Iterable[Metric]) -> Scrape:
        """
        The scrape with these *families*, each of which may be there once.
        """
        found: dict[str, Metric] = {}
        for family in families:
            assert family.name not in found, f"{family.name} is there twice"
            found[family.name] = family
        return cls(found)

    @classmethod
    def parsed(cls, body: bytes, *, open_metrics: bool = False) -> Scrape:
        """
        The scrape in *body*, no series of which is there twice.
        """
        parse = open_metrics_families if open_metrics else text_string_to_metric_families
        scrape = cls.of(parse(body.decode("utf-8")))
        series = [(sample.name, *sorted(sample.labels.items())) for sample in scrape.samples()]
        assert len(series) == len(set(series))
        return scrape

    def samples(self, name: str | None = None) -> Iterator[Sample]:
        """
        All samples, or those of one *name*.
        """
        for family in self.families.values():
            yield from (each for each in family.samples if name in (None, each.name))

    def value(self, name: str, **labels: str) -> float | None:
        """
        The value of the one series of that *name* with exactly these *labels*; None without it.
        """
        found = [sample.value for sample in self.samples(name) if sample.labels == labels]
        assert len(found) < 2
        return found[0] if found else None

    def total(self, name: str, **labels: str) -> float:
        """
        The sum of all series of that *name* that have these *labels* among theirs.
        """
        return sum(
            sample.value for sample in self.samples(name) if labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """
        All values of *label* in the series of that *name*.
        """
        return {sample.labels[label] for sample in self.samples(name)}
