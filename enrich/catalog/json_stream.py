"""JSON bytes → raw records, with their places: JSON lines, or the items of one array.

It finds where each record begins and ends and refuses to know what is in it: values are parsed, and so
judged, elsewhere. Memory is bounded by the block and the longest record allowed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, islice
from typing import Protocol

from enrich.errors import CatalogueError

BLOCK_BYTES = 4 << 20
MAX_RECORD_BYTES = 32 << 20
_KEPT_OF_OVERSIZED = 4096

_WHITESPACE = b" \t\r\n"
# A whole string, or one bracket; a lone quote is a string that goes on in the next block.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]|"', re.DOTALL)
_SCALAR_END = re.compile(rb"[,\]\}\s]")


class ByteReader(Protocol):
    """Anything that hands out bytes in order; `b""` is the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass
class RawChunk:
    """Consecutive records as bytes, each with its line (1-based) and byte offset in the uncompressed input.

    `oversized` are records longer than MAX_RECORD_BYTES: their beginning, line, offset and length.
    `open_end` says that the last record ran into the end of the input without a newline. Offsets are worked
    out from `start`, when the records are whole lines, for the few records that somebody asks about.
    """

    raws: list[bytes]
    lines: Sequence[int]
    start: int = 0
    item_offsets: Sequence[int] | None = None
    oversized: list[tuple[bytes, int, int, int]] = field(default_factory=list)
    open_end: bool = False

    @cached_property
    def offsets(self) -> Sequence[int]:
        if self.item_offsets is not None:
            return self.item_offsets
        starts = accumulate((len(raw) + 1 for raw in self.raws), initial=self.start)
        return list(islice(starts, len(self.raws)))


def read_lines(source: ByteReader) -> Iterator[RawChunk]:
    """Cuts JSON lines at b"\\n" and nowhere else: U+2028, U+0085 and a lone CR are part of a record."""
    line, offset, carry = 1, 0, b""
    block = source.read(BLOCK_BYTES)
    while block:
        if len(carry) + len(block) > MAX_RECORD_BYTES and b"\n" not in block:
            head, length, rest = _skip_line(source, carry, block)
            yield RawChunk([], [], oversized=[(head, line, offset, length)])
            line, offset, carry = line + 1, offset + length + 1, b""
        else:
            window, rest = carry + block, b""
            *raws, carry = window.split(b"\n")
            if raws:
                yield _whole_lines(RawChunk(raws, range(line, line + len(raws)), start=offset), len(window))
                line, offset = line + len(raws), offset + len(window) - len(carry)
        block = rest or source.read(BLOCK_BYTES)
    if carry:
        yield _whole_lines(RawChunk([carry], [line], start=offset, open_end=True), len(carry))


def _whole_lines(chunk: RawChunk, size: int) -> RawChunk:
    """The chunk with its over-long lines set apart: how a line lies across blocks must not decide that."""
    if size <= MAX_RECORD_BYTES or max(map(len, chunk.raws)) <= MAX_RECORD_BYTES:
        return chunk
    kept = RawChunk([], lines := [], item_offsets=(offsets := []))
    for raw, line, offset in zip(chunk.raws, chunk.lines, chunk.offsets, strict=True):
        if len(raw) > MAX_RECORD_BYTES:
            kept.oversized.append((raw[:_KEPT_OF_OVERSIZED], line, offset, len(raw)))
        else:
            kept.raws.append(raw)
            lines.append(line)
            offsets.append(offset)
    return kept


def _skip_line(source: ByteReader, carry: bytes, block: bytes) -> tuple[bytes, int, bytes]:
    """Reads on to the newline that ends an oversized line: its head, its length, what follows it."""
    head = (carry + block[:_KEPT_OF_OVERSIZED])[:_KEPT_OF_OVERSIZED]
    length = len(carry) + len(block)
    while block := source.read(BLOCK_BYTES):
        before, newline, after = block.partition(b"\n")
        length += len(before)
        if newline:
            return head, length, after
    return head, length, b""


def read_array(source: ByteReader, records: str | None = None) -> Iterator[RawChunk]:
    """Cuts one JSON array into its items; `records` is the path to it inside a wrapping object.

    Raises `CatalogueError` when the array does not end, when anything but white space follows it, or when
    the path leads nowhere. Nothing that was cut before such an error may be published.
    """
    scanner = _Scanner(source)
    if records is not None:
        scanner.descend(records.split("."))
    yield from scanner.items()
    if records is None:
        scanner.expect_end()


