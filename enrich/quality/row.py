"""What a row says, in every form that a claim may be held against."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

from enrich.products import Product
from enrich.quality.lexicon import Lexicon, wider, word_list
from enrich.quality.quantities import Quantity, agree, quantities, said_as_words, units
from enrich.quality.words import fold, singular, words

# Sums of equal parts are said for few parts, bounds near what they bound.
_MOST_PIECES, _FAIR, _ABOUT = 100, 0.6, 0.92
# Of a model code.
_MOST_PARTS = 4
_AMPERES = re.compile(r"(\d[\d.,]*)\s?A\b")
_KELVIN = re.compile(r"(\d{4,5})\s?K\b")
# A wetsuit of 3/2 mm has two thicknesses; 9/16 is one number.
_PAIRED = re.compile(r"(?<![\d/])(\d{1,3})/(\d{1,3})(?![\d/])(\s?mm\b)?")
_AGES = {"age", "ages", "idade"}


# What a row's number may be of the one that a text says, by how it says it.
_FAIR_SHARES = {"less": (_FAIR, 1), "more": (1, 1 / _FAIR), "about": (_ABOUT, 1 / _ABOUT)}


class Row:
    """A product's title, attributes and category; each form is worked out when it is first asked for."""

    def __init__(self, product: Product, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._folded = fold(" ; ".join(_parts(product)))
        self._words = words(self._folded)
        self.said = {word.text for word in self._words}

    def says(self, tokens: Iterable[str]) -> bool:
        """Whether every word stands in the row."""
        return all(token in self.said or singular(token) in self._singular for token in tokens)

    def is_a(self, concept: str) -> bool:
        """Whether the row names a concept, or a case of it."""
        return concept in self._concepts

    def counts(self, claim: Quantity) -> bool:
        """Whether the row supports a number: itself, in another unit; without a unit, with any."""
        if claim.unit is None:
            return claim.value in self._values
        if any(agree(claim, each) for each in self._quantities):
            return True
        # `6-cup pot` of a row that says `Cups: 6`, three bars of soap.
        return claim.unit.name in ("cup", "bar") and claim.value in self._values

    def adds_up_to(self, claim: Quantity) -> bool:
        """Whether equal parts that the row has make up a number: ten balls of 50 g each are half a kilo."""
        counts = [value for value in self._values if 2 <= value <= _MOST_PIECES and value == int(value)]
        return any(
            agree(claim, replace(each, value=each.value * count))
            for each in self._quantities
            if each.unit is not None
            for count in counts
            if count != each.value or count in said_as_words(self._words)
        )

    def bounds(self, claim: Quantity, compared: str) -> bool:
        """Whether a number is a fair bound of one that the row says (under one kilogram of 900 g), or about as much."""
        for each in self._quantities:
            if (claim.unit and claim.unit.dimension) == (each.unit and each.unit.dimension):
                share = each.value * _factor(each) / (claim.value * _factor(claim) or 1)
                lowest, highest = _FAIR_SHARES[compared]
                if lowest < share < highest:
                    return True
        return False

    @cached_property
    def treats(self) -> bool:
        """Whether it is a tool or a treatment, for other things of other materials."""
        return not word_list("treats").isdisjoint(self._singular)

    def has_code(self, code: str) -> bool:
        """Whether a code stands in the row, in one word or parted: WX450, WX-450, WX 450."""
        return code in self._codes

    @cached_property
    def _codes(self) -> frozenset[str]:
        said = [word.text for word in self._words]
        return frozenset(
            "".join(said[at : at + length]) for length in range(1, _MOST_PARTS + 1) for at in range(len(said))
        )

    @cached_property
    def _singular(self) -> frozenset[str]:
        return frozenset(map(singular, self.said))

    @cached_property
    def _concepts(self) -> frozenset[str]:
        found = {each.term.concept for each in self._lexicon.find(self._words) if each.term.kind != "idiom"}
        # Words of idioms and of longer terms are said all the same.
        alone = filter(None, map(self._lexicon.alone, self.said))
        found |= {term.concept for term in alone if term.kind != "idiom"}
        return frozenset({*found, *(each for concept in found for each in wider(concept))})

    @cached_property
    def _quantities(self) -> list[Quantity]:
        return quantities(self._folded, self._words)

    @cached_property
    def _values(self) -> set[float]:
        return {each.value for each in self._quantities} | said_as_words(self._words)


def _factor(quantity: Quantity) -> float:
    return quantity.unit.factor if quantity.unit else 1


def _parts(product: Product) -> Iterator[str]:
    yield product.title
    for name, value in product.attributes:
        # `weight_kg` = 2.5 says 2.5 kg, `age` = 8+ says 8 years.
        named = re.split(r"[\W_]+", name.strip(" ()[].").lower())
        last = named[-1]
        yield name.replace("_", " ")
        yield f"{value} {last}" if last in units() else value
        if not _AGES.isdisjoint(named):
            yield " ; ".join(f"{number} years" for number in re.findall(r"\d{1,3}", value))
    everything = " ; ".join((product.title, *(value for _, value in product.attributes)))
    yield " ; ".join(f"{number} amps" for number in _AMPERES.findall(everything))
    yield " ; ".join(f"{number} kelvin" for number in _KELVIN.findall(everything))
    for one, other, unit in _PAIRED.findall(everything):
        if unit or int(other).bit_count() != 1:
            yield f"{one}{unit} ; {other}{unit}"
    if "bivolt" in fold(everything):
        yield "110 V ; 127 V ; 220 V"
