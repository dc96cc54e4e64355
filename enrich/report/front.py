"""The top of the report: when it was, how it ended, what failed, the figures of the night, and all its catalogues."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enrich.report.shown import plain
from enrich.report.tally import Catalogue, Report, Tally, catalogues_of, failed_first, same_catalogue
from enrich.report.words import Say, Voice, moment_of

_MOST_LISTED = 200
_MOST_FAILURES = 40


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the night as it is said, with its difference to the last and a line below."""

    name: str
    said: str
    change: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, and how it says so: a catalogue, or the run itself."""

    name: str
    outcome: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Line:
    """A catalogue among others: rows, new texts, texts that wait; `change` is that of the new texts."""

    input: str
    outcome: str | None
    counts: Sequence[str]
    change: str | None


@dataclass(frozen=True, slots=True)
class Front:
    title: str
    outcome: str | None
    lead: Sequence[str]
    facts: Sequence[str]
    failures: Sequence[Failure]
    num_failed: int
    num_more_failed: int
    against: str | None
    figures: Sequence[Figure]
    lines: Sequence[Line]
    together: Sequence[str]
    num_not_listed: int
    version: str


def front(report: Report, previous: Report | None, voice: Voice) -> Front:
    """The top of the page, compared with the run before if there is one."""
    catalogues = catalogues_of(report)
    tally, failed = Tally.of(catalogues), [each for each in catalogues if each.get("error")]
    return Front(
        title=_title(report, voice),
        outcome=voice.outcome(report.get("status")),
        lead=list(_lead(report, tally, len(failed), voice)),
        facts=list(_facts(report, voice)),
        failures=list(_failures(report, failed[:_MOST_FAILURES], voice)),
        num_failed=len(failed),
        num_more_failed=max(0, len(failed) - _MOST_FAILURES),
        against=_against(report, previous, voice),
        figures=list(_figures(report, tally, previous or {}, voice)),
        lines=[_line(each, previous, voice) for each in failed_first(catalogues)[:_MOST_LISTED]],
        together=_counts(tally, voice),
        num_not_listed=max(0, len(catalogues) - _MOST_LISTED),
        version=plain(report.get("enrich", ""), 40),
    )


def _title(report: Report, voice: Voice) -> str:
    began = moment_of(report.get("began"))
    return voice.date(began) if began else _run(report, voice) or voice.say("report")


def _run(report: Report, voice: Voice) -> str | None:
    return None if report.get("run") is None else voice.say("run", run=plain(report["run"], 80))


def _lead(report: Report, tally: Tally, num_failed: int, voice: Voice) -> Iterator[str]:
    """The night in a few sentences."""
    if num_failed:
        yield voice.count("lead.failed", num_failed)
    if tally.written is not None:
        yield voice.count("lead.written", int(tally.written))
    if tally.published and tally.missing:
        yield voice.count("lead.published", tally.published, missing=voice.number(tally.missing))
    for fate in ("held", "pending"):
        if num := tally.rows_that(fate):
            yield voice.count(f"lead.{fate}", num)
    if reason := report.get("stopped_by"):
        yield voice.maybe(f"stopped.{reason}") or voice.say("stopped.else", reason=plain(reason, 80))


def _facts(report: Report, voice: Voice) -> Iterator[str]:
    """When, how long and where, in a few words each."""
    if began := moment_of(report.get("began")):
        yield voice.say("began", time=f"{began:%H:%M}")
    if report.get("seconds") is not None:
        yield voice.say("took", time=voice.span(report["seconds"]))
    if report.get("device"):
        yield plain(report["device"], 80)
    if run := _run(report, voice):
        yield run


def _failures(report: Report, failed: Sequence[Catalogue], voice: Voice) -> Iterator[Failure]:
    """Errors of catalogues, and one of the run that is none of theirs."""
    said = {str(each["error"]) for each in failed}
    if report.get("error") and str(report["error"]) not in said:
        yield Failure(voice.say("errors.run"), voice.outcome(report.get("status")), str(report["error"]))
    for each in failed:
        yield Failure(str(each.get("input")), voice.outcome(each.get("status")), str(each["error"]))


def _against(report: Report, previous: Report | None, voice: Voice) -> str | None:
    """What the differences are against, and whether that was the same work."""
    if not previous or not catalogues_of(previous):
        return None
    began = moment_of(previous.get("began"))
    said = voice.say("against_night", date=voice.date(began)) if began else voice.say("against_run")
    now, before = ({each.get("input") for each in catalogues_of(run)} for run in (report, previous))
    return said if now == before else f"{said} {voice.say('against_others')}"


def _figures(report: Report, now: Tally, previous: Report, voice: Voice) -> Iterator[Figure]:
    before = Tally.of(catalogues_of(previous))
    yield _figure(voice, "written", now.written, before.written, _about(voice, "failed", now.failed))
    yield _figure(voice, "published", now.published, before.published, _about(voice, "of_rows", now.rows))
    yield _figure(voice, "held", now.rows_that("held"), before.rows_that("held"))
    yield _figure(voice, "pending", now.rows_that("pending"), before.rows_that("pending"))
    lost = _about(voice, "quarantined", now.quarantined)
    yield _figure(voice, "rejected", now.rows_that("rejected"), before.rows_that("rejected"), lost)
    if rate := now.texts_per_second:
        tokens = _about(voice, "tokens_per_second", now.tokens_per_second)
        yield _figure(voice, "texts_per_second", rate, before.texts_per_second, tokens, voice.figure)
    if (seconds := report.get("seconds")) is not None:
        yield _figure(voice, "seconds", seconds, previous.get("seconds"), None, voice.span)
    if (cost := report.get("cost")) is not None:
        yield _figure(voice, "cost", cost, previous.get("cost"), _price(report, now, voice), voice.money)


def _figure(
    voice: Voice, key: str, now: float | None, before: float | None, note: str | None = None, say: Say | None = None
) -> Figure:
    say = say or voice.number
    return Figure(voice.say(f"figures.{key}"), "–" if now is None else say(now), voice.change(now, before, say), note)


def _about(voice: Voice, key: str, count: float | None) -> str | None:
    return voice.say(f"figures.{key}", n=voice.number(count)) if count else None


def _price(report: Report, tally: Tally, voice: Voice) -> str | None:
    if tally.written:
        return voice.say("figures.cost_per_thousand", cost=voice.money(report["cost"] / tally.written * 1000))
    price = report.get("gpu_hour_price")
    return voice.say("figures.hour_price", price=voice.money(price)) if price else None


def _line(catalogue: Catalogue, previous: Report | None, voice: Voice) -> Line:
    tally, before = Tally.of([catalogue]), same_catalogue(catalogue, previous)
    change = voice.change(tally.written, before.get("written") if before else None, voice.number)
    return Line(str(catalogue.get("input")), voice.outcome(catalogue.get("status")), _counts(tally, voice), change)


def _counts(tally: Tally, voice: Voice) -> list[str]:
    counts = (tally.rows, tally.written, tally.rows_that("held"))
    return ["–" if count is None else voice.number(count) for count in counts]
