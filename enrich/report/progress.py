"""How far a pass is: a bar on a terminal, one line a minute in a log, with the same figures."""

import logging
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from enrich.engine.protocol import Figures

log = logging.getLogger("enrich")

_SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts rows of the catalogue gone through and, in a pass that writes any, texts, their tokens and fates."""

    def __init__(self, what: str, total_rows: int) -> None:
        self.written = 0
        self.tokens = 0
        self._counts = Counter[str]()
        self._figures: Figures | None = None
        self._what = what
        self._rows = 0
        self._total = total_rows
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(total=total_rows, desc=what, unit="row", disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._bar.close()

    def passed(self, rows: int, **counts: int) -> None:
        """Notes rows of the catalogue, and how many of them are `missing`, `reused` and `rejected`."""
        self._rows += rows
        self._counts.update(counts)
        self._bar.update(rows)
        self._tell()

    def wrote(self, texts: int, tokens: int, figures: Figures | None = None, **fates: int) -> None:
        """Notes finished texts, what the engine did so far, and how many of the texts are `held` and `rejected`."""
        self.written += texts
        self.tokens += tokens
        self._counts.update(fates)
        self._figures = figures or self._figures
        self._bar.set_postfix_str(f"{self.written:,} texts, {self._per_second(self.tokens):,.0f} tokens/s")
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            log.info("%s: %s", self._what, self.line(), extra={"progress": self.figures()})

    def figures(self) -> dict[str, Any]:
        """What the line says, for programs; seconds, rows and texts a second."""
        left = self._seconds_left()
        return {
            "pass": self._what,
            "rows": self._rows,
            "total_rows": self._total,
            "texts": self.written,
            "rows_per_second": round(self._per_second(self.written or self._rows), 1),
            "tokens_per_second": round(self._per_second(self.tokens), 1),
            "slot_use": self._figures and round(self._figures.slot_use, 3),
            **{name: self._counts[name] for name in ("missing", "reused", "held", "rejected")},
            "seconds_left": left and round(left),
        }

    def line(self) -> str:
        """What the log line says; rows a second are texts where any are written."""
        rate, left = self._per_second(self.written or self._rows), self._seconds_left()
        found = [f"{self._rows:,}/{self._total:,} rows", f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:,.1f} rows/s"]
        if self.written:
            found.append(f"{_in_short(self._per_second(self.tokens))} tok/s")
        if self._figures:
            found.append(f"slots {self._figures.slot_use:.0%}".replace("%", " %"))
        if self._counts["missing"]:
            found.append(f"reused {self._counts['reused'] / self._counts['missing']:.0%}".replace("%", " %"))
        if self.written or self._counts["missing"]:
            found += [f"{name} {self._counts[name]:,}" for name in ("held", "rejected")]
        if left is None:
            return " · ".join([*found, "left unknown"])
        until = datetime.now() + timedelta(seconds=left)
        return " · ".join([*found, f"left {left / 60:,.0f} min", f"ETA {until:%H:%M}"])

    def _seconds_left(self) -> float | None:
        rate = self._per_second(self._rows)
        return (self._total - self._rows) / rate if rate else None

    def _per_second(self, count: int) -> float:
        return count / max(time.monotonic() - self._start, 1e-9)


def _in_short(count: float) -> str:
    return f"{count / 1000:,.0f}k" if count >= 10_000 else f"{count:,.0f}"
