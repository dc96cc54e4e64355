"""A catalogue of any format as a stream of Arrow batches, in input order, with flat memory.

A JSON catalogue is spooled to Parquet first, so that everything here sees Parquet alone. The whole file is
checked before a row is used: declared sizes, duplicate columns, row counts, types that can be written.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.catalog.batch_size import batch_rows_of
from enrich.catalog.content import check_regular, digest, reading, sniff
from enrich.catalog.json_records import DEFECT
from enrich.catalog.spool import HowToRead, spool
from enrich.errors import CatalogueError, IOFailure, NoInput

# A file that declares more than this and shrinks it a thousandfold was made to fill our memory.
_BOMB_BYTES, _BOMB_RATIO = 256 << 20, 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows. `start` is the ordinal of the first; `defects` holds a reason code for each row whose
    record was damaged and null for the others, or is None when no row of the batch can have one."""

    start: int
    rows: pa.RecordBatch
    defects: pa.Array | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """An input that can be read as often as needed: its Parquet form, its schema and its size in rows.

    `lost` counts records that leave no row; `kept_defects` rows with a cell that could not be kept. Both are
    described in the file `quarantine`.
    """

    source: Path
    parquet: Path
    content_digest: str
    schema: pa.Schema
    num_rows: int
    batch_rows: int
    quarantine: Path | None = None
    lost: int = 0
    kept_defects: int = 0

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Batch]:
        """Streams the rows; `columns` limits them to those top-level columns, in the order of the schema.

        Batch borders follow from the file alone, whatever the columns. Raises `CatalogueError` for damaged
        data, and when fewer or more rows come out than the file promises.
        """
        wanted = None if columns is None else [name for name in self.schema.names if name in set(columns)]
        if wanted is not None and self.quarantine:
            wanted.append(DEFECT)
        start = 0
        with _still_there(self.source):
            for rows in exact_batches(self.parquet, self.batch_rows, wanted):
                yield _split_defects(start, rows)
                start += rows.num_rows
        if start != self.num_rows:
            raise CatalogueError(f"{self.source}: {start} rows came out, {self.num_rows} were promised", "row_count")

    def check_unchanged(self) -> None:
        """Raises unless the input still has the content it had when it was opened."""
        with _still_there(self.source):
            found = digest(self.source)
        if found != self.content_digest:
            raise CatalogueError(f"{self.source}: changed while it was read; run again", "changed")


@contextmanager
def _still_there(source: Path) -> Iterator[None]:
    """An input that was there when it was opened is not a wrong name: losing it is a failure of the storage."""
    try:
        yield
    except NoInput as error:
        raise IOFailure(f"{source}: vanished while it was read; run again when it is back") from error


def open_catalogue(
    source: Path, how: HowToRead, spool_folder: Path, check_stop: Callable[[], None] = lambda: None
) -> Catalogue:
    """Opens a local catalogue, spooling JSON into `spool_folder`.

    Raises `CatalogueError` when it cannot be read or could not be written again, `NoInput` when it is not there.
    """
    check_regular(source)
    content_digest = digest(source)
    kind = sniff(source)
    if kind == "parquet":
        return _open_parquet(source, source, content_digest)
    spooled = spool(source, content_digest, kind, how, spool_folder, check_stop)
    catalogue = _open_parquet(source, spooled.path, content_digest)
    return Catalogue(
        source,
        spooled.path,
        content_digest,
        catalogue.schema.remove(catalogue.schema.get_field_index(DEFECT)),
        catalogue.num_rows,
        catalogue.batch_rows,
        spooled.quarantine,
        spooled.lost,
        spooled.kept,
    )


def _open_parquet(source: Path, parquet: Path, content_digest: str) -> Catalogue:
    with reading(source):
        metadata = pq.read_metadata(parquet)
        with pq.ParquetFile(parquet) as file:
            schema = file.schema_arrow
    _check_declared(source, metadata)
    _check_schema(source, schema)
    return Catalogue(source, parquet, content_digest, schema, metadata.num_rows, batch_rows_of(metadata))


def _check_declared(source: Path, metadata: pq.FileMetaData) -> None:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise CatalogueError(f"{source}: its row groups do not add up to its {metadata.num_rows} rows", "row_count")
    # Of the row groups, not of their columns: to ask for an encrypted column's size ends the process.
    declared = sum(group.total_byte_size for group in groups)
    if declared > max(_BOMB_BYTES, _BOMB_RATIO * source.stat().st_size):
        raise CatalogueError(
            f"{source}: unpacks {source.stat().st_size} bytes to {declared}: a decompression bomb?", "bomb"
        )


def _check_schema(source: Path, schema: pa.Schema) -> None:
    if len(set(schema.names)) < len(schema.names):
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        raise CatalogueError(f"{source}: more than one column is called {', '.join(twice)}", "duplicate_columns")
    for field in schema:
        try:
            pq.write_table(pa.schema([field]).empty_table(), pa.BufferOutputStream())
        except (pa.ArrowException, NotImplementedError, ValueError):
            raise CatalogueError(
                f"{source}: column {field.name} has type {field.type}, which cannot be written to Parquet",
                "type",
            ) from None


def exact_batches(parquet: Path, batch_rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of exactly `batch_rows` rows, the last one shorter. Arrow cuts some types at row groups too."""
    pending: list[pa.RecordBatch] = []
    for batch in _stored_batches(parquet, batch_rows, columns):
        pending.append(batch)
        while sum(part.num_rows for part in pending) >= batch_rows:
            joined = pending[0] if len(pending) == 1 else pa.concat_batches(pending)
            yield joined.slice(0, batch_rows)
            pending = [joined.slice(batch_rows)] if joined.num_rows > batch_rows else []
    if pending:
        yield pending[0] if len(pending) == 1 else pa.concat_batches(pending)


def _stored_batches(parquet: Path, batch_rows: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    with reading(parquet):
        # A buffered stream reads a column chunk page by page, so a row group of any size takes little memory;
        # left to itself, Arrow fetches whole row groups ahead.
        file = pq.ParquetFile(parquet, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
    with file:
        batches = file.iter_batches(batch_rows, columns=columns)
        while True:
            with reading(parquet):
                batch = next(batches, None)
            if batch is None:
                return
            if batch.num_rows:
                yield batch


def _split_defects(start: int, rows: pa.RecordBatch) -> Batch:
    index = rows.schema.get_field_index(DEFECT)
    if index < 0:
        return Batch(start, rows, None)
    defects = rows.column(index)
    return Batch(start, rows.remove_column(index), defects if defects.null_count < len(defects) else None)
