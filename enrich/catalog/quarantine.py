"""What could not become a row, or a cell, of the output: one JSON line each, with the raw bytes."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from enrich import durable
from enrich.errors import IOFailure


class Quarantine:
    """Gathers defects of one input into a file that exists only if there are any.

    `lost` counts records that leave no row, `kept` those whose row stays with a null where the value was.
    """

    def __init__(self, path: Path, input_name: str) -> None:
        self.path = path
        self.lost = 0
        self.kept = 0
        # A file name need not be UTF-8, and JSON must.
        self._input_name = os.fsencode(input_name).decode(errors="backslashreplace")
        self._temp = durable.temporary(path)
        durable.discard(self._temp)
        with self._writing():
            self._file = self._temp.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is not None:
            # What cannot be written any more is not wanted any more either.
            with suppress(OSError):
                self._file.close()
            durable.discard(self._temp)

    def add(
        self,
        reason: str,
        raw: bytes,
        line: int,
        offset: int,
        *,
        columns: tuple[str, ...] = (),
        size: int | None = None,
    ) -> None:
        """Notes one record. With `columns` its row is kept and those cells are null; `size` tells the length
        in bytes of a record of which `raw` is only the beginning."""
        entry = {
            "file": self._input_name,
            "line": line,
            "byte": offset,
            "reason": reason,
            "row_kept": bool(columns),
            **({"columns": columns} if columns else {}),
            **({"size": size} if size is not None else {}),
            "raw_base64": base64.b64encode(raw).decode(),
        }
        self.kept += bool(columns)
        self.lost += not columns
        with self._writing():
            # In ASCII: names of files and columns are anybody's, and people look at this on a terminal.
            self._file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def finish(self) -> None:
        """Gives the file its final name; without an entry there is none, and a former one goes."""
        with self._writing():
            self._file.close()
        if self.lost or self.kept:
            durable.replace(self._temp, self.path)
        else:
            durable.discard(self._temp)
            durable.discard(self.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise IOFailure(f"{self.path}: cannot be written: {error.strerror}") from error
