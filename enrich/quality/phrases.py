"""Claims that are whole phrases: standards, warranties, where something is made, what it works with.

Each is found by a pattern, tried only where one of its cue words stands.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from enrich.quality.lexicon import countries, word_list
from enrich.quality.words import words_of

PhraseKind = Literal["certification", "warranty", "origin", "compatibility"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase, and the place of what it names: a country, a device."""

    kind: PhraseKind
    start: int
    end: int
    named: tuple[int, int]


_COUNT = (
    r"(?:\d+|one|two|three|four|five|six|seven|eight|ten|twelve|twenty"
    r"|um|uma|dois|duas|tr[eê]s|quatro|cinco|seis|sete|oito|dez|doze|vinte)"
)
_PERIOD = r"(?:years?|yrs?|months?|days?|weeks?|anos?|m[eê]s(?:es)?|dias?|semanas?)"
# What is named begins with a capital or a digit, whatever the case of the rest; small words may lie between.
# As in iPhone, too.
_CAPITAL = r"(?-i:[A-ZÀ-Ý0-9]|i(?=[A-Z]))"
_NAME = rf"{_CAPITAL}[\w'’+-]*(?:\s+(?:(?:of|de|da|do|and|e|or|ou|the|&)\s+)?{_CAPITAL}[\w'’+-]*)*"
_STOP = (
    r"(?:and|or|so|for|while|making|with|that|which|to|in|on|at|as|by|from|without|when|thanks|"
    r"e|ou|para|com|que|em|no|na|por|sem|gra[cç]as)\b"
)
_THING = rf"[\w'’+/-]+(?:\s+(?!{_STOP})[\w'’+/-]+){{0,4}}"
_FURTHER = rf"(?:\s*(?:,|and|or|e|ou)\s+{_CAPITAL}[\w'’+-]*(?:\s+{_CAPITAL}[\w'’+-]*)*)*"

