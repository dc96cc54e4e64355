"""A run's figures for Prometheus, by node_exporter's textfile collector."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from enrich.errors import IOFailure
from enrich.products import Status


def write_metrics(file: Path, told: Mapping[str, Any]) -> None:
    """Writes `file`, whole or not at all, from what `summary.json` says. Raises `IOFailure` when it cannot."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def tell(name: str, meaning: str, value: float) -> None:
        Gauge(f"enrich_{name}", meaning, registry=registry).set(value)

    catalogues = told["catalogues"]
    tell("last_run_timestamp_seconds", "When the last run ended.", datetime.now(UTC).timestamp())
    tell("last_run_status", "Its exit status.", told["status"])
    tell("last_run_duration_seconds", "How long it took.", told["seconds"])
    tell("last_run_texts_written", "Texts that it wrote.", _sum(catalogues, "written"))
    tell("last_run_tokens_written", "Their tokens.", _sum(catalogues, "tokens"))
    tell("last_run_generating_seconds", "How long it wrote.", _sum(catalogues, "generating_seconds"))
    tell("last_run_quarantined_records", "Records that are no rows.", _sum(catalogues, "quarantined"))
    if told["cost"] is not None:
        tell("last_run_cost", "What it cost, at the price of an hour.", told["cost"])
    rows = Gauge("enrich_rows", "Rows of the published catalogues.", ["status"], registry=registry)
    for status in get_args(Status):
        rows.labels(status).set(sum(catalogue["statuses"].get(status, 0) for catalogue in catalogues))
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise IOFailure(f"{file}: cannot be written: {error.strerror}; name another --metrics") from error


def _sum(catalogues: list[dict[str, Any]], name: str) -> float:
    return float(sum(catalogue[name] for catalogue in catalogues))
