"""The numbers of a report: sums over catalogues, rates, and bins that fit a chart. What nobody counted is None."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

Report = Mapping[str, Any]
Catalogue = Mapping[str, Any]


def catalogues_of(report: Report) -> list[Catalogue]:
    return list(report.get("catalogues") or [])


def has_rows(catalogue: Catalogue) -> bool:
    """Whether there is anything to show of it: one that could not be read has only an error."""
    return bool(catalogue.get("rows") or catalogue.get("worst") or catalogue.get("random"))


def failed_first(catalogues: Iterable[Catalogue]) -> list[Catalogue]:
    return sorted(catalogues, key=lambda each: not each.get("error"))


def same_catalogue(catalogue: Catalogue, previous: Report | None) -> Catalogue | None:
    """The catalogue as another run found it."""
    return next((each for each in catalogues_of(previous or {}) if each.get("input") == catalogue.get("input")), None)


# Characters that a bin of `lengths` is wide.
_BIN = 50


_COUNTED = (
    "records", "rows", "written", "failed", "tokens", "quarantined", "damaged_cells", "unlisted_placeholders",
    "generating_seconds", "publishing_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted in one catalogue, or in several together."""

    records: float | None
    rows: float | None
    written: float | None
    failed: float | None
    tokens: float | None
    quarantined: float | None
    damaged_cells: float | None
    unlisted_placeholders: float | None
    generating_seconds: float | None
    publishing_seconds: float | None
    statuses: Counter[str] | None
    rejected_for: Counter[str]

    @classmethod
    def of(cls, catalogues: Sequence[Catalogue]) -> "Tally":
        statuses = [each["statuses"] for each in catalogues if each.get("statuses") is not None]
        rejected_for: Counter[str] = Counter()
        for each in catalogues:
            rejected_for.update(each.get("rejected") or {})
        counted = {key: _sum(catalogues, key) for key in _COUNTED}
        return cls(
            **counted, statuses=sum(map(Counter, statuses), Counter()) if statuses else None, rejected_for=rejected_for
        )

    def rows_that(self, *fates: str) -> int | None:
        """Rows of any of these fates."""
        return None if self.statuses is None else sum(self.statuses[fate] for fate in fates)

    @property
    def missing(self) -> int | None:
        """Rows that came without a description."""
        return self.rows_that("generated", "approved", "held", "pending", "rejected")

    @property
    def texts(self) -> int | None:
        """Rows for which there is a text, published or not."""
        return self.rows_that("generated", "approved", "held")

    @property
    def published(self) -> int | None:
        return self.rows_that("generated", "approved")

    @property
    def texts_per_second(self) -> float | None:
        return _rate(self.written, self.generating_seconds)

    @property
    def tokens_per_second(self) -> float | None:
        return _rate(self.tokens, self.generating_seconds)


def _sum(catalogues: Sequence[Catalogue], key: str) -> float | None:
    counted = [each[key] for each in catalogues if each.get(key) is not None]
    return sum(counted) if counted else None


def _rate(count: float | None, seconds: float | None) -> float | None:
    return count / seconds if count and seconds else None


@dataclass(frozen=True, slots=True)
class Interval:
    """A piece of the time line: seconds since the start, and what was done a second in it."""

    start: float
    end: float
    texts: float
    tokens: float

    def rate(self, of: Literal["texts", "tokens"]) -> float:
        return self.texts if of == "texts" else self.tokens


def intervals(timeline: Iterable[Sequence[float]], most: int) -> list[Interval]:
    """Rates between points of a time line (seconds, texts so far, tokens so far), at most so many."""
    points = list(timeline)
    step = max(1, -(-(len(points) - 1) // most))
    kept = [*points[:-1:step], *points[-1:]]
    return [
        Interval(
            start, end, max(0, texts - texts_before) / (end - start), max(0, tokens - tokens_before) / (end - start)
        )
        for (start, texts_before, tokens_before), (end, texts, tokens) in pairwise(kept)
        if end > start
    ]


def mean_rate(found: Sequence[Interval], of: Literal["texts", "tokens"]) -> float:
    """The rate over all of them."""
    return sum(each.rate(of) * (each.end - each.start) for each in found) / sum(each.end - each.start for each in found)


@dataclass(frozen=True, slots=True)
class Bins:
    """Counts of texts by length, all bins equally wide from 0 on."""

    width: int
    counts: Sequence[int]

    def label(self, place: int) -> str:
        return f"{place * self.width}–{(place + 1) * self.width - 1}"

    @property
    def median_below(self) -> int:
        """Half of the texts or more are shorter than this: as exact as the bins are."""
        passed = 0
        for place, count in enumerate(self.counts, start=1):
            passed += count
            if 2 * passed >= sum(self.counts):
                return place * self.width
        return 0


def length_bins(lengths: Sequence[Sequence[int]], most: int) -> Bins:
    """The summary's sparse bins as at most so many, the empty ones between them included."""
    last = max((start // _BIN for start, _ in lengths), default=0)
    merged = -(-(last + 1) // most)
    counts = [0] * (last // merged + 1)
    for start, count in lengths:
        counts[start // _BIN // merged] += count
    return Bins(_BIN * merged, counts)


def score_label(place: int) -> str:
    """What scores the bins of `scores` stand for: 0–9, 10–19, …, 100."""
    return "100" if place == 10 else f"{place * 10}–{place * 10 + 9}"