class _Scanner:
    """A window over the input: `self._window[self._at:]` is not consumed yet."""

    def __init__(self, source: ByteReader) -> None:
        self._source = source
        self._window = b""
        self._at = 0
        self._dropped = 0
        self._lines_before = 1
        self._counted = 0
        self._oversized = (b"", 0)

    def descend(self, path: list[str]) -> None:
        """Steps into the object members named by `path`, up to the value of the last."""
        for depth, name in enumerate(path):
            if self._peek() != b"{":
                raise CatalogueError(
                    f"no records at {'.'.join(path)}: {'.'.join(path[:depth]) or 'the document'} is not an object",
                    "no_records",
                )
            self._at += 1
            self._seek_member(name, path)

    def _seek_member(self, name: str, path: list[str]) -> None:
        while True:
            if (byte := self._peek()) == b",":
                self._at += 1
            elif byte != b'"':
                raise CatalogueError(f"no records at {'.'.join(path)}: there is no {name!r}", "no_records")
            else:
                key = self._take_value()
                if self._peek() != b":":
                    raise self._broken("an object key without a colon")
                self._at += 1
                self._peek()
                if key == b'"' + name.encode() + b'"':
                    return
                self._take_value()

    def items(self) -> Iterator[RawChunk]:
        """Yields the items of the array that begins here, a block's worth at a time."""
        if self._peek() != b"[":
            raise CatalogueError("the records are not a JSON array", "no_records")
        self._at += 1
        chunk = _Gathered()
        if self._peek() == b"]":
            self._at += 1
            return
        while True:
            self._take_item(chunk)
            separator = self._peek()
            if separator not in (b",", b"]"):
                raise self._broken("expected , or ] after an item")
            self._at += 1
            if separator == b"]":
                break
            if chunk.size >= BLOCK_BYTES:
                yield chunk.finish()
                chunk = _Gathered()
        yield chunk.finish()

    def _take_item(self, chunk: "_Gathered") -> None:
        if self._peek() in (b",", b"]"):
            raise self._broken("a comma without an item")
        line, offset = self._line(), self._dropped + self._at
        raw = self._take_value()
        if raw is None:
            head, length = self._oversized
            chunk.oversized.append((head, line, offset, length))
        else:
            chunk.add(raw, line, offset)

    def expect_end(self) -> None:
        """Raises unless only white space is left."""
        if self._peek(end_allowed=True):
            raise self._broken("something follows the array")

    def _peek(self, *, end_allowed: bool = False) -> bytes:
        """The next byte that is not white space, not consumed; b"" at the end if that is allowed."""
        while True:
            rest = self._window[self._at : self._at + 64].lstrip(_WHITESPACE)
            if rest:
                skipped = min(64, len(self._window) - self._at) - len(rest)
                self._at += skipped
                return rest[:1]
            self._at = min(self._at + 64, len(self._window))
            if self._at == len(self._window) and not self._refill():
                if end_allowed:
                    return b""
                raise self._broken("the document ends in the middle")

    def _take_value(self) -> bytes | None:
        """Consumes one value and returns its bytes, or None for one too long to keep (see `_oversized`)."""
        first = self._window[self._at : self._at + 1]
        if first in b'{["':
            return self._take_balanced()
        while not (end := _SCALAR_END.search(self._window, self._at + 1)):
            if not self._refill():
                raise self._broken("the document ends in the middle")
        raw = self._window[self._at : end.start()]
        self._at = end.start()
        return raw

    def _take_balanced(self) -> bytes | None:
        depth, scanned, length, head = 0, self._at, 0, b""
        while True:
            for token in _STRUCTURE.finditer(self._window, scanned):
                byte = self._window[token.start()]
                if byte == 0x22:
                    if token.end() - token.start() == 1:
                        scanned = token.start()
                        break
                elif byte in b"{[":
                    depth += 1
                else:
                    depth -= 1
                scanned = token.end()
                if depth <= 0:
                    return self._finish_balanced(scanned, length, head)
            else:
                scanned = len(self._window)
            if scanned - self._at > MAX_RECORD_BYTES:
                head = head or self._window[self._at : self._at + _KEPT_OF_OVERSIZED]
                length += scanned - self._at
                self._at = scanned
            if len(self._window) - self._at > 2 * MAX_RECORD_BYTES:
                raise self._broken(f"a string of more than {2 * MAX_RECORD_BYTES >> 20} MiB")
            kept = scanned - self._at
            if not self._refill():
                raise self._broken("the document ends in the middle")
            scanned = self._at + kept

    def _finish_balanced(self, end: int, length: int, head: bytes) -> bytes | None:
        raw = self._window[self._at : end]
        self._at = end
        if not length and len(raw) <= MAX_RECORD_BYTES:
            return raw
        self._oversized = (head or raw[:_KEPT_OF_OVERSIZED], length + len(raw))
        return None

    def _refill(self) -> bool:
        block = self._source.read(BLOCK_BYTES)
        if not block:
            return False
        self._line()
        self._dropped += self._at
        self._window = self._window[self._at :] + block
        self._at = self._counted = 0
        return True

    def _line(self) -> int:
        self._lines_before += self._window.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._lines_before

    def _broken(self, what: str) -> CatalogueError:
        return CatalogueError(
            f"not valid JSON at line {self._line()}, byte {self._dropped + self._at}: {what}", "bad_json"
        )


class _Gathered:
    """Items on their way into a chunk."""

    def __init__(self) -> None:
        self.size = 0
        self.raws: list[bytes] = []
        self.offsets: list[int] = []
        self.lines: list[int] = []
        self.oversized: list[tuple[bytes, int, int, int]] = []

    def add(self, raw: bytes, line: int, offset: int) -> None:
        self.raws.append(raw)
        self.lines.append(line)
        self.offsets.append(offset)
        self.size += len(raw)

    def finish(self) -> RawChunk:
        return RawChunk(self.raws, self.lines, item_offsets=self.offsets, oversized=self.oversized)
