"""What makes a description nothing to learn from, seen from the row alone: each filter gives a reason or None."""

import re
import string
from unicodedata import category

from enrich.products import Product

WORD = re.compile(r"[^\W_]+")

# Letters and digits beyond the title's words from which a description says something of its own: "with free
# delivery" has 16.
_MIN_NEW_CHARACTERS = 15
# Of the characters that are no space; tables of measures reach 0.55, prose is above 0.8.
_MIN_LETTERS = 0.6
_MAX_CODE = 0.15
_CODE = re.compile(
    r"""<[/!]?[a-z][^<>]{0,200}>                          # tags that cleaning did not know
      | &\#?\w{2,8};                                      # entities
      | \b(?:https?://|www\.)\S+                          # addresses
      | [\w.\#-]{1,40}\s?\{[^{}]{0,400}\}                 # CSS rules, and bodies of functions
      | [{\[]\s?"[^"]{0,60}"\s?[:,][^{}\[\]]{0,400}[}\]]  # JSON
      | \b(?:var|let|const|function|return|if)\s?[\w.]{0,40}\s?[=({][^;]{0,200};   # scripts
      | [\w.-]{1,40}\([^()]{0,80}\);""",
    re.VERBOSE | re.IGNORECASE,
)
# The same as the pattern and `casefold` for ASCII, in a tenth of the time.
_ONLY_WORDS = "".join(each.lower() if each.isalnum() else " " for each in map(chr, range(128))).encode().ljust(256)
_NO_ASCII_LETTER = bytes(set(range(128)) - set(string.ascii_letters.encode()))


def folded(text: str) -> str:
    """Its words, without case, punctuation and white space: what two texts that are the same have in common."""
    if text.isascii():
        words = text.encode().translate(_ONLY_WORDS).strip()
        while b"  " in words:
            words = words.replace(b"  ", b" ")
        return words.decode()
    return " ".join(WORD.findall(text.casefold()))


def fault(product: Product, description: str, min_characters: int) -> tuple[str, str] | None:
    """The first filter that a cleaned description does not pass, and why."""
    if len(description) < min_characters:
        return "too_short", f"{len(description)} characters"
    if reason := title_repeated(product.title, description):
        return "title_repeated", reason
    if reason := markup_soup(description):
        return "markup_soup", reason
    return None


def title_repeated(title: str, description: str) -> str | None:
    """A description that is the title, or its words and nearly nothing more."""
    # What is a good deal longer than its title says more, or says it often.
    if len(description) > 2 * len(title) + 60:
        return None
    known = set(WORD.findall(title.casefold()))
    new = [word for word in WORD.findall(description.casefold()) if word not in known]
    if sum(map(len, new)) >= _MIN_NEW_CHARACTERS:
        return None
    return f"beyond the title only: {' '.join(new)}" if new else "nothing beyond the title"


def markup_soup(text: str) -> str | None:
    """A text that is mostly no prose: few letters, or dense with code, markup and addresses."""
    num_characters = len(text) - text.count(" ")
    letters = _num_letters(text) / max(1, num_characters)
    if letters < _MIN_LETTERS:
        return f"{letters:.0%} letters"
    if not _may_hold_code(text):
        return None
    code = sum(len(match[0]) for match in _CODE.finditer(text)) / len(text)
    return f"{code:.0%} code, markup or addresses" if code > _MAX_CODE else None


def _may_hold_code(text: str) -> bool:
    """Whether one of the marks is there without which `_CODE` cannot match: to look for them takes no time."""
    return any(map(text.__contains__, "<&{[;")) or (":" in text and "://" in text) or "www." in text or "WWW." in text


def _num_letters(text: str) -> int:
    if text.isascii():
        return len(text.encode().translate(None, _NO_ASCII_LETTER))
    # Vowels of Thai or Hindi are marks upon letters.
    return sum(text.count(each) for each in set(text) if category(each)[0] in "LM")
