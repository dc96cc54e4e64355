"""The files of a prepared folder: survivors without duplicates, each in the file of its split, and what they tell."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from enrich.quality.duplicates import Digests, Indices, leaders, near_leaders
from train.pairs import FILE_SCHEMA, PAIR_SCHEMA, SPLITS
from train.preparing.funnel import MAX_SAMPLES, Funnel, Sample, sample
from train.preparing.spool import Spool, unpacked

_MAX_KEPT_SAMPLES = 10
_GROUP_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many texts have how many characters: bin n holds n * width up to the next; the last, all above too."""

    width: int
    counts: npt.NDArray[np.int64]

    def add(self, texts: pa.Array) -> None:
        bins = pc.utf8_length(texts).to_numpy(zero_copy_only=False) // self.width
        last = len(self.counts) - 1
        self.counts[:] += np.bincount(np.minimum(bins, last), minlength=last + 1)


def _histogram(width: int) -> Histogram:
    return Histogram(width, np.zeros(24, np.int64))


@dataclass(slots=True)
class Written:
    """What is in the files: rows by split, a digest of all of them, lengths, and some pairs to show."""

    splits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    digest: str = ""
    title_lengths: Histogram = field(default_factory=lambda: _histogram(10))
    description_lengths: Histogram = field(default_factory=lambda: _histogram(50))
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Fates:
    """Which survivors are duplicates: `leader` holds for each the row it repeats, its own index when it stays;
    `is_exact` whether it repeats it exactly."""

    digests: Digests
    leader: Indices
    is_exact: npt.NDArray[np.bool_]

    @classmethod
    def decide(cls, digests: Digests, signatures: Path | None, similarity: float) -> "Fates":
        """Exact duplicates by their digests; of the others the nearly equal ones by `signatures`, when given."""
        leader = leaders(digests)
        rows = np.arange(len(leader))
        is_exact = leader != rows
        if signatures is not None:
            for row, stays in near_leaders(signatures, rows[~is_exact], similarity).items():
                leader[row] = stays
        return cls(digests, leader, is_exact)

    @property
    def is_kept(self) -> npt.NDArray[np.bool_]:
        kept: npt.NDArray[np.bool_] = self.leader == np.arange(len(self.leader))
        return kept

    def count(self, funnel: Funnel) -> None:
        """Notes the duplicates in the funnel."""
        funnel.counts["exact_duplicate"] = int(self.is_exact.sum())
        funnel.counts["near_duplicate"] = int((~self.is_kept & ~self.is_exact).sum())

    def some_dropped(self, *, exact: bool) -> list[int]:
        """Some rows dropped as duplicates, no two of the same row; chance decides, the same on every run."""
        rows = np.flatnonzero(~self.is_kept & (self.is_exact == exact))
        return self._some(rows[np.unique(self.leader[rows], return_index=True)[1]], MAX_SAMPLES)

    def some_kept(self) -> list[int]:
        """Some rows that stay."""
        return self._some(np.flatnonzero(self.is_kept), _MAX_KEPT_SAMPLES)

    def _some(self, rows: Indices, count: int) -> list[int]:
        chosen: list[int] = np.sort(rows[np.argsort(self.digests[rows, 0], kind="stable")[:count]]).tolist()
        return chosen


def write_pairs(
    folder: Path, survivors: Spool, fates: Fates, funnel: Funnel, *, has_bos: bool, check_stop: Callable[[], None]
) -> Written:
    """Writes a Parquet file for each of `SPLITS`; adds samples of duplicates to the funnel."""
    written, shown, is_kept = Written(), _Shown(fates), fates.is_kept
    digest, start = _ContentDigest(), 0
    with _Files(folder, has_bos) as files:
        for content in survivors.contents():
            check_stop()
            rows = unpacked(content)
            stop = start + rows.num_rows
            shown.look(rows, start)
            kept = rows.filter(pa.array(is_kept[start:stop]))
            digest.add(kept)
            written.title_lengths.add(kept.column("title"))
            written.description_lengths.add(kept.column("description"))
            files.write(kept)
            start = stop
    written.splits, written.digest, written.samples = files.num_rows, digest.hexdigest(), shown.kept()
    shown.tell(funnel)
    return written


