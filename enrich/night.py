"""The night: plan → generate → publish → report, for one catalogue or a folder of them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from enrich import __version__
from enrich.authors import Authors
from enrich.catalog.columns import Columns, resolve_columns, text_columns, used_columns
from enrich.catalog.proof import prove
from enrich.catalog.publish import Published, check_enrich_columns, former_footer, publish
from enrich.catalog.read import Catalogue, open_catalogue
from enrich.catalog.sources import Source, find_sources
from enrich.catalog.spool import HowToRead
from enrich.crew import Crew
from enrich.errors import (
    PUBLISHED,
    PUBLISHED_WITH_PENDING,
    Busy,
    EnrichError,
    IOFailure,
    ModelUnavailable,
    Stopped,
    TooManyRejected,
    gravest,
)
from enrich.fates import Fates
from enrich.garbage import seldom_sought
from enrich.generate import Generating, Retry
from enrich.limits import Limits
from enrich.memory import Memory
from enrich.report.gallery import Gallery
from enrich.report.morning import asked, morning
from enrich.report.summary import Stopwatch, Summary, sayable
from enrich.settings import CatalogueSettings, Settings
from enrich.signals import stop_on_signals
from enrich.state import State
from enrich.text import printable
from enrich.writer import num_judges

log = logging.getLogger("enrich")

# Texts that the summary shows on the terminal.
_NUM_SAMPLES = 3
# A first night cannot know how fast it publishes.
_PUBLISHED_ROWS_A_SECOND = 50_000.0


@dataclass(frozen=True)
class Report:
    """What a run did: its exit status, an account of each catalogue, and where the report lies."""

    status: int
    summaries: list[Summary]
    folder: Path


def run(
    named: str | Path,
    output: str | Path | None = None,
    settings: Settings | None = None,
    *,
    retry: Retry | None = None,
    publish_only: bool = False,
) -> Report:
    """Fills the missing descriptions of a catalogue, a folder or a glob, and publishes the result.

    With `retry` it writes nothing that is missing, but works once more on the rows that are held or rejected; with
    `publish_only` it writes nothing at all.

    Raises an `EnrichError` when a single catalogue cannot be published, or when nothing can be done at all;
    of several catalogues one that fails does not stop the others, and is told in the report.
    """
    settings = settings or Settings()
    selection = find_sources(str(named), Path(output) if output else None)
    state = State(settings.machine.state or default_state(selection.output))
    authors = Authors.choose(settings)
    with (
        state.locked() as check_lock,
        stop_on_signals() as should_stop,
        seldom_sought(),
        Memory.open(state.memory) as memory,
        Crew(num_judges()) as judges,
        morning(state, settings, asked(named, output, settings, retry), authors.provenance()) as report,
    ):
        account, limits, check_stop = report.account, Limits.of(settings), partial(_stop_if, should_stop)
        generating = Generating(settings, authors, memory, judges, limits, account.run, retry, should_stop, check_stop)
        night = _Night(
            settings,
            authors,
            state,
            memory,
            limits,
            None if publish_only else generating,
            report.rows_published_per_second or _PUBLISHED_ROWS_A_SECOND,
            account.run,
            check_stop,
            check_lock,
        )
        for source in selection.sources:
            summary = Summary(printable(source.shown), printable(str(source.output)))
            account.catalogues.append(summary)
            night.enrich(source, summary, alone=len(selection.sources) == 1)
            account.stopped_by = limits.stopped_by
        account.status = gravest(summary.status for summary in account.catalogues)
    return Report(account.status, account.catalogues, report.folder)


@dataclass(frozen=True)
class _Night:
    settings: Settings
    authors: Authors
    state: State
    memory: Memory
    limits: Limits
    generating: Generating | None
    rows_published_per_second: float
    run: str
    check_stop: Callable[[], None]
    check_lock: Callable[[], None]

    def enrich(self, source: Source, summary: Summary, *, alone: bool) -> None:
        """Plan → generate → publish for one catalogue; what is known is in `summary`, however it ends."""
        try:
            with source.local(self.state.spool) as path:
                catalogue, columns = self._open(path, summary)
                self.limits.leave(catalogue.num_rows / self.rows_published_per_second)
                if self.generating:
                    self.generating.generate(catalogue, columns, summary)
                self._publish(catalogue, columns, source.output, summary)
        except EnrichError as error:
            summary.status, summary.error = error.status, sayable(str(error))
            # One that is stopped, or finds no model, finds none for the next catalogue either.
            if alone or isinstance(error, (Stopped, Busy, ModelUnavailable)):
                raise
            log.error("%s", error)

    def _open(self, path: Path, summary: Summary) -> tuple[Catalogue, Columns]:
        chosen, route = self.settings.catalogue, self.settings.adapters.column
        catalogue = open_catalogue(path, how_to_read(chosen, route), self.state.spool, self.check_stop)
        summary.rows, summary.quarantined, summary.damaged_cells = (
            catalogue.num_rows,
            catalogue.lost,
            catalogue.kept_defects,
        )
        summary.records = catalogue.num_rows + catalogue.lost
        self._refuse_too_many(summary)
        check_enrich_columns(catalogue)
        priority = self.settings.night.priority
        return catalogue, resolve_columns(catalogue.schema, chosen, catalogue.num_rows, route, priority)

    def _publish(self, catalogue: Catalogue, columns: Columns, output: Path, summary: Summary) -> None:
        judge, gallery = self.authors.default.judge, Gallery(self.run)
        fates = Fates(self.memory, judge, self.authors.recipe_of, gallery)
        watch = Stopwatch()

        def accept(published: Published) -> None:
            summary.statuses, summary.rejected = dict(published.statuses), dict(published.rejected)
            summary.unlisted_placeholders = published.unlisted_placeholders
            self._refuse_too_many(summary)
            self.check_lock()

        log.info("publishing %s", output)
        _make_folder(output.parent)
        publish(
            catalogue,
            columns,
            self.settings.catalogue.placeholders,
            fates.decide,
            footer(self.authors, catalogue),
            output.resolve(),
            accept,
            self.check_stop,
        )
        summary.shown, summary.samples = gallery.told(judge), gallery.samples(_NUM_SAMPLES)
        summary.likeness = fates.alike.likeness()
        summary.publishing_seconds = watch.seconds()
        summary.status = PUBLISHED_WITH_PENDING if summary.pending else PUBLISHED

    def _refuse_too_many(self, summary: Summary) -> None:
        limit = self.settings.publish.max_rejected
        allowed = max(10, summary.records // 100) if limit is None else limit
        if summary.rejected_for_input > allowed:
            codes = ", ".join(f"{code} {count}" for code, count in sorted(summary.rejected.items()))
            raise TooManyRejected(
                f"{summary.input}: {summary.rejected_for_input} bad records, {allowed} are allowed; not published "
                f"({summary.quarantined} left no row{', ' + codes if codes else ''}); see --max-rejected"
            )


def _stop_if(asked: Callable[[], bool]) -> None:
    if asked():
        raise Stopped("stopped by a signal; run again, nothing is lost")


def verify(named: str | Path, output: str | Path | None = None, settings: Settings | None = None) -> list[Source]:
    """Proves that the published files are their inputs with the gaps filled; returns what was compared.

    Raises `Difference` at the first place that differs. Needs no memory, no model and no state.
    """
    settings = settings or Settings()
    sources = find_sources(str(named), Path(output) if output else None).sources
    for source in sources:
        with TemporaryDirectory() as folder, source.local(Path(folder)) as path:
            how = how_to_read(settings.catalogue, settings.adapters.column)
            catalogue = open_catalogue(path, how, Path(folder))
            columns = resolve_columns(catalogue.schema, settings.catalogue, catalogue.num_rows)
            prove(catalogue, columns, settings.catalogue.placeholders, source.output)
    return sources


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IOFailure(f"{folder}: cannot be made: {error.strerror}; name another --output") from error


def how_to_read(settings: CatalogueSettings, route: str | None = None) -> HowToRead:
    """What the settings say of reading JSON; `route` is the path whose values choose adapters, when one does."""
    return HowToRead(settings.records, text_columns(settings), used_columns(settings, route))


def footer(authors: Authors, catalogue: Catalogue) -> dict[str, object]:
    """The provenance of the published file; of a former output fed back, what it said of its texts too."""
    former = former_footer(catalogue.schema)
    now = {"version": __version__, **authors.provenance()}
    if former is None:
        return now
    earlier = [*_listed(former.pop("former", [])), former]
    return {
        **now,
        "former": [each for index, each in enumerate(earlier) if each != now and each not in earlier[:index]],
    }


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def default_state(output: Path) -> Path:
    """The state folder beside an output file or folder."""
    return output.resolve().parent / ".enrich"
