"""A JSON catalogue, parsed once into typed Parquet: after this, everything is Parquet.

The spool lies in the state folder, is named by the digest of the catalogue's content and by how it was read,
and holds one row for every record that is one, in order, under one schema for the whole input. Chunks are
written under the narrowest schema known so far; when a later record widens it, a new part begins, and the
parts are joined under the final schema at the end.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from enrich import durable
from enrich.catalog.batch_size import batch_rows_of
from enrich.catalog.content import Format, PlainReader, digest, open_plain, reading
from enrich.catalog.json_records import DEFECT, RecordParser
from enrich.catalog.json_stream import RawChunk, read_array, read_lines
from enrich.catalog.quarantine import Quarantine
from enrich.catalog.schema import Irreconcilable, align, merge_schemas, merge_types
from enrich.errors import CatalogueError, IOFailure, NoInput
from enrich.garbage import never_sought

log = logging.getLogger("enrich")

_VERSION = 1
_FOOTER = b"enrich.spool"


@dataclass(frozen=True, slots=True)
class Spool:
    """A finished spool: its Parquet file, its quarantine file (which may not exist), and what was counted."""

    path: Path
    quarantine: Path
    lost: int
    kept: int


@dataclass(frozen=True, slots=True)
class HowToRead:
    """What decides, beside the content, what a JSON catalogue is read as."""

    records: str | None
    text_columns: frozenset[str]
    used_columns: frozenset[str]

    def digest(self) -> str:
        parts = [
            str(_VERSION),
            self.records or "",
            *sorted(self.text_columns),
            "",
            *sorted(self.used_columns),
        ]
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def spool(
    source: Path,
    content_digest: str,
    kind: Format,
    how: HowToRead,
    folder: Path,
    check_stop: Callable[[], None],
) -> Spool:
    """The spool of `source` in `folder`, made unless it is there.

    Raises `CatalogueError` when the input cannot be read as a whole, when two records disagree about a
    column, or when the content is no longer what `content_digest` says.
    """
    origin = hashlib.blake2b(bytes(source.resolve()), digest_size=8).hexdigest()
    final = folder / f"{origin}-{content_digest}-{how.digest()}.parquet"
    quarantine = final.with_suffix(".quarantine.jsonl")
    # A run whose lock was deleted may have sealed what another one had discarded by then.
    if not durable.is_plain_file(final) or _seal_of(final) != _sealed(final, quarantine):
        _discard_former(folder, origin)
        _parse(source, content_digest, kind, how, final, quarantine, check_stop)
        durable.write(_seal_file(final), _sealed(final, quarantine))
    try:
        with reading(final):
            counts = orjson.loads(pq.read_metadata(final).metadata[_FOOTER])
    except NoInput as error:
        raise IOFailure(f"{final}: vanished: does another run use this state folder? Run again") from error
    return Spool(final, quarantine, counts["lost"], counts["kept"])


def _seal_file(final: Path) -> Path:
    return final.with_suffix(".digests")


def _seal_of(final: Path) -> bytes | None:
    try:
        return _seal_file(final).read_bytes()
    except OSError:
        return None


def _sealed(final: Path, quarantine: Path) -> bytes:
    """Which spool it is, and the digests of its files: one that was altered, or is another's, is made anew."""
    found = [str(durable.is_plain_file(path) and digest(path)) for path in (final, quarantine)]
    return " ".join([final.name, *found]).encode()


