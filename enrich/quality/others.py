"""Colours and materials of other things than the product: white hair, wood glue, the black jeans a belt goes with."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from enrich.quality.lexicon import Found, Language, Lexicon, word_list
from enrich.quality.words import Text, singular

# Within so many words the one belongs to the other.
_APART, _NEAR, _AHEAD, _BEFORE, _LISTED = 10, 2, 3, 3, 4
_ARTICLES = ("the", "o", "a", "os", "as")
_ENDS_A_PHRASE = re.compile(r"[,;:.!?()\n–—]")
_ENDS_A_SENTENCE = re.compile(r"[.!?\n]")
_PARTICIPLE = re.compile("(?:[ai]d|feit)[oa]s?$")
_ANDS = ("and", "or", "e", "ou")
_AND = re.compile(r"\b(?:and|or|e|ou)\b|,")


class Others:
    """Tells of each colour and material of a text, in order, whether it is something else's."""

    def __init__(self, text: Text, language: Language | None, lexicon: Lexicon) -> None:
        self._text, self._words, self._lexicon = text, text.words, lexicon
        self._is_portuguese = language == "pt"
        # Behind the last of them that was something else's, and what that was where it was named.
        self._passed = -1
        self._named: Sequence[str] = ()

    def beside(self, found: Found) -> tuple[str, str]:
        """The word before, an article passed over, and the word behind."""
        before = (word for word in self._back(found.first, 2, _ENDS_A_SENTENCE) if word not in _ARTICLES)
        is_last = found.last == len(self._words) or self._is_broken(found.last - 1, _ENDS_A_SENTENCE)
        return next(before, ""), "" if is_last else self._words[found.last].text

    def has(self, found: Found) -> bool:
        """Whether it is something else's, whatever the row says: a touch of silk, glides over cotton and linen."""
        listed = self._is_listed(found)
        own_part = not self._is_portuguese and self._has_part(found)
        goes_with = self._goes_with(found) and not own_part
        if (listed and not self._named and not own_part) or goes_with or self._is_not_made_of(found):
            self._passed, self._named = found.last, ()
            return True
        return False

    def things(self, found: Found) -> Sequence[str]:
        """What it would be of, if the row names none of them: white hair, with black jeans, calça preta."""
        things = self._always(found) or (self._before_it if self._is_portuguese else self._behind_it)(found)
        if things:
            self._passed, self._named = found.last, things
        return things

    def _has_part(self, found: Found) -> bool:
        """Whether a part follows: it pairs a steel body with a marble base."""
        nouns = self._nouns_behind(found)
        return bool(nouns) and not self._unless_its_own(nouns)

    def _is_listed(self, found: Found) -> bool:
        """Whether it follows one that was something else's at once, or in a list."""
        if not 0 <= self._passed <= found.first <= self._passed + _LISTED:
            return False
        if found.first == self._passed:
            return True
        between = self._text.folded[self._words[self._passed - 1].end : self._words[found.first].start]
        return bool(_AND.search(between)) and not _ENDS_A_SENTENCE.search(between)

    def _always(self, found: Found) -> Sequence[str]:
        before, after = self.beside(found)
        if found.term.kind != "colour":
            return ()
        if after in ("da", "do", "das", "dos") and self._words[found.first - 1].text == "o" and found.first:
            # O verde das folhas.
            return self._unless_its_own([word.text for word in self._words[found.last + 1 : found.last + 2]])
        return [word for word, name in ((after, "others_after"), (before, "others_before")) if word in word_list(name)]

    def _behind_it(self, found: Found) -> Sequence[str]:
        """The nouns that follow in English, of what is with, under or like the product: beside black tights."""
        nouns = self._nouns_behind(found)
        if not nouns:
            return self._named if found.first == self._passed else ()
        is_thing = _is_thing(nouns)
        cues = word_list("beside") | (word_list("with") if is_thing else frozenset())
        if not self._is_listed(found) and not self._is_cued(found.first, cues):
            return ()
        return nouns if is_thing else self._unless_its_own(nouns)

    def _nouns_behind(self, found: Found) -> Sequence[str]:
        run = self._run(range(found.last, min(len(self._words), found.last + _AHEAD)), -1)
        return [self._words[at].text for at in run]

    def _before_it(self, found: Found) -> Sequence[str]:
        """The nouns that it follows in Portuguese, but for what the text tells of: calça preta, mesa de madeira."""
        run = self._run(range(found.first - 1, max(-1, found.first - 1 - _AHEAD), -1), 0)
        if len(run) > 1 and self._words[run[-1]].text in word_list("asks"):
            run.pop()
        nouns = [self._words[at].text for at in run]
        if not run:
            return self._named if self._is_listed(found) else ()
        if self._is_told_of(run[-1]) or (found.term.kind == "material" and self._is_participle(run[0])):
            return ()
        if _is_thing(nouns):
            return nouns
        return self._unless_its_own(nouns) if self._is_cued(run[-1], word_list("beside")) else ()

    def _is_participle(self, at: int) -> bool:
        """Feito, revestida; but a vestido is a noun."""
        word, before = self._words[at].text, self._words[at - 1].text if at else ""
        is_noun = word in word_list("no_participles") or before in (*_ARTICLES, "um", "uma", "seu")
        return bool(_PARTICIPLE.search(word)) and not is_noun

    def _run(self, places: Iterable[int], side: int) -> list[int]:
        """Words, the nearest first, up to a sign or a word that joins; colours, materials and `de` are passed over."""
        found = []
        for at in places:
            word = self._words[at].text
            if self._is_broken(at + side, _ENDS_A_PHRASE):
                break
            if word in _ANDS and at + 1 < len(self._words) and self._is_term(self._words[at + 1].text):
                continue
            if word in word_list("joins"):
                break
            if not self._is_term(word) and word != "de":
                found.append(at)
        return found

    def _unless_its_own(self, nouns: Sequence[str]) -> Sequence[str]:
        """None of them where one is a part, or a word for any product."""
        own = _own_nouns()
        return () if any(noun in own or singular(noun) in own for noun in nouns) else nouns

    def _is_term(self, word: str) -> bool:
        term = self._lexicon.alone(word)
        return term is not None and term.kind in ("colour", "material") and not term.unsure

    def _is_told_of(self, at: int) -> bool:
        """Whether a noun is what the text tells of: this one, a sentence's first, what it comes with."""
        before = self._words[at - 1].text if at else ""
        first = at - 1 if before in _ARTICLES else at
        begins = first == 0 or self._is_broken(first - 1, _ENDS_A_SENTENCE)
        return begins or before in word_list("this") or before == "com"

    def _is_cued(self, at: int, cues: frozenset[str]) -> bool:
        predicates = word_list("predicates")
        telling = (word for word in self._back(at, _BEFORE, _ENDS_A_PHRASE) if word in cues or word in predicates)
        return next(telling, "") in cues

    def _back(self, at: int, count: int, by: re.Pattern[str]) -> Iterator[str]:
        """The words before a place, the nearest first, up to a sign."""
        for each in range(at - 1, max(-1, at - 1 - count), -1):
            if self._is_broken(each, by):
                return
            yield self._words[each].text

    def _is_broken(self, at: int, by: re.Pattern[str]) -> bool:
        """Whether a sign stands between a word and the next."""
        return bool(by.search(self._text.text, self._words[at].end, self._words[at + 1].start))

    def _is_not_made_of(self, found: Found) -> bool:
        if found.term.kind != "material":
            return False
        before, after = self.beside(found)
        # A touch of silk, efeito de mármore.
        if before in ("of", "de") and found.first > 1:
            before = self._words[found.first - 2].text
        near = {word.text for word in self._words[max(0, found.first - _NEAR) : found.first]}
        return (
            before in word_list("not_made_before")
            or after in word_list("not_made_after")
            or not near.isdisjoint(word_list("not_made_near"))
        )

    def _goes_with(self, found: Found) -> bool:
        said = list(self._back(found.first, _APART, _ENDS_A_SENTENCE))
        together = next((at for at, word in enumerate(said) if word in word_list("together")), len(said))
        return not word_list("goes").isdisjoint(said[together:])


def _is_thing(nouns: Sequence[str]) -> bool:
    """Whether one of them is a thing of its own, whatever it stands beside."""
    return not word_list("things").isdisjoint(map(singular, nouns))


@cache
def _own_nouns() -> frozenset[str]:
    return word_list("parts") | word_list("colour_cues") | word_list("any_product")
