"""Numbers with their units, as product texts write them: 30 cm, 9/16", 2,5 kg, 12 x 8 in.

Two quantities are equal when value and unit are, whatever their spelling. Nothing is converted: 0.3 m is not 30 cm.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from enrich.products import Product

# English and Portuguese; the plural's s is left off.
_SPELLINGS = {
    "%": "% percent",
    "mm": "mm millimetre millimeter milímetro",
    "cm": "cm centimetre centimeter centímetro",
    "m": "m metre meter metro",
    "km": "km kilometre kilometer quilômetro",
    "in": "in inch inche polegada \" ″ ” ''",
    "ft": "ft foot feet pé ' ′ ’",
    "yd": "yd yard",
    "mi": "mi mile milha",
    "mg": "mg milligram miligrama",
    "g": "g gram grama",
    "kg": "kg kilo kilogram quilo quilograma",
    "oz": "oz ounce onça",
    "lb": "lb pound libra",
    "ml": "ml millilitre milliliter mililitro",
    "cl": "cl centilitre centiliter centilitro",
    "l": "l litre liter litro",
    "gal": "gal gallon galão",
    "V": "v volt",
    "W": "w watt",
    "kW": "kw kilowatt",
    "Wh": "wh",
    "mAh": "mah",
    "A": "amp ampere",
    "Hz": "hz hertz",
    "kHz": "khz",
    "MHz": "mhz",
    "GHz": "ghz",
    "kB": "kb",
    "MB": "mb",
    "GB": "gb gigabyte",
    "TB": "tb terabyte",
    "MP": "mp megapixel",
    "lm": "lm lumen lúmen",
    "dB": "db decibel",
    "rpm": "rpm",
    "psi": "psi",
    "°C": "°c ºc",
    "°F": "°f ºf",
    "°": "° degree grau",
    "s": "sec second segundo",
    "min": "min minute minuto",
    "h": "h hr hour hora",
    "day": "day dia",
    "week": "week semana",
    "month": "month mês mese",
    "year": "yr year ano",
}
_UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
# The length of a run is bounded: what it is worth is computed, and a title is anybody's input.
_NUMBER = r"""
    (?:\d{1,9}[ -])?\d{1,9}/[1-9]\d{0,8}
  | [1-9]\d{0,2}(?:,\d{3}){1,4}(?!\d)(?:\.\d{1,9})?
  | [1-9]\d{0,2}(?:\.\d{3}){1,4}(?!\d)(?:,\d{1,9})?
  | \d{1,15}(?:[.,]\d{1,9})?
"""
# `2 in 1` and `comes in 3 in the box` are no inches, `12 in wide` is.
_NO_INCH = r"(?!in(?:-|\s+(?!(?:x|by|w|h|l|d|wide|long|high|tall|deep|thick)\b)\w))"
_UNIT = "|".join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))
# A plural's s follows a letter: the 90's are no feet.
_QUANTITY = re.compile(
    rf"(?P<number>{_NUMBER})(?:[\s-]?(?:fl\.?\s*)?{_NO_INCH}(?P<unit>{_UNIT})(?:(?<=[^\W\d_])s)?(?!\w))?",
    re.VERBOSE | re.IGNORECASE,
)
_CHAINED = re.compile(r"\s*(?:x|×|by|to|por|a|-|–)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and what it counts; no unit when none that is known follows it."""

    value: Fraction
    unit: str | None


def quantities(text: str) -> list[Quantity]:
    """Every number of a text, in order. In `12 x 8 cm` and `10-15 kg` all numbers have the unit of the last."""
    found = list(_QUANTITY.finditer(text))
    units = [_UNITS.get((match["unit"] or "").casefold()) for match in found]
    for at in range(len(found) - 2, -1, -1):
        if units[at] is None and _CHAINED.fullmatch(text, found[at].end(), found[at + 1].start()):
            units[at] = units[at + 1]
    return [Quantity(_value(match["number"]), unit) for match, unit in zip(found, units, strict=True)]


def unsupported(text: str, product: Product) -> list[Quantity]:
    """The quantities of a text that are in neither title nor attributes of its product.

    A number without a unit is supported by the same number with any: `a 6-cup pot` by `6 cups`.
    """
    known = {each for said in _said(product) for each in quantities(said)}
    values = {each.value for each in known}
    return [
        each for each in quantities(text) if each not in known and (each.unit is not None or each.value not in values)
    ]


def _said(product: Product) -> Iterator[str]:
    yield product.title
    for name, value in product.attributes:
        # `weight_kg` = 2.5 says 2.5 kg.
        last = re.split(r"[\W_]+", name.strip(" ()[]."))[-1].lower()
        yield name
        yield f"{value} {last}" if last in _UNITS else value


def _value(number: str) -> Fraction:
    if "/" in number:
        return sum(map(Fraction, re.split("[ -]", number)), Fraction())
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", number):
        return Fraction(number.replace(",", ""))
    if re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?", number):
        return Fraction(number.replace(".", "").replace(",", "."))
    return Fraction(number.replace(",", "."))
