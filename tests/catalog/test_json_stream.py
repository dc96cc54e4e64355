"""Where each record begins and ends, wherever the blocks of the input happen to be cut."""

import io
import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.catalog.json_stream import RawChunk, read_array, read_lines
from enrich.errors import CatalogueError

# Texts full of what could be taken for structure.
_TEXTS = st.text(st.sampled_from('ab"\\{}[],:\n\r\t \u2028\u0085é😀'), max_size=12)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)
_RECORDS = st.lists(st.dictionaries(_TEXTS, _VALUES, max_size=4), max_size=6)
_BLOCKS = st.integers(1, 40)


class Reader:
    """Hands out less than was asked for, as a decompressor may."""

    def __init__(self, content: bytes, most: int) -> None:
        self._file = io.BytesIO(content)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def chunks(
    read: Callable[[Reader], Iterator[RawChunk]], content: bytes, block: int, longest: int = 1 << 20
) -> list[RawChunk]:
    with (
        patch("enrich.catalog.json_stream.BLOCK_BYTES", block),
        patch("enrich.catalog.json_stream.MAX_RECORD_BYTES", longest),
    ):
        return list(read(Reader(content, block)))


def raws(found: list[RawChunk]) -> list[bytes]:
    return list(chain.from_iterable(chunk.raws for chunk in found))


def expect_places(found: list[RawChunk], content: bytes) -> None:
    """Each record lies at its byte offset and on its line."""
    for chunk in found:
        for raw, line, offset in zip(chunk.raws, chunk.lines, chunk.offsets, strict=True):
            assert content[offset : offset + len(raw)] == raw
            assert line == 1 + content.count(b"\n", 0, offset)


# --- lines -----------------------------------------------------------------------------------------------------------


@given(_RECORDS, _BLOCKS, st.sampled_from([b"\n", b"\r\n", b"\n \n"]), st.booleans())
def test_lines_are_the_records(records: list[Any], block: int, ending: bytes, last_is_open: bool) -> None:
    content = b"".join(orjson.dumps(record) + ending for record in records)
    if last_is_open:
        content = content.removesuffix(ending)
    found = chunks(read_lines, content, block)
    assert [orjson.loads(raw) for raw in raws(found) if raw.strip()] == records
    expect_places(found, content)
    assert [chunk.open_end for chunk in found if chunk.open_end] == [True] * (last_is_open and bool(content))


@given(st.lists(st.integers(0, 60), max_size=8), _BLOCKS, st.booleans())
def test_a_line_is_too_long_by_its_length_alone(lengths: list[int], block: int, last_is_open: bool) -> None:
    content = b"\n".join(b"%c" % (97 + index) * length for index, length in enumerate(lengths))
    content += b"" if last_is_open else b"\n"
    found = chunks(read_lines, content, block, longest=30)
    expect_places(found, content)
    kept = [(raw, line) for chunk in found for raw, line in zip(chunk.raws, chunk.lines, strict=True) if raw]
    assert kept == [(b"%c" % (97 + at) * n, at + 1) for at, n in enumerate(lengths) if 0 < n <= 30]
    oversized = [each for chunk in found for each in chunk.oversized]
    assert [(line, length) for _, line, _, length in oversized] == [
        (at + 1, n) for at, n in enumerate(lengths) if n > 30
    ]
    for head, _, offset, length in oversized:
        assert content[offset : offset + length].startswith(head)


def test_no_other_end_of_line_cuts() -> None:
    content = '{"a": "\u2028\u0085\x0b"}\r{"b": 1}\n'.encode()
    assert raws(chunks(read_lines, content, 5)) == [content[:-1]]


# --- arrays ----------------------------------------------------------------------------------------------------------


@given(_RECORDS, _BLOCKS, st.sampled_from([None, 0, 1, "\t"]), st.sampled_from(["", "\n \r\n"]))
def test_items_are_the_records(records: list[Any], block: int, indent: Any, around: str) -> None:
    content = (around + json.dumps(records, indent=indent, ensure_ascii=False) + around).encode()
    found = chunks(read_array, content, block)
    assert [orjson.loads(raw) for raw in raws(found)] == records
    expect_places(found, content)


