"""What a run leaves behind for the morning, however it ends: summary.json, report.html and the metrics."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enrich import durable
from enrich.catalog.sources import without_password
from enrich.errors import EnrichError
from enrich.report.metrics import write_metrics
from enrich.report.summary import Account, Stopwatch, readable_reports, sayable, write_summary
from enrich.settings import Settings
from enrich.state import State

_LOG = logging.getLogger("enrich")


def asked(named: str | Path, output: str | Path | None, settings: Settings, retry: str | None) -> dict[str, Any]:
    """What a run was asked to do, so that it can be asked again: paths are relative to its `folder`."""
    told: dict[str, Any] = sayable(
        {
            "input": without_password(str(named)),
            "output": None if output is None else str(output),
            "folder": str(Path.cwd()),
            "retry": retry,
            "settings": settings.model_dump(exclude_unset=True),
        }
    )
    return told


@dataclass(frozen=True)
class Morning:
    """A new report: its folder, the account to fill, and the summary of the newest run that published something."""

    folder: Path
    account: Account
    previous: dict[str, Any] | None

    @property
    def rows_published_per_second(self) -> float | None:
        """As that run measured it; None where there was none."""
        catalogues = (self.previous or {}).get("catalogues", [])
        try:
            seconds = sum(catalogue.get("publishing_seconds", 0.0) for catalogue in catalogues)
            return sum(catalogue.get("rows", 0) for catalogue in catalogues) / seconds if seconds else None
        except TypeError:
            # A damaged report is no measure of anything.
            return None


@contextmanager
def morning(
    state: State, settings: Settings, asked: dict[str, Any], provenance: dict[str, object]
) -> Iterator[Morning]:
    """The report of a run that begins now; written when the block ends, however it ends."""
    previous = _last_summary(state)
    folder, watch = state.new_report(), Stopwatch()
    began = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    account = Account(folder.name, began, asked, provenance, settings.machine.gpu_hour_price)
    try:
        yield Morning(folder, account, previous)
    except BaseException as error:
        account.status = error.status if isinstance(error, EnrichError) else 1
        account.error = sayable(str(error)) or type(error).__name__
        raise
    finally:
        account.seconds = watch.seconds()
        told = account.told()
        write_summary(folder, told)
        _write_page(folder, told, previous, settings)
        if settings.machine.metrics:
            write_metrics(settings.machine.metrics, told)


def _write_page(folder: Path, told: dict[str, Any], previous: dict[str, Any] | None, settings: Settings) -> None:
    try:
        # Charts are slow to import, and most commands draw none.
        from enrich.report.page import page

        durable.write(folder / "report.html", page(told, previous, settings.quality.locale or "en").encode())
    except EnrichError as error:
        _LOG.error("%s; summary.json in its place has the figures", error)
    except Exception:
        # The result is published by now; a page that fails must not make a failure of it.
        _LOG.exception("%s: the report could not be drawn; summary.json beside it has the figures", folder)


def _last_summary(state: State) -> dict[str, Any] | None:
    for report in readable_reports(state.newest_reports()):
        if any(catalogue.get("rows") and not catalogue.get("error") for catalogue in report.get("catalogues", [])):
            return report
    return None
