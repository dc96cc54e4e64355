"""From raw catalogues to pairs to learn from: read → judge → drop duplicates → split → write.

Three passes, with a spool between them. Memory does not grow with the catalogues but for what tells duplicates, as
`duplicates.py` says: some 110 bytes a row. Signatures (224 bytes a row) and spools lie on the disk, beside the result.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson

from enrich import durable
from enrich.catalog.columns import STATUS, Columns, resolve_columns, text_columns, used_columns
from enrich.catalog.publish import former_footer
from enrich.catalog.read import Catalogue, open_catalogue
from enrich.catalog.sources import find_sources
from enrich.catalog.spool import HowToRead
from enrich.crew import Crew, num_cores
from enrich.engine.bases import EMBEDDED, find_base
from enrich.errors import CatalogueError, SettingsError, Stopped
from enrich.prompt import Template
from enrich.quality.duplicates import Digests
from enrich.report.progress import Progress
from enrich.settings import CatalogueSettings, Settings, home
from enrich.text import printable
from train.pairs import RECORD
from train.prepare_settings import PrepareSettings
from train.preparing.boilerplate import SeenTexts, Sketch
from train.preparing.candidates import Candidates, Reader
from train.preparing.folder import fresh_folder
from train.preparing.funnel import CUT, Funnel
from train.preparing.prepared_folder import Fates, Written, write_pairs
from train.preparing.report import prepare_page
from train.preparing.spool import Spool
from train.preparing.survivors import Judge

log = logging.getLogger("enrich")

# Fewer rows are done before processes have started.
_MIN_ROWS_FOR_PROCESSES = 10_000
# From one text there is nothing to learn but that text.
_MIN_PAIRS = 2
_MIN_SHARED, _SHARED_SHARE = 20, 200


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared folder: rows by split, rows dropped by filter (in their order), rows read, and rows that lost
    sentences that many share."""

    folder: Path
    splits: dict[str, int]
    dropped: dict[str, int]
    num_rows: int
    num_cut: int

    def lines(self) -> list[str]:
        """What a person reads after preparing."""
        dropped = ", ".join(f"{code} {count:,}" for code, count in self.dropped.items() if count) or "none"
        pairs = ", ".join(f"{count:,} {split}" for split, count in self.splits.items())
        return [f"{self.folder}: {self.num_rows:,} rows, {pairs}", f"  dropped: {dropped}"]


