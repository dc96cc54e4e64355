"""The described rows of a batch, cleaned as in generation, without those that are nothing to learn from as they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from enrich.catalog.columns import STATUS, Columns, Described
from enrich.catalog.read import Batch
from enrich.plan import product_of
from enrich.text import clean
from train.pairs import PAIR_SCHEMA, Pair, rows_of
from train.preparing.boilerplate import Hashes, hashes, sentences
from train.preparing.filters import fault
from train.preparing.funnel import MAX_SAMPLES, Funnel, sample
from train.preparing.spool import packed

CANDIDATE_SCHEMA = pa.schema([*PAIR_SCHEMA, ("sentences", pa.list_(pa.uint64()))])
"""`sentences`: the different hashes of a description's sentences."""

_TRUSTED = ("kept", "approved")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Packed rows of `CANDIDATE_SCHEMA`, what became of the others, and of each row a hash of its text, how many
    sentences it has, and a hash of each of those (one after the other; twice in one row counts once)."""

    rows: bytes
    funnel: Funnel
    texts: Hashes
    num_sentences: npt.NDArray[np.int64]
    sentences: Hashes


@dataclass(frozen=True, slots=True)
class Reader:
    """How the rows of one catalogue become candidates; `ours` when it is our own former output."""

    columns: Columns
    placeholders: tuple[str, ...]
    ours: bool
    min_characters: int

    def needed(self) -> list[str]:
        """The top-level columns to read."""
        return [*self.columns.needed(), *([STATUS] if self.ours else [])]

    def read(self, batch: Batch) -> Candidates:
        """The candidates of a batch, in order."""
        funnel = Funnel(batch.rows.num_rows)
        described = self.columns.described(batch, self.placeholders)
        self._count_missing(batch, len(described), funnel)
        return _candidates(list(self._passing(batch, described, funnel)), funnel)

    def _count_missing(self, batch: Batch, num_described: int, funnel: Funnel) -> None:
        if num_missing := batch.rows.num_rows - num_described:
            funnel.counts["missing"] += num_missing
            head = Batch(batch.start, batch.rows.slice(0, 64), batch.defects and batch.defects.slice(0, 64))
            gaps = self.columns.gaps(head, self.placeholders)[:MAX_SAMPLES]
            funnel.show("missing", [sample(gap.title or "", "", "null, blank or a placeholder") for gap in gaps])

    def _passing(self, batch: Batch, described: list[Described], funnel: Funnel) -> Iterator[Pair]:
        statuses = batch.rows.column(STATUS).to_pylist() if self.ours else None
        for row in described:
            raw = row.description if isinstance(row.description, str) else ""
            if statuses and statuses[row.index] not in _TRUSTED:
                funnel.count("generated_row", row.title or "", raw, f"{STATUS} {statuses[row.index]}")
                continue
            product = product_of(row)
            if isinstance(product, str):
                funnel.count("bad_title", row.title or "", raw, product)
                continue
            text = clean(raw)
            if found := fault(product, text, self.min_characters):
                funnel.count(found[0], product.title, text, found[1])
                continue
            yield Pair(product, text)


def _candidates(pairs: list[Pair], funnel: Funnel) -> Candidates:
    found = [set(hashes(sentences(pair.description))) - {0} for pair in pairs]
    nums = np.array([len(each) for each in found], np.int64)
    flat = np.array([each for row in found for each in row], np.uint64)
    rows = [*rows_of(pairs).columns, pa.ListArray.from_arrays(np.append(0, np.cumsum(nums)).astype(np.int32), flat)]
    return Candidates(
        packed(pa.RecordBatch.from_arrays(rows, schema=CANDIDATE_SCHEMA)),
        funnel,
        np.array([xxhash.xxh3_64_intdigest(pair.description.casefold().encode()) for pair in pairs], np.uint64),
        nums,
        flat,
    )
