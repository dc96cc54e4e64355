"""The score of a text, 0-100, and what follows from it: each code takes its points and asks for its action."""

from collections.abc import Iterable, Mapping

from enrich.settings import Action, Code

_GRAVEST: tuple[Action, ...] = ("publish", "retry", "hold")

DEDUCTIONS: Mapping[Code, tuple[int, Action]] = {
    "empty": (100, "retry"),
    "unsupported_number": (60, "retry"),
    "unsupported_certification": (60, "retry"),
    "unsupported_warranty": (60, "retry"),
    "unsupported_material": (50, "retry"),
    "unsupported_colour": (50, "retry"),
    "unsupported_brand": (50, "retry"),
    "unsupported_origin": (50, "retry"),
    "unsupported_compatibility": (50, "retry"),
    "forbidden_claim": (70, "retry"),
    "html": (60, "retry"),
    "prompt_leftover": (70, "retry"),
    "instruction_echoed": (70, "retry"),
    "title_repeated": (60, "retry"),
    "repetition": (40, "retry"),
    "wrong_language": (70, "retry"),
    "url": (60, "retry"),
    "email": (70, "retry"),
    "phone": (70, "retry"),
    "personal_data": (80, "retry"),
    "price": (60, "retry"),
    "availability": (50, "retry"),
    "first_person": (40, "retry"),
    "too_short": (30, "retry"),
    "too_long": (30, "retry"),
    "cut_off": (40, "retry"),
    "trimmed": (5, "publish"),
}
"""Points that a code takes, and what becomes of a text that has it."""


MEANINGS: Mapping[str, str] = {
    "empty": "the model wrote nothing that could be published",
    "unsupported_number": "a number or model code that the row does not have",
    "unsupported_certification": "a certificate, approval or award that the row does not have",
    "unsupported_warranty": "a warranty that the row does not have",
    "unsupported_material": "a material that the row does not have",
    "unsupported_colour": "a colour that the row does not have",
    "unsupported_brand": "a brand or another name that the row does not have",
    "unsupported_origin": "an origin that the row does not have",
    "unsupported_compatibility": "something it works with that the row does not have",
    "forbidden_claim": "a claim that the settings forbid",
    "html": "tags or entities of HTML",
    "prompt_leftover": "a piece of the prompt's form",
    "instruction_echoed": "the instruction is said again",
    "title_repeated": "it says no more than the title",
    "repetition": "it says the same again and again",
    "wrong_language": "it is not in the language of the locale",
    "url": "a link",
    "email": "an e-mail address",
    "phone": "a telephone number",
    "personal_data": "a number of a person, a company or a card",
    "price": "a price",
    "availability": "stock, shipping or an offer",
    "first_person": "it speaks of itself",
    "too_short": "shorter than the settings allow",
    "too_long": "longer than the settings allow",
    "cut_off": "the length limit ended it, and no sentence ends in it",
    "trimmed": "the length limit ended it, and it was cut back to a full sentence",
}
"""What a code says to a person."""


def score(codes: Iterable[Code]) -> int:
    """What is left of 100 points; a code counts as often as it is given."""
    return max(0, 100 - sum(DEDUCTIONS[code][0] for code in codes))


def action(codes: Iterable[Code], points: int, min_score: int, chosen: Mapping[Code, Action]) -> Action:
    """The gravest action that a code asks for; at least another attempt below `min_score`."""
    asked = [chosen.get(code, DEDUCTIONS[code][1]) for code in codes]
    if points < min_score:
        asked.append("retry")
    return max(asked, key=_GRAVEST.index, default="publish")
