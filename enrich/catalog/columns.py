"""Which columns of a catalogue are what, and what they say of a row."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from enrich.catalog.read import Batch
from enrich.errors import SettingsError
from enrich.settings import CatalogueSettings

TITLES = (
    "title",
    "titulo",
    "título",
    "name",
    "nome",
    "product_name",
    "product_title",
    "nome_produto",
    "produto",
)
DESCRIPTIONS = (
    "description",
    "descricao",
    "descrição",
    "content",
    "product_description",
    "descricao_produto",
    "long_description",
)
NEW_DESCRIPTION = "description"
STATUS, FLAGS, SCORE = "enrich_status", "enrich_flags", "enrich_score"

# Nothing but what `str.strip` takes for white space, byte by byte, since Arrow matches binary so.
_BLANK = (
    r"^(?:[\t-\r\x1c-\x20]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)*\z"
)

_USUAL_PLACEHOLDERS = frozenset(
    {"n/a", "na", "-", "--", "null", "none", "nan", "tbd", "sem descrição", "sem descricao"}
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A row that misses its description: where it is in its batch, its raw title and attributes, the code of
    what is wrong with its record, if anything is, its id, where the catalogue has one and it was read, and the
    raw values that choose its adapter and when it is written, where columns do."""

    index: int
    title: str | None
    attributes: tuple[tuple[str, Any], ...]
    defect: str | None
    id: Any = None
    route: Any = None
    priority: Any = None


@dataclass(frozen=True, slots=True)
class Described:
    """A row that has its description: as a `Gap`, with the raw text (bytes and a defect when it is not UTF-8)."""

    index: int
    title: str | None
    attributes: tuple[tuple[str, Any], ...]
    defect: str | None
    description: str | bytes | None


_Said = tuple[str | None, tuple[tuple[str, Any], ...], str | None]


@dataclass(frozen=True, slots=True)
class Columns:
    """Names resolved against one schema. `description` is None when the catalogue has no such column yet."""

    title: str | None
    description: str | None
    attributes: tuple[str, ...]
    id: str | None = None
    route: str | None = None
    priority: str | None = None

    def needed(self) -> list[str]:
        """Names of the top-level columns that a plan has to read; of a dotted path, both what it may be."""
        paths = [path for path in (*self.attributes, self.route, self.priority) if path is not None]
        names = [self.title, self.description, *paths, *(path.split(".")[0] for path in paths)]
        return list(dict.fromkeys(name for name in names if name is not None))

    def gaps(self, batch: Batch, placeholders: Collection[str]) -> list[Gap]:
        """The rows of the batch that miss a description, in order."""
        indices = missing_rows(self._column(batch.rows, self.description), batch.rows.num_rows, placeholders)
        if not len(indices):
            return []
        nothing = [None] * len(indices)
        ids = _values(batch.rows.column(self.id), indices) if self.id in batch.rows.schema.names else nothing
        routes, priorities = (
            nothing if path is None else _values(_at_path(batch.rows, path), indices)
            for path in (self.route, self.priority)
        )
        said = self._said(batch, indices)
        return [
            Gap(index, *each, row_id, route, priority)
            for index, each, row_id, route, priority in zip(
                indices.to_pylist(), said, ids, routes, priorities, strict=True
            )
        ]

    def described(self, batch: Batch, placeholders: Collection[str]) -> list[Described]:
        """The rows of the batch that have a description, in order."""
        column = self._column(batch.rows, self.description)
        every = pa.array(range(batch.rows.num_rows), pa.int64())
        missing = missing_rows(column, batch.rows.num_rows, placeholders)
        indices = every.filter(pc.invert(pc.is_in(every, missing)))
        return [
            Described(index, title, attributes, defect or ("not_utf8" if isinstance(text, bytes) else None), text)
            for index, (title, attributes, defect), text in zip(
                indices.to_pylist(), self._said(batch, indices), _texts(column, indices), strict=True
            )
        ]

    def _said(self, batch: Batch, indices: pa.Array) -> Iterator[_Said]:
        titles = _texts(self._column(batch.rows, self.title), indices)
        attributes = [_values(_at_path(batch.rows, path), indices) for path in self.attributes]
        defects = [None] * len(indices) if batch.defects is None else batch.defects.take(indices).to_pylist()
        for title, defect, values in zip(titles, defects, _rows(attributes, len(indices)), strict=True):
            yield (
                title if isinstance(title, str) else None,
                tuple(zip(self.attributes, values, strict=True)),
                defect or ("not_utf8" if isinstance(title, bytes) else None),
            )

    def _column(self, rows: pa.RecordBatch, name: str | None) -> pa.Array | None:
        return None if name is None else rows.column(name)


def _rows(columns: list[list[Any]], num_rows: int) -> Iterator[tuple[Any, ...]]:
    return zip(*columns, strict=True) if columns else iter([()] * num_rows)


def resolve_columns(
    schema: pa.Schema,
    settings: CatalogueSettings,
    num_rows: int,
    route: str | None = None,
    priority: str | None = None,
) -> Columns:
    """Finds title, description and attributes: by the settings, else by their usual names.

    `route` and `priority` are the paths whose values choose adapters and what is written first, when any do. Raises
    `SettingsError` naming the candidates when several fit, when only the case differs, or when a column has a type
    that cannot hold text. A catalogue without a row needs no title.
    """
    title = _resolve(schema, "title", settings.title, TITLES)
    description = _resolve(schema, "description", settings.description, DESCRIPTIONS)
    if title is None and num_rows:
        raise SettingsError(f"no column looks like a title: say --title NAME, one of {', '.join(schema.names)}")
    if title is not None and title == description:
        raise SettingsError(f"column {title} cannot be title and description at once")
    for name in filter(None, (title, description)):
        if not is_text(schema.field(name).type):
            raise SettingsError(f"column {name} has type {schema.field(name).type}, not text: name another one")
    for path in settings.attributes:
        _check_path(schema, "attributes", path)
    if route is not None:
        _check_path(schema, "adapters", route)
    if priority is not None:
        _check_path(schema, "priority", priority)
    return Columns(title, description, settings.attributes, _resolve(schema, "id", settings.id, ()), route, priority)


