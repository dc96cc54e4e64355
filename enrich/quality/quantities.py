"""Numbers with their units, as product texts write them: 30 cm, 9/16", 2,5 kg, 12 x 8 in, three litres, meio quilo.

Two quantities say the same when one converts into the other: exactly within a system of units (1500 ml is 1.5 l), as
far as rounding goes between two (34 oz is about a litre).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from enrich.quality.lexicon import read_list
from enrich.quality.words import Word

# Between systems people round: to the places that they write, within 3 %, and always within 1 %.
_ALWAYS, _ROUNDED = 0.01, 0.03
_EXACT = 1e-6


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of measure: `factor` is how many of the base unit of its dimension it is."""

    name: str
    dimension: str
    system: str
    factor: float


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, what it counts (None: no unit that is known follows it), and where it stands."""

    value: float
    unit: Unit | None
    start: int
    end: int
    places: int = 0


@cache
def units() -> dict[str, Unit]:
    """The units by their spellings, folded and without the plural's s."""
    return {
        spelling: Unit(name, dimension, system, factor)
        for name, (dimension, system, factor, spellings) in read_list("units").items()
        for spelling in spellings.split()
    }


NUMBER_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100, "dozen": 12,
    "dois": 2, "duas": 2, "tres": 3, "quatro": 4, "cinco": 5, "seis": 6, "sete": 7, "oito": 8, "nove": 9, "dez": 10,
    "onze": 11, "doze": 12, "quinze": 15, "vinte": 20, "trinta": 30, "quarenta": 40, "cinquenta": 50, "cem": 100,
    "duzia": 12, "duzias": 12,
}  # fmt: skip
_TENS = {20, 30, 40, 50}
_ONE = {"one", "um", "uma"}
_DOZEN = {"dozen", "duzia", "duzias"}
_HALF = {"half", "meio", "meia"}
# What a row may say in the place of a number; in a text they claim nothing that could be checked.
_SAID_AS = {
    "single": 1, "one": 1, "um": 1, "uma": 1, "unico": 1, "double": 2, "dual": 2, "twin": 2, "pair": 2, "duo": 2,
    "duplo": 2, "dupla": 2, "par": 2, "triple": 3, "trio": 3, "triplo": 3, "tripla": 3, "quad": 4, "quadruple": 4,
    "half": 0.5, "meio": 0.5, "meia": 0.5, "bi": 2, "tri": 3,
}  # fmt: skip

# The length of a run is bounded: what it is worth is computed, and a title is anybody's input.
_NUMBER = r"""
    (?:\d{1,9}[ -])?\d{1,9}/[1-9]\d{0,8}
  | [1-9]\d{0,2}(?:,\d{3}){1,4}(?!\d)(?:\.\d{1,9})?
  | [1-9]\d{0,2}(?:\.\d{3}){1,4}(?!\d)(?:,\d{1,9})?
  | \d{1,15}(?:[.,]\d{1,9})?
"""
# Thousands apart, as in English and in Portuguese.
_BY_COMMAS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_BY_POINTS = re.compile(r"[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?")
# `2 in 1` and `comes in 3 in the box` are no inches, `12 in wide` is.
_NO_INCH = r"(?!in(?:-|\s+(?!(?:x|by|w|h|l|d|wide|long|high|tall|deep|thick|diameter)\b)\w))"
_UNIT = "|".join(re.escape(each) for each in sorted(units(), key=len, reverse=True))
_QUANTITY = re.compile(
    rf"(?:(?<![^\W\d_])|(?<=\dx))(?P<number>{_NUMBER})(?:[\s-]?(?P<fluid>fl\.?\s*(?=oz))?{_NO_INCH}(?P<unit>{_UNIT})(?:(?<=[^\W\d_])s)?(?!\w))?"
    r"(?P<half>\s+e\s+meio|\s+e\s+meia)?",
    re.VERBOSE,
)
_CHAINED = re.compile(r"\s*(?:x|×|by|to|por|a|e|and|-|–|/)\s*")
_THOUSAND = re.compile(r"\s+(?:mil|thousand)\b")
_AND_A_HALF = re.compile(r"\s+(?:e\s+mei[oa]|and\s+a\s+half)\b")
_DIGIT = re.compile(r"\d")


def quantities(folded: str, words: Sequence[Word] = ()) -> list[Quantity]:
    """Every number of a folded text, in order. In `12 x 8 cm` and `10-15 kg` all numbers have the unit of the last.

    With the text's words, numbers that are written out are found too.
    """
    found = _in_digits(folded) if _DIGIT.search(folded) else []
    spelt = _in_words(folded, words) if words else []
    return sorted([*found, *spelt], key=lambda each: each.start) if spelt else found


def _in_digits(folded: str) -> list[Quantity]:
    matches = list(_QUANTITY.finditer(folded))
    known = units()
    found_units = [known.get(match["unit"] or "") for match in matches]
    for at, match in enumerate(matches):
        if match["fluid"]:
            found_units[at] = known["floz"]
    for at in range(len(matches) - 2, -1, -1):
        if found_units[at] is None and _CHAINED.fullmatch(folded, matches[at].end(), matches[at + 1].start()):
            found_units[at] = found_units[at + 1]
    return [
        Quantity(
            _worth(match, folded),
            unit,
            match.start("number"),
            match.end("unit") if match["unit"] else match.end("number"),
            _places(match["number"]),
        )
        for match, unit in zip(matches, found_units, strict=True)
    ]


