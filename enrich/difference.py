"""What changed between two Parquet files: texts that came, changed and went, and rows of another status.

Files may have millions of rows. Of each row its id, a digest of its text and its status go into SQLite's temporary
database, which hands both files back in the order of their ids, to be compared side by side.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappush, heapreplace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from enrich.catalog.columns import DESCRIPTIONS, STATUS, as_binary, is_text, missing_rows, resolve_columns
from enrich.catalog.content import reading, sniff
from enrich.catalog.read import Catalogue, open_catalogue
from enrich.catalog.spool import HowToRead
from enrich.errors import CatalogueError, SettingsError
from enrich.scratch import scratch
from enrich.settings import CatalogueSettings

Kind = Literal["new", "changed", "removed"]

_MOST_EXAMPLES = 5
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Example:
    """A text that differs. An id of None is a null."""

    id: str | None
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two files. `unmatched` rows have no partner in the other one; a row has a repeated id when an
    earlier one has the same, which is not null."""

    file: str
    rows: int
    unmatched: int
    null_ids: int
    repeated_ids: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of the texts of two files' rows; rows `without` have none in either file.

    `examples` are the first of each kind in the order of the other file, of removed ones in that of the one;
    `statuses` counts (from, to) of rows in both files.
    """

    one: Side
    other: Side
    new: int
    changed: int
    removed: int
    unchanged: int
    without: int
    examples: dict[Kind, tuple[Example, ...]]
    statuses: dict[tuple[str, str], int]


def difference(one: Path, other: Path, id_column: str, description: str | None) -> Difference:
    """Compares the rows that have the same id in two files; ids are compared as text, so that 7 is "7".

    Rows whose ids are equal within a file, and those whose id is null, are compared in their order. Raises
    `SettingsError` for a column that is not there or cannot be compared, `CatalogueError` for what is no Parquet
    file, `NoInput` for what is no file.
    """
    before, after = _File.open(one, id_column, description), _File.open(other, id_column, description)
    if before.description is after.description is None:
        names = ", ".join(before.catalogue.schema.names)
        raise SettingsError(f"{one}: no column looks like a description: say --description NAME, one of {names}")
    tally = _Tally(has_statuses=before.status is not None and after.status is not None)
    with scratch("compare") as room:
        ones, others = _InOrder(room, "one", before.rows()), _InOrder(room, "other", after.rows())
        for pair in _pairs(iter(ones), iter(others)):
            tally.add(*pair)
    examples = tally.examples(before, after)
    for each in (before, after):
        # A run may have published meanwhile: the examples' texts would be those of another file.
        each.catalogue.check_unchanged()
    return Difference(
        Side(str(one), before.catalogue.num_rows, tally.only_one, ones.null_ids, ones.repeated_ids),
        Side(str(other), after.catalogue.num_rows, tally.only_other, others.null_ids, others.repeated_ids),
        new=tally.fates["new"],
        changed=tally.fates["changed"],
        removed=tally.fates["removed"],
        unchanged=tally.fates["unchanged"],
        without=tally.fates["without"],
        examples=examples,
        statuses=dict(tally.statuses),
    )


_Row = tuple[int, bytes, int | None, str | None]
"""Its place in the file, the key of its id, the digest of its text if it has one, its status."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and which of its columns are compared."""

    catalogue: Catalogue
    id: str
    description: str | None
    status: str | None

    @classmethod
    def open(cls, path: Path, id_column: str, description: str | None) -> "_File":
        if sniff(path) != "parquet":
            raise CatalogueError(f"{path}: not a Parquet file", "not_parquet")
        # How to read JSON does not matter, and nothing is spooled.
        catalogue = open_catalogue(path, HowToRead(None, frozenset(), frozenset()), path.parent)
        try:
            _check_column(catalogue.schema, "id", id_column)
            found = _description_of(catalogue.schema, description)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None
        names = catalogue.schema.names
        has_status = STATUS in names and _is_comparable(catalogue.schema.field(STATUS).type)
        return cls(catalogue, id_column, found, STATUS if has_status else None)

    def rows(self) -> Iterator[list[_Row]]:
        """Every row, a batch at a time."""
        names = [name for name in (self.id, self.description, self.status) if name is not None]
        for batch in self.catalogue.batches(names):
            with reading(self.catalogue.source):
                keys = _keys(batch.rows.column(self.id)).to_pylist()
                digests = [None if text is None else _digest(text) for text in self._texts(batch.rows)]
                statuses = self._statuses(batch.rows)
            yield list(zip(range(batch.start, batch.start + len(keys)), keys, digests, statuses, strict=True))

    def texts_at(self, places: Collection[int | None]) -> dict[int | None, str]:
        """The texts of a few rows, where they have any; reads no further than the last of them."""
        wanted = sorted(place for place in places if place is not None)
        found: dict[int | None, str] = {}
        if not wanted or self.description is None:
            return found
        for batch in self.catalogue.batches([self.description]):
            here = [place for place in wanted if 0 <= place - batch.start < batch.rows.num_rows]
            rows = batch.rows.take(pa.array([place - batch.start for place in here], pa.int64()))
            found.update((place, _decode(text)) for place, text in zip(here, self._texts(rows), strict=True) if text)
            if batch.start + batch.rows.num_rows > wanted[-1]:
                break
        return found

    def _texts(self, rows: pa.RecordBatch) -> list[bytes | None]:
        """The text of each row, None where a description is missing."""
        if self.description is None:
            return [None] * rows.num_rows
        column = _as_bytes(rows.column(self.description))
        texts: list[bytes | None] = column.to_pylist()
        for index in missing_rows(column, rows.num_rows, ()).to_pylist():
            texts[index] = None
        return texts

    def _statuses(self, rows: pa.RecordBatch) -> list[str | None]:
        if self.status is None:
            return [None] * rows.num_rows
        statuses = _as_bytes(rows.column(self.status)).to_pylist()
        return ["null" if status is None else _decode(status) for status in statuses]


