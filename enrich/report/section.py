"""One catalogue in the report: what became of its rows, how fast, how good, what speaks against the texts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from types import ModuleType
from typing import get_args

from markupsafe import Markup

from enrich.products import Status
from enrich.report.cards import Card, cards
from enrich.report.shown import plain
from enrich.report.summary import place_of
from enrich.report.tally import Bins, Catalogue, Tally, intervals, length_bins, mean_rate, score_label
from enrich.report.words import Voice

FATES: tuple[Status, ...] = get_args(Status)

_MOST_CODES, _MOST_RARER_CODES = 12, 40
_MOST_DRAWN_INTERVALS, _MOST_TOLD_INTERVALS = 80, 12
_MOST_BINS = 40
_MOST_WORKERS = 32
# The worst texts take no more of the room than this: some drawn at random are always to be seen.
_SHARE_OF_WORST = 0.75


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture, and its numbers as a table."""

    title: str
    note: str | None
    picture: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Reason:
    """A code with its meaning, how many rows or texts have it, and the share of a bar 100 wide."""

    code: str
    means: str
    said: str
    share: str
    width: float


@dataclass(frozen=True, slots=True)
class Fate:
    """Rows of one status, and the reasons where there are any."""

    name: str
    means: str
    said: str
    share: str
    change: str | None
    reasons: Sequence[Reason]


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts to read; `left_out` says that it is not whole."""

    title: str
    cards: Sequence[Card]
    left_out: str | None


@dataclass(frozen=True, slots=True)
class Section:
    """`flags` is None where nobody counted them."""

    input: str
    output: str | None
    error: str | None
    outcome: str | None
    funnel: Chart | None
    fates: Sequence[Fate]
    besides: Sequence[str]
    speed: Sequence[Chart]
    speed_notes: Sequence[str]
    shapes: Sequence[Chart]
    likeness: str | None
    opening: str
    flags: Sequence[Reason] | None
    rarer_flags: str | None
    texts: Sequence[Texts]

    @property
    def statuses(self) -> list[tuple[str, str]]:
        """Of the texts to read, to choose from."""
        return sorted({(card.status, card.status_said) for texts in self.texts for card in texts.cards})

    @property
    def codes(self) -> list[str]:
        return sorted({code for texts in self.texts for card in texts.cards for code, _ in card.flags})


def section(catalogue: Catalogue, before: Catalogue | None, voice: Voice, room: int) -> Section:
    """The section of a catalogue, compared with the run before; its texts take so many bytes at most."""
    tally = Tally.of([catalogue])
    worst = _texts("worst", catalogue, voice, int(room * _SHARE_OF_WORST))
    drawn = _texts("random", catalogue, voice, room - sum(card.size for card in worst.cards))
    likeness = catalogue.get("likeness") or {}
    flags = catalogue.get("flags")
    return Section(
        input=str(catalogue.get("input")),
        output=catalogue.get("output"),
        error=catalogue.get("error"),
        outcome=voice.outcome(catalogue.get("status")),
        funnel=_funnel(tally, voice),
        fates=list(_fates(tally, Tally.of([before]) if before else None, voice)),
        besides=list(_besides(tally, voice)),
        speed=list(_speed(catalogue, voice)),
        speed_notes=list(_speed_notes(catalogue, tally, voice)),
        shapes=list(_shapes(catalogue, voice)),
        likeness=_likeness(likeness, voice),
        opening=str(likeness.get("opening") or "")[:200],
        flags=None if flags is None else _reasons(flags, sum(catalogue.get("scores") or []) or tally.texts or 0, voice),
        rarer_flags=_rarer(flags or {}, voice),
        texts=[worst, drawn],
    )


def _charts() -> ModuleType:
    # Loaded when a page is made: matplotlib takes longer to import than all else that a command needs.
    from enrich.report import charts

    return charts


# --- what became of the rows ------------------------------------------------------------------------------------------


def _funnel(tally: Tally, voice: Voice) -> Chart | None:
    counts = {
        "records": tally.records,
        "rows": tally.rows,
        "missing": tally.missing,
        "texts": tally.texts,
        "published": tally.published,
    }
    known = [(voice.say(f"funnel.{key}"), int(count)) for key, count in counts.items() if count is not None]
    if not known:
        return None
    shares = ["", *(voice.share(count, before) for (_, before), (_, count) in pairwise(known))]
    told = [(label, voice.number(count), share) for (label, count), share in zip(known, shares, strict=True)]
    steps = [
        (label, " · ".join(filter(None, (share, said))), count)
        for (label, said, share), (_, count) in zip(told, known, strict=True)
    ]
    name = voice.say("funnel.name", steps=_listed((label, said) for label, said, _ in told))
    head = [voice.say(f"funnel.{key}") for key in ("step", "count", "of_step")]
    return Chart(voice.say("funnel.title"), voice.say("funnel.note"), _charts().bars(steps, name), head, told)


def _fates(tally: Tally, before: Tally | None, voice: Voice) -> Iterator[Fate]:
    if tally.statuses is None:
        return
    rows = tally.statuses.total()
    for fate in (*FATES, *sorted(set(tally.statuses) - set(FATES))):
        count = tally.statuses[fate]
        yield Fate(
            voice.maybe(f"fates.{fate}") or plain(fate, 30),
            voice.maybe(f"fates.means.{fate}") or "",
            voice.number(count),
            voice.share(count, rows),
            voice.change(count, before.rows_that(fate) if before else None, voice.number),
            _reasons(tally.rejected_for, rows, voice) if fate == "rejected" else [],
        )


def _besides(tally: Tally, voice: Voice) -> Iterator[str]:
    for key in ("quarantined", "damaged_cells", "unlisted_placeholders"):
        if count := getattr(tally, key):
            yield voice.say(f"fates.besides.{key}", n=voice.number(count))


# --- speed, scores, lengths -------------------------------------------------------------------------------------------


def _speed(catalogue: Catalogue, voice: Voice) -> Iterator[Chart]:
    timeline = catalogue.get("timeline") or []
    drawn, told = intervals(timeline, _MOST_DRAWN_INTERVALS), intervals(timeline, _MOST_TOLD_INTERVALS)
    if not drawn:
        return
    unit, seconds = _unit(drawn[-1].end)
    for key in ("texts", "tokens"):
        steps = [(each.start / seconds, each.end / seconds, each.rate(key)) for each in drawn]
        low, high = (voice.figure(limit(each.rate(key) for each in drawn)) for limit in (min, max))
        title, mean = voice.say(f"speed.{key}"), voice.figure(mean_rate(drawn, key))
        name = voice.say("speed.name", what=title, mean=mean, low=low, high=high)
        yield Chart(
            title,
            voice.say("speed.mean", n=mean),
            _charts().line(steps, voice.say(f"speed.{unit}"), voice.axis, name),
            (voice.say("speed.from"), voice.say("speed.to"), title),
            [(voice.span(each.start), voice.span(each.end), voice.figure(each.rate(key))) for each in told],
        )


def _unit(seconds: float) -> tuple[str, int]:
    return ("hours", 3600) if seconds >= 7200 else ("minutes", 60) if seconds >= 120 else ("seconds", 1)


def _speed_notes(catalogue: Catalogue, tally: Tally, voice: Voice) -> Iterator[str]:
    if tally.generating_seconds is not None and tally.publishing_seconds is not None:
        generating, publishing = voice.span(tally.generating_seconds), voice.span(tally.publishing_seconds)
        yield voice.say("speed.writing", generating=generating, publishing=publishing)
    engine = catalogue.get("engine") or {}
    if engine.get("tokens") and engine.get("slot_steps"):
        yield voice.say("speed.slots", share=voice.share(engine["tokens"], engine["slot_steps"]))
    for worker in islice(catalogue.get("workers") or [], _MOST_WORKERS):
        where = plain(place_of(worker), 80)
        counts = {key: voice.number(worker.get(key) or 0) for key in ("texts", "deaths")}
        yield voice.say("speed.worker", name=plain(str(worker.get("name")), 40), where=where, **counts)


def _shapes(catalogue: Catalogue, voice: Voice) -> Iterator[Chart]:
    if any(scores := catalogue.get("scores") or []):
        labels = [score_label(place) for place in range(len(scores))]
        ticks = [(place, labels[place]) for place in range(0, len(scores), 5)]
        yield _histogram("scores", scores, labels, ticks, voice.say("shape.scores_note"), voice)
    if any((bins := length_bins(catalogue.get("lengths") or [], _MOST_BINS)).counts):
        labels = [bins.label(place) for place in range(len(bins.counts))]
        note = voice.say("shape.median", n=voice.number(bins.median_below))
        yield _histogram("lengths", bins.counts, labels, _edges(bins, voice), note, voice)


def _edges(bins: Bins, voice: Voice) -> list[tuple[float, str]]:
    """Labels where some bins begin."""
    step = max(1, -(-len(bins.counts) // 5))
    return [(place - 0.5, voice.number(place * bins.width)) for place in range(0, len(bins.counts) + 1, step)]


def _histogram(
    key: str, counts: Sequence[int], labels: Sequence[str], ticks: Sequence[tuple[float, str]], note: str, voice: Voice
) -> Chart:
    title, top = voice.say(f"shape.{key}"), max(counts)
    told = {"n": voice.number(sum(counts)), "top": voice.number(top), "where": labels[list(counts).index(top)]}
    name = voice.say("shape.name", what=title, **told)
    return Chart(
        title,
        note,
        _charts().histogram(counts, ticks, voice.say(f"shape.axis.{key}"), voice.number, name),
        (voice.say(f"shape.column.{key}"), voice.say("shape.texts")),
        [(label, voice.number(count)) for label, count in zip(labels, counts, strict=True)],
    )


def _likeness(found: Mapping[str, int], voice: Voice) -> str | None:
    if not (texts := found.get("texts")):
        return None
    near, opening = (voice.share(found.get(key) or 0, texts) for key in ("near_duplicates", "with_opening"))
    return voice.say("shape.likeness", texts=voice.number(texts), near=near, opening_share=opening)


# --- codes and texts --------------------------------------------------------------------------------------------------


def _reasons(counts: Mapping[str, int], whole: int, voice: Voice) -> list[Reason]:
    """The commonest codes; `whole` is what they are a part of."""
    return [
        Reason(
            plain(code, 60),
            voice.meaning(code),
            voice.number(count),
            voice.share(count, whole) if whole else "–",
            round(min(100, max(0.6, 100 * count / whole)), 1) if whole and count else 0,
        )
        for code, count in _commonest(counts)[:_MOST_CODES]
    ]


def _rarer(counts: Mapping[str, int], voice: Voice) -> str | None:
    rarer = _commonest(counts)[_MOST_CODES:]
    if not rarer:
        return None
    codes = _listed((plain(code, 60), voice.number(count)) for code, count in islice(rarer, _MOST_RARER_CODES))
    return voice.count("flags.more", len(rarer), codes=codes)


def _commonest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _listed(told: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{label} {said}" for label, said in told)


def _texts(key: str, catalogue: Catalogue, voice: Voice, room: int) -> Texts:
    given = catalogue.get(key) or []
    found = cards(given, voice, room)
    only = voice.say("texts.only", shown=voice.number(len(found)), n=voice.number(len(given)))
    return Texts(voice.say(f"texts.{key}"), found, only if len(found) < len(given) else None)
