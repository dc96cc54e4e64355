"""Safetensors files that lie about themselves."""

import json
import struct
from collections.abc import Iterator
from typing import Any


def malformed(good: bytes) -> Iterator[tuple[str, bytes]]:
    """By what is wrong with it, each file that can be made from a good one of at least three tensors."""
    header, body = _parts(good)
    raw = json.dumps(header).encode()
    yield "no bytes", b""
    yield "half a length", b"\x01"
    yield "a header far beyond the file", _file(raw, body, 1000 * len(good))
    yield "a header just below the largest that is allowed", _file(raw, body, 99_999_999)
    yield "a header of 2**63 bytes", _file(raw, body, 1 << 63)
    yield "no JSON", _file(b"x" * 100, body)
    yield "no UTF-8", _file(raw.replace(b"weight", b"wei\xffht", 1), body)
    yield "nesting", _file(b'{"a":' * 100_000, body)
    yield "bytes behind the tensors", good + b"PK\x03\x04"
    yield "a pickle", b"\x80\x04cposix\nsystem\n(Vtrue\ntR."
    for what, change in _CHANGES.items():
        yield what, _file(json.dumps(header | _changed(header, change)).encode(), body)
    yield "one name twice", _file(_with_duplicate(header, raw), body)


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> None:
    one["data_offsets"] = other["data_offsets"]


_CHANGES: dict[str, Any] = {
    "overlapping tensors": _overlap,
    "offsets that go back": lambda one, _: one.update(data_offsets=one["data_offsets"][::-1]),
    "offsets below zero": lambda one, _: one.update(data_offsets=[-8, 0]),
    "offsets beyond the file": lambda one, _: one.update(data_offsets=[0, 1 << 62]),
    "a shape that overflows": lambda one, _: one.update(shape=[1 << 40, 1 << 40]),
    "a shape of another size": lambda one, _: one.update(shape=[*one["shape"], 2]),
    "an unknown type": lambda one, _: one.update(dtype="EVIL"),
}


def _changed(header: dict[str, Any], change: Any) -> dict[str, Any]:
    first, second = [name for name in header if name != "__metadata__"][:2]
    one = dict(header[first])
    change(one, header[second])
    return {first: one}


def _with_duplicate(header: dict[str, Any], raw: bytes) -> bytes:
    """The first tensor once more, now with the bytes of another."""
    first, second = [name for name in header if name != "__metadata__"][:2]
    return raw[:-1] + b", " + json.dumps(first).encode() + b": " + json.dumps(header[second]).encode() + b"}"


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return header, content[8 + length :]


def _file(header: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body
