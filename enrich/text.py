"""Cleaning: catalogue text → the plain text a model reads and a key is made of. Shared with training.

Tags and entities become what they stand for, mojibake is mended, invisible characters go, white space is
folded. What merely looks like a tag (`5 < 6`, `</s>`, `[/INST]`) is text and stays. `clean` is idempotent.
"""

import html
import re
import unicodedata

import ftfy
from selectolax.lexbor import LexborHTMLParser

_MOJIBAKE_ONLY = ftfy.TextFixerConfig(
    unescape_html=False,
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    remove_terminal_escapes=True,
    remove_control_chars=False,
    explain=False,
)

# `s` is left out: `</s>` is the end token of many models, and a title that holds it means its letters.
_TAG_NAMES = (
    "a|abbr|article|b|big|blockquote|body|br|button|center|cite|code|dd|del|div|dl|dt|em|figure|font|footer|form|h[1-6]|"
    "head|header|hr|html|i|iframe|img|input|ins|label|li|link|mark|meta|nav|ol|option|p|pre|q|script|section|select|"
    "small|span|strike|strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|video"
)
_TAG = re.compile(rf"</?(?:{_TAG_NAMES})(?=[\s/>])[^<>]*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_NO_TAG = re.compile(rf"<(?!/?(?:{_TAG_NAMES})(?=[\s/>])[^<>]*>|!--.*?-->)", re.IGNORECASE | re.DOTALL)

# Line breaks are white space; the rest of C0 and C1, and what is invisible or turns the direction of text, goes.
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_PLAIN = re.compile(r"[!-%'-;=-~]+(?: [!-%'-;=-~]+)*")


def clean(text: str) -> str:
    """The text on one line, NFC. Printable ASCII with single spaces, no `<` and no `&` is its own result."""
    if _PLAIN.fullmatch(text):
        return text
    # One tag or entity may hide another: `&amp;lt;b&amp;gt;`. Every step shortens the text or changes nothing.
    while (cleaned := _clean_once(text)) != text:
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    text = html.unescape(ftfy.fix_text(text, _MOJIBAKE_ONLY))
    if _TAG.search(text):
        text = _without_tags(text)
    text = _INVISIBLE.sub("", text)
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _without_tags(text: str) -> str:
    only_tags = _NO_TAG.sub("&lt;", text.replace("&", "&amp;"))
    tree = LexborHTMLParser(only_tags)
    for hidden in tree.css("script, style"):
        hidden.decompose()
    root = tree.root
    return root.text(separator=" ") if root else ""


def is_usable(title: str) -> bool:
    """Whether a cleaned title says anything: at least one letter or digit."""
    return any(map(str.isalnum, title))


def printable(text: str) -> str:
    """The text with everything escaped that could act on a terminal or forge a line of a log."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
