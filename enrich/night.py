"""The night: plan → generate → publish → report, for one catalogue or a folder of them."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from enrich import __version__
from enrich.author import Author
from enrich.authors import Authors
from enrich.catalog.columns import Columns, resolve_columns, text_columns, used_columns
from enrich.catalog.proof import prove
from enrich.catalog.publish import Published, check_enrich_columns, former_footer, publish
from enrich.catalog.read import Catalogue, open_catalogue
from enrich.catalog.sources import Source, find_sources
from enrich.catalog.spool import HowToRead
from enrich.crew import Crew, num_cores
from enrich.engine.protocol import Figures
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
from enrich.memory import Memory
from enrich.plan import Missing, Round, Wanted, again, held, rejected, wanted
from enrich.report.progress import Progress
from enrich.report.summary import Stopwatch, Summary, write_summaries
from enrich.settings import CatalogueSettings, Settings
from enrich.signals import stop_on_signals
from enrich.state import State
from enrich.text import printable
from enrich.verdicts import Verdicts
from enrich.writer import Writer

log = logging.getLogger("enrich")

# Processes that judge texts beside a card: so many do as much as a card writes with the smallest of models.
_MOST_JUDGES = 4

CheckStop = Callable[[], None]
Retry = Literal["held", "rejected"]


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
) -> Report:
    """Fills the missing descriptions of a catalogue, a folder or a glob, and publishes the result.

    With `retry` it writes nothing that is missing, but works once more on the rows that are held or rejected.

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
        Memory.open(state.memory) as memory,
        Crew(min(_MOST_JUDGES, num_cores() - 1)) as judges,
    ):
        folder = state.new_report()
        night = _Night(settings, authors, state, memory, judges, folder.name, should_stop, check_lock, retry)
        summaries: list[Summary] = []
        try:
            for source in selection.sources:
                summary = Summary(printable(source.address), printable(str(source.output)))
                summaries.append(summary)
                night.enrich(source, summary, alone=len(selection.sources) == 1)
        finally:
            write_summaries(folder, summaries, authors.provenance())
    return Report(gravest(summary.status for summary in summaries), summaries, folder)


@dataclass(frozen=True)
class _Night:
    settings: Settings
    authors: Authors
    state: State
    memory: Memory
    judges: Crew
    name: str
    should_stop: Callable[[], bool]
    check_lock: Callable[[], None]
    retry: Retry | None

    def enrich(self, source: Source, summary: Summary, *, alone: bool) -> None:
        """Plan → generate → publish for one catalogue; what is known is in `summary`, however it ends."""
        try:
            with source.local(self.state.spool) as path:
                catalogue, columns = self._open(path, summary)
                self._generate(catalogue, columns, summary)
                self._publish(catalogue, columns, source.output, summary)
        except EnrichError as error:
            summary.status, summary.error = error.status, str(error)
            if alone or isinstance(error, (Stopped, Busy, ModelUnavailable)):
                raise
            log.error("%s", error)

    def _open(self, path: Path, summary: Summary) -> tuple[Catalogue, Columns]:
        chosen, route = self.settings.catalogue, self.settings.adapters.column
        catalogue = open_catalogue(path, how_to_read(chosen, route), self.state.spool, self._check_stop)
        summary.rows, summary.quarantined, summary.damaged_cells = (
            catalogue.num_rows,
            catalogue.lost,
            catalogue.kept_defects,
        )
        summary.records = catalogue.num_rows + catalogue.lost
        self._refuse_too_many(summary)
        check_enrich_columns(catalogue)
        return catalogue, resolve_columns(catalogue.schema, chosen, catalogue.num_rows, route)

    def _generate(self, catalogue: Catalogue, columns: Columns, summary: Summary) -> None:
        """Each author in turn, whose weights are loaded if there is something to write."""
        watch = Stopwatch()
        try:
            for author in self.authors.distinct:
                self._write(author, catalogue, columns, summary)
        finally:
            summary.generating_seconds = watch.seconds()

    def _write(self, author: Author, catalogue: Catalogue, columns: Columns, summary: Summary) -> None:
        """Writes what is missing of an author's rows, then again what may not be published, as often as is allowed."""
        # A run has one recipe: those of further authors are runs of their own.
        name = self.name if author is self.authors.default else f"{self.name} {author.recipe.digest}"
        run_id = self.memory.begin_run(name, author.recipe.digest)
        writer = Writer(author, self.memory, self.should_stop, self.judges)
        for what, round_ in self._rounds(author, run_id):
            self._pass(what, round_, writer, run_id, catalogue, columns, summary)

    def _rounds(self, author: Author, run_id: int) -> Iterator[tuple[str, Round]]:
        verdicts, retries = Verdicts(self.memory, author.judge), self.settings.quality.retries
        match self.retry:
            case "held":
                for _ in range(max(1, retries)):
                    yield "trying held rows again", held(verdicts, run_id, max(1, retries))
            case "rejected":
                yield "trying rejected rows again", rejected(verdicts, run_id)
            case None:
                yield "generating", Missing(self.memory)
                for attempt in range(retries):
                    if self.memory.is_unsettled(author.recipe.digest, author.judge.policy, attempt):
                        yield "trying again", again(verdicts, attempt + 1)

    def _pass(
        self,
        what: str,
        round_: Round,
        writer: Writer,
        run_id: int,
        catalogue: Catalogue,
        columns: Columns,
        summary: Summary,
    ) -> None:
        """Writes what a round asks for; every finished batch is committed at once."""
        # Keys handed to the engine and not committed yet: with the memory, all that has to be known of duplicates.
        in_flight: set[bytes] = set()
        figures: Figures | None = None
        with Progress(what, catalogue.num_rows) as progress:
            products = self._wanted(writer.author, round_, catalogue, columns, in_flight, progress)
            try:
                for finished in writer.write(products, again=not isinstance(round_, Missing)):
                    self.memory.add(run_id, finished.entries)
                    in_flight.difference_update(entry.key for entry in finished.entries)
                    progress.wrote(len(finished.entries), finished.tokens)
                    figures = finished.figures
                    self._check_stop()
            finally:
                # A run that is stopped tells of what it committed.
                summary.written += progress.written
                summary.tokens += progress.tokens
                if figures:
                    summary.add(figures)

    def _wanted(
        self,
        author: Author,
        round_: Round,
        catalogue: Catalogue,
        columns: Columns,
        in_flight: set[bytes],
        progress: Progress,
    ) -> Iterator[Wanted]:
        placeholders, recipe_of = self.settings.catalogue.placeholders, self.authors.recipe_of
        batches = wanted(catalogue, columns, placeholders, author.recipe, recipe_of, round_, in_flight)
        for num_rows, products in batches:
            in_flight.update(each.key for each in products)
            for product in products:
                self._check_stop()
                yield product
            progress.passed(num_rows)
            self._check_stop()

    def _publish(self, catalogue: Catalogue, columns: Columns, output: Path, summary: Summary) -> None:
        fates = Fates(self.memory, self.authors.default.judge, self.authors.recipe_of)
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
            self._check_stop,
        )
        summary.samples, summary.likeness = fates.samples, fates.alike.likeness()
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

    def _check_stop(self) -> None:
        if self.should_stop():
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