def _discard_former(folder: Path, origin: str) -> None:
    """A catalogue has one spool: what an older content or an interrupted run left is of no more use."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for former in (*folder.glob(f"{origin}-*"), *folder.glob(f".{origin}-*")):
        durable.discard(former)


def _parse(
    source: Path,
    content_digest: str,
    kind: Format,
    how: HowToRead,
    final: Path,
    quarantine_path: Path,
    check_stop: Callable[[], None],
) -> None:
    with (
        Quarantine(quarantine_path, source.name) as quarantine,
        _Parts(final) as parts,
        open_plain(source) as plain,
        never_sought(),
    ):
        parser = RecordParser(how.text_columns, how.used_columns, quarantine)
        try:
            for chunk in _chunks(plain, kind, how.records, source):
                check_stop()
                if batch := parser.parse(chunk):
                    parts.write(batch)
            parts.join()
        except Irreconcilable as conflict:
            raise _disagreement(source, kind, how, conflict) from None
        if plain.digest() != content_digest:
            raise CatalogueError(f"{source}: changed while it was read; run again", "changed")
        if parser.repeated_keys:
            log.warning("%s: %d records repeat a key; its last value counts", source.name, parser.repeated_keys)
        if parser.blank_lines:
            log.info("%s: %d blank lines skipped", source.name, parser.blank_lines)
        quarantine.finish()
        parts.finish({"lost": quarantine.lost, "kept": quarantine.kept})


def _chunks(plain: PlainReader, kind: Format, records: str | None, source: Path) -> Iterator[RawChunk]:
    try:
        if records is not None or kind == "json_array":
            yield from read_array(plain, records)
        elif kind == "json_object":
            raise CatalogueError(
                "one JSON object over many lines; say where in it the records are: --records PATH",
                "no_records",
            )
        else:
            yield from read_lines(plain)
    except CatalogueError as error:
        raise CatalogueError(f"{source}: {error}".replace(f"{source}: {source}", str(source)), error.code) from None


class _Parts:
    """The Parquet files of a spool on its way; written by one thread beside the one that parses."""

    def __init__(self, final: Path) -> None:
        self._final = final
        self._schema: pa.Schema | None = None
        self._paths: list[Path] = []
        self._writer: Any = None
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def __enter__(self) -> "_Parts":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown()
        if self._writer:
            # What is left open here is discarded.
            with suppress(OSError):
                self._writer.close()
        for path in self._paths:
            durable.discard(path)

    def write(self, batch: pa.RecordBatch) -> None:
        merged = _defect_last(merge_schemas(self._schema, batch.schema)) if self._schema else batch.schema
        if self._schema is None or not merged.equals(self._schema):
            self._begin_part(merged)
        aligned = align(batch, merged)
        self._settle()
        self._written = self._thread.submit(self._write, aligned)

    def join(self) -> None:
        """Waits for the last write and, if the schema was widened on the way, rewrites all parts under it."""
        if self._schema is None:
            self._begin_part(pa.schema([(DEFECT, pa.string())]))
        self._settle()
        if len(self._paths) == 1:
            return
        self._close()
        parts = list(self._paths)
        self._begin_part(self._schema)
        for part in parts:
            with reading(part), pq.ParquetFile(part, pre_buffer=False, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_rows_of(file.metadata)):
                    self._write(align(batch, self._schema))

    def finish(self, counts: dict[str, int]) -> None:
        """Notes `counts` in the footer and gives the last part its final name, durably."""
        self._writer.add_key_value_metadata({_FOOTER: orjson.dumps(counts)})
        self._close()
        durable.replace(self._paths[-1], self._final)

    def _begin_part(self, schema: pa.Schema) -> None:
        self._settle()
        self._close()
        self._schema = schema
        self._paths.append(durable.temporary(self._final.with_suffix(f".{len(self._paths)}")))
        with reading(self._final):
            self._writer = pq.ParquetWriter(
                self._paths[-1],
                schema,
                compression="lz4",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )

    def _write(self, batch: pa.RecordBatch) -> None:
        with reading(self._final):
            self._writer.write_batch(batch)

    def _settle(self) -> None:
        if self._written:
            self._written.result()
            self._written = None

    def _close(self) -> None:
        if self._writer:
            with reading(self._final):
                self._writer.close()
            self._writer = None


def _defect_last(schema: pa.Schema) -> pa.Schema:
    fields = [field for field in schema if field.name != DEFECT]
    return pa.schema([*fields, schema.field(DEFECT)])


def _disagreement(source: Path, kind: Format, how: HowToRead, conflict: Irreconcilable) -> CatalogueError:
    """Reads the catalogue again to name the first two records that disagree."""
    column = conflict.path.split(".")[0].split("[")[0]
    seen: dict[str, tuple[pa.DataType, int]] = {}
    with open_plain(source) as plain:
        for chunk in _chunks(plain, kind, how.records, source):
            for raw, line in zip(chunk.raws, chunk.lines, strict=True):
                for path, leaf in _leaves(column, _value_of(raw, column)):
                    first = seen.setdefault(path, (leaf, line))
                    try:
                        seen[path] = (merge_types(path, first[0], leaf), first[1])
                    except Irreconcilable:
                        return CatalogueError(
                            f"{source}: column {path} is {_named(first[0])} at line {first[1]} and {_named(leaf)} at "
                            f"line {line}; no column can hold both",
                            "irreconcilable",
                        )
    return CatalogueError(
        f"{source}: column {conflict.path} mixes decimals with whole numbers too large to become one",
        "irreconcilable",
    )


def _value_of(raw: bytes, column: str) -> Any:
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return record.get(column) if isinstance(record, dict) else None


def _leaves(path: str, value: Any) -> Iterator[tuple[str, pa.DataType]]:
    if isinstance(value, dict):
        yield path, pa.struct([])
        for key, member in value.items():
            yield from _leaves(f"{path}.{key}", member)
    elif isinstance(value, list):
        yield path, pa.list_(pa.null())
        for member in value:
            yield from _leaves(f"{path}[]", member)
    elif value is not None:
        yield (
            path,
            pa.scalar(value).type if not isinstance(value, int) or isinstance(value, bool) else pa.int64(),
        )


def _named(data_type: pa.DataType) -> str:
    if pa.types.is_struct(data_type):
        return "an object"
    if pa.types.is_list(data_type):
        return "a list"
    if pa.types.is_boolean(data_type):
        return "true or false"
    return "text" if pa.types.is_string(data_type) else "a number"
