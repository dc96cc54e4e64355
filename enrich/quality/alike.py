"""How alike the texts of a catalogue are: near-duplicates across products, and openings. For the report alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from enrich.quality.duplicates import near_leaders, signatures
from enrich.quality.words import words_of

_MOST_TEXTS = 50_000
_SIMILARITY = 0.8
_OPENING_WORDS = 3


@dataclass(frozen=True, slots=True)
class Likeness:
    """Of so many texts of different products, how many are nearly the same as an earlier one (Jaccard similarity of
    0.8 over 5-byte shingles), and the opening that most of them share."""

    texts: int
    near_duplicates: int
    opening: str
    with_opening: int


class Alike:
    """Compares the texts of the first 50,000 products, whatever the catalogue's size."""

    def __init__(self) -> None:
        self._products: set[bytes] = set()
        self._signatures: list[np.ndarray[tuple[int, ...], np.dtype[np.uint16]]] = []
        self._openings = Counter[str]()

    def add(self, texts: Iterable[tuple[bytes, str]]) -> None:
        """Notes texts by their products' keys; a product that is there already counts once."""
        new: list[str] = []
        for key, text in texts:
            if len(self._products) < _MOST_TEXTS and key not in self._products:
                self._products.add(key)
                new.append(text)
        if new:
            self._signatures.append(signatures(new))
            self._openings.update(" ".join(words_of(text)[:_OPENING_WORDS]) for text in new)

    def likeness(self) -> Likeness | None:
        """What was found; None without texts."""
        if not self._products:
            return None
        opening, with_opening = self._openings.most_common(1)[0]
        with TemporaryDirectory() as folder:
            file = Path(folder) / "signatures"
            np.concatenate(self._signatures).tofile(file)
            near = near_leaders(file, np.arange(len(self._products)), _SIMILARITY)
        return Likeness(len(self._products), len(near), opening, with_opening)
