"""What no description may hold, whatever its product: leftovers of the prompt, repetition, links, prices, people.

Each rule is a code of `enrich_flags`. They look at the text; `grounding` holds it against its row.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from enrich.products import Product
from enrich.quality.lexicon import LANGUAGES, Language, language_of, word_list
from enrich.quality.words import Text, words_of
from enrich.settings import Code

_NGRAM = 4
_MOST_REPEATED = 0.2
_ADDED_WORDS = 3
_WORDS_TO_TELL_A_LANGUAGE = 12

_DIGITS = "0123456789"
# Each is looked for only where one of its signs stands.
_PATTERNS: dict[Code, tuple[Sequence[str], re.Pattern[str]]] = {
    "html": ("<&", re.compile(r"</?[a-zA-Z][^<>]{0,200}>|&(?:[a-zA-Z]{2,10}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")),
    "prompt_leftover": (
        ("[", "<", "#", "{", ":", "as an ai", "como um", "description"),
        re.compile(
            r"\[/?INST\]|</?s>|<\|[^|]{0,40}\|>|<</?SYS>>|###\s*\w+|\{(?:title|description|attributes|t[ií]tulo)\}"
            r"|^\s*(?:user|assistant|system|human|title|description|t[ií]tulo|descri[çc][ãa]o|product|produto)\s*:"
            r"|\bas an ai\b|\bcomo uma? (?:ia|intelig[êe]ncia artificial|modelo de linguagem)\b"
            r"|\bhere(?:'s| is) (?:a|the) (?:product )?description\b",
            re.IGNORECASE | re.MULTILINE,
        ),
    ),
    "url": (
        (":", "www.", ".com", ".net", ".org", ".io", ".shop", ".store", ".info", ".biz"),
        re.compile(r"https?:|www\.|\w\.(?:com|net|org|io|shop|store|info|biz)(?:\.\w\w)?(?!\w)", re.IGNORECASE),
    ),
    "email": ("@", re.compile(r"[\w.+-]{1,64}@[\w-]+\.\w+")),
    "phone": (
        _DIGITS,
        re.compile(
            r"(?<![\w.,])(?:\+\d{1,3}[\s.-]?)?\(\d{2,4}\)[\s.-]?\d{3,5}[\s.-]?\d{4}(?!\d)"
            r"|(?<![\w.,])\+\d{1,3}(?:[\s.-]?\d{2,5}){2,4}(?!\d)|(?<![\w.,-])\d{3}[\s.-]\d{3}[\s.-]\d{4}(?!\d)"
            r"|(?<![\w.,-])(?:1-)?(?:800|0800)[\s-]\d{3}[\s-]?\d{4}(?!\d)|(?<![\w.,-])\d{2}\s9?\d{4}-\d{4}(?!\d)"
        ),
    ),
    # CPF, CNPJ, social security number, card, IBAN.
    "personal_data": (
        _DIGITS,
        re.compile(
            r"(?<!\d)(?:\d{3}\.\d{3}\.\d{3}-\d{2}|\d{2}\.\d{3}\.\d{3}/\d{4}-\d{2}|\d{3}-\d{2}-\d{4})(?!\d)"
            r"|(?<!\d)(?:\d{4}[ -]){3}\d{4}(?!\d)|\b[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){3,7}\b"
        ),
    ),
    "price": (
        ("$", "€", "£", "dollar", "euro", "reais", "usd", "eur", "brl", "cents", "bucks"),
        re.compile(
            r"(?:R\$|US\$|[$€£])\s?\d[\d.,]*|\b\d+(?:[.,]\d+)?\s?(?:dollars?|euros?|reais|usd|eur|brl|cents|bucks)\b",
            re.IGNORECASE,
        ),
    ),
}
_AVAILABLE = re.compile(
    r"""\b(?:
        (?:in|out[ ]of)[ ]stock | free[ ](?:\w+[ ])?(?:shipping|delivery|returns) | (?:same|next)[- ]day[ ]delivery
      | ships?[ ](?:today|free|within|in[ ]\d|worldwide) | order[ ](?:now|today|yours) | buy[ ](?:now|today|yours)
      | limited[- ]time | on[ ]sale | special[ ]offer | discount(?:ed|s)? | while[ ]supplies[ ]last
      | add[ ](?:it[ ])?to[ ](?:your[ ])?cart | (?:best|lowest|unbeatable|low|great|affordable)[ ]prices? | sold[ ]out
      | available[ ](?:now|today|immediately) | great[ ]deal
      | em[ ]estoque | frete[ ](?:grátis|gratuito|incluso) | entrega[ ](?:rápida|grátis|imediata|em[ ]\d+|garantida)
      | pronta[ ]entrega | (?:compre|peça|garanta|adquira)[ ](?:já|agora|hoje|o[ ]seu|a[ ]sua|sua?|seus?)
      | promoç(?:ão|ões) | descontos? | ofertas? | últimas[ ]unidades | esgotad[oa] | (?:ao|no)[ ]carrinho
      | parcel(?:e|as|amento) | melhor(?:es)?[ ]preços? | preços?[ ](?:baixo|imbatível|acessível|especial)
      | disponível[ ](?:agora|para[ ]entrega)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_I = re.compile(r"(?<![\w'’.&/-])I(?:['’](?:m|ve|d|ll))?\s+[a-z]{2,}")


@dataclass(frozen=True)
class Rules:
    """The rules of an operator: `forbidden` claims by what the row must say for them, by locale, or by `*`;
    `instruction` are the template's own words."""

    locale: Language | None
    min_chars: int
    max_chars: int | None
    forbidden: Mapping[str, Sequence[str]]
    instruction: Sequence[str]

    def own(self, text: Text, product: Product) -> Iterator[Code]:
        """What the operator asks for: lengths and forbidden claims."""
        if len(text.text) < self.min_chars:
            yield "too_short"
        if self.max_chars is not None and len(text.text) > self.max_chars:
            yield "too_long"
        if self.forbidden and any(_says(text, claim) for claim in self._forbidden_for(product)):
            yield "forbidden_claim"

    def general(self, text: Text, product: Product) -> Iterator[Code]:
        """What no description may hold."""
        said = text.said
        for code, (signs, pattern) in _PATTERNS.items():
            is_there = any(map(text.folded.__contains__, signs)) and pattern.search(text.text)
            # A $50 gift card may say what it is.
            if is_there and not (code == "price" and _in_title(pattern, text.text, product)):
                yield code
        if not word_list("cues_availability").isdisjoint(said) and _AVAILABLE.search(text.text):
            yield "availability"
        yield from self._of_words(text, product)

    def _of_words(self, text: Text, product: Product) -> Iterator[Code]:
        words = [word.text for word in text.words]
        if _copies(words, words_of(product.title)):
            yield "title_repeated"
        if _echoes(words, self.instruction):
            yield "instruction_echoed"
        if repetition(words) > _MOST_REPEATED:
            yield "repetition"
        language = language_of(text.words)
        if self.locale and language != self.locale and (language or len(words) >= _WORDS_TO_TELL_A_LANGUAGE):
            yield "wrong_language"
        if any(_speaks_for_itself(text, each) for each in ((language,) if language else LANGUAGES)):
            yield "first_person"

    def _forbidden_for(self, product: Product) -> Iterator[str]:
        for where, claims in self.forbidden.items():
            if where in ("*", self.locale) or _row_says(product, where):
                yield from claims


def copies_title(text: str, title: str) -> bool:
    """Whether a text is the title, or begins with it and adds fewer than three words."""
    return _copies(words_of(text), words_of(title))


def repetition(words: Sequence[str]) -> float:
    """The share of the 4-grams of words that were said before; 0 for a text too short to have any."""
    grams = list(zip(*(words[at:] for at in range(_NGRAM)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _copies(said: Sequence[str], title: Sequence[str]) -> bool:
    return said[: len(title)] == title and len(said) - len(title) < _ADDED_WORDS


def _echoes(words: Sequence[str], instruction: Sequence[str]) -> bool:
    if len(instruction) < _NGRAM:
        return False
    asked = {tuple(instruction[at : at + _NGRAM]) for at in range(len(instruction) - _NGRAM + 1)}
    return not asked.isdisjoint(zip(*(words[at:] for at in range(_NGRAM)), strict=False))


def _speaks_for_itself(text: Text, language: Language) -> bool:
    if language == "en" and _I.search(text.text):
        return True
    return not word_list(f"first_person_{language}").isdisjoint(text.said)


def _says(text: Text, claim: str) -> bool:
    wanted = words_of(claim)
    if text.said.issuperset(wanted):
        said = [word.text for word in text.words]
        return any(said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1))
    return False


def _row_says(product: Product, what: str) -> bool:
    wanted = set(words_of(what))
    said = (product.title, *(value for _, value in product.attributes))
    return bool(wanted) and any(wanted.issubset(words_of(each)) for each in said)


def _in_title(pattern: re.Pattern[str], text: str, product: Product) -> bool:
    """Whether every price is the product's own name: a $50 gift card."""
    return all(match[0].strip(".,") in product.title for match in pattern.finditer(text))
