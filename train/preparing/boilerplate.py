"""Sentences that many rows share: found by counting in memory of a fixed size, and cut from the texts.

Knows texts and hashes only. A text that occurs many times is one text: what its rows share is a duplicate, not
boilerplate, so sentences are counted once for each different text.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

# Behind the end of a sentence, and before a bullet or a bar (in ASCII, one of the last two).
_BORDER = re.compile(" (?:(?<=[.!?…] )|(?=[•·✓✔–—|-] ))")
# Shorter ones are abbreviations (`No.`), or too little to be worth a cut.
_MIN_CHARACTERS = 15

_DEPTH, _WIDTH = 4, 1 << 20
_BLOOM_BITS = 1 << 26


def sentences(text: str) -> list[str]:
    """The sentences and items of a cleaned text; joined by spaces they are the text."""
    if not text.isascii() or "|" in text or ("-" in text and "- " in text):
        return _BORDER.split(text)
    # The same in half the time: a cleaned text has no line break.
    for mark in "!?":
        if mark in text:
            text = text.replace(f"{mark} ", f"{mark}\n")
    return text.replace(". ", ".\n").split("\n")


def hashes(sentences: Sequence[str]) -> list[int]:
    """64 bits for each sentence, without regard to case; 0 for one too short to be counted."""
    return [
        xxhash.xxh3_64_intdigest(each.casefold().encode()) or 1 if len(each) >= _MIN_CHARACTERS else 0
        for each in sentences
    ]


class Sketch:
    """In how many texts a sentence occurs: a count-min sketch (Cormode and Muthukrishnan 2005) of 16 MiB.

    Never less than the truth; more by 2e/2^20 of all sentences with a probability below e^-4: at 7 million
    sentences by some 20, where 0.5 % of the rows are 7,000.
    """

    def __init__(self, counts: npt.NDArray[np.uint32] | None = None) -> None:
        self._counts = np.zeros((_DEPTH, _WIDTH), np.uint32) if counts is None else counts

    @classmethod
    def load(cls, file: Path) -> "Sketch":
        return cls(np.load(file, mmap_mode="r"))

    def save(self, file: Path) -> None:
        np.save(file, self._counts)

    def add(self, hashes: Hashes) -> None:
        """Counts each hash once for each time it is there."""
        different, times = np.unique(hashes[hashes != 0], return_counts=True)
        for row, places in zip(self._counts, _places(different, _WIDTH), strict=True):
            # Two hashes may share a place, so it cannot be a plain `+=`.
            np.add.at(row, places, times.astype(np.uint32))

    def counts(self, hashes: Hashes) -> npt.NDArray[np.uint32]:
        """The count of each hash; 0 for the hash 0."""
        found = np.stack([row[places] for row, places in zip(self._counts, _places(hashes, _WIDTH), strict=True)]).min(
            axis=0
        )
        return np.where(hashes == 0, np.uint32(0), found)


class SeenTexts:
    """Which texts were there before: a Bloom filter (Bloom 1970) of 8 MiB.

    At 1.4 million texts one in 25,000 is taken for seen and is not: then its sentences are counted once less.
    """

    def __init__(self) -> None:
        self._bits = np.zeros(_BLOOM_BITS // 8, np.uint8)
        self.num_texts = 0

    def add(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Adds the texts; tells for each whether it is new."""
        new = np.zeros(len(hashes), np.bool_)
        new[np.unique(hashes, return_index=True)[1]] = True
        places = _places(hashes, _BLOOM_BITS)
        masks = np.left_shift(np.uint8(1), (places & 7).astype(np.uint8))
        new &= ~np.all(self._bits[places >> 3] & masks, axis=0)
        np.bitwise_or.at(self._bits, places >> 3, masks)
        self.num_texts += int(new.sum())
        return new


def _places(hashes: Hashes, size: int) -> npt.NDArray[np.int64]:
    """`_DEPTH` places for each hash out of its two halves (Kirsch and Mitzenmacher 2006); `size` is a power of 2."""
    low, high = hashes & np.uint64(0xFFFFFFFF), (hashes >> np.uint64(32)) | np.uint64(1)
    steps = np.arange(_DEPTH, dtype=np.uint64)[:, None]
    return ((low + steps * high) & np.uint64(size - 1)).astype(np.int64)


def cut(sentences: Sequence[str], is_shared: Sequence[bool]) -> str:
    """The text without its shared sentences."""
    return " ".join(each for each, shared in zip(sentences, is_shared, strict=True) if not shared)
