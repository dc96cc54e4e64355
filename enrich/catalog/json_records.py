"""Raw JSON records → typed columns, exactly: nothing rounded, nothing dropped, nothing guessed.

orjson decides what is JSON. Two things it does in silence are caught here: it turns whole numbers beyond 64
bits into floats, and of a repeated key it keeps the last. Both are looked for a whole chunk at a time, and
only the records of a suspicious chunk are parsed a second time, slowly and exactly.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from enrich.catalog.json_stream import RawChunk
from enrich.catalog.quarantine import Quarantine
from enrich.catalog.schema import MAX_COLUMNS, Irreconcilable, has_empty_struct
from enrich.errors import CatalogueError

# A hidden last column of the spool: why a row cannot be described although its bytes were a record.
DEFECT = "__enrich_defect"

_INT64 = range(-(2**63), 2**63)
# Parquet readers refuse schemas more than 100 levels deep, and a list takes two of them.
_MAX_DEPTH = 32
_SPACED_COLON = re.compile(rb'"\s+:')

Record = dict[str, Any]


class RecordParser:
    """Parses chunks into record batches and puts what does not fit into the quarantine.

    `text_columns` may hold only text or null; `used_columns` are those whose repetition makes a record
    ambiguous for us.
    """

    def __init__(self, text_columns: frozenset[str], used_columns: frozenset[str], quarantine: Quarantine) -> None:
        self.blank_lines = 0
        self.repeated_keys = 0
        self._text_columns = text_columns
        self._used_columns = used_columns
        self._quarantine = quarantine

    def parse(self, chunk: RawChunk) -> pa.RecordBatch | None:
        """One row for every record of the chunk, in order; None when nothing in it is one.

        Raises `Irreconcilable` when two records of the chunk disagree about a column.
        """
        for head, line, offset, size in chunk.oversized:
            self._quarantine.add("too_large", head, line, offset, size=size)
        records = self._load(chunk)
        if not records.values:
            return None
        columns = _Columns(records.values)
        self._reject_wrong_types(records, columns)
        if columns.suspicious() or _quoted_colons(records.raws) != columns.count_keys():
            self._examine(records)
            columns = _Columns(records.values)
            self._reject_wrong_types(records, columns)
        return columns.batch(records.defects)

    def _load(self, chunk: RawChunk) -> "_Records":
        try:
            values = list(map(orjson.loads, chunk.raws))
        except orjson.JSONDecodeError:
            values = list(self._load_one_by_one(chunk))
        if set(map(type, values)) <= {dict}:
            return _Records(values, chunk.raws, chunk, range(len(values)))
        return self._only_objects(chunk, values)

    def _load_one_by_one(self, chunk: RawChunk) -> Iterator[Any]:
        for index, raw in enumerate(chunk.raws):
            try:
                yield orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                if raw.strip():
                    open_end = chunk.open_end and index == len(chunk.raws) - 1
                    reason = "truncated_json" if open_end else _why_not_json(raw, error)
                    self._quarantine.add(reason, raw, chunk.lines[index], chunk.offsets[index])
                else:
                    self.blank_lines += 1
                yield _NO_RECORD

    def _only_objects(self, chunk: RawChunk, values: list[Any]) -> "_Records":
        for index, value in enumerate(values):
            if type(value) is not dict and value is not _NO_RECORD:
                self._quarantine.add("not_object", chunk.raws[index], chunk.lines[index], chunk.offsets[index])
        objects = [type(value) is dict for value in values]
        places = list(compress(range(len(values)), objects))
        return _Records([values[at] for at in places], [chunk.raws[at] for at in places], chunk, places)

    def _reject_wrong_types(self, records: "_Records", columns: "_Columns") -> None:
        for name in self._text_columns.intersection(columns.values):
            column = columns.values[name]
            if set(map(type, column)) <= {str, type(None)}:
                continue
            for index, value in enumerate(column):
                if value is not None and type(value) is not str:
                    records.defects[index] = "bad_type"
                    self._null(records, index, (name,), "bad_type")
            columns.read_again(name)

    def _examine(self, records: "_Records") -> None:
        """The slow, exact look at each record of a suspicious chunk."""
        for index, (raw, record) in enumerate(zip(records.raws, records.values, strict=True)):
            if deep := tuple(name for name, value in record.items() if _depth(value) > _MAX_DEPTH):
                self._null(records, index, deep, "too_deep")
            repeated, exact = _look_exactly(raw)
            kept = (name for name, value in record.items() if value is not None and name in exact)
            if inexact := tuple(name for name in kept if _holds_inexact(exact[name])):
                self._null(records, index, inexact, "number_out_of_range")
            if used := tuple(sorted(self._used_columns.intersection(repeated))):
                records.defects[index] = "duplicate_key"
                self._quarantine.add("duplicate_key", *records.place(index), columns=used)
            elif repeated:
                self.repeated_keys += 1

    def _null(self, records: "_Records", index: int, names: tuple[str, ...], reason: str) -> None:
        self._quarantine.add(reason, *records.place(index), columns=names)
        records.values[index].update(dict.fromkeys(names))


_NO_RECORD = object()


@dataclass(slots=True)
class _Records:
    """The records of a chunk that are objects; `places` are their indices in it."""

    values: list[Record]
    raws: list[bytes]
    chunk: RawChunk
    places: Sequence[int]
    defects: dict[int, str] = field(default_factory=dict)

    def place(self, index: int) -> tuple[bytes, int, int]:
        """A record's bytes, line and byte offset."""
        at = self.places[index]
        return self.raws[index], self.chunk.lines[at], self.chunk.offsets[at]


