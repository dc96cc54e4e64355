"""What the report shows of the texts: how long and how good they are, what speaks against them, the worst, and some."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from enrich.products import Product
from enrich.quality.judge import Judge

_WORST, _RANDOM = 50, 20
_CHARS_A_BIN, _POINTS_A_BIN = 50, 10


@dataclass(frozen=True, slots=True)
class Shown:
    """A text with its row, the first that has its product."""

    key: bytes
    row: int
    id: str | None
    product: Product
    text: str
    status: str
    score: int | None
    flags: tuple[str, ...]


class Gallery:
    """Takes every text of a catalogue and keeps counts, the worst texts, and some that a name draws by lot."""

    def __init__(self, name: str = "") -> None:
        """`name` is the run's: another one draws other texts."""
        self._flags = Counter[str]()
        self._scores = [0] * (100 // _POINTS_A_BIN + 1)
        self._lengths = Counter[int]()
        self._worst = _Smallest(_WORST)
        self._random = _Smallest(_RANDOM)
        self._seed = xxhash.xxh64_intdigest(name.encode())

    def add(self, shown: Iterable[Shown]) -> None:
        """Counts texts; those of a product that came before are counted again, and shown once."""
        for each in shown:
            self._flags.update(each.flags)
            self._lengths[len(each.text) // _CHARS_A_BIN * _CHARS_A_BIN] += 1
            if each.score is not None:
                self._scores[each.score // _POINTS_A_BIN] += 1
                self._worst.add(each.score, each)
            self._random.add(xxhash.xxh64_intdigest(each.key, self._seed), each)

    def told(self, judge: Judge) -> dict[str, Any]:
        """The counts and texts as the summary has them, with every claim in a text that its row does not support."""
        return {
            "flags": dict(self._flags.most_common()),
            "scores": self._scores,
            "lengths": sorted(self._lengths.items()),
            "worst": [_told(each, judge) for each in self._worst.found()],
            "random": [_told(each, judge) for each in self._random.found()],
        }

    def samples(self, count: int) -> Sequence[tuple[str, str]]:
        """Titles and texts of some that are published."""
        published = (each for each in self._random.found() if each.status != "held")
        named = [
            (each.product.title if each.id is None else f"{each.id} · {each.product.title}", each.text)
            for each in published
        ]
        return named[:count]


class _Smallest:
    """The texts of the smallest ranks, one a product; of equal ranks those of the smallest keys."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: dict[bytes, tuple[int, Shown]] = {}
        self._bound: int | None = None

    def add(self, rank: int, shown: Shown) -> None:
        if (self._bound is None or rank <= self._bound) and shown.key not in self._kept:
            self._kept[shown.key] = (rank, shown)
            # Sorted now and then: nearly every text of a large catalogue is turned away above.
            if len(self._kept) > 2 * self._count:
                self._shrink()

    def found(self) -> list[Shown]:
        """Those that are left, the smallest rank first."""
        self._shrink()
        return [shown for _, shown in self._kept.values()]

    def _shrink(self) -> None:
        best = sorted(self._kept.items(), key=lambda each: (each[1][0], each[0]))[: self._count]
        self._kept = dict(best)
        if len(best) == self._count:
            self._bound = best[-1][1][0]


def _told(shown: Shown, judge: Judge) -> dict[str, Any]:
    spans = judge.spans(shown.text, shown.product)
    return {
        "row": shown.row,
        "id": shown.id,
        "title": shown.product.title,
        "attributes": [list(each) for each in shown.product.attributes],
        "text": shown.text,
        "status": shown.status,
        "score": shown.score,
        "flags": list(shown.flags),
        "unsupported": [{"kind": span.kind, "start": span.start, "end": span.end} for span in spans],
    }