@given(st.lists(_VALUES, max_size=6), _BLOCKS)
def test_items_that_are_no_objects_come_out_too(values: list[Any], block: int) -> None:
    content = json.dumps(values).encode()
    assert [orjson.loads(raw) for raw in raws(chunks(read_array, content, block))] == values


@given(_RECORDS, _BLOCKS, st.dictionaries(_TEXTS.filter(lambda key: key not in ("items", "products")), _VALUES))
def test_records_inside_an_object(records: list[Any], block: int, beside: dict[str, Any]) -> None:
    wrapped = {**beside, "products": {**beside, "items": records, "after": beside}, "last": [beside]}
    content = json.dumps(wrapped, indent=1, ensure_ascii=False).encode()
    found = chunks(lambda reader: read_array(reader, "products.items"), content, block)
    assert [orjson.loads(raw) for raw in raws(found)] == records
    expect_places(found, content)


@given(_RECORDS, _BLOCKS, st.data())
def test_an_array_cut_anywhere_is_refused(records: list[Any], block: int, data: st.DataObject) -> None:
    content = json.dumps(records).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(CatalogueError, match="ends in the middle"):
        chunks(read_array, content[:cut], block)


@given(_RECORDS, _BLOCKS, st.sampled_from([b"]", b"x", b"[]", b",", b"\x00", b"{}"]))
def test_what_follows_an_array_is_refused(records: list[Any], block: int, more: bytes) -> None:
    with pytest.raises(CatalogueError, match="something follows"):
        chunks(read_array, json.dumps(records).encode() + b"\n" + more, block)


@pytest.mark.parametrize("content", [b"[,]", b"[1,]", b"[1,,2]", b"[1 2]", b'[{"a": 1} {}]', b"[{}}", b'["a" "b"]'])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_commas_are_where_they_belong(content: bytes, block: int) -> None:
    with pytest.raises(CatalogueError, match="not valid JSON at line 1, byte"):
        chunks(read_array, content, block)


@given(st.lists(st.integers(0, 60), max_size=8), _BLOCKS)
def test_an_item_is_too_long_by_its_length_alone(lengths: list[int], block: int) -> None:
    items = [orjson.dumps([index] * length) for index, length in enumerate(lengths)]
    content = b"[" + b",\n".join(items) + b"]"
    found = chunks(read_array, content, block, longest=50)
    assert raws(found) == [item for item in items if len(item) <= 50]
    expect_places(found, content)
    oversized = [each for chunk in found for each in chunk.oversized]
    assert [(line, length) for _, line, _, length in oversized] == [
        (1 + at, len(item)) for at, item in enumerate(items) if len(item) > 50
    ]
    for head, _, offset, length in oversized:
        assert content[offset : offset + length].startswith(head)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere", "there is no 'nowhere'"),
        ("products.nowhere", "there is no 'nowhere'"),
        ("list.items", "list is not an object"),
        ("products", "not a JSON array"),
        ("n", "not a JSON array"),
    ],
)
def test_a_path_to_no_array(path: str, told: str) -> None:
    content = b'{"n": 1, "list": [1], "products": {"items": []}}'
    with pytest.raises(CatalogueError, match=told) as refusal:
        chunks(lambda reader: read_array(reader, path), content, 7)
    assert refusal.value.code == "no_records"


def test_an_error_names_its_line_and_byte() -> None:
    with pytest.raises(CatalogueError, match=r"at line 3, byte 11: expected , or ] after an item"):
        chunks(read_array, b"[1,\n2,\n\t{} 3]", 2)
    with pytest.raises(CatalogueError, match=r"at line 2, byte 6: expected , or ] after an item"):
        chunks(read_array, b"[1,\n2 x", 100)
