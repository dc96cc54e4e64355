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
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
    "dois": 2, "duas": 2, "tres": 3, "quatro": 4, "cinco": 5, "seis": 6, "sete": 7, "oito": 8, "nove": 9, "dez": 10,
    "onze": 11, "doze": 12, "treze": 13, "catorze": 14, "quatorze": 14, "quinze": 15, "dezesseis": 16, "dezessete": 17,
    "dezoito": 18, "dezenove": 19, "vinte": 20, "trinta": 30, "quarenta": 40, "cinquenta": 50, "sessenta": 60,
    "setenta": 70, "oitenta": 80, "noventa": 90, "cem": 100, "cento": 100, "duzentos": 200, "duzentas": 200,
    "trezentos": 300, "trezentas": 300, "quatrocentos": 400, "quinhentos": 500, "quinhentas": 500, "seiscentos": 600,
    "setecentos": 700, "oitocentos": 800, "novecentos": 900,
}  # fmt: skip
_TIMES = {"hundred": 100, "dozen": 12, "duzia": 12, "duzias": 12, "thousand": 1000, "mil": 1000}
# Behind digits it belongs to them, or is an inch's thousandth.
_THOUSANDS = {"thousand", "mil"}
_ONE = {"one": 1, "um": 1, "uma": 1}
_AND = {"and", "e"}
_DOZEN = {"dozen", "duzia", "duzias"}
_HALVES = (("and", "a", "half"), ("e", "meio"), ("e", "meia"))
_HALF = {"half", "meio", "meia"}
_BEGIN = {*NUMBER_WORDS, *_TIMES, *_ONE, *_HALF}
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
# What a unit's spelling may mean besides.
_ALSO = {"oz": ("floz",), "deg": ("°c", "°f")}


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
    found, at = [], 0
    while at < len(words):
        if words[at].text not in _BEGIN:
            at += 1
            continue
        quantity, at = _in_words_from(folded, words, at)
        if quantity:
            found.append(quantity)
    return found


def _in_words_from(folded: str, words: Sequence[Word], first: int) -> tuple[Quantity | None, int]:
    """The number that begins with a word, if one does, and the word to go on from."""
    start, word = words[first].start, words[first].text
    value, last = _number(words, first)
    if value:
        halves = next((len(each) for each in _HALVES if _reads(words, last, each)), 0)
        return _counting(folded, words, last + halves - 1, value + (0.5 if halves else 0), start), last + halves
    if word in _HALF:
        # Half a kilo, half a dozen: in English an article lies between.
        last = first + 1 if first + 1 < len(words) and words[first + 1].text in ("a", "an") else first
        if last + 1 < len(words) and words[last + 1].text in _DOZEN:
            return _counting(folded, words, last + 1, 6, start), last + 2
        unit = _unit_after(words, last)
        if unit and unit.dimension != "time":
            return Quantity(0.5, unit, start, words[last + 1].end, 1), last + 2
    if word in _ONE:
        unit = _unit_after(words, first)
        # `In one minute` is a manner of speaking.
        if unit and unit.dimension != "time":
            return _counting(folded, words, first, 1, start), first + 1
    return None, first + 1


def _number(words: Sequence[Word], first: int) -> tuple[float, int]:
    """What number words that begin there are worth together, cento e vinte or two dozen, and the word behind them.

    0 where none begins, or only a `one`: the articles of Portuguese are spelt so.
    """
    thousands = value = 0
    last = at = first
    while at < len(words):
        word = words[at].text
        if word in _TIMES:
            if word in _THOUSANDS and at == first and at and words[at - 1].text.isdigit():
                break
            value *= _TIMES[word]
            value = value or _TIMES[word]
            if word in _THOUSANDS:
                thousands, value = thousands + value, 0
        elif (more := NUMBER_WORDS.get(word) or _ONE.get(word)) and _adds_to(thousands + value, more):
            value += more
        elif not (word in _AND and at > first):
            break
        at += 1
        if word not in _AND:
            last = at
    is_one = last == first + 1 and words[first].text in _ONE
    return (0, first + 1) if last == first or is_one else (float(thousands + value), last)


def _reads(words: Sequence[Word], at: int, expected: Sequence[str]) -> bool:
    return [word.text for word in words[at : at + len(expected)]] == list(expected)


def _adds_to(value: int, more: int) -> bool:
    """Whether a smaller number goes on a larger one: twenty and five, a hundred and twenty."""
    return value == 0 or (value >= 20 and more < value and value % 10 ** len(str(more)) == 0)


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
    # An ounce without a word is a measure of weight or of volume, and a degree of an angle or of heat, as the shop
    # means it.
    return (unit, *(units()[other] for other in _ALSO.get(unit.name, ())))


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
