"""The enriched catalogue: the input streamed once more, its gaps filled, proven, and only then given its name."""

import io
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from enrich import durable
from enrich.catalog.columns import FLAGS, NEW_DESCRIPTION, SCORE, STATUS, Columns, Gap, count_placeholders
from enrich.catalog.content import digest, reading
from enrich.catalog.proof import ColumnDigests, prove_written
from enrich.catalog.read import Catalogue
from enrich.errors import CatalogueError, IOFailure
from enrich.products import Description

_GROUP_ROWS = 131_072
_GROUP_BYTES = 64 << 20
_OURS = (STATUS, FLAGS, SCORE)
_TYPES = {STATUS: pa.string(), FLAGS: pa.list_(pa.field("element", pa.string())), SCORE: pa.int8()}
FOOTER = b"enrich"

# Arrow would rename the inner fields of lists to what newer files call them: a change nobody asked for.
_AS_NAMED = {"use_compliant_nested_type": False}

Decide = Callable[[int, Sequence[Gap]], Sequence[Description]]
"""From the ordinal of a batch's first row, and its gaps, to the fate of each."""


@dataclass(slots=True)
class Published:
    """What a pass found: rows by status, codes of rejected rows, kept descriptions that look like placeholders."""

    statuses: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    unlisted_placeholders: int = 0


def former_footer(schema: pa.Schema) -> dict[str, object] | None:
    """The provenance of a catalogue that is our own former output, else None."""
    raw = (schema.metadata or {}).get(FOOTER)
    return None if raw is None else orjson.loads(raw)


def check_enrich_columns(catalogue: Catalogue) -> None:
    """Raises when the input has columns, or a footer, of our names that we did not write."""
    if not _is_footer((catalogue.schema.metadata or {}).get(FOOTER, b"{}")):
        raise CatalogueError(
            f"{catalogue.source}: its schema metadata has a key {FOOTER.decode()} that is no footer of this tool; "
            "rename it",
            "foreign_footer",
        )
    foreign = [name for name in _OURS if name in catalogue.schema.names]
    if foreign and former_footer(catalogue.schema) is None:
        raise CatalogueError(
            f"{catalogue.source}: has a column {foreign[0]} that this tool did not write; rename it",
            "foreign_column",
        )


def _is_footer(raw: bytes) -> bool:
    try:
        return isinstance(orjson.loads(raw), dict)
    except orjson.JSONDecodeError:
        return False


def output_schema(schema: pa.Schema, columns: Columns, footer: dict[str, object]) -> pa.Schema:
    """Every input field unchanged and in place; ours replaced where they are, else appended."""
    for name in (columns.description or NEW_DESCRIPTION,):
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
        elif pa.types.is_null(schema.field(name).type):
            # A column that was null in every row has no type yet.
            schema = schema.set(schema.get_field_index(name), pa.field(name, pa.string()))
    for name, data_type in _TYPES.items():
        index = schema.get_field_index(name)
        ours = pa.field(name, data_type)
        schema = schema.append(ours) if index < 0 else schema.set(index, ours)
    return schema.with_metadata({**(schema.metadata or {}), FOOTER: orjson.dumps(footer, option=orjson.OPT_SORT_KEYS)})


def publish(
    catalogue: Catalogue,
    columns: Columns,
    placeholders: Collection[str],
    decide: Decide,
    footer: dict[str, object],
    output: Path,
    accept: Callable[[Published], None],
    check_stop: Callable[[], None],
) -> Published:
    """Writes `output` from the catalogue and what `decide` says of each gap.

    The file is written under a temporary name, closed, read back and compared with the input, and renamed
    durably, after `accept` raised nothing and the input is still what it was. On any error nothing appears
    under the final name and a former output stays as it is.
    """
    schema = output_schema(catalogue.schema, columns, footer)
    published = Published()
    digests = ColumnDigests(schema)
    filled = _filled(catalogue, columns, placeholders, decide, schema, published)
    with _temporary(output) as temp:
        written = _write(temp, schema, _checked(filled, digests, check_stop))
        accept(published)
        prove_written(temp, digests, catalogue.batch_rows, check_stop)
        # Page checksums do not cover the footer, whose statistics other readers trust.
        if digest(temp) != written:
            raise IOFailure(f"{output}: its bytes do not read back as they were written")
        catalogue.check_unchanged()
        _publish_quarantine(catalogue, output)
        durable.replace(temp, output)
    return published


def quarantine_of(output: Path) -> Path:
    """Where the records are described that could not become rows of `output`."""
    return output.with_name(output.name + ".quarantine.jsonl")


def _publish_quarantine(catalogue: Catalogue, output: Path) -> None:
    final = quarantine_of(output)
    if catalogue.quarantine is None or not catalogue.quarantine.exists():
        durable.discard(final)
        return
    temp = durable.temporary(final)
    durable.discard(temp)
    with reading(catalogue.quarantine):
        shutil.copyfile(catalogue.quarantine, temp)
    durable.replace(temp, final)


