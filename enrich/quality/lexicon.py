"""What counts as a claim, by kind: colours, materials, certificates, known names; and what only sounds like one.

The lists are data (`lexicons/`), in English and Portuguese. Both languages name the same concepts, so that a text may
be in one and its row in the other.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from enrich.quality.words import Word, fold, singular, words_of

Kind = Literal["colour", "material", "certification", "name", "platform", "idiom"]
Language = Literal["en", "pt"]
LANGUAGES: tuple[Language, ...] = ("en", "pt")


@dataclass(frozen=True, slots=True)
class Term:
    """A spelling of a concept.

    `unsure`: a claim only next to a word that shows it is meant so; `is_food`: not even behind the name of a shade.
    `exact`: the letters that it must have where accents count.
    """

    words: tuple[str, ...]
    kind: Kind
    concept: str
    unsure: bool = False
    is_food: bool = False
    exact: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A term in a text: its words are those from `first` up to `last`, which is not one of them."""

    term: Term
    first: int
    last: int


class _Beginning(NamedTuple):
    """What begins with a word: the word alone, and longer terms by their second word, the longest first."""

    alone: Term | None
    longer: Mapping[str, Sequence[Term]]


@dataclass(frozen=True)
class Lexicon:
    """Terms by their first word."""

    beginnings: Mapping[str, _Beginning]

    @classmethod
    def of(cls, languages: Sequence[Language], more: Mapping[str, Sequence[str]]) -> "Lexicon":
        """The terms of some languages; `more` are an operator's own, by kind."""
        terms: dict[tuple[str, ...], Term] = {}
        for term in (*(each for language in languages for each in _read(language)), *_own(more)):
            terms.setdefault(term.words, term)
        found: dict[str, tuple[list[Term], dict[str, list[Term]]]] = {}
        for term in sorted(terms.values(), key=lambda each: -len(each.words)):
            alone, longer = found.setdefault(term.words[0], ([], {}))
            (longer.setdefault(singular(term.words[1]), []) if len(term.words) > 1 else alone).append(term)
        return cls({first: _Beginning(next(iter(alone), None), longer) for first, (alone, longer) in found.items()})

    def find(self, words: Sequence[Word]) -> Iterator[Found]:
        """The terms of a text, the longest at each place; idioms too, whose words are no claims."""
        at, count = 0, len(words)
        while at < count:
            beginning = self._beginning(words[at].text)
            term = beginning and (_longer(beginning, words, at) or beginning.alone)
            if term:
                yield Found(term, at, at + len(term.words))
                at += len(term.words)
            else:
                at += 1

    def alone(self, word: str) -> Term | None:
        """The term that a word is by itself."""
        beginning = self._beginning(word)
        return beginning.alone if beginning else None

    def _beginning(self, word: str) -> _Beginning | None:
        found = self.beginnings.get(word)
        return found or (self.beginnings.get(singular(word)) if word[-1] == "s" else None)


def _longer(beginning: _Beginning, words: Sequence[Word], at: int) -> Term | None:
    if not beginning.longer or at + 1 >= len(words):
        return None
    for term in beginning.longer.get(singular(words[at + 1].text), ()):
        rest = term.words[2:]
        said = words[at + 2 : at + len(term.words)]
        if len(said) == len(rest) and all(_same(word.text, each) for word, each in zip(said, rest, strict=True)):
            return term
    return None


def _same(word: str, expected: str) -> bool:
    return word == expected or singular(word) == singular(expected)


def language_of(words: Sequence[Word]) -> Language | None:
    """English or Portuguese, by its commonest words; None when it is neither, or too short to tell."""
    said = [word.text for word in words]
    counts = {language: sum(map(word_list(f"telling_{language}").__contains__, said)) for language in LANGUAGES}
    best = max(LANGUAGES, key=lambda language: counts[language])
    others = sum(counts.values()) - counts[best]
    return best if counts[best] >= 2 and counts[best] > 2 * others else None


@cache
def word_list(name: str) -> frozenset[str]:
    """A list of folded words, by its name in `words.toml`."""
    return frozenset(read_list("words")[name].split())


@cache
def countries() -> Mapping[str, frozenset[str]]:
    """By every name and adjective of a country all of them."""
    named = (frozenset(line.split()) for line in read_list("words")["countries"].strip().splitlines())
    return {name: country for country in named for name in country}


def wider(concept: str) -> Sequence[str]:
    """What a concept is a kind of: navy is blue, oak is wood."""
    return _within().get(concept, ())


@cache
def _within() -> dict[str, tuple[str, ...]]:
    table = read_list("within")
    found: dict[str, tuple[str, ...]] = {}
    for kind in table.values():
        for concept, named in kind.items():
            found[concept] = (*found.get(concept, ()), *(each.strip() for each in named.split(",")))
    return found


@cache
def _read(language: Language) -> tuple[Term, ...]:
    return tuple(
        term
        for kind, concepts in read_list(language).items()
        for concept, spellings in concepts.items()
        for spelling in spellings.split(",")
        for term in _terms(spelling.strip(), kind, concept, language)
    )


def _own(more: Mapping[str, Sequence[str]]) -> Iterator[Term]:
    for kind, spellings in more.items():
        for spelling in spellings:
            yield from _terms(spelling, kind, fold(spelling), "en")


def _terms(spelling: str, kind: str, concept: str, language: Language) -> Iterator[Term]:
    sign = spelling[: len(spelling) - len(spelling.lstrip("?="))]
    spelling = spelling.removeprefix(sign)
    exact = spelling if sign == "=" else ""
    base = tuple(words_of(spelling))
    for form in dict.fromkeys(_forms(base, kind) if language == "pt" else [base]):
        yield Term(form, kind, concept, sign.startswith("?"), sign == "??", exact)  # type: ignore[arg-type]


def _forms(base: tuple[str, ...], kind: str) -> Iterator[tuple[str, ...]]:
    """Portuguese bends adjectives: preto, preta, pretos, pretas; azul, azuis; aprovado pela, aprovadas pela."""
    yield base
    if kind == "colour":
        *before, last = base
        for ending in _ENDINGS.get(last[-1], ("",)):
            yield (*before, (last[:-1] if ending else last) + ending)
    for ending in ("a", "os", "as"):
        yield tuple(word[:-1] + ending if word.endswith(_PARTICIPLE) else word for word in base)


_ENDINGS = {"o": ("a", "os", "as"), "l": ("is",), "m": ("ns",), "r": ("res",), "z": ("zes",)}
_PARTICIPLE = "ado"


@cache
def read_list(name: str) -> dict[str, Any]:
    """What a file of `lexicons/` holds."""
    return tomllib.loads((files("enrich.quality") / "lexicons" / f"{name}.toml").read_text(encoding="utf-8"))
