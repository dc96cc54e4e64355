"""A local file as bytes: what it is (sniffed, never believed by its name), its digest, its plain content."""

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import orjson
import pyarrow as pa
import xxhash

from enrich.catalog.json_stream import ByteReader
from enrich.errors import CatalogueError, IOFailure, NoInput

Format = Literal["parquet", "json_lines", "json_array", "json_object"]

_BLOCK = 1 << 20
_HEAD = 64 << 10
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CODECS = {_GZIP: "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_LINE_SUFFIXES = {".jsonl", ".ndjson", ".jsonlines"}
# Product texts shrink 5 to 50 times; what shrinks more and is large is a decompression bomb.
_BOMB_RATIO, _BOMB_BYTES = 500, 64 << 20


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns failures below us into our errors: a damaged file is 65, a missing one 66, a failing disk 74.

    Arrow raises OSError without an errno for damaged data; an OSError of the system carries one.
    """
    try:
        yield
    except FileNotFoundError:
        raise NoInput(f"{path}: no such file") from None
    except PermissionError as error:
        raise NoInput(f"{path}: {error.strerror}") from None
    except OSError as error:
        if error.errno is None and "crypt" in str(error).lower():
            raise CatalogueError(f"{path}: encrypted Parquet; decrypt it first", "encrypted") from None
        if error.errno is None:
            raise CatalogueError(f"{path}: damaged: {_one_line(error)}", "damaged") from None
        raise IOFailure(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, NotImplementedError, KeyError, MemoryError) as error:
        # pyarrow's own exceptions derive from these; damaged files also raise UnicodeDecodeError.
        raise CatalogueError(f"{path}: damaged or not supported: {_one_line(error)}", "damaged") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def digest(path: Path) -> str:
    """Hex XXH3-128 of the file's bytes: notices accidents, not attackers."""
    hasher = xxhash.xxh3_128()
    with reading(path), path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def check_regular(path: Path) -> None:
    """Raises unless `path` is a regular file: a pipe or a device would hang or never end."""
    with reading(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise CatalogueError(f"{path}: not a regular file", "not_regular_file")


def sniff(path: Path) -> Format:
    """Tells the format from the first bytes of the plain content.

    Raises `CatalogueError` for anything that is neither Parquet nor UTF-8 JSON. An empty file is JSON lines
    without a line, unless its name promises Parquet.
    """
    check_regular(path)
    with open_plain(path) as file:
        head = file.read(_HEAD)
    compressed = _magic(path) in _CODECS
    if head[:4] in (b"PAR1", b"PARE"):
        if compressed:
            raise CatalogueError(f"{path}: Parquet inside another compression; unpack it first", "compressed_parquet")
        return "parquet"
    if path.suffix.lower() in (".parquet", ".pq"):
        raise CatalogueError(f"{path}: not a Parquet file", "not_parquet")
    return _sniff_json(head, path)


def _sniff_json(head: bytes, path: Path) -> Format:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in head[:4]:
        raise CatalogueError(f"{path}: not UTF-8 (UTF-16 or UTF-32?); convert it first", "not_utf8")
    text = head.lstrip()
    names_lines = any(suffix in _LINE_SUFFIXES for suffix in map(str.lower, path.suffixes))
    if text[:1] == b"[":
        return "json_lines" if names_lines and _is_whole_line(text) else "json_array"
    if text[:1] == b"{" and text.split(b"\n", 1)[0].strip() == b"{":
        return "json_object"
    if text[:1] == b"{" or names_lines or not text:
        return "json_lines"
    raise CatalogueError(f"{path}: neither Parquet nor JSON", "unknown_format")


def _is_whole_line(text: bytes) -> bool:
    """Whether the first line is a JSON document of its own and another line follows."""
    first, _, rest = text.partition(b"\n")
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return bool(rest.strip())


def _magic(path: Path) -> bytes:
    with reading(path), path.open("rb") as file:
        start = file.read(4)
    return _GZIP if start[:2] == _GZIP else start


@contextmanager
def open_plain(path: Path) -> Iterator["PlainReader"]:
    """The content without its gzip or zstd compression (sniffed) and without a UTF-8 byte order mark."""
    with reading(path):
        file = path.open("rb")
    with file:
        counted = _Counted(file)
        codec = _CODECS.get(_magic(path))
        # Arrow reads on over several members and raises for a truncated stream; Python's readers do not do both.
        yield PlainReader(pa.CompressedInputStream(counted, codec) if codec else counted, counted, path)


class _Counted(io.RawIOBase):
    """A file that knows how many bytes were taken from it, and their digest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hasher = xxhash.xxh3_128()
        self.taken = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._hasher.update(block)
        self.taken += len(block)
        return block

    def digest(self) -> str:
        while self.read(_BLOCK):
            pass
        return self._hasher.hexdigest()


class PlainReader:
    """Reads plain bytes, and refuses to unpack a decompression bomb."""

    def __init__(self, stream: ByteReader, counted: _Counted, path: Path) -> None:
        self._stream = stream
        self._counted = counted
        self._path = path
        self._given = 0

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, `b""` at the end; a short read in the middle is possible."""
        with reading(self._path):
            block = self._stream.read(size)
        if not self._given and block == _BYTE_ORDER_MARK:
            return self.read(size)
        if not self._given:
            block = block.removeprefix(_BYTE_ORDER_MARK)
        self._given += len(block)
        if self._given > max(_BOMB_BYTES, _BOMB_RATIO * self._counted.taken):
            raise CatalogueError(
                f"{self._path}: unpacks to more than {_BOMB_RATIO} times its size: a decompression bomb?",
                "bomb",
            )
        return block

    def digest(self) -> str:
        """Digest of the file's own (packed) bytes; reads whatever was not read yet."""
        return self._counted.digest()