_WARRANTY = rf"""
    (?:(?:{_COUNT}|full|a)[\s-]+)? (?:{_PERIOD}[\s-]+)?
    (?:(?:limited|full|extended|manufacturer(?:['’]s)?|international|lifetime|satisfaction|money[\s-]back|quality
        |replacement|no[\s-]questions[\s-]asked)[\s-]+)*
    \b(?P<named>warrant(?:y|ies)|(?<=year.)guarantee|guarantee(?!\s+(?:you|that|to|a|the|your|success|satisfaction)\b))\b
    (?:\s+(?:of|for)\s+(?:a\s+)?(?:{_COUNT}\s+{_PERIOD}|life))?
"""
_MONEY_BACK = r"""
    (?P<named>money[\s-]back|full\s+refund|lifetime\s+replacement|satisfaction\s+guaranteed|devolvemos\s+(?:o\s+)?seu\s+dinheiro|devolução\s+d[oe]\s+(?:seu\s+)?dinheiro
      |dinheiro\s+de\s+volta|reembolso\s+total|satisfação\s+garantida)\b
"""
_TRIAL = rf"""
    (?P<named>\b(?:\d+|{_COUNT})[\s-](?:nights?|days?|weeks?|months?)\s+to\s+(?:change\s+your\s+mind|return|send|try|decide)\b
      |\bcovers?\s+(?:repairs?|defects?|parts|faults?)(?:\s+and\s+\w+)?\s+for\s+{_COUNT}\s+{_PERIOD}
      |\b(?:repairs?|replacement)\s+(?:is|are)\s+covered\s+for\s+{_COUNT}\s+{_PERIOD}
      |\bdevolver\s+(?:em|por|dentro\s+de)\s+(?:até\s+)?(?:\d+|{_COUNT})\s+(?:noites?|dias?|semanas?)
      |\b(?:\d+|{_COUNT})\s+(?:noites?|dias?|semanas?)\s+para\s+(?:devolver|trocar|testar|experimentar|mudar\s+de\s+ideia))
"""
_GARANTIA = rf"""
    (?:{_COUNT}\s+{_PERIOD}\s+de\s+)? \b(?P<named>garantia)\b
    (?:\s+(?:de\s+fábrica|d[oe]\s+fabricante|de\s+satisfação|estendida|limitada|total|vital[ií]cia|contra\s+defeitos|internacional
        |nacional|eterna))*
    (?:\s+(?:de|por|com)\s+(?:até\s+)?{_COUNT}\s+{_PERIOD})? (?:\s+(?:vital[ií]cia|de\s+fábrica|d[oe]\s+fabricante))?
"""
_MADE_IN = r"""
    \b(?:product\s+of\s+|(?:imported|sourced)\s+from\s+|(?:made|manufactured|imported|(?:hand[\s-]?)?crafted|hand[\s-]?made|assembled|produced|sourced|grown|woven
        |built|hand[\s-]?woven|knitted|sewn|stitched|designed|brewed|roasted|harvested|picked|caught|milled|bottled|forged
        |pressed|blended|cured|smoked|aged|fermented|printed|dyed|carved|spun|tanned|hand[\s-]?(?:painted|thrown|blown|dyed|printed|carved|stitched))
    (?:\s+(?:entirely|proudly|directly|exclusively|locally|and\s+\w+|by\s+hand|with\s+care|with\s+pride|each\s+\w+|every\s+\w+))*
    \s+in\s+) (?:the\s+)?(?:[a-z]+\s+of\s+)?
    (?P<named>(?-i:[A-ZÀ-Ý])\w*(?:\s+(?-i:[A-ZÀ-Ý])\w*){0,2})
"""
_MAKERS_IN = r"""
    \b(?:artisans?|craftsm[ae]n|craftspeople|makers?|weavers?|potters?|growers?|farmers?|cobblers?|jewell?ers|tanner(?:y|ies)
      |mills?|workshops?|factor(?:y|ies)|studios?|ateliers?|foundry|distillery|brewery|artesãos|artesãs|oficinas?|fábricas?|ateliês?)
    \s+(?:in|of|em|d[aoe]|n[ao])\s+ (?P<named>(?-i:[A-ZÀ-Ý])\w*(?:\s+(?-i:[A-ZÀ-Ý])\w*){0,2})
"""
# French oak, Italian leather.
_OF_THERE = (
    r"(?:oak|walnut|beech|ash|birch|pine|maple|cherry|leather|calfskin|suede|steel|linen|cotton|wool|cashmere|silk|denim|crystal"
    r"|porcelain|ceramics?|marble|slate|cocoa|cacao|beans?|olives?|grapes?|barley|hops|craftsmanship|craftsmen|artisans|engineering)"
)
_FEITO_EM = r"""
    \b(?:fabricad|feit|importad|produzid|confeccionad|cultivad|montad|costurad|colhid|engarrafad|torrad|tecid|desenhad)[oa]s?
    (?:\s+(?:artesanalmente|à\s+mão|integralmente|inteiramente|diretamente|localmente|com\s+orgulho|e\s+\w+[oa]s?))*
    \s+(?:n[oa]s?|em|d[oa]s?|de)\s+
    (?:(?:sul|norte|leste|oeste|interior|serra|litoral|sertão|região|vale|coração)\s+d[aoe]\s+)?
    (?P<named>(?-i:[A-ZÀ-Ý])\w*(?:\s+(?:(?:de|do|da)\s+)?(?-i:[A-ZÀ-Ý])\w*){0,2})
"""
_WORKS_WITH = rf"""
    \b(?:fits?|works?(?:\s+\w+ly)?\s+with|pairs?(?:\s+\w+ly)?\s+with|syncs?\s+with|accepts?|connects?\s+(?:to|with)|integrates?\s+with|for\s+use\s+with|supports(?!\s+(?:up\b|\d)))\s+
    (?P<named>(?:all|most|any|every)\s+{_THING}|(?:your\s+|the\s+|an?\s+)?{_NAME}(?:\s+\w+(?=[.,;]))?)
"""
_SERVE_EM = rf"""
    \b(?:servem?|funcionam?|integram?(?:-se)?|encaixam?(?:-se)?|adaptam?(?:-se)?)(?:\s+(?:perfeitamente|também|bem))?\s+(?:em|com|para|a|n[oa]s?|às?|aos?)\s+
    (?P<named>(?:tod[oa]s?|qualquer|a\s+maioria)\s+(?:[oa]s?\s+|d[oa]s?\s+)?{_THING}
      |(?:(?-i:[oa]s?)\s+)?(?:[a-zà-ý]+\s+(?:de\s+[a-zà-ý]+\s+)?)?{_NAME})
"""
_STANDARD = (
    r"(?-i:\b(?P<named>(?:EN|ISO|ANSI|ASTM|DIN|BS|IEC|NBR|JIS|UL|NFPA|SAE)[\s-]?(?:ISO\s)?[A-Z]{0,2}-?\d[\w:.-]*\b))"
)
# Their names are folded, the text is not.
_ACCENTED = str.maketrans({"a": "[aáâã]", "e": "[eéê]", "i": "[ií]", "o": "[oóô]", "u": "[uú]", "c": "[cç]"})
_COUNTRY = "|".join(each.translate(_ACCENTED) for each in sorted(countries()))
_WRITTEN: list[tuple[PhraseKind, frozenset[str], list[str]]] = [
    ("certification", word_list("cues_certification"), [_STANDARD]),
    ("warranty", word_list("cues_warranty"), [_WARRANTY, _MONEY_BACK, _GARANTIA]),
    ("warranty", word_list("cues_trial"), [_TRIAL]),
    ("origin", word_list("cues_makers"), [_MAKERS_IN]),
    (
        "origin",
        word_list("cues_origin"),
        [
            _MADE_IN,
            r"\blocally[\s-](?P<named>made|manufactured|produced|sourced)\b",
            _FEITO_EM,
            r"\b(?:de\s+)?origem\s+(?P<named>[a-zà-ý]+(?:n[ao]|s[ao]|ês|esa|ol|ola|ã|ão|eir[oa]|ega|ego))\b",
        ],
    ),
    (
        "origin",
        frozenset(countries()),
        [
            rf"\b\w+(?:ed|en|wn)\s+(?:by\s+hand\s+)?in\s+(?:the\s+)?(?P<named>{_COUNTRY})\b",
            rf"\b\w+[ai]d[oa]s?\s+(?:n[oa]s?|em|d[oa]s?)\s+(?P<named>{_COUNTRY})\b",
            rf"\b(?P<named>{_COUNTRY})[\s-](?:made|crafted|manufactured|built|imported)\b",
            rf"\b(?P<named>{_COUNTRY})\s+{_OF_THERE}\b",
            rf"\b(?:comes?|hails?|straight|direct(?:ly)?)\s+from\s+(?:the\s+)?(?P<named>{_COUNTRY})\b",
            rf"\b(?:vem|vêm|veio|vinda?|direto)\s+d[aoe]s?\s+(?P<named>{_COUNTRY})\b",
        ],
    ),
    (
        "compatibility",
        word_list("cues_compatibility"),
        [
            rf"\bcompatible\s+with\s+(?P<named>{_THING}{_FURTHER})",
            _WORKS_WITH,
            rf"\b(?!\w+ly\b)(?P<named>{_NAME}(?:\s+[a-z]+)?)[\s-]compatible\b(?!\s+with)",
            rf"\b(?:designed|made|built|suitable|ready)\s+(?:to\s+fit|for)\s+(?:use\s+with\s+)?(?:(?:all|most|the|your)\s+)?"
            rf"(?P<named>{_NAME})",
            rf"\bcompat[ií]ve(?:l|is)\s+com\s+(?:(?:tod[oa]s?|a\s+maioria|[oa]s?|d[oa]s?)\s+)*(?P<named>{_THING}{_FURTHER})",
            _SERVE_EM,
            rf"\bconversam?\s+com\s+(?:[oa]s?\s+)?(?P<named>{_NAME})",
        ],
    ),
]
_PATTERNS = [
    (kind, cues, [re.compile(pattern, re.VERBOSE | re.IGNORECASE) for pattern in patterns])
    for kind, cues, patterns in _WRITTEN
]


def phrases(text: str, said: frozenset[str]) -> Iterator[Phrase]:
    """The phrases of a text; `said` are its folded words."""
    for kind, cues, patterns in _PATTERNS:
        if cues.isdisjoint(said):
            continue
        for pattern in patterns:
            for match in pattern.finditer(text):
                if kind != "compatibility" or word_list("anything").isdisjoint(words_of(match["named"])):
                    yield Phrase(kind, match.start(), match.end(), match.span("named"))
