"""The first rules: what keeps nonsense out until a text can be checked against its row."""

import re
import unicodedata
from dataclasses import dataclass

# Stored with every verdict: another policy makes the old verdicts void, at no cost for the GPU.
POLICY = "1"

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_SPACES = re.compile(r"[^\S\n]+")
_BREAKS = re.compile(r"\s*\n\s*\n\s*")
# What a model repeats of its prompt's form when it does not stop in time, and half a character where it was cut.
_LEFTOVER = r"(?:\s|\[/?INST\]|</?s>|<\|\w+\|>|\ufffd)+"
_AT_START = re.compile(_LEFTOVER)
_AT_END = re.compile(rf"{_LEFTOVER}\Z")
_LAST_OF_LEFTOVER = "]>\ufffd"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be published of a completion (None: nothing), and the codes that speak against it."""

    text: str | None
    flags: tuple[str, ...] = ()
    score: int | None = None


def judge(completion: str, ended: str) -> Verdict:
    """Tidies white space, control characters and what is left of the prompt's form at the ends; alters nothing else.

    Flags: `empty` (nothing is left, so nothing may be published), `cut_off` (the length limit ended it).
    """
    text = _without_leftovers(_spaced(_without_control(completion)))
    if not text:
        return Verdict(None, ("empty",))
    return Verdict(text, ("cut_off",) if ended == "length" else ())


# Most texts have nothing to mend: these look before they go through one.


def _without_control(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub("", unicodedata.normalize("NFC", text))


def _spaced(text: str) -> str:
    if text.isprintable() and text.isascii() and "  " not in text:
        return text
    return _BREAKS.sub("\n\n", _SPACES.sub(" ", text))


def _without_leftovers(text: str) -> str:
    start = _AT_START.match(text)
    text = text[start.end() :] if start else text
    if text and (text[-1].isspace() or text[-1] in _LAST_OF_LEFTOVER):
        return _AT_END.sub("", text)
    return text
