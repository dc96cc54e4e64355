"""The proof that a published file is the input with its gaps filled, and nothing else."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from enrich.catalog.columns import FLAGS, NEW_DESCRIPTION, SCORE, STATUS, Columns, missing_rows
from enrich.catalog.content import check_regular, reading
from enrich.catalog.fingerprint import fingerprint
from enrich.catalog.read import Catalogue, exact_batches
from enrich.errors import CatalogueError, Difference, IOFailure

_MAY_DIFFER = frozenset({"generated", "approved"})
_OF_A_GAP = frozenset({"generated", "approved", "held", "pending", "rejected"})


class ColumnDigests:
    """A running digest of every column, fed with the batches of a stream in order."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.num_rows = 0
        self._hashers = {name: xxhash.xxh3_128() for name in schema.names}

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes the next rows. Two streams compare only if they are cut into batches at the same rows."""
        self.num_rows += batch.num_rows
        for name, hasher in self._hashers.items():
            hasher.update(fingerprint(batch.column(name)))

    def of(self, name: str) -> str:
        return str(self._hashers[name].hexdigest())


def prove_written(path: Path, expected: ColumnDigests, batch_rows: int, check_stop: Callable[[], None]) -> None:
    """Reads a file back, page checksums verified, and compares it with what was meant to be in it.

    Raises `IOFailure` at the first difference: what was written is not what lies on the disk.
    """
    try:
        found = _digests_of(path, batch_rows, check_stop)
    except CatalogueError as error:
        raise IOFailure(f"{path}: does not read back as it was written ({error})") from error
    if not found.schema.equals(expected.schema, check_metadata=True):
        raise IOFailure(f"{path}: its schema is not what was written")
    if found.num_rows != expected.num_rows:
        raise IOFailure(f"{path}: {found.num_rows} rows read back, {expected.num_rows} written")
    for name in found.schema.names:
        if found.of(name) != expected.of(name):
            raise IOFailure(f"{path}: column {name} does not read back as it was written")


def _digests_of(path: Path, batch_rows: int, check_stop: Callable[[], None]) -> ColumnDigests:
    with reading(path):
        schema = pq.read_schema(path)
    found = ColumnDigests(schema)
    for batch in exact_batches(path, batch_rows):
        check_stop()
        found.add(batch)
    return found


def prove(catalogue: Catalogue, columns: Columns, placeholders: Collection[str], output: Path) -> None:
    """Compares a published file with its input, row by row, from nothing but the two.

    Raises `Difference` naming the first column and row (from 0) that differ where nothing may.
    """
    check_regular(output)
    with reading(output):
        schema = pq.read_schema(output)
    description = columns.description or NEW_DESCRIPTION
    _compare_schemas(catalogue.schema, schema, description)
    start = 0
    for theirs, ours in _side_by_side(catalogue, output):
        for name in theirs.schema.names:
            if name not in (description, STATUS, FLAGS, SCORE):
                _compare(name, start, theirs.column(name), ours.column(name))
        original = theirs.column(columns.description) if columns.description else None
        former = theirs.column(STATUS).to_pylist() if STATUS in theirs.schema.names else [None] * theirs.num_rows
        _compare_descriptions(description, start, original, ours, placeholders, former)
        start += theirs.num_rows


def _side_by_side(catalogue: Catalogue, output: Path) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    with reading(output):
        num_rows = pq.read_metadata(output).num_rows
    if num_rows != catalogue.num_rows:
        raise Difference(f"the input has {catalogue.num_rows} rows, the output {num_rows}")
    ours = exact_batches(output, catalogue.batch_rows)
    for batch in catalogue.batches():
        other = next(ours, None)
        if other is None or other.num_rows != batch.rows.num_rows:
            raise Difference(f"the output ends before row {batch.start + batch.rows.num_rows}")
        yield batch.rows, other


def _compare_schemas(theirs: pa.Schema, ours: pa.Schema, description: str) -> None:
    expected = [
        *theirs.names,
        *(name for name in (description, STATUS, FLAGS, SCORE) if name not in theirs.names),
    ]
    if ours.names != expected:
        raise Difference(f"the columns are {', '.join(ours.names)}; expected {', '.join(expected)}")
    for field in theirs:
        untyped = field.name == description and pa.types.is_null(field.type)
        replaced = field.name in (STATUS, FLAGS, SCORE)
        if not (untyped or replaced or ours.field(field.name).equals(field, check_metadata=True)):
            raise Difference(f"column {field.name} was {field.type} and is {ours.field(field.name).type}")
    lost = {key: value for key, value in (theirs.metadata or {}).items() if key != b"enrich"}
    if any((ours.metadata or {}).get(key) != value for key, value in lost.items()):
        raise Difference("the schema metadata of the input is not in the output")


def _compare(name: str, start: int, theirs: pa.Array, ours: pa.Array) -> None:
    if fingerprint(theirs) == fingerprint(ours):
        return
    row = next(i for i in range(len(theirs)) if fingerprint(theirs.slice(i, 1)) != fingerprint(ours.slice(i, 1)))
    raise Difference(f"column {name}, row {start + row}: differs from the input")


def _compare_descriptions(
    name: str,
    start: int,
    theirs: pa.Array | None,
    ours: pa.RecordBatch,
    placeholders: Collection[str],
    former: list[str | None],
) -> None:
    """A described row keeps its text, and is told as kept unless our own former output in the input says that
    the text was written; a gap has a text exactly if its status says so."""
    gaps = set(missing_rows(theirs, ours.num_rows, placeholders).to_pylist())
    blank = set(missing_rows(ours.column(name), ours.num_rows, ()).to_pylist())
    for row, (status, was) in enumerate(zip(ours.column(STATUS).to_pylist(), former, strict=True)):
        if status not in (_OF_A_GAP if row in gaps else {was if was in _MAY_DIFFER else "kept"}):
            raise Difference(f"row {start + row}: its status is {status}, and its input {_gap_or_text(row in gaps)}")
        if row in gaps and status in _MAY_DIFFER and row in blank:
            raise Difference(f"column {name}, row {start + row}: {status}, but there is no text")
    original = pa.nulls(ours.num_rows, pa.string()) if theirs is None else theirs
    if pa.types.is_null(original.type):
        original = original.cast(pa.string())
    statuses = ours.column(STATUS).to_pylist()
    keep = pa.array([row not in gaps or statuses[row] not in _MAY_DIFFER for row in range(ours.num_rows)], pa.bool_())
    _compare(name, start, _nulled(original, keep), _nulled(ours.column(name), keep))


def _gap_or_text(is_gap: bool) -> str:
    return "misses a description" if is_gap else "has one"


def _nulled(column: pa.Array, keep: pa.Array) -> pa.Array:
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if pa.types.is_string_view(plain.type):
        plain = plain.cast(pa.large_string())
    return pc.if_else(keep, plain, pa.scalar(None, plain.type))
