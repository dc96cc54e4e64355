"""Texts of a catalogue as HTML that cannot mislead: escaped, what is invisible made visible, claims marked."""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

# Controls but tab and newline; zero-width spaces; marks that turn the direction of what follows; what is no character.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def plain(text: object, most: int = 300) -> str:
    """One line for places that take no tags: invisible characters are named, what is over `most` is cut off."""
    words = re.sub("[ \t\n]+", " ", str(text)[: most + 1]).strip()
    said = _INVISIBLE.sub(lambda found: f"⟨{_name(found[0])}⟩", words)
    return said if len(said) <= most else f"{said[: most - 1]}…"


def visible(text: object) -> Markup:
    """The whole text as HTML in which no character is invisible or turns others around."""
    found, start = Markup(), 0
    for match in _INVISIBLE.finditer(said := str(text)):
        found += escape(said[start : match.start()]) + _chip(match[0])
        start = match.end()
    return found + escape(said[start:])


def marked(text: str, spans: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> Markup:
    """The text with every span in a `<mark>` that tells its kind. `spans` have `kind`, `start` and `end`.

    Where spans overlap, the shared piece is a mark of its own with both kinds. What of a span lies outside of the
    text is ignored. `names` say the kinds in the reader's language.
    """
    clipped = [
        (each.get("kind"), max(0, int(each.get("start") or 0)), min(len(text), int(each.get("end") or 0)))
        for each in spans
    ]
    places = [(str(kind), start, end) for kind, start, end in clipped if start < end]
    cuts = sorted({0, len(text), *(cut for _, *ends in places for cut in ends)})
    found = Markup()
    for start, end in pairwise(cuts):
        kinds = dict.fromkeys(kind for kind, first, last in places if first <= start and end <= last)
        said = ", ".join(plain(names.get(kind, kind), 40) for kind in kinds)
        piece = visible(text[start:end])
        found += Markup('<mark title="{}">{}</mark>').format(said, piece) if kinds else piece
    return found


def _chip(character: str) -> Markup:
    return Markup("<i>{}</i>").format(_name(character))


def _name(character: str) -> str:
    return f"U+{ord(character):04X}"
