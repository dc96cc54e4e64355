"""A text as words with their places, folded so that spellings compare: no case, no accents.

Folding keeps every character's place, so that what is found in the folded text can be shown in the text itself.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]{1,2}(?![^\W_]))?")
_PLAIN_WORD = re.compile(r"[^\W_]+")
_ACCENTED = "àáâãäåçèéêëìíîïñòóôõöùúûüýÿ"
_FOLDED = str.maketrans({each: unicodedata.normalize("NFD", each)[0] for each in _ACCENTED})


class Word(NamedTuple):
    """A folded word, and where it stands."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Text:
    """A text, the same folded, and its words in order and as a set."""

    text: str
    folded: str
    words: Sequence[Word]
    said: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Text":
        """Reads a text."""
        folded = fold(text)
        found = words(folded)
        return cls(text, folded, found, frozenset(word.text for word in found))


def fold(text: str) -> str:
    """The text without case and accents, every character in its place."""
    lowered = text.lower()
    # A few capitals become two characters: those keep their case rather than move everything behind them.
    if len(lowered) != len(text):
        lowered = "".join(each.lower() if len(each.lower()) == 1 else each for each in text)
    return lowered if lowered.isascii() else lowered.translate(_FOLDED)


def words(folded: str) -> list[Word]:
    """The words of a folded text, in order; hyphens part words, an apostrophe's s is left off."""
    if _has_apostrophe(folded):
        return [Word(_bare(match[0]), *match.span()) for match in _WORD.finditer(folded)]
    # Quicker than naming them, and there are many.
    return [Word._make((match[0], *match.span())) for match in _PLAIN_WORD.finditer(folded)]


def words_of(text: str) -> list[str]:
    """The folded words of any text."""
    folded = fold(text)
    return list(map(_bare, _WORD.findall(folded))) if _has_apostrophe(folded) else _PLAIN_WORD.findall(folded)


def singular(word: str) -> str:
    """The word without an English or Portuguese plural's ending: a stem to compare, no word to show."""
    if len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes", "res")) and len(word) > 5:
        return word[:-2]
    return word[:-1]


def _has_apostrophe(text: str) -> bool:
    return "'" in text or "’" in text


def _bare(word: str) -> str:
    return re.split("['’]", word)[0] if _has_apostrophe(word) else word
