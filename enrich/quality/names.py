"""Names in a text: brands, makers, products; whatever has a capital where grammar asks for none."""

import re
from collections.abc import Iterator, Sequence

from enrich.quality.lexicon import countries, word_list
from enrich.quality.words import Word, singular

# Behind these a sentence begins, and with it a capital; of a list every item may begin with one.
_BEGINS = re.compile(r"(?:[.!?:;…•|/\n\"“”«»()\[\]*–—-]|^)\W*$")
_SHARE_OF_A_HEADING = 0.6
_SHORT = 3


def names(text: str, words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """The names of a text, as its words from the first up to the one behind the last.

    A capital at the beginning of a sentence says nothing unless another one follows; neither do capitals where nearly
    every word has one.
    """
    no_names = word_list("no_names")
    capital = [text[word.start].isupper() for word in words]
    if sum(capital) > _SHARE_OF_A_HEADING * max(1, len(words)):
        return
    at = 0
    while at < len(words):
        if not capital[at]:
            at += 1
            continue
        last = at + 1
        while last < len(words) and _goes_on(text, words, capital, last):
            last += 1
        is_capital_of_sentence = _begins_a_sentence(text, words[at]) and not _is_marked(text, words[at])
        first = at + 1 if is_capital_of_sentence and not _is_whose(text, words[at]) else at
        at = last
        while first < last and _is_none(text, words[first], no_names):
            first += 1
        while last > first and _is_none(text, words[last - 1], no_names):
            last -= 1
        if first < last:
            yield first, last


def _is_none(text: str, word: Word, no_names: frozenset[str]) -> bool:
    """A known word, a country, a short abbreviation (LTE, XIX), or what a list calls its item (`Size:`)."""
    bare = text[word.start : word.end].removesuffix("s")
    return (
        word.text in no_names
        or singular(word.text) in no_names
        or word.text in countries()
        or (len(bare) <= _SHORT and bare.isupper())
        or text[word.end : word.end + 1] == ":"
    )


def _goes_on(text: str, words: Sequence[Word], capital: Sequence[bool], at: int) -> bool:
    between = text[words[at - 1].end : words[at].start]
    return capital[at] and between.strip(" '’s-") == "" and len(between) <= 3


def _begins_a_sentence(text: str, word: Word) -> bool:
    if not word.start:
        return True
    before = text[word.start - 1]
    is_sign = not (before.isalnum() or before.isspace() or before in "'’-&")
    return is_sign or bool(_BEGINS.search(text, max(0, word.start - 4), word.start))


def _is_whose(text: str, word: Word) -> bool:
    """Somebody's: Bodum's frother. Today's, nature's and it's are on a list."""
    is_possessive = text[word.end : word.end + 2] in ("'s", "’s") or text[word.end - 2 : word.end] in ("'s", "’s")
    bare = word.text.removesuffix("'s").removesuffix("’s")
    return is_possessive and bare not in word_list("whose")


def _is_marked(text: str, word: Word) -> bool:
    """A trade mark's sign, or a capital inside: a name even there."""
    inside = text[word.start + 1 : word.end]
    mixed = any(map(str.isupper, inside)) and not inside.isupper()
    return mixed or text[word.end : word.end + 1] in ("™", "®")