@contextmanager
def _temporary(output: Path) -> Iterator[Path]:
    temp = durable.temporary(output)
    try:
        durable.discard(temp)
        yield temp
    except OSError as error:
        raise IOFailure(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        # An exception inside a Parquet writer leaves a valid, short file; renamed, there is nothing to remove.
        durable.discard(temp)


def _checked(
    batches: Iterable[pa.RecordBatch], digests: ColumnDigests, check_stop: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        check_stop()
        digests.add(batch)
        yield batch


def _write(temp: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> str:
    """Encodes in one thread while the next rows are read in another. Returns the digest of what was written."""
    with (
        _DigestedFile(temp) as sink,
        pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True, **_AS_NAMED) as writer,
        # Innermost: a writer that is closed while another thread writes with it ends the process.
        ThreadPoolExecutor(1) as thread,
    ):
        writing = None
        for table in _row_groups(batches):
            if writing:
                writing.result()
            writing = thread.submit(writer.write_table, table, row_group_size=max(1, table.num_rows))
        if writing:
            writing.result()
    return sink.digest()


class _DigestedFile(io.FileIO):
    """A new file that digests (hex XXH3-128) what is written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "xb")
        self._hasher = xxhash.xxh3_128()

    def write(self, block: Any, /) -> int:
        whole = memoryview(block).cast("B")
        done = 0
        while done < len(whole):
            done += super().write(whole[done:])
        self._hasher.update(whole)
        return done

    def digest(self) -> str:
        return self._hasher.hexdigest()


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    gathered: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        gathered.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(gathered)
            gathered, rows, size = [], 0, 0
    if gathered:
        yield pa.Table.from_batches(gathered)


def _filled(
    catalogue: Catalogue,
    columns: Columns,
    placeholders: Collection[str],
    decide: Decide,
    schema: pa.Schema,
    published: Published,
) -> Iterator[pa.RecordBatch]:
    description = columns.description or NEW_DESCRIPTION
    for batch in catalogue.batches():
        gaps = columns.gaps(batch, placeholders)
        fates = decide(batch.start, gaps)
        cells = dict(zip(batch.rows.schema.names, batch.rows.columns, strict=True))
        if columns.description:
            published.unlisted_placeholders += count_placeholders(cells[columns.description], placeholders)
        original = cells.get(description, pa.nulls(batch.rows.num_rows, pa.string()))
        with _fitting(catalogue.source, schema.field(description)):
            cells[description] = _fill(original, gaps, fates, schema.field(description).type)
        cells.update(_our_columns(cells, batch.rows.num_rows, gaps, fates))
        _count(published, cells[STATUS], fates)
        yield pa.RecordBatch.from_arrays([cells[name] for name in schema.names], schema=schema)


def _count(published: Published, statuses: pa.Array, fates: Sequence[Description]) -> None:
    published.statuses.update({each["values"]: each["counts"] for each in pc.value_counts(statuses).to_pylist()})
    published.rejected.update(fate.flags[0] for fate in fates if fate.status == "rejected")


def _fill(original: pa.Array, gaps: Sequence[Gap], fates: Sequence[Description], data_type: pa.DataType) -> pa.Array:
    """The description column with the decided texts in its gaps; every other cell is the one it was."""
    texts = {gap.index: fate.text for gap, fate in zip(gaps, fates, strict=True) if fate.text is not None}
    if not texts:
        return original.cast(data_type)
    plain_type = _fillable(data_type)
    plain = original.cast(plain_type)
    mask = pa.array([index in texts for index in range(len(plain))], pa.bool_())
    filled = pc.replace_with_mask(plain, mask, pa.array(list(texts.values()), pa.string()).cast(plain_type))
    return filled.dictionary_encode().cast(data_type) if pa.types.is_dictionary(data_type) else filled.cast(data_type)


@contextmanager
def _fitting(source: Path, description: pa.Field) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid:
        raise CatalogueError(
            f"{source}: column {description.name} is a {description.type}, too narrow for the new texts; "
            "store it as plain text",
            "type",
        ) from None


def _fillable(data_type: pa.DataType) -> pa.DataType:
    """The nearest type whose cells Arrow can replace: not a view, not a dictionary."""
    if pa.types.is_dictionary(data_type):
        return _fillable(data_type.value_type)
    return pa.large_string() if pa.types.is_string_view(data_type) else data_type


def _our_columns(
    cells: dict[str, pa.Array], num_rows: int, gaps: Sequence[Gap], fates: Sequence[Description]
) -> dict[str, pa.Array]:
    """Status, flags and score: as decided in a gap; as they were where our own former output had a text."""
    if not gaps and STATUS not in cells:
        return {
            STATUS: pa.repeat("kept", num_rows),
            FLAGS: pa.array([[]] * num_rows, _TYPES[FLAGS]),
            SCORE: pa.nulls(num_rows, pa.int8()),
        }
    decided = {gap.index: fate for gap, fate in zip(gaps, fates, strict=True)}
    former = [cells[name].to_pylist() if name in cells else [None] * num_rows for name in _OURS]
    rows = [decided.get(index) or _former_fate(*each) for index, each in enumerate(zip(*former, strict=True))]
    return {
        STATUS: pa.array([row.status for row in rows], _TYPES[STATUS]),
        FLAGS: pa.array([row.flags for row in rows], _TYPES[FLAGS]),
        SCORE: pa.array([row.score for row in rows], _TYPES[SCORE]),
    }


_KEPT = Description("kept")


def _former_fate(status: Any, flags: list[str] | None, score: int | None) -> Description:
    return Description(status, None, tuple(flags or ()), score) if status in ("generated", "approved") else _KEPT
