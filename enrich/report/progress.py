"""How far a pass is: a bar on a terminal, one line a minute in a log, with the same figures."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

log = logging.getLogger("enrich")

_SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts rows of the catalogue gone through and, in a pass that writes any, texts and their tokens."""

    def __init__(self, what: str, total_rows: int) -> None:
        self.written = 0
        self.tokens = 0
        self._what = what
        self._rows = 0
        self._total = total_rows
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(total=total_rows, desc=what, unit="row", disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._bar.close()

    def passed(self, rows: int) -> None:
        """Notes rows of the catalogue."""
        self._rows += rows
        self._bar.update(rows)
        self._tell()

    def wrote(self, texts: int, tokens: int) -> None:
        """Notes finished texts."""
        self.written += texts
        self.tokens += tokens
        self._bar.set_postfix_str(f"{self.written:,} texts, {self._per_second(self.tokens):,.0f} tokens/s")
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            log.info("%s", self.line())

    def line(self) -> str:
        """The log line."""
        rate = self._per_second(self._rows)
        left = f"{(self._total - self._rows) / rate / 60:,.0f} min" if rate else "unknown"
        texts = f" · {self.written:,} texts · {self._per_second(self.tokens):,.0f} tokens/s" if self.written else ""
        return f"{self._what}: {self._rows:,}/{self._total:,} rows · {rate:,.1f} rows/s{texts} · left {left}"

    def _per_second(self, count: int) -> float:
        return count / max(time.monotonic() - self._start, 1e-9)
