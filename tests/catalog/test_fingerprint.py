"""A fingerprint sees values and nothing of their layout."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from enrich.catalog.fingerprint import fingerprint

VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int32(), [1, None, 3, 4]),
    (pa.float64(), [1.0, None, float("nan"), -0.0]),
    (pa.float16(), [1.0, None, 2.0, 3.0]),
    (pa.bool_(), [True, None, False, True]),
    (pa.string(), ["a", None, "", "bcd"]),
    (pa.large_string(), ["a", None, "", "bcd"]),
    (pa.string_view(), ["a", None, "", "bcd" * 20]),
    (pa.binary_view(), [b"a", None, b"", b"bcd" * 20]),
    (pa.binary(3), [b"abc", None, b"xyz", b"123"]),
    (pa.decimal128(10, 2), [Decimal("1.00"), None, Decimal("2.50"), Decimal(0)]),
    (pa.decimal256(50, 2), [Decimal("1.00"), None, Decimal("2.50"), Decimal(0)]),
    (pa.timestamp("ns", "UTC"), [1, None, 2, 3]),
    (pa.list_(pa.string()), [["a"], None, [], ["b", None]]),
    (pa.large_list(pa.int8()), [[1], None, [], [2, None]]),
    (pa.list_(pa.int8(), 2), [[1, 2], None, [3, 4], [5, None]]),
    (pa.list_view(pa.int8()), [[1], None, [], [2, None]]),
    (pa.map_(pa.string(), pa.int32()), [[("a", 1)], None, [], [("b", None), ("c", 3)]]),
    (pa.struct([("x", pa.int8()), ("y", pa.string())]), [{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {"x": 3}]),
    (pa.list_(pa.struct([("k", pa.list_(pa.string()))])), [[{"k": ["a"]}], None, [{"k": None}], []]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", None, "a", "b"]),
]


@pytest.fixture(params=VALUES, ids=lambda each: str(each[0]))
def array(request: pytest.FixtureRequest) -> pa.Array:
    return pa.array(request.param[1], request.param[0])


def test_a_slice_is_what_its_values_are(array: pa.Array) -> None:
    whole = pa.concat_arrays([array, array, array])
    assert fingerprint(whole.slice(4, 4)) == fingerprint(array)
    for at in range(4):
        parts = pa.concat_arrays([array.slice(at, 1), array.slice(at + 1, 1)])
        assert fingerprint(array.slice(at, 2)) == fingerprint(parts)


def test_every_other_order_null_and_length_is_another(array: pa.Array) -> None:
    parts = [array.slice(at, 1) for at in range(4)]
    null = pa.nulls(1, array.type)
    others = [
        pa.concat_arrays([parts[1], parts[0], parts[2], parts[3]]),
        pa.concat_arrays([parts[0], parts[1], parts[2], null]),
        pa.concat_arrays([parts[0], parts[0], parts[2], parts[3]]),
        array.slice(0, 3),
        pa.concat_arrays([array, null]),
    ]
    prints = [fingerprint(array), *map(fingerprint, others)]
    assert len(set(prints)) == len(prints)


def test_a_dictionary_or_a_view_is_the_text_it_holds() -> None:
    texts = pa.array(["a", None, "b", "a"])
    for other in (texts.dictionary_encode(), texts.cast(pa.large_string()), texts.cast(pa.string_view())):
        assert fingerprint(other) == fingerprint(texts)


def test_what_lies_under_a_null_is_not_seen() -> None:
    mask = pa.array([False, True])
    one = pa.Array.from_buffers(pa.int32(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(bytes(8))])
    two = pa.Array.from_buffers(pa.int32(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(bytes(4) + b"\xff" * 4)])
    assert one.is_null().equals(mask)
    assert fingerprint(one) == fingerprint(two)


def test_a_boundary_that_moves_is_seen() -> None:
    assert fingerprint(pa.array(["ab", "c"])) != fingerprint(pa.array(["a", "bc"]))
    assert fingerprint(pa.array([["a"], []])) != fingerprint(pa.array([[], ["a"]]))
