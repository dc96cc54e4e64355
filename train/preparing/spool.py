"""Record batches on their way from one pass to the next: a file of the working folder, packed, in order.

Whoever makes a batch packs it and whoever needs it unpacks it, so that the process between them only moves bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


def packed(batch: pa.RecordBatch) -> bytes:
    """A batch with its schema as a compressed Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_LZ4) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def unpacked(content: bytes) -> pa.RecordBatch:
    """The batch that `packed` made `content` of."""
    with pa.ipc.open_stream(content) as reader:
        return reader.read_next_batch()


class Spool:
    """Written once inside `with`, then read as often as needed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sizes: list[int] = []

    def __enter__(self) -> Self:
        self._sink = self._file.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._sink.close()

    def write(self, content: bytes) -> None:
        """Adds a packed batch."""
        self._sizes.append(len(content))
        self._sink.write(content)

    def contents(self) -> Iterator[bytes]:
        """The packed batches, in the order they were written."""
        with self._file.open("rb") as source:
            for size in self._sizes:
                yield source.read(size)