class _ContentDigest:
    """A digest of rows, whatever batches they come in: of their texts' lengths and of their bytes, column by column."""

    def __init__(self) -> None:
        columns = ("title", "prompt", "description", "split")
        self._parts = {(name, part): hashlib.blake2b(digest_size=16) for name in columns for part in ("length", "text")}

    def add(self, rows: pa.RecordBatch) -> None:
        for name in ("title", "prompt", "description"):
            column = rows.column(name)
            self._parts[name, "length"].update(pc.binary_length(column).to_numpy().astype("<i4").tobytes())
            self._parts[name, "text"].update(_text_of(column))
        self._parts["split", "length"].update(rows.column("split").to_numpy().tobytes())

    def hexdigest(self) -> str:
        whole = b"".join(digest.digest() for digest in self._parts.values())
        return hashlib.blake2b(whole, digest_size=16).hexdigest()


def _text_of(column: pa.Array) -> bytes | memoryview:
    """All of a column's texts, one after the other."""
    _, offsets, texts = column.buffers()
    if texts is None:
        return b""
    bounds = np.frombuffer(offsets, np.int32)[column.offset :]
    return memoryview(texts)[bounds[0] : bounds[len(column)]]


class _Shown:
    """The rows that the report shows, taken as they pass."""

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self._dropped = {
            "exact_duplicate": fates.some_dropped(exact=True),
            "near_duplicate": fates.some_dropped(exact=False),
        }
        self._kept = fates.some_kept()
        dropped = [row for rows in self._dropped.values() for row in rows]
        self._wanted = np.unique(np.array([*self._kept, *dropped, *fates.leader[dropped]], np.int64))
        self._texts: dict[int, tuple[str, str]] = {}

    def look(self, rows: pa.RecordBatch, start: int) -> None:
        inside = self._wanted[(self._wanted >= start) & (self._wanted < start + rows.num_rows)]
        for index in inside.tolist():
            self._texts[index] = tuple(rows.column(name)[index - start].as_py() for name in ("title", "description"))

    def kept(self) -> list[Sample]:
        return [sample(*self._texts[row], "") for row in self._kept]

    def tell(self, funnel: Funnel) -> None:
        for name, rows in self._dropped.items():
            funnel.show(name, [sample(*self._texts[row], f"as: {self._title_of_leader(row)}") for row in rows])

    def _title_of_leader(self, row: int) -> str:
        return self._texts[int(self._fates.leader[row])][0]


class _Files:
    """The Parquet files of the splits, in row groups whose size follows from the rows alone."""

    def __init__(self, folder: Path, has_bos: bool) -> None:
        self.num_rows = dict.fromkeys(SPLITS, 0)
        self._folder = folder
        self._begin = "<s>" if has_bos else ""
        self._waiting: dict[str, list[pa.RecordBatch]] = {split: [] for split in SPLITS}

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._writers = {split: opened.enter_context(self._writer(split)) for split in SPLITS}
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        with self._opened:
            if kind is None:
                for split in SPLITS:
                    self._flush(split)

    def write(self, rows: pa.RecordBatch) -> None:
        """Adds rows of `SURVIVOR_SCHEMA` to the files of their splits."""
        for index, split in enumerate(SPLITS):
            self._waiting[split].append(rows.filter(pc.equal(rows.column("split"), index)))
            if sum(part.num_rows for part in self._waiting[split]) >= _GROUP_ROWS:
                self._flush(split)

    def _complete(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        prompt, description = rows.column("prompt"), rows.column("description")
        completion = pc.binary_join_element_wise(" ", description, "")
        text = pc.binary_join_element_wise(self._begin, prompt, completion, " </s>", "")
        columns = [*(rows.column(name) for name in PAIR_SCHEMA.names), prompt, completion, text]
        return pa.RecordBatch.from_arrays(columns, schema=FILE_SCHEMA)

    def _flush(self, split: str) -> None:
        # Only now: complete, a row holds its description three times, and a small split's rows wait long.
        table = pa.Table.from_batches(map(self._complete, self._waiting[split]), FILE_SCHEMA)
        if table.num_rows:
            self._writers[split].write_table(table, row_group_size=table.num_rows)
            self.num_rows[split] += table.num_rows
        self._waiting[split] = []

    def _writer(self, split: str) -> pq.ParquetWriter:
        file = self._folder / f"{split}.parquet"
        return pq.ParquetWriter(file, FILE_SCHEMA, compression="zstd", write_page_checksum=True)
