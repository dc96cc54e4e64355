"""What became of every row on its way into the training data: counted by filter, with samples of each."""

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

import xxhash

FILTERS = {
    "missing": "no description: null, blank or a placeholder",
    "generated_row": "written by this tool and approved by nobody",
    "bad_title": "no usable title, or a damaged record",
    "too_short": "too short to learn from",
    "title_repeated": "says nearly nothing beyond the title",
    "markup_soup": "mostly not prose: code, markup, addresses, numbers",
    "boilerplate": "nearly nothing left without the sentences that many rows share",
    "wrong_language": "in another language than asked for",
    "control_token": "cannot be said without a token that has a meaning of its own",
    "over_long": "more tokens than are learnt",
    "exact_duplicate": "the same text as an earlier row",
    "near_duplicate": "nearly the same text as an earlier row",
}
"""Filter → what it drops, in the order they are applied."""

CUT = "boilerplate_cut"
"""Rows that stay, without some sentence that many rows share."""

MAX_SAMPLES = 5
_MAX_SHOWN = 240


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """A row to show. `rank` follows from its content, so that which rows are shown is chance, and always the same."""

    rank: int
    title: str
    text: str
    why: str


def sample(title: str, text: str, why: str) -> Sample:
    """A row to show, its texts cut to what a report has room for."""
    rank = xxhash.xxh3_64_intdigest(f"{title}\0{text}".encode())
    return Sample(rank, title[:_MAX_SHOWN], text[:_MAX_SHOWN], why[:_MAX_SHOWN])


@dataclass(slots=True)
class Funnel:
    """Rows that came in, and those that each filter dropped, or that `CUT` changed."""

    num_rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def count(self, name: str, title: str, text: str, why: str) -> None:
        """Notes a row."""
        self.counts[name] += 1
        self._show(name, sample(title, text, why))

    def show(self, name: str, samples: list[Sample]) -> None:
        """Adds samples of rows that are counted elsewhere."""
        for each in samples:
            self._show(name, each)

    def add(self, other: "Funnel") -> None:
        """Adds what became of other rows; the order makes no difference."""
        self.num_rows += other.num_rows
        self.counts.update(other.counts)
        for name, samples in other.samples.items():
            self.show(name, samples)

    def _show(self, name: str, new: Sample) -> None:
        shown = self.samples.setdefault(name, [])
        if new not in shown and (len(shown) < MAX_SAMPLES or new < shown[-1]):
            insort(shown, new)
            del shown[MAX_SAMPLES:]

    @property
    def dropped(self) -> dict[str, int]:
        """Rows dropped by each filter, in the order of the filters."""
        return {name: self.counts[name] for name in FILTERS}

    @property
    def num_dropped(self) -> int:
        return sum(self.dropped.values())

    @property
    def num_described(self) -> int:
        return self.num_rows - self.counts["missing"]
