"""Whether a text claims more than its row says.

Every claim of a checkable kind (numbers, materials, colours, brands and names, certificates, warranties, origin,
compatibility) must be supported by the title, the chosen attributes or the category: said there, said there in other
words or another unit, or a case of what is said there. What is not checkable, such as `perfect for travel`, passes.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from enrich.products import Product
from enrich.quality.claims import Certified, Claim, Code, Counted, MadeOf, Named, Said, Warranty
from enrich.quality.lexicon import LANGUAGES, Found, Language, Lexicon, language_of, word_list
from enrich.quality.names import names
from enrich.quality.others import Others
from enrich.quality.phrases import Phrase, phrases
from enrich.quality.quantities import Quantity, quantities
from enrich.quality.row import Row
from enrich.quality.words import Text, Word, words_of
from enrich.settings import ClaimKind

Kind = Literal["number", "material", "colour", "brand", "certification", "warranty", "origin", "compatibility"]

# Letters and digits in one word: WX-450, IP67, 4K. A unit behind a number is none.
_CODE = re.compile(r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[^\W\d_])[^\W_]+(?:-[^\W_]+)*(?![\w-])")
# The number of an item: `2. Plastic`.
_LISTED = re.compile(r"(?:(?<=^)|(?<=[\s:;.]))\d{1,2}[.)]\s?[^\W\d]")
# Kinds of terms that claim something only with a capital, or as iPhone.
_CAPITALISED: Mapping[str, Kind] = {"name": "brand", "platform": "compatibility"}
_COMPARED = ("less", "more", "about")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|[ªº]|s)?")


@dataclass(frozen=True, slots=True)
class Span:
    """A claim that the row does not support: its kind, and its place in the text."""

    kind: Kind
    start: int
    end: int


@dataclass(frozen=True)
class Grounding:
    """The check. `terms` are an operator's own words by kind of claim, `allowed` words that never are a claim."""

    terms: Mapping[ClaimKind, Sequence[str]] = field(default_factory=dict)
    allowed: Sequence[str] = ()

    def unsupported(self, text: Text, product: Product) -> list[Span]:
        """The claims of a text that its product does not support, in order."""
        language = language_of(text.words)
        claims = list(_Reading(text, language, self.lexicons[language], self.never).claims())
        if not claims:
            return []
        row = Row(product, self.lexicons[None])
        return sorted((span for span, claim in claims if not claim.holds_in(row)), key=lambda span: span.start)

    @cached_property
    def lexicons(self) -> Mapping[Language | None, Lexicon]:
        """For texts by their language; None for all."""
        found: dict[Language | None, Lexicon] = {each: Lexicon.of([each], self._own_terms) for each in LANGUAGES}
        return {**found, None: Lexicon.of(LANGUAGES, self._own_terms)}

    @cached_property
    def never(self) -> frozenset[str]:
        """The allowed words, folded."""
        return frozenset(word for said in self.allowed for word in words_of(said))

    @cached_property
    def _own_terms(self) -> Mapping[str, Sequence[str]]:
        return {("name" if kind == "brand" else kind): spellings for kind, spellings in self.terms.items()}


_Placed = tuple[Span, Claim]


