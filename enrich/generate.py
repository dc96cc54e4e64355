"""The first pass of a night: each author writes what is missing, then again what may not be published."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from enrich.author import Author
from enrich.authors import Authors
from enrich.catalog.columns import Columns
from enrich.catalog.read import Catalogue
from enrich.crew import Crew
from enrich.limits import Limits
from enrich.memory import Memory
from enrich.plan import Missing, Round, Share, Wanted, again, held, in_order, rejected, shares
from enrich.priority import largest_first
from enrich.report.progress import Progress
from enrich.report.summary import Stopwatch, Summary
from enrich.report.timeline import Timeline
from enrich.settings import Settings
from enrich.verdicts import Verdicts
from enrich.writer import Writer

if TYPE_CHECKING:
    from enrich.cluster import Cluster

Retry = Literal["held", "rejected"]


@dataclass(frozen=True)
class Generating:
    """What a run writes with. `run` is its name; `check_stop` raises `Stopped`, `should_stop` says whether it would."""

    settings: Settings
    authors: Authors
    memory: Memory
    judges: Crew
    limits: Limits
    run: str
    retry: Retry | None
    should_stop: Callable[[], bool]
    check_stop: Callable[[], None]

    def generate(self, catalogue: Catalogue, columns: Columns, summary: Summary) -> None:
        """Each author in turn, whose weights are loaded if there is something to write; the summary tells of it."""
        watch, task = Stopwatch(), _Task(catalogue, columns, summary)
        try:
            for author in self.authors.distinct:
                self._write(author, task)
        finally:
            summary.generating_seconds = watch.seconds()
            summary.timeline = task.timeline.ended(summary.written, summary.tokens)

    def _write(self, author: Author, task: "_Task") -> None:
        # A run has one recipe: those of further authors are runs of their own.
        name = self.run if author is self.authors.default else f"{self.run} {author.recipe.digest}"
        run_id = self.memory.begin_run(name, author.recipe.digest)
        with closing(self._writer(author)) as writer:
            try:
                for what, round_ in self._rounds(author, run_id):
                    self._pass(what, round_, writer, run_id, task)
            finally:
                task.summary.add(writer.figures)
            task.summary.device = writer.device or task.summary.device
            task.summary.workers += writer.workers

    def _writer(self, author: Author) -> "Writer | Cluster":
        machine = self.settings.machine
        if machine.gpus is None and machine.cluster is None:
            return Writer(author, self.memory, self.should_stop, self.judges)
        from enrich.cluster import Cluster

        return Cluster(author, self.memory, self.should_stop)

    def _rounds(self, author: Author, run_id: int) -> Iterator[tuple[str, Round]]:
        """What is missing, then what may not be published, as often as is allowed."""
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

    def _pass(self, what: str, round_: Round, writer: "Writer | Cluster", run_id: int, task: "_Task") -> None:
        """Writes what a round asks for; every finished batch is committed at once."""
        # Keys handed to the engine and not committed yet: with the memory, all that has to be known of duplicates.
        in_flight: set[bytes] = set()
        summary, is_first = task.summary, isinstance(round_, Missing)
        with Progress(what, task.catalogue.num_rows) as progress:
            products = self._wanted(writer.author, round_, task, in_flight, progress)
            may_begin = partial(self.limits.allow, is_new=is_first)
            try:
                for finished in writer.write(products, may_begin, again=not is_first):
                    self.memory.add(run_id, finished.entries)
                    in_flight.difference_update(entry.key for entry in finished.entries)
                    progress.wrote(len(finished.entries), finished.tokens, finished.figures, **finished.fates)
                    task.timeline.add(summary.written + progress.written, summary.tokens + progress.tokens)
                    self.check_stop()
            finally:
                # A run that is stopped tells of what it committed.
                summary.written += progress.written
                summary.tokens += progress.tokens

    def _wanted(
        self, author: Author, round_: Round, task: "_Task", in_flight: set[bytes], progress: Progress
    ) -> Iterator[Wanted]:
        placeholders, recipe_of = self.settings.catalogue.placeholders, self.authors.recipe_of
        found = shares(task.catalogue, task.columns, placeholders, author.recipe, recipe_of, round_, in_flight)
        told = self._told(found, progress)
        for product in largest_first(told) if task.columns.priority else in_order(told):
            self.check_stop()
            # Asked here, too: where nothing may be begun, no weights need be loaded.
            if not self.limits.allow():
                return
            in_flight.add(product.key)
            yield product

    def _told(self, found: Iterator[Share], progress: Progress) -> Iterator[Share]:
        """The same, each told to the progress when its products are handed on."""
        for share in found:
            yield share
            reused = share.missing - share.rejected - len(share.wanted)
            progress.passed(share.num_rows, missing=share.missing, reused=reused, rejected=share.rejected)
            self.check_stop()


@dataclass(frozen=True)
class _Task:
    """A catalogue to write for, and what is told of it."""

    catalogue: Catalogue
    columns: Columns
    summary: Summary
    timeline: Timeline = field(default_factory=Timeline)
