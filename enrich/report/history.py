"""The runs of a state folder, a line each.

Reports are read leniently: older ones lack keys, later ones have more, and one that is damaged hides no other.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from enrich.errors import IOFailure, NoInput, gravest
from enrich.report.summary import read_report
from enrich.state import State, began

_HEADINGS = (
    "run",
    "began (UTC)",
    "catalogues",
    "rows",
    "new texts",
    "held",
    "pending",
    "rejected",
    "seconds",
    "tokens/s",
    "ended",
)
_ON_THE_LEFT = ("run", "began (UTC)", "ended")


def history(state: State) -> list[str]:
    """The lines that `enrich runs` prints: headings, and a line for each run, newest last."""
    if not state.folder.is_dir():
        raise NoInput(f"{state.folder}: no such state folder; name it with --state")
    try:
        folders = [folder for folder in reversed(state.newest_reports()) if folder.is_dir()]
    except OSError as error:
        raise IOFailure(f"{state.reports}: {error.strerror}") from error
    if not folders:
        return ["no run is recorded here"]
    return _aligned([_HEADINGS, *(_cells(folder) for folder in folders)])


def _cells(folder: Path) -> Sequence[str]:
    when = _began(folder)
    try:
        report: Any = read_report(folder)
    except (OSError, ValueError) as error:
        return folder.name, when, *_nothing(f"unknown: summary.json is damaged ({error})")
    if not isinstance(report, dict):
        return folder.name, when, *_nothing("unknown: summary.json is damaged (no object)")
    if not report:
        return folder.name, when, *_nothing("did not end")
    return folder.name, when, *_figures(_catalogues(report)), _ended(report)


def _nothing(why: str) -> list[str]:
    """Of a run that left no figures, its end alone."""
    return [""] * (len(_HEADINGS) - 3) + [why]


def _began(folder: Path) -> str:
    try:
        return f"{began(folder):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return ""


def _catalogues(report: dict[str, Any]) -> list[dict[str, Any]]:
    found = report.get("catalogues")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _figures(catalogues: list[dict[str, Any]]) -> list[str]:
    statuses = [each["statuses"] for each in catalogues if isinstance(each.get("statuses"), dict)]
    seconds, tokens = _sum(catalogues, "generating_seconds"), _sum(catalogues, "tokens")
    return [
        f"{len(catalogues):,}",
        f"{_sum(catalogues, 'rows'):,.0f}",
        f"{_sum(catalogues, 'written'):,.0f}",
        *(f"{_sum(statuses, status):,.0f}" for status in ("held", "pending", "rejected")),
        f"{seconds:,.1f}",
        f"{tokens / seconds:,.0f}" if tokens and seconds else "",
    ]


def _sum(found: Iterable[dict[str, Any]], key: str) -> float:
    values = (each.get(key) for each in found)
    return float(sum(value for value in values if _is_number(value)))


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ended(report: dict[str, Any]) -> str:
    status = report.get("status", _status_of(_catalogues(report)))
    stopped_by = report.get("stopped_by")
    told = f"exit {status}" if _is_number(status) else "unknown"
    return f"{told} ({stopped_by})" if isinstance(stopped_by, str) else told


def _status_of(catalogues: list[dict[str, Any]]) -> int | None:
    """The exit status of a run whose report tells it of each catalogue alone."""
    try:
        return gravest(each["status"] for each in catalogues) if catalogues else None
    except (KeyError, ValueError):
        return None


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if heading in _ON_THE_LEFT else cell.rjust(width)
            for cell, width, heading in zip(row, widths, _HEADINGS, strict=True)
        ).rstrip()
        for row in rows
    ]
