"""The prepared folder, as those who learn from it or measure by it see it: pairs of a product and its description.

The strings `prompt`, `completion` and `text` in its files are for people and other tools: our own ids always
come from `enrich.prompt`, as in generation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from enrich.catalog.content import reading
from enrich.errors import CatalogueError, NoInput
from enrich.products import Product

SPLITS = ("train", "validation", "test")
RECORD = "prepare.json"

_ATTRIBUTES = pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("value", pa.string())]))
PAIR_SCHEMA = pa.schema([("title", pa.string()), ("attributes", _ATTRIBUTES), ("description", pa.string())])
FILE_SCHEMA = pa.schema([*PAIR_SCHEMA, ("prompt", pa.string()), ("completion", pa.string()), ("text", pa.string())])


@dataclass(frozen=True, slots=True)
class Pair:
    """A product and the description somebody wrote for it: cleaned, uncut."""

    product: Product
    description: str


def read_pairs(folder: Path, split: str) -> list[Pair]:
    """The pairs of one of `SPLITS`, in the order of the catalogues.

    Raises `NoInput` when the prepared folder is not there, `CatalogueError` when it is damaged.
    """
    _check_there(folder)
    file = folder / f"{split}.parquet"
    with reading(file), pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        if not set(PAIR_SCHEMA.names) <= set(parquet.schema_arrow.names):
            raise CatalogueError(f"{file}: lacks a column of a prepared file; prepare it again", "not_prepared")
        table = parquet.read(PAIR_SCHEMA.names).cast(PAIR_SCHEMA)
    return [pair for batch in table.to_batches() for pair in pairs_of(batch)]


def read_record(folder: Path) -> dict[str, Any]:
    """What `prepare.json` says: inputs, template, template_id, attributes, seed, counts, digest, license.

    Raises `NoInput` when the prepared folder is not there, `CatalogueError` when it is damaged.
    """
    _check_there(folder)
    file = folder / RECORD
    with reading(file):
        record = orjson.loads(file.read_bytes())
    if not isinstance(record, dict) or "digest" not in record:
        raise CatalogueError(f"{file}: not the record of a prepared folder; prepare it again", "not_prepared")
    return record


def num_rows_of(file: Path) -> int:
    """How many pairs a file of a prepared folder holds. Raises `NoInput` or `CatalogueError` like `read_pairs`."""
    with reading(file):
        return int(pq.read_metadata(file).num_rows)


def _check_there(folder: Path) -> None:
    if not (folder / RECORD).is_file():
        raise NoInput(f"{folder}: no prepared folder; make it with `enrich-train prepare CATALOG --out {folder}`")


def pairs_of(rows: pa.RecordBatch) -> Iterator[Pair]:
    """The pairs in rows that have the columns of `PAIR_SCHEMA`."""
    return map(Pair, products_of(rows), rows.column("description").to_pylist())


def products_of(rows: pa.RecordBatch) -> Iterator[Product]:
    """The products in rows that have the columns of `PAIR_SCHEMA`."""
    attributes = rows.column("attributes")
    names, values = (column.to_pylist() for column in attributes.flatten().flatten())
    named = list(zip(names, values, strict=True))
    first = attributes.offsets[0].as_py()
    bounds = pairwise(offset - first for offset in attributes.offsets.to_pylist())
    return map(Product, rows.column("title").to_pylist(), (tuple(named[start:stop]) for start, stop in bounds))


def rows_of(pairs: list[Pair]) -> pa.RecordBatch:
    """The pairs as rows of `PAIR_SCHEMA`."""
    columns = [
        pa.array([pair.product.title for pair in pairs], pa.string()),
        pa.array([pair.product.attributes for pair in pairs], _ATTRIBUTES),
        pa.array([pair.description for pair in pairs], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=PAIR_SCHEMA)
