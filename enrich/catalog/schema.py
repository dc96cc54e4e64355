"""One Arrow type for values that were seen at different times: how the columns of a JSON catalogue get theirs.

Nothing gives way to everything (a late key, an all-null start), whole numbers to decimals, objects and lists
to the union of what they hold. Any other pair is irreconcilable. An object without a member is indistinguishable
from null in a typed column, so it becomes null where its column has no members at all.
"""

import pyarrow as pa

# A key that differs in every record is data, not a column; Parquet files with more than this help nobody.
MAX_COLUMNS = 2000


class Irreconcilable(Exception):
    """Two types that no column can hold; `path` leads to where inside the column they meet."""

    def __init__(self, path: str, first: pa.DataType, second: pa.DataType) -> None:
        super().__init__(f"{path}: {first} and {second}")
        self.path = path


def merge_types(path: str, first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """The narrowest type that holds both, or raises `Irreconcilable`."""
    if first.equals(second) or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if {first, second} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(first) and pa.types.is_list(second):
        return pa.list_(merge_types(f"{path}[]", first.value_type, second.value_type))
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        return pa.struct(_merge_fields(f"{path}.", list(first), list(second)))
    raise Irreconcilable(path, first, second)


def merge_schemas(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """The union of the columns, in order of first appearance."""
    return pa.schema(_merge_fields("", list(first), list(second)))


def _merge_fields(prefix: str, first: list[pa.Field], second: list[pa.Field]) -> list[pa.Field]:
    types = {field.name: field.type for field in first}
    for field in second:
        known = types.get(field.name)
        types[field.name] = field.type if known is None else merge_types(prefix + field.name, known, field.type)
    return [pa.field(name, merged) for name, merged in types.items()]


def without_empty_structs(field_type: pa.DataType) -> pa.DataType:
    """The type Parquet can hold: an object type without members becomes null, at any depth."""
    if pa.types.is_list(field_type):
        return pa.list_(without_empty_structs(field_type.value_type))
    if pa.types.is_struct(field_type):
        members = [pa.field(field.name, without_empty_structs(field.type)) for field in field_type]
        return pa.struct(members) if members else pa.null()
    return field_type


def has_empty_struct(field_type: pa.DataType) -> bool:
    """Whether an object type without members lies anywhere inside."""
    return not without_empty_structs(field_type).equals(field_type)


def align(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The same rows under a wider schema: absent columns and members are null.

    Raises `Irreconcilable` when a whole number is too large to become a decimal exactly.
    """
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        try:
            columns.append(batch.column(index).cast(field.type))
        except pa.ArrowInvalid:
            raise Irreconcilable(field.name, batch.column(index).type, field.type) from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)
