"""A digest of a column's values that does not depend on how Arrow happens to lay them out.

Two arrays have the same fingerprint exactly when they have the same length, nulls at the same places and the
same values bit for bit: slices, offsets, what lies under a null, dictionaries and views make no difference.
This is what "untouched" means here.
"""

import pyarrow as pa
import pyarrow.compute as pc
import xxhash


def fingerprint(array: pa.Array) -> bytes:
    """16 bytes, XXH3-128."""
    hasher = xxhash.xxh3_128()
    _feed(hasher, array)
    return hasher.digest()


def _feed(hasher: xxhash.xxh3_128, array: pa.Array) -> None:
    array = _plain(array)
    hasher.update(len(array).to_bytes(8, "little"))
    if array.null_count:
        nulls = pc.indices_nonzero(pc.is_null(array))
        hasher.update(len(nulls).to_bytes(8, "little"))
        _feed_buffer(hasher, nulls)
        array = array.drop_null()
    if pa.types.is_null(array.type):
        return
    if pa.types.is_struct(array.type):
        for member in array.flatten():
            _feed(hasher, member)
    elif pa.types.is_nested(array.type):
        _feed_lists(hasher, array)
    elif pa.types.is_large_binary(array.type):
        _feed_buffer(hasher, pc.binary_length(array))
        _feed_bytes(hasher, array)
    elif pa.types.is_boolean(array.type):
        _feed_buffer(hasher, array.cast(pa.uint8()))
    else:
        _feed_buffer(hasher, array)


def _plain(array: pa.Array) -> pa.Array:
    """The same values as one of few layouts: binary with 64-bit offsets, lists, structs, fixed width."""
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return _plain(array.dictionary_decode())
    if pa.types.is_map(array.type):
        return _map_as_list(array)
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_string()).cast(pa.large_binary())
    return array.cast(pa.large_binary()) if _is_text_or_binary(array.type) else array


def _map_as_list(array: pa.MapArray) -> pa.Array:
    # `keys` and `items` ignore slices, and so do the values that the offsets point to.
    entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
    lists = pa.ListArray.from_arrays(array.offsets, entries)
    return pc.if_else(pc.is_null(array), pa.scalar(None, lists.type), lists) if array.null_count else lists


def _is_text_or_binary(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(data_type)
        or pa.types.is_large_string(data_type)
        or pa.types.is_binary(data_type)
        or pa.types.is_binary_view(data_type)
    )


def _feed_lists(hasher: xxhash.xxh3_128, array: pa.Array) -> None:
    if not pa.types.is_fixed_size_list(array.type):
        _feed_buffer(hasher, pc.list_value_length(array))
    _feed(hasher, array.flatten())


def _feed_bytes(hasher: xxhash.xxh3_128, array: pa.LargeBinaryArray) -> None:
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return
    ends = pa.Int64Array.from_buffers(pa.int64(), array.offset + len(array) + 1, [None, offsets])
    first, last = ends[array.offset].as_py(), ends[array.offset + len(array)].as_py()
    hasher.update(memoryview(data)[first:last])


def _feed_buffer(hasher: xxhash.xxh3_128, array: pa.Array) -> None:
    """The values of a fixed-width array without nulls."""
    width = array.type.bit_width // 8
    data = array.buffers()[-1]
    if data is not None and len(array):
        hasher.update(memoryview(data)[array.offset * width : (array.offset + len(array)) * width])
