"""The texts that a person reads in the report, each with its row: prepared within the room that a page has."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from enrich.report.shown import marked, plain, visible
from enrich.report.words import Voice

# Of one text: characters, attributes, marks and codes.
_MOST_CHARACTERS = 2_000
_MOST_ATTRIBUTES = 16
_MOST_SPANS = 100
_MOST_CODES = 12
# Bytes of a card besides what the catalogue says.
_FRAME = 900


@dataclass(frozen=True, slots=True)
class Card:
    """One text as the page shows it. `score` is None where there is none."""

    row: int
    title: Markup
    id: Markup | None
    text: Markup
    attributes: Sequence[tuple[Markup, Markup]]
    num_more_attributes: int
    status: str
    status_said: str
    score: int | None
    length: int
    flags: Sequence[tuple[str, str]]

    @property
    def codes(self) -> str:
        return " ".join(code for code, _ in self.flags)

    @property
    def size(self) -> int:
        """About how many bytes it takes on the page."""
        said = [self.title, self.id or "", self.text, *(part for pair in self.attributes for part in pair)]
        said += [part for flag in self.flags for part in (flag[0], *flag)]
        return _FRAME + sum(len(part.encode()) for part in said) + 60 * len(self.attributes) + 60 * len(self.flags)


def cards(shown: Iterable[Mapping[str, Any]], voice: Voice, room: int) -> list[Card]:
    """As many of the texts, in order, as fit into so many bytes."""
    found = []
    for each in shown:
        card = _card(each, voice)
        room -= card.size
        if room < 0:
            break
        found.append(card)
    return found


def _card(shown: Mapping[str, Any], voice: Voice) -> Card:
    text, attributes, status = str(shown.get("text") or ""), shown.get("attributes") or [], str(shown.get("status"))
    codes = [plain(code, 60).replace(" ", "_") for code in shown.get("flags") or []]
    return Card(
        row=int(shown["row"]),
        title=visible(_cut(str(shown.get("title") or ""), 300))
        or Markup("<em>{}</em>").format(voice.say("texts.no_title")),
        id=None if shown.get("id") is None else visible(_cut(str(shown["id"]), 80)),
        text=_text(text, shown.get("unsupported") or [], voice),
        attributes=[
            (visible(_cut(str(name), 80)), visible(_cut(str(value), 200)))
            for name, value in attributes[:_MOST_ATTRIBUTES]
        ],
        num_more_attributes=max(0, len(attributes) - _MOST_ATTRIBUTES),
        status=plain(status, 30),
        status_said=voice.maybe(f"status.{status}") or plain(status, 30),
        score=shown.get("score"),
        length=len(text),
        flags=[(code, voice.meaning(code)) for code in codes[:_MOST_CODES]],
    )


def _text(text: str, unsupported: Sequence[Mapping[str, Any]], voice: Voice) -> Markup:
    shown = marked(text[:_MOST_CHARACTERS], unsupported[:_MOST_SPANS], voice.kinds)
    if len(text) <= _MOST_CHARACTERS:
        return shown
    return shown + Markup(" <em>{}</em>").format(voice.say("cut", n=voice.number(len(text) - _MOST_CHARACTERS)))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