def _description_of(schema: pa.Schema, chosen: str | None) -> str | None:
    """By name, else as a run finds it; no other column, such as two that may be the title, can be in the way."""
    if chosen is not None:
        _check_column(schema, "description", chosen)
        return chosen
    usual = pa.schema([field for field in schema if field.name.strip().lower() in DESCRIPTIONS])
    return resolve_columns(usual, CatalogueSettings(), num_rows=0).description


def _check_column(schema: pa.Schema, role: str, name: str) -> None:
    if name not in schema.names:
        raise SettingsError(f"there is no column {name} for the {role}: there are {', '.join(schema.names)}")
    if not _is_comparable(schema.field(name).type):
        raise SettingsError(f"column {name} has type {schema.field(name).type}, which is no {role}: name another one")


def _is_comparable(data_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(data_type):
        return _is_comparable(data_type.value_type)
    return pa.types.is_integer(data_type) or is_text(data_type)


def _as_bytes(column: pa.Array) -> pa.Array:
    """Text, or a whole number as text, as large_binary: damaged UTF-8 can be compared, too."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return as_binary(column.cast(pa.large_string()) if pa.types.is_integer(column.type) else column)


def _keys(ids: pa.Array) -> pa.Array:
    """Each id behind a +; nothing for a null. So all are bytes, which Python and SQLite put in the same order."""
    plus, nothing = (pa.scalar(each, pa.large_binary()) for each in (b"+", b""))
    return pc.fill_null(pc.binary_join_element_wise(plus, _as_bytes(ids), nothing), nothing)


def _id_of(key: bytes) -> str | None:
    return _decode(key[1:]) if key else None


def _digest(text: bytes) -> int:
    """63 bits, since SQLite's numbers have a sign: a text is compared with one other alone."""
    return xxhash.xxh3_64_intdigest(text) >> 1


def _decode(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


class _InOrder:
    """The rows of a file in the order of their ids, those of equal ids in their own. Counts what is odd about ids."""

    def __init__(self, room: sqlite3.Connection, table: Literal["one", "other"], rows: Iterable[list[_Row]]) -> None:
        self.null_ids = self.repeated_ids = 0
        room.execute(f"CREATE TABLE {table} (place INTEGER PRIMARY KEY, key BLOB, text INTEGER, status TEXT)")
        for batch in rows:
            room.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", batch)  # noqa: S608
        self._cursor = room.execute(f"SELECT place, key, text, status FROM {table} ORDER BY key, place")  # noqa: S608

    def __iter__(self) -> Iterator[_Row]:
        before = None
        for row in self._cursor:
            key = row[1]
            if not key:
                self.null_ids += 1
            elif key == before:
                self.repeated_ids += 1
            before = key
            yield row


def _pairs(ones: Iterator[_Row], others: Iterator[_Row]) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Rows of the same key together, as long as both have one."""
    one, other = next(ones, None), next(others, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[1] < other[1]):
            yield one, None
            one = next(ones, None)
        elif one is None or other[1] < one[1]:
            yield None, other
            other = next(others, None)
        else:
            yield one, other
            one, other = next(ones, None), next(others, None)


_Fate = Kind | Literal["unchanged", "without"]


def _fate(before: int | None, after: int | None) -> _Fate:
    if before is None:
        return "without" if after is None else "new"
    if after is None:
        return "removed"
    return "unchanged" if before == after else "changed"


class _Tally:
    """What became of the pairs that it is given: counts, and the first of each kind."""

    def __init__(self, *, has_statuses: bool) -> None:
        self.fates = Counter[_Fate]()
        self.statuses = Counter[tuple[str, str]]()
        self.only_one = self.only_other = 0
        self._has_statuses = has_statuses
        self._first: dict[Kind, _First] = {kind: _First() for kind in get_args(Kind)}

    def add(self, one: _Row | None, other: _Row | None) -> None:
        """Takes a row of either file, or two that belong together."""
        if one is None:
            self.only_other += 1
        elif other is None:
            self.only_one += 1
        elif self._has_statuses and one[3] != other[3]:
            self.statuses[str(one[3]), str(other[3])] += 1
        fate = _fate(one and one[2], other and other[2])
        self.fates[fate] += 1
        if fate != "unchanged" and fate != "without":
            row = one if fate == "removed" else other
            if row is not None:
                self._first[fate].add(row[0], _Found(row[1], one and one[0], other and other[0]))

    def examples(self, one: _File, other: _File) -> dict[Kind, tuple[Example, ...]]:
        """The first of each kind with their texts, for which the files are read once more."""
        found = {kind: first.in_order() for kind, first in self._first.items()}
        before = one.texts_at({each.in_one for founds in found.values() for each in founds})
        after = other.texts_at({each.in_other for founds in found.values() for each in founds})
        return {
            kind: tuple(
                Example(_id_of(key), before.get(in_one), after.get(in_other)) for key, in_one, in_other in founds
            )
            for kind, founds in found.items()
        }


class _Found(NamedTuple):
    """A key, and the place that it has in either file."""

    key: bytes
    in_one: int | None
    in_other: int | None


class _First:
    """Of what it is given, the few with the lowest places."""

    def __init__(self) -> None:
        # A heap whose top has the highest place.
        self._heap: list[tuple[int, _Found]] = []

    def add(self, place: int, found: _Found) -> None:
        """No place may come twice."""
        if len(self._heap) < _MOST_EXAMPLES:
            heappush(self._heap, (-place, found))
        elif -place > self._heap[0][0]:
            heapreplace(self._heap, (-place, found))

    def in_order(self) -> list[_Found]:
        return [found for _, found in sorted(self._heap, reverse=True)]


def lines(found: Difference) -> list[str]:
    """The difference as a person reads it."""
    told = [line for side in (found.one, found.other) for line in _side_lines(side)]
    told.append(
        f"texts: {found.new:,} new, {found.changed:,} changed, {found.removed:,} removed, "
        f"{found.unchanged:,} unchanged; {found.without:,} rows without one in either file"
    )
    for kind, examples in found.examples.items():
        told += _example_lines(kind, getattr(found, kind), examples)
    if found.statuses:
        told.append(f"{STATUS}:")
    width = max((len(f"{count:,}") for count in found.statuses.values()), default=0)
    for (was, now), count in sorted(found.statuses.items(), key=lambda each: (-each[1], each[0])):
        told.append(f"  {count:>{width},}  {was} → {now}")
    return told


def _side_lines(side: Side) -> list[str]:
    told = [f"{side.file}: {side.rows:,} rows, {side.unmatched:,} of them not in the other file"]
    if side.null_ids or side.repeated_ids:
        told.append(
            f"  {side.null_ids:,} rows without an id and {side.repeated_ids:,} with that of an earlier row: "
            "compared in their order"
        )
    return told


def _example_lines(kind: Kind, count: int, examples: Collection[Example]) -> list[str]:
    if not examples:
        return []
    told = [f"{kind}:" if count == len(examples) else f"{kind}, {len(examples)} of {count:,}:"]
    for example in examples:
        told.append("  no id" if example.id is None else f"  {_short(example.id)}")
        if example.before is not None:
            told.append(f"    - {_short(example.before)}")
        if example.after is not None:
            told.append(f"    + {_short(example.after)}")
    return told


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