def _resolve(schema: pa.Schema, role: str, chosen: str | None, usual: Sequence[str]) -> str | None:
    names = schema.names
    if chosen is not None:
        if chosen not in names:
            raise SettingsError(f"there is no column {chosen} for the {role}: there are {', '.join(names)}")
        return chosen
    candidates: list[str] = [name for name in names if name in usual]
    if len(candidates) > 1:
        raise SettingsError(f"more than one column may be the {role}: say --{role} with one of {', '.join(candidates)}")
    if candidates:
        return candidates[0]
    if variants := [name for name in names if name.strip().lower() in usual]:
        raise SettingsError(f"is {' or '.join(variants)} the {role}? Say so with --{role}")
    return None


def text_columns(settings: CatalogueSettings) -> frozenset[str]:
    """The names under which a JSON record may hold its title or description, and so must hold text."""
    return frozenset(
        [
            *([settings.title] if settings.title else TITLES),
            *([settings.description] if settings.description else DESCRIPTIONS),
        ]
    )


def used_columns(settings: CatalogueSettings, route: str | None = None) -> frozenset[str]:
    """The keys of a JSON record that may not be repeated; `route` is the path that chooses its adapter."""
    paths = [*settings.attributes, *([] if route is None else [route])]
    return text_columns(settings).union(paths, (path.split(".")[0] for path in paths))


def missing_rows(column: pa.Array | None, num_rows: int, placeholders: Collection[str]) -> pa.Array:
    """Indices (int64) of the rows whose description is missing."""
    if column is None:
        return pa.array(range(num_rows), pa.int64())
    texts = as_binary(column)
    missing = pc.fill_null(pc.match_substring_regex(texts, _BLANK), True)
    if placeholders:
        missing = pc.or_(missing, _is_one_of(texts, placeholders))
    return pc.indices_nonzero(missing).cast(pa.int64())


def count_placeholders(column: pa.Array, listed: Collection[str]) -> int:
    """How many kept descriptions are a text that usually stands for none, such as N/A, but is not `listed`."""
    unlisted = _USUAL_PLACEHOLDERS.difference(listed)
    return int(pc.sum(_is_one_of(as_binary(column), unlisted)).as_py() or 0) if unlisted else 0


def _is_one_of(texts: pa.Array, placeholders: Collection[str]) -> pa.Array:
    """Whether each text (large_binary) is a placeholder. Only short ones are looked at: that spares the others."""
    # In bytes: another case of a letter may take twice as many, and there may be some white space around.
    longest = 2 * max(len(placeholder.encode()) for placeholder in placeholders) + 16
    short = pc.indices_nonzero(pc.fill_null(pc.less_equal(pc.binary_length(texts), longest), False))
    hits = [
        index
        for index, text in zip(short.to_pylist(), _decoded(texts.take(short)), strict=True)
        if isinstance(text, str) and text.strip().casefold() in placeholders
    ]
    return pc.is_in(pa.array(range(len(texts)), pa.int64()), pa.array(hits, pa.int64()))


def as_binary(column: pa.Array) -> pa.Array:
    """Text or binary of any layout as large_binary, so that damaged UTF-8 cannot stop a kernel."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    return column.cast(pa.large_binary())


def _decoded(texts: pa.Array) -> list[str | bytes | None]:
    """Each value as text, or as the bytes it is when it is not UTF-8."""
    try:
        return texts.cast(pa.large_string()).to_pylist()  # type: ignore[no-any-return]
    except pa.ArrowInvalid:
        return [_decode(value) for value in texts.to_pylist()]


def _decode(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _texts(column: pa.Array | None, indices: pa.Array) -> list[str | bytes | None]:
    return [None] * len(indices) if column is None else _decoded(as_binary(column).take(indices))


def _values(column: pa.Array, indices: pa.Array) -> list[Any]:
    if is_text(column.type):
        return [None if isinstance(text, bytes) else text for text in _texts(column, indices)]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values = column.take(indices)
    try:
        return values.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        return [_value(each) for each in values]


def _value(scalar: pa.Scalar) -> Any:
    """None for what Python cannot say: a nanosecond, a year beyond 9999, damaged UTF-8 inside a list."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return None


def is_text(data_type: pa.DataType) -> bool:
    """Whether a column can hold text: of any layout, also as bytes, and with nothing in it."""
    if pa.types.is_dictionary(data_type):
        return is_text(data_type.value_type)
    checks = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_null")
    return any(getattr(pa.types, check)(data_type) for check in checks)


def _check_path(schema: pa.Schema, role: str, path: str) -> None:
    names, members = schema.names, path.split(".")
    if path in names:
        return
    field_type: pa.DataType | None = schema.field(members[0]).type if members[0] in names else None
    for member in members[1:]:
        inside = field_type is not None and pa.types.is_struct(field_type) and field_type.get_field_index(member) >= 0
        field_type = field_type.field(member).type if inside and field_type is not None else None
    if field_type is None:
        raise SettingsError(f"there is no column {path} for the {role}: there are {', '.join(names)}")


def _at_path(rows: pa.RecordBatch, path: str) -> pa.Array:
    if path in rows.schema.names:
        return rows.column(path)
    first, *members = path.split(".")
    return pc.struct_field(rows.column(first), members)
