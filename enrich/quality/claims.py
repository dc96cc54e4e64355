"""Kinds of claims, and when a row supports one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from enrich.quality.lexicon import countries, word_list
from enrich.quality.quantities import Quantity
from enrich.quality.row import Row


class Claim(Protocol):
    """Something that a text says; `holds_in` tells whether a row supports it."""

    def holds_in(self, row: Row) -> bool: ...


@dataclass(frozen=True)
class Certified:
    """A certificate: its name counts, not the words that every certificate has."""

    tokens: Sequence[str]
    concept: str

    def holds_in(self, row: Row) -> bool:
        naming = [token for token in self.tokens if token not in word_list("any_certificate")]
        return row.is_a(self.concept) or (row.says(naming) if naming else row.says(self.tokens))


@dataclass(frozen=True)
class Said:
    """A term or a name: its words, or its concept; of `things` only if the row has one of them at all."""

    tokens: Sequence[str]
    concept: str
    things: Sequence[str] = ()

    def holds_in(self, row: Row) -> bool:
        if row.says(self.tokens) or row.is_a(self.concept):
            return True
        return bool(self.things) and not any(row.says([thing]) for thing in self.things)


@dataclass(frozen=True)
class MadeOf(Said):
    """A material; `is_told`: the text says that the thing, or a part of it, is made of it."""

    is_told: bool = False

    def holds_in(self, row: Row) -> bool:
        return super().holds_in(row) or (row.treats and not self.is_told)


@dataclass(frozen=True)
class Named:
    """A phrase that names something: every word of the name, a country by any of its names."""

    tokens: Sequence[str]

    def holds_in(self, row: Row) -> bool:
        known = countries()
        return row.has_code("".join(self.tokens)) or all(
            row.says([token]) or not row.said.isdisjoint(known.get(token, ())) for token in self.tokens
        )


@dataclass(frozen=True)
class Code:
    """A model code, its letters and digits."""

    code: str

    def holds_in(self, row: Row) -> bool:
        return row.has_code(self.code)


@dataclass(frozen=True)
class Counted:
    """A number: itself, or as the bound or the sum that the text says it is."""

    quantity: Quantity
    compared: str
    is_sum: bool

    def holds_in(self, row: Row) -> bool:
        return (
            row.counts(self.quantity)
            or (bool(self.compared) and row.bounds(self.quantity, self.compared))
            or (self.is_sum and self.quantity.unit is not None and row.adds_up_to(self.quantity))
        )


@dataclass(frozen=True)
class Warranty:
    """A warranty: the row has one, for as long, and of the kind."""

    counted: Sequence[Quantity]
    tokens: Sequence[str]

    def holds_in(self, row: Row) -> bool:
        if row.said.isdisjoint(word_list("warranty")):
            return row.says(self.tokens)
        more = word_list("warranty_for_more")
        says_more = not more.isdisjoint(self.tokens)
        return all(map(row.counts, self.counted)) and (not says_more or not row.said.isdisjoint(more))