@dataclass(frozen=True)
class _Reading:
    """A text, read for claims."""

    text: Text
    language: Language | None
    lexicon: Lexicon
    never: frozenset[str]

    @property
    def words(self) -> Sequence[Word]:
        return self.text.words

    def claims(self) -> Iterator[_Placed]:
        """Every claim, with what decides whether a row supports it; of those that overlap the first kind's."""
        taken = _Taken()
        terms = list(self.lexicon.find(self.words))
        for found in terms:
            if found.term.kind == "idiom":
                taken.add(*self._place(found))
        for found in terms:
            if found.term.kind == "certification" and taken.add(*self._place(found)):
                yield Span("certification", *self._place(found)), Certified(self._text_of(found), found.term.concept)
        for phrase in phrases(self.text.text, self.text.said):
            if taken.add(phrase.start, phrase.end):
                yield Span(phrase.kind, phrase.start, phrase.end), self._of_phrase(phrase)
        yield from self._numbers(terms, taken)
        yield from self._concepts(terms, taken)
        yield from self._names(terms, taken)

    def _numbers(self, terms: Sequence[Found], taken: "_Taken") -> Iterator[_Placed]:
        counted = self._counted
        for match in _CODE.finditer(self.text.folded) if self._has_digit else ():
            if not self._is_measure(match, counted) and not _ORDINAL.fullmatch(match[0]) and taken.add(*match.span()):
                yield Span("number", *match.span()), Code("".join(filter(str.isalnum, match[0])))
        # 18k gold, prata 925.
        named = [self._place(found) for found in terms if found.term.kind == "material"]
        is_sum = not word_list("sums").isdisjoint(self.text.said)
        for each in counted:
            if (
                self._is_count(each)
                and not _LISTED.match(self.text.text, each.start)
                and not any(start <= each.start < end for start, end in named)
                and taken.add(each.start, each.end)
            ):
                yield Span("number", each.start, each.end), Counted(each, self._compared(each), is_sum)

    def _is_count(self, each: Quantity) -> bool:
        """Whether a number claims something: any in digits or with a unit, a written out one if it counts parts."""
        if each.unit is not None or self.text.folded[each.start].isdigit():
            return True
        before, after = self._around(each)
        # Three oversized glasses.
        counts = after[1] if after[0] in word_list("adjectives") else after[0]
        return counts in word_list("counted") or (before[0] in ("of", "de", "com") and before[1] in word_list("set_of"))

    def _compared(self, each: Quantity) -> str:
        """`less`, `more` or `about` where the number is a bound or a rough one; else empty."""
        before, after = self._around(each)
        if after == ("or", "so"):
            return "about"
        if before[0] == "than":
            return "more" if before[1] == "more" else "less"
        if before[0] == "de":
            return next((what for what in _COMPARED if before[1] in word_list(what)), "")
        return next((what for what in _COMPARED if before[0] in word_list(what)), "")

    def _around(self, each: Quantity) -> tuple[tuple[str, str], tuple[str, str]]:
        """The two words before a number, the nearer first, and the two behind it."""
        first = bisect_left(self._starts, each.start)
        last = bisect_left(self._starts, each.end)
        before = [*(word.text for word in reversed(self.words[max(0, first - 2) : first])), "", ""]
        after = [*(word.text for word in self.words[last : last + 2]), "", ""]
        return (before[0], before[1]), (after[0], after[1])

    @cached_property
    def _starts(self) -> list[int]:
        return [word.start for word in self.words]

    @cached_property
    def _counted(self) -> list[Quantity]:
        return quantities(self.text.folded, self.words)

    @property
    def _has_digit(self) -> bool:
        return any(map(str.isdigit, self.text.folded))

    @staticmethod
    def _is_measure(match: re.Match[str], counted: Sequence[Quantity]) -> bool:
        """Whether a number and its unit, or numbers with an x between them, are the whole of a word."""
        if re.fullmatch(r"\d+(?:x\d+)+", match[0]):
            return True
        return any(each.start == match.start() and each.unit is not None for each in counted) or (
            # 6-piece, 3-in-1, two numbers and plain words.
            bool(re.fullmatch(r"\d+(?:-[^\W\d_]{2,})+(?:-\d+)?", match[0]))
        )

    def _concepts(self, terms: Sequence[Found], taken: "_Taken") -> Iterator[_Placed]:
        others = Others(self.text, self.language, self.lexicon)
        for found in terms:
            kind, place, said = found.term.kind, self._place(found), self._text_of(found)
            if kind not in ("colour", "material") or others.has(found):
                continue
            things = others.things(found)
            if not self._is_meant(found, others) or self.never.issuperset(said) or not taken.add(*place):
                continue
            claim = Said(said, found.term.concept, things)
            if kind == "material":
                claim = MadeOf(said, found.term.concept, things, self._is_told(found, others))
            yield Span(kind, *place), claim

    def _is_told(self, found: Found, others: Others) -> bool:
        """Whether a material is said to be what a thing, or a part of it, is made of."""
        (before, after), parts = others.beside(found), word_list("parts")
        near = {word.text for word in self.words[max(0, found.first - 2) : found.first]}
        return after in parts or before in word_list("made") or not near.isdisjoint(parts)

    def _is_meant(self, found: Found, others: Others) -> bool:
        """Whether a word that may be a colour or a material is meant as one."""
        term, (before, after) = found.term, others.beside(found)
        if term.exact and self.text.text[slice(*self._place(found))].lower() != term.exact:
            return False
        if not term.unsure:
            return True
        parts = word_list("parts")
        if term.kind == "material":
            return after in parts or before in word_list("made_of")
        cues = word_list("colour_cues")
        if after in cues or before in cues or after in word_list("dyed") or self._is_band_of(found):
            return True
        if before in word_list("shades"):
            return not (term.is_food and before in word_list("flavours"))
        named = self.lexicon.alone(before) if before else None
        if named and named.kind == "material":
            # Poliéster laranja.
            return True
        # Carcaça laranja; an orange body is one of oranges, perhaps.
        return before in parts or (after in parts and not term.is_food)

    def _is_band_of(self, found: Found) -> bool:
        """Bands of coral, listras de laranja."""
        if found.first < 2:
            return False
        whose, joint = (self.words[at].text for at in (found.first - 2, found.first - 1))
        return joint in ("of", "de") and whose in word_list("bands")

    def _names(self, terms: Sequence[Found], taken: "_Taken") -> Iterator[_Placed]:
        for found in terms:
            start, end = self._place(found)
            # A known name is one only with its capital: `apple` is a fruit.
            kind = _CAPITALISED.get(found.term.kind)
            if kind and not self.text.text[start : start + 2].islower() and taken.add(start, end):
                yield Span(kind, start, end), Said(self._text_of(found), found.term.concept)
        for first, last in names(self.text.text, self.words):
            start, end = self.words[first].start, self.words[last - 1].end
            tokens = [word.text for word in self.words[first:last]]
            if not self.never.issuperset(tokens) and taken.add(start, end):
                yield Span("brand", start, end), Said(tokens, "")

    def _of_phrase(self, phrase: Phrase) -> Claim:
        inside = [word for word in self.words if phrase.start <= word.start < phrase.end]
        counted = [each for each in self._counted if phrase.start <= each.start < phrase.end]
        named = [word.text for word in inside if phrase.named[0] <= word.start < phrase.named[1]]
        if phrase.kind == "warranty":
            return Warranty(counted, [word.text for word in inside])
        nothing = word_list("small")
        if phrase.kind == "compatibility":
            nothing |= word_list("no_names")
        return Named([each for each in named if each not in nothing])

    def _place(self, found: Found) -> tuple[int, int]:
        return self.words[found.first].start, self.words[found.last - 1].end

    def _text_of(self, found: Found) -> list[str]:
        return [word.text for word in self.words[found.first : found.last]]


class _Taken:
    """Places of a text that some claim, or an idiom, has already."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> bool:
        """Takes a place; False where a part of it is taken."""
        if any(start < other_end and other_start < end for other_start, other_end in self._places):
            return False
        self._places.append((start, end))
        return True