class _Columns:
    """The values of some records by column, and their Arrow arrays."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records
        self._arrays: dict[str, pa.Array] = {}
        self.values: dict[str, Sequence[Any]]
        shapes = set(map(tuple, records))
        if len(shapes) == 1:
            # As in most catalogues, every record has the same keys in the same order.
            self.values = dict(zip(shapes.pop(), zip(*map(dict.values, records), strict=True), strict=True))
        else:
            names = dict.fromkeys(chain.from_iterable(records))
            self.values = {name: [record.get(name) for record in records] for name in names}
        if len(self.values) > MAX_COLUMNS:
            raise CatalogueError(f"more than {MAX_COLUMNS} different keys: they look like data", "too_many_columns")

    def read_again(self, name: str) -> None:
        """Takes over what was changed in the records."""
        self.values[name] = [record.get(name) for record in self._records]

    def suspicious(self) -> bool:
        """Whether a number may have lost digits, a value is nested too deeply to be written, or no column can hold
        them all: without the numbers that lost digits one may."""
        try:
            arrays = [self._array(name) for name in self.values]
            return any(_type_depth(array.type) > _MAX_DEPTH or _has_huge_float(array) for array in arrays)
        except (OverflowError, RecursionError, Irreconcilable):
            return True

    def count_keys(self) -> int:
        """How many keys the parsed records have, at any depth."""
        inside = (_count_keys(self.values[name], array.type) for name, array in self._arrays.items())
        return sum(map(len, self._records)) + sum(inside)

    def batch(self, defects: dict[int, str]) -> pa.RecordBatch:
        arrays = {name: self._array(name) for name in self.values}
        flags = pa.nulls(len(self._records), pa.string())
        if defects:
            flags = pa.array([defects.get(index) for index in range(len(self._records))], pa.string())
        return pa.RecordBatch.from_arrays([*arrays.values(), flags], names=[*arrays, DEFECT])

    def _array(self, name: str) -> pa.Array:
        if name not in self._arrays:
            try:
                array = pa.array(self.values[name])
                if has_empty_struct(array.type):
                    array = pa.array([_without_empty_objects(value) for value in self.values[name]])
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                raise Irreconcilable(name, pa.null(), pa.null()) from None
            self._arrays[name] = array
        return self._arrays[name]


def _why_not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    message = str(error)
    if "surrogate" in message:
        return "lone_surrogate"
    if "infinity" in message:
        return "number_out_of_range"
    return "too_deep" if "depth limit" in message else "bad_json"


def _quoted_colons(raws: list[bytes]) -> int:
    """How many keys the raw records have, and no fewer: `":` inside a text counts too.

    Where it differs from the keys that came out, one was repeated, or only looked so.
    """
    joined = b"\n".join(raws)
    return joined.count(b'":') + len(_SPACED_COLON.findall(joined))


def _count_keys(values: Iterable[Any], data_type: pa.DataType) -> int:
    """The keys of the objects among `values`, at any depth; their type tells where there can be any."""
    if pa.types.is_list(data_type) and pa.types.is_nested(data_type.value_type):
        return _count_keys(chain.from_iterable(filter(None, values)), data_type.value_type)
    if not pa.types.is_struct(data_type):
        return 0
    objects = list(filter(None, values))
    members = (
        _count_keys([each.get(field.name) for each in objects], field.type)
        for field in data_type
        if pa.types.is_nested(field.type)
    )
    return sum(map(len, objects)) + sum(members)


def _look_exactly(raw: bytes) -> tuple[set[str], Record]:
    """Keys that are repeated at the top of a record, and the record with `_INEXACT` for numbers beyond int64."""
    repeated: set[str] = set()

    def gather(pairs: list[tuple[str, Any]]) -> Record:
        gathered = dict(pairs)
        repeated.clear()
        if len(gathered) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.update(key for key in gathered if keys.count(key) > 1)
        return gathered

    try:
        # The outermost object is gathered last, so `repeated` ends up with its keys.
        record = json.loads(raw, object_pairs_hook=gather, parse_int=_exact_int)
    except RecursionError:
        # Too deep for Python's own reader; all that is so deep is null by now.
        return set(), {}
    return repeated, record


def _exact_int(digits: str) -> int | None:
    # No whole number of int64 is longer, and Python refuses to read one of thousands of digits.
    return value if len(digits) <= 20 and (value := int(digits)) in _INT64 else _INEXACT


_INEXACT: Any = object()


def _holds_inexact(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_inexact, value.values()))
    return any(map(_holds_inexact, value)) if isinstance(value, list) else value is _INEXACT


def _has_huge_float(array: pa.Array) -> bool:
    """Whether a float could have been a whole number of more than 63 bits."""
    if pa.types.is_struct(array.type):
        return any(map(_has_huge_float, array.flatten()))
    if pa.types.is_list(array.type):
        return _has_huge_float(array.flatten())
    if not pa.types.is_floating(array.type):
        return False
    extremes = pc.min_max(array).as_py()
    return extremes["min"] is not None and max(-extremes["min"], extremes["max"]) >= 2.0**63


def _type_depth(data_type: pa.DataType) -> int:
    inner = [data_type.field(index).type for index in range(data_type.num_fields)]
    return 1 + max(map(_type_depth, inner), default=0)


def _depth(value: Any) -> int:
    depth, level = 1, [value]
    while level := [
        member
        for each in level
        if isinstance(each, (dict, list))
        for member in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
    return depth


def _without_empty_objects(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty_objects(member) for key, member in value.items()} or None
    return [_without_empty_objects(member) for member in value] if isinstance(value, list) else value