def _worth(match: re.Match[str], folded: str) -> float:
    value = _value(match["number"]) + (0.5 if match["half"] else 0)
    return value * 1000 if _THOUSAND.match(folded, match.end("number")) else value


def _in_words(folded: str, words: Sequence[Word]) -> list[Quantity]:
    found = (_in_word(folded, words, at) for at in range(len(words)))
    return [each for each in found if each]


def _in_word(folded: str, words: Sequence[Word], at: int) -> Quantity | None:
    """The number that ends with a word, if one does."""
    word = words[at]
    if word.text in NUMBER_WORDS:
        value = _number(words, at)
        return None if value is None else _counting(folded, words, at, value, word.start)
    if word.text in _HALF:
        # Half a kilo: in English an article lies between.
        last = at + 1 if at + 1 < len(words) and words[at + 1].text in ("a", "an") else at
        unit = _unit_after(words, last)
        return Quantity(0.5, unit, word.start, words[last + 1].end, 1) if unit and unit.dimension != "time" else None
    if word.text not in _ONE:
        return None
    unit, tens = _unit_after(words, at), NUMBER_WORDS.get(words[at - 1].text, 0) if at else 0
    if tens in _TENS:
        return Quantity(tens + 1, unit, words[at - 1].start, words[at + 1].end if unit else word.end)
    # `In one minute` is a manner of speaking.
    return _counting(folded, words, at, 1, word.start) if unit and unit.dimension != "time" else None


def _number(words: Sequence[Word], at: int) -> float | None:
    """What a number word is worth with those before it; None where it only begins a number that goes on."""
    value: float = NUMBER_WORDS[words[at].text]
    before = words[at - 1].text if at else ""
    after = words[at + 1].text if at + 1 < len(words) else ""
    if value == 12 and at and {before, words[max(0, at - 2)].text} & _HALF:
        value = 6
    if after in _DOZEN or (value in _TENS and (NUMBER_WORDS.get(after, 10) < 10 or after == "one")):
        return None
    tens = NUMBER_WORDS.get(before, 0)
    if value < 10 and tens in _TENS:
        value += tens
    return value * tens if words[at].text in _DOZEN and tens else value


def _counting(folded: str, words: Sequence[Word], at: int, value: float, start: int) -> Quantity:
    """A number that ends with a word, and the unit behind it."""
    unit = _unit_after(words, at)
    end = words[at + 1].end if unit else words[at].end
    return Quantity(_halved(folded, value, end), unit, start, end)


def _halved(folded: str, value: float, end: int) -> float:
    return value + 0.5 if _AND_A_HALF.match(folded, end) else value


def _unit_after(words: Sequence[Word], at: int) -> Unit | None:
    # Spellings of one or two letters are words of their own too: `two in a box`.
    if at + 1 >= len(words) or len(words[at + 1].text) < 3:
        return None
    text, known = words[at + 1].text, units()
    return known.get(text) or known.get(text.removesuffix("s"))


def said_as_words(words: Iterable[Word]) -> set[float]:
    """The numbers that a row says in other words: a pair, a trio, double."""
    return {_SAID_AS[word.text] for word in words if word.text in _SAID_AS}


def agree(claim: Quantity, known: Quantity) -> bool:
    """Whether a row that says `known` supports a text that says `claim`; any unit supports a number without one."""
    if claim.unit is None:
        return _equal(claim.value, known.value)
    if known.unit is None:
        return False
    if claim.unit.name == known.unit.name:
        return _equal(claim.value, known.value)
    return any(
        _converts(claim, claimed, known, said)
        for claimed in _readings(claim.unit)
        for said in _readings(known.unit)
        if claimed.dimension == said.dimension
    )


def _converts(claim: Quantity, claimed: Unit, known: Quantity, said: Unit) -> bool:
    value = known.value * said.factor / claimed.factor
    return _equal(claim.value, value) or (claimed.system != said.system and _rounds_to(claim, value))


def _readings(unit: Unit) -> tuple[Unit, ...]:
    # An ounce without a word is a measure of weight or of volume, as the shop means it.
    return (unit, units()["floz"]) if unit.name == "oz" else (unit,)


def _rounds_to(claim: Quantity, value: float) -> bool:
    distance = abs(claim.value - value) / max(abs(value), 1e-12)
    return distance <= _ALWAYS or (distance <= _ROUNDED and round(value, claim.places) == claim.value)


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= _EXACT * max(abs(one), abs(other))


def _places(number: str) -> int:
    return 0 if "/" in number or _is_grouped(number) else len(number.replace(",", ".").partition(".")[2])


def _is_grouped(number: str) -> bool:
    return bool(_BY_COMMAS.fullmatch(number) or _BY_POINTS.fullmatch(number))


def _value(number: str) -> float:
    if "/" in number:
        whole, _, fraction = number.replace("-", " ").rpartition(" ")
        numerator, denominator = fraction.split("/")
        return (int(whole) if whole else 0) + int(numerator) / int(denominator)
    if _BY_COMMAS.fullmatch(number):
        return float(number.replace(",", ""))
    if _BY_POINTS.fullmatch(number):
        number = number.replace(".", "")
    return float(number.replace(",", "."))
