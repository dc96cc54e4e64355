"""The account of a run: what was found, what was written, what it took. One JSON file a run, `summary.json`.

Its `version` is raised when a key changes its meaning or goes; keys are added without. README lists them.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from enrich import __version__, durable
from enrich.engine.protocol import Figures
from enrich.quality.alike import Likeness
from enrich.report.timeline import Point

VERSION = 2

_LOG = logging.getLogger("enrich")


@dataclass(slots=True)
class Summary:
    """One catalogue's night. Times in seconds; `written` counts texts made in this run, `tokens` their ids.

    `shown` is what a gallery tells of the published file's texts.
    """

    input: str
    output: str
    records: int = 0
    rows: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    damaged_cells: int = 0
    unlisted_placeholders: int = 0
    workers: list[dict[str, object]] = field(default_factory=list)
    written: int = 0
    tokens: int = 0
    generating_seconds: float = 0.0
    device: str | None = None
    engine: Figures | None = None
    publishing_seconds: float = 0.0
    timeline: list[Point] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)
    samples: Sequence[tuple[str, str]] = ()
    likeness: Likeness | None = None
    error: str | None = None
    status: int = 0

    def add(self, figures: Figures | None) -> None:
        """Notes what an author's engines did for this catalogue, where that is counted."""
        if figures:
            self.engine = self.engine + figures if self.engine else figures

    @property
    def pending(self) -> int:
        return self.statuses.get("pending", 0)

    @property
    def rejected_for_input(self) -> int:
        """Bad records: those without a row, cells that could not be kept, rows rejected for what they say.

        What the model could not do is no fault of the catalogue. A row whose record is in the quarantine
        file is counted there.
        """
        apart = {"model_failed", *_IN_QUARANTINE}
        return self.quarantined + self.damaged_cells + sum(n for code, n in self.rejected.items() if code not in apart)


_IN_QUARANTINE = ("bad_type", "duplicate_key")


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 3)


@dataclass(slots=True)
class Account:
    """A whole run: what it was asked, by whom it was written (`provenance`), what it took and how it ended."""

    run: str
    began: str
    asked: dict[str, Any]
    provenance: dict[str, object]
    gpu_hour_price: float | None = None
    seconds: float = 0.0
    stopped_by: str | None = None
    status: int = 0
    error: str | None = None
    catalogues: list[Summary] = field(default_factory=list)

    @property
    def cost(self) -> float | None:
        """What its seconds cost; None without a price."""
        return None if self.gpu_hour_price is None else round(self.seconds / 3600 * self.gpu_hour_price, 4)

    @property
    def device(self) -> str | None:
        """Where the model wrote; None when none was needed."""
        return next((summary.device for summary in self.catalogues if summary.device), None)

    def told(self) -> dict[str, Any]:
        """As `summary.json` has it."""
        told = {name: value for name, value in asdict(self).items() if name != "provenance"}
        catalogues = [_told(catalogue) for catalogue in told.pop("catalogues")]
        return {
            "version": VERSION,
            "enrich": __version__,
            **self.provenance,
            **told,
            "device": self.device,
            "cost": self.cost,
            "catalogues": catalogues,
        }


def _told(catalogue: dict[str, Any]) -> dict[str, Any]:
    """The gallery's counts and texts among the others; the samples are some of those texts."""
    shown = catalogue.pop("shown")
    del catalogue["samples"]
    return {**catalogue, **shown}


def write_summary(folder: Path, told: dict[str, Any]) -> None:
    """Writes `summary.json` into a report folder."""
    durable.write(folder / "summary.json", orjson.dumps(told, option=orjson.OPT_INDENT_2))


def sayable(value: Any) -> Any:
    """The value with every string as JSON can hold it: the name of a file need not be UTF-8."""
    match value:
        case str() | Path():
            return str(value).encode("utf-8", "backslashreplace").decode()
        case dict():
            return {sayable(key): sayable(each) for key, each in value.items()}
        case list() | tuple():
            return [sayable(each) for each in value]
        case _:
            return value


def read_report(folder: Path) -> dict[str, Any]:
    """What `write_summary` wrote; empty when the run did not come that far."""
    file = folder / "summary.json"
    return orjson.loads(file.read_bytes()) if file.exists() else {}


def readable_reports(folders: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """What the runs of those folders left, in order. A summary that is damaged is told in the log and passed over."""
    for folder in folders:
        try:
            report: Any = read_report(folder)
            if not all(isinstance(each, dict) for each in report.get("catalogues", [])):
                raise ValueError("no list of catalogues")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _LOG.warning("%s: its summary.json is damaged and passed over (%s)", folder, error)
        else:
            yield report


def _engine_line(engine: Figures) -> str:
    return (
        f"  grid: {engine.tokens / max(engine.seconds, 1e-9):,.0f} tokens/s for {engine.seconds:,.1f} s, "
        f"slots {engine.slot_use:.0%} busy; decode {engine.decode_seconds:,.1f} s, "
        f"prefill {engine.prefill_seconds:,.1f} s, {engine.padding_share:.0%} of it padding"
    )


def place_of(worker: Mapping[str, object]) -> str:
    """Card and machine of a worker, as far as it told them."""
    return ", ".join(str(worker[each]) for each in ("device", "node") if worker.get(each))


def _worker_line(worker: Mapping[str, object]) -> str:
    return (
        f"  {worker['name']} ({place_of(worker)}): {worker['texts']:,} texts, "
        f"{worker['tokens']:,} tokens, died {worker['deaths']} times"
    )


def _likeness_line(found: Likeness) -> str:
    return (
        f"  of {found.texts:,} texts {found.near_duplicates / found.texts:.1%} are nearly another's, and "
        f"{found.with_opening / found.texts:.1%} begin with “{found.opening}”"
    )


def lines(summary: Summary) -> list[str]:
    """The summary as a person reads it after a run."""
    fates = Counter(summary.statuses)
    found = [
        f"{summary.output}",
        f"  {summary.rows:,} rows: {fates['kept']:,} kept, {fates['generated']:,} generated "
        f"({summary.written:,} of them now), {fates['approved']:,} approved, {fates['held']:,} held, "
        f"{fates['pending']:,} pending, {fates['rejected']:,} rejected",
    ]
    if summary.rejected:
        found.append(
            "  rejected: " + ", ".join(f"{code} {count:,}" for code, count in sorted(summary.rejected.items()))
        )
    if summary.quarantined or summary.damaged_cells:
        found.append(
            f"  quarantine: {summary.quarantined:,} records without a row, "
            f"{summary.damaged_cells:,} with a cell that could not be kept"
        )
    if summary.unlisted_placeholders:
        found.append(
            f"  {summary.unlisted_placeholders:,} kept descriptions read like N/A: "
            "list such texts as placeholders to have them filled"
        )
    if summary.written:
        rate = summary.written / max(summary.generating_seconds, 1e-9)
        found.append(
            f"  {summary.tokens:,} tokens in {summary.generating_seconds:,.1f} s: {rate:,.1f} rows/s, "
            f"{summary.tokens / max(summary.generating_seconds, 1e-9):,.0f} tokens/s"
        )
    if summary.engine:
        found.append(_engine_line(summary.engine))
    found += map(_worker_line, summary.workers)
    if summary.likeness:
        found.append(_likeness_line(summary.likeness))
    for title, text in summary.samples:
        found += [f"  · {title}", f"    {text}"]
    return found
