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
_ENDS = re.compile(rf"\A{_LEFTOVER}|{_LEFTOVER}\Z")


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
    text = _CONTROL.sub("", unicodedata.normalize("NFC", completion))
    text = _ENDS.sub("", _BREAKS.sub("\n\n", _SPACES.sub(" ", text)))
    if not text:
        return Verdict(None, ("empty",))
    return Verdict(text, ("cut_off",) if ended == "length" else ())
