"""How an output stands: its rows by status, and the last run of its state folder."""

from collections import Counter
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from enrich.catalog.columns import FLAGS, STATUS
from enrich.catalog.content import reading
from enrich.catalog.publish import FOOTER, quarantine_of
from enrich.errors import CatalogueError, NoInput
from enrich.report.summary import read_report
from enrich.state import State, began


def standing(output: Path, state_folder: Path | None) -> list[str]:
    """The lines that `enrich status` prints for a published file or a folder of them."""
    if not output.exists():
        raise NoInput(f"{output}: nothing is published there")
    files = sorted(output.rglob("*.enriched.parquet")) if output.is_dir() else [output]
    if not files:
        raise NoInput(f"{output}: nothing is published there")
    state = State(state_folder or output.resolve().parent / ".enrich")
    return [line for file in files for line in _standing_of(file)] + _last_run(state)


def _standing_of(file: Path) -> list[str]:
    with reading(file), pq.ParquetFile(file) as parquet:
        if FOOTER not in (parquet.schema_arrow.metadata or {}):
            raise CatalogueError(f"{file}: not a file that this tool published", "foreign")
        statuses, codes = Counter[str](), Counter[str]()
        for batch in parquet.iter_batches(columns=[STATUS, FLAGS]):
            statuses.update(
                {each["values"]: each["counts"] for each in pc.value_counts(batch.column(STATUS)).to_pylist()}
            )
            codes.update(batch.column(FLAGS).flatten().to_pylist())
    found = [str(file), "  " + ", ".join(f"{status} {count:,}" for status, count in sorted(statuses.items()))]
    if codes:
        found.append("  flags: " + ", ".join(f"{code} {count:,}" for code, count in codes.most_common()))
    if quarantine_of(file).exists():
        found.append(f"  quarantine: {quarantine_of(file)}")
    return found


def _last_run(state: State) -> list[str]:
    folder = state.last_report()
    if folder is None:
        return ["no run is recorded here"]
    lines = [f"last run {began(folder):%Y-%m-%d %H:%M:%S} UTC, {folder}"]
    for each in read_report(folder).get("catalogues", []):
        outcome = each["error"] or f"{each['written']:,} written in {each['generating_seconds']:,.1f} s"
        lines.append(f"  {each['input']}: {outcome}")
    return lines
