"""Cleaning: whatever a catalogue holds becomes one line of readable text. Shared with training.

It knows nothing of prompts: what merely looks like a tag (`5 < 6`, `</s>`, `[/INST]`, `<tool_call>`) is text
and stays.

Tags are found by regular expressions that pass over a text a fixed number of times, not by a parser that
builds a tree: 60 kB of unclosed `<font>` kept a tree builder busy for seconds, and a title is anybody's input.
"""

import json
import re
from html import unescape
from html.entities import html5
from typing import Any

import ftfy
from ftfy.badness import is_bad

# Printable ASCII without `<` and `&`, the Latin-1 letters and signs, and the commonest punctuation beyond, in
# single spaces: no tag, no entity, nothing to fold or to remove, and each character is its own NFC. What is
# left to ask is whether it looks like mojibake; ftfy mends nothing else, and nothing that is ASCII.
_ORDINARY = re.compile("[!-%'-;=-~¡-¬®-ÿ–—‘’“”…€™]+(?: [!-%'-;=-~¡-¬®-ÿ–—‘’“”…€™]+)*")

# `s` is left out: `</s>` is the end token of many models, and a title that holds it means its letters.
_INLINE = re.compile(
    "a|abbr|b|bdi|bdo|big|cite|code|del|dfn|em|font|i|ins|kbd|label|mark|nobr|o:p|q|samp|small|span|strike|strong|"
    "sub|sup|tt|u|var|wbr",
    re.IGNORECASE,
)
_BREAKING = re.compile(
    "address|article|aside|blockquote|body|br|button|caption|center|col|colgroup|dd|details|div|dl|dt|figcaption|"
    "figure|footer|form|h[1-6]|head|header|hr|html|iframe|img|input|li|link|main|meta|nav|noscript|ol|option|p|"
    "picture|pre|section|select|source|summary|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|ul|video",
    re.IGNORECASE,
)
# The first attribute has a value, so that `a <b and c> d` stays a comparison. Nothing inside a tag is a `<`.
_TAG = re.compile(
    r"""<(?:
        (?P<open>[a-z][a-z1-6:]*+) (?: \s++[\w:.-]++\s*+= (?: [^<>"'] | "[^"<]*" | '[^'<]*' | ["'] )*+ | \s*+/? )
      | /(?P<close>[a-z][a-z1-6:]*+) \s*+
    )>""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_HIDDEN = re.compile(
    r"<!--.*?(?:-->|\Z) | <!doctype\b[^<>]*> | <(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)

# Only with their semicolon: without it `Home&paradise` would turn into `Home¶dise`.
_ENTITY = re.compile(r"&(#\d{1,7}|#[xX][\da-fA-F]{1,6}|[a-zA-Z][a-zA-Z\d]{1,31});")
_ESCAPED_AMPERSAND = re.compile(r"&(?:amp;|#0*+38;|#x0*+26;)+", re.IGNORECASE)

_MOJIBAKE_AND_NFC = ftfy.TextFixerConfig(
    unescape_html=False,
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    fix_line_breaks=False,
    remove_control_chars=False,
    normalization="NFC",
    explain=False,
)

# Line breaks are white space; the rest of C0 and C1 goes, and so does what is invisible or turns the direction of
# text: soft hyphen, Hangul fillers, zero-width and bidi controls, byte order mark, annotations, tag characters.
_REMOVED = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)

# Real texts are done after three. What is escaped or nested more deeply is an attack on our time.
_MAX_PASSES = 4


def clean(text: str) -> str:
    """The text on one line: no tags, entities, mojibake, control or invisible characters; NFC; single spaces.

    Idempotent. Scripts, styles and comments go with all they hold; other tags leave their text.
    """
    if _ORDINARY.fullmatch(text) and (text.isascii() or not is_bad(text)):
        return text
    # One tag or entity may hide another: `&lt;b&gt;` is a tag once it is unescaped.
    for num_passes in range(2 * _MAX_PASSES):
        before, text = text, _clean_once(text)
        if text == before:
            break
        if num_passes == _MAX_PASSES:
            # With a space behind it, neither begins a tag or an entity.
            text = re.sub("[<&]", r"\g<0> ", text)
    return text


def _clean_once(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(_character, _ESCAPED_AMPERSAND.sub("&", text))
    if "<" in text:
        text = _TAG.sub(_separator, _HIDDEN.sub(" ", text))
    if not text.isascii() or "\x1b" in text:
        text = ftfy.fix_text(text, _MOJIBAKE_AND_NFC)
    return " ".join(_REMOVED.sub("", text).split())


def _character(entity: re.Match[str]) -> str:
    known = entity[1].startswith("#") or f"{entity[1]};" in html5
    return unescape(entity[0]) if known else entity[0]


def _separator(tag: re.Match[str]) -> str:
    name = tag["open"] or tag["close"]
    if _INLINE.fullmatch(name):
        return ""
    return " " if _BREAKING.fullmatch(name) else tag[0]


def is_usable(title: str) -> bool:
    """Whether a cleaned title says anything: at least one letter or digit."""
    return any(map(str.isalnum, title))


def json_line(row: Any) -> str:
    """One line of JSON in which letters of any language are themselves, and what could act on a terminal is escaped."""
    said = json.dumps(row, ensure_ascii=False)
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in said)


def printable(text: str) -> str:
    """The text with everything escaped that could act on a terminal or forge a line of a log."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
