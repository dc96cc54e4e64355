"""A completion as it may be published: white space, control characters and what is left of the prompt's form at the
ends are tidied away, an end that was cut off is cut back to a full sentence. Nothing else is altered."""

import re
import unicodedata

# What is invisible goes, as it does from titles.
_CONTROL = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SPACES = re.compile(r"[^\S\n]+")
_BREAKS = re.compile(r"\s*\n\s*\n\s*")
# What a model repeats of its prompt's form when it does not stop in time, and half a character where it was cut.
_LEFTOVER = r"(?:\s|\[/?INST\]|</?s>|<\|\w+\|>|\ufffd)+"
_AT_START = re.compile(_LEFTOVER)
_AT_END = re.compile(rf"{_LEFTOVER}\Z")
_LAST_OF_LEFTOVER = "]>\ufffd"
# The end of a sentence: no point inside 2.5 cm, none behind a lone letter.
_SENTENCE_END = re.compile(r"(?<!\b\w)[.!?…][\"'”’)]*(?=\s|\Z)")


def tidy(completion: str) -> str:
    """The completion without what is no text; empty when nothing is left."""
    return _without_leftovers(_spaced(_without_control(completion)))


def to_full_sentence(text: str, limit: int | None = None) -> str | None:
    """The text up to the end of its last sentence, within `limit` characters; None where no sentence ends."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if limit is None or match.end() <= limit]
    return text[: ends[-1]] if ends else None


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