def prepare(
    catalogues: Sequence[str],
    out: Path,
    settings: Settings,
    options: PrepareSettings,
    should_stop: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Writes the pairs of the catalogues into the folder `out`, with `prepare.json` and `prepare.html`.

    The same catalogues and settings give the same bytes. Raises `CatalogueError` when fewer than two different
    descriptions are left or none can be trained on, `Stopped`, with nothing written, when `should_stop` said so, and
    whatever stands against reading or writing.
    """
    with fresh_folder(out, RECORD) as folder, TemporaryDirectory(dir=folder) as work:
        preparation = _Preparation(catalogues, folder, Path(work), settings, options, should_stop)
        written = preparation.run()
    funnel = preparation.funnel
    return Prepared(out, written.splits, funnel.dropped, funnel.num_rows, funnel.counts[CUT])


@dataclass
class _Preparation:
    catalogues: Sequence[str]
    folder: Path
    work: Path
    settings: Settings
    options: PrepareSettings
    should_stop: Callable[[], bool]
    funnel: Funnel = field(default_factory=Funnel)
    inputs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.template = Template.parse(self.settings.text.template)
        self.base = _base(self.settings)
        self.crew = Crew(num_cores())
        self.candidates = Spool(self.work / "candidates")
        self.survivors = Spool(self.work / "survivors")
        self.sketch = self.work / "sketch.npy"
        self.signatures = self.work / "signatures"

    def run(self) -> Written:
        """The passes, and what they were worth."""
        with self.crew:
            digests = self._judge(self._read())
        fates = self._fates(digests)
        written = write_pairs(
            self.folder,
            self.survivors,
            fates,
            self.funnel,
            has_bos=self.template.has_bos,
            check_stop=self._check_stop,
        )
        self._check_trainable(written)
        record = self._record(written)
        as_json = orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (self.folder / RECORD).write_bytes(as_json)
        (self.folder / "prepare.html").write_text(prepare_page(record, self.funnel, written), encoding="utf-8")
        return written

    def _read(self) -> int:
        """The first pass; returns how many different texts there are."""
        sketch, seen = Sketch(), SeenTexts()
        with self.candidates as spool:
            for found in self._found():
                self.funnel.add(found.funnel)
                spool.write(found.rows)
                is_new = seen.add(found.texts)
                sketch.add(found.sentences[np.repeat(is_new, found.num_sentences)])
        sketch.save(self.sketch)
        return seen.num_texts

    def _found(self) -> Iterator[Candidates]:
        for named in self.catalogues:
            for source in find_sources(named, None).sources:
                log.info("reading %s", source.address)
                with source.local(self.work) as path:
                    yield from self._found_in(path, printable(source.address))

    def _found_in(self, path: Path, name: str) -> Iterator[Candidates]:
        chosen = self.settings.catalogue
        catalogue = open_catalogue(path, _how_to_read(chosen), self.work / "json", self._check_stop)
        ours = former_footer(catalogue.schema) is not None
        reader = Reader(_columns(catalogue, chosen, name, ours), chosen.placeholders, ours, self.options.min_characters)
        yield from self._found_by(reader, catalogue)
        catalogue.check_unchanged()
        self.inputs.append(
            {
                "name": name.rsplit("/", 1)[-1],
                "rows": catalogue.num_rows,
                "lost": catalogue.lost,
                "digest": catalogue.content_digest,
            }
        )
        if catalogue.parquet != path:
            durable.discard(catalogue.parquet)

    def _found_by(self, reader: Reader, catalogue: Catalogue) -> Iterator[Candidates]:
        batches = catalogue.batches(reader.needed())
        is_small = catalogue.num_rows < _MIN_ROWS_FOR_PROCESSES
        with Progress("reading", catalogue.num_rows) as progress:
            for found in self.crew.in_order(reader.read, batches, alone=is_small):
                self._check_stop()
                progress.passed(found.funnel.num_rows)
                yield found

    def _judge(self, num_texts: int) -> Digests:
        """The second pass; returns the digests of the survivors."""
        log.info("judging %s different texts", f"{num_texts:,}")
        judge, digests = self._judge_knowing(num_texts).judge, [np.empty((0, 2), np.uint64)]
        num_candidates = self.funnel.num_rows - self.funnel.num_dropped
        is_small = num_candidates < _MIN_ROWS_FOR_PROCESSES
        with (
            self.survivors as spool,
            self.signatures.open("wb") as signatures,
            Progress("judging", num_candidates) as progress,
        ):
            for found in self.crew.in_order(judge, self.candidates.contents(), alone=is_small):
                self._check_stop()
                progress.passed(found.num_judged)
                self.funnel.add(found.funnel)
                spool.write(found.rows)
                digests.append(found.digests)
                signatures.write(found.signatures.tobytes())
        return np.concatenate(digests)

    def _judge_knowing(self, num_texts: int) -> Judge:
        max_shared = self.options.boilerplate_rows or max(_MIN_SHARED, num_texts // _SHARED_SHARE)
        return Judge(
            self.settings.text.template,
            self.base,
            self.settings.text.max_prompt_tokens,
            self.options,
            self.sketch,
            max_shared,
        )

    def _fates(self, digests: Digests) -> Fates:
        signatures = self.signatures if self.options.near_duplicates else None
        fates = Fates.decide(digests, signatures, self.options.near_duplicate_similarity)
        fates.count(self.funnel)
        if int(fates.is_kept.sum()) < _MIN_PAIRS:
            raise CatalogueError(self._why_too_few(int(fates.is_kept.sum())), "too_few_pairs")
        return fates

    def _why_too_few(self, num_kept: int) -> str:
        names = ", ".join(each["name"] for each in self.inputs)
        described, dropped = self.funnel.num_described, self.funnel.dropped
        if not described:
            return f"{names}: no described rows among {self.funnel.num_rows:,}; is the description in another column?"
        duplicates = dropped["exact_duplicate"] + dropped["near_duplicate"]
        if num_kept and duplicates == described - num_kept > 0:
            return f"{names}: all {described:,} described rows are duplicates of one; different descriptions are needed"
        reasons = ", ".join(f"{count:,} {name}" for name, count in dropped.items() if count and name != "missing")
        left = f"{num_kept} of {described:,} described rows is left to learn from"
        return f"{names}: {left}{f' ({reasons})' if reasons else ''}; at least {_MIN_PAIRS} are needed"

    def _check_trainable(self, written: Written) -> None:
        if not written.splits["train"]:
            raise CatalogueError(
                f"all {sum(written.splits.values()):,} rows left fell into validation and test; more descriptions are "
                "needed, or smaller shares, or another seed",
                "nothing_to_train",
            )
        for split, count in written.splits.items():
            if not count:
                log.warning("no row fell into %s: more descriptions are needed to measure by", split)

    def _record(self, written: Written) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "template": self.settings.text.template,
            "template_id": self.template.id,
            "attributes": list(self.settings.catalogue.attributes),
            "seed": self.options.seed,
            "counts": {
                "rows": self.funnel.num_rows,
                "dropped": self.funnel.dropped,
                CUT: self.funnel.counts[CUT],
                **written.splits,
            },
            "digest": written.digest,
            "license": self.options.license,
            "tokenizer": self.base.name if self.base else "echo",
            "options": self.options.model_dump(exclude={"seed", "license"}),
        }

    def _check_stop(self) -> None:
        if self.should_stop():
            raise Stopped("stopped by a signal; nothing was written, run again")


def _base(settings: Settings) -> Path | None:
    """The folder of the model whose tokens are counted; None for the echo engine."""
    return None if settings.machine.engine == "echo" else find_base(settings.model.base or EMBEDDED, home()).folder


def _how_to_read(settings: CatalogueSettings) -> HowToRead:
    return HowToRead(settings.records, text_columns(settings), used_columns(settings))


def _columns(catalogue: Catalogue, settings: CatalogueSettings, name: str, ours: bool) -> Columns:
    try:
        columns = resolve_columns(catalogue.schema, settings, catalogue.num_rows)
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
    if columns.description is None and catalogue.num_rows:
        there = ", ".join(catalogue.schema.names)
        raise SettingsError(f"{name}: no column looks like a description: say --description NAME, one of {there}")
    if ours and STATUS not in catalogue.schema.names:
        raise CatalogueError(
            f"{name}: written by this tool, but its column {STATUS} is gone, and with it which texts are generated; "
            "prepare from the original",
            "no_status",
        )
    return columns
