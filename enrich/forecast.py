"""What a run would do and take, without doing it: no GPU, and nothing is written to the state."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from enrich.authors import Authors
from enrich.catalog.columns import resolve_columns
from enrich.catalog.read import Catalogue, open_catalogue
from enrich.catalog.sources import Source, find_sources
from enrich.memory import Memory
from enrich.night import default_state, how_to_read
from enrich.plan import Missing, products_with_keys
from enrich.products import Product
from enrich.report.summary import readable_reports
from enrich.scratch import scratch
from enrich.settings import Settings
from enrich.state import State


def forecast(named: str, output: Path | None, settings: Settings) -> list[str]:
    """The lines that `enrich plan` prints for a catalogue, a folder or a glob."""
    selection = find_sources(named, output)
    authors = Authors.choose(settings)
    state = State(settings.machine.state or default_state(selection.output))
    with _known_texts(state) as memory, TemporaryDirectory() as folder, scratch("plan") as room:
        counts, seen = Counter[str](), _Seen(room)
        for source in selection.sources:
            counts.update(_count(source, authors, settings, memory, seen, Path(folder)))
    return _lines(counts, _texts_per_second(state, authors), settings.machine.gpu_hour_price)


@contextmanager
def _known_texts(state: State) -> Iterator[Memory | None]:
    if not state.memory.exists():
        yield None
        return
    with Memory.open(state.memory, read_only=True) as memory:
        yield memory


def _count(
    source: Source, authors: Authors, settings: Settings, memory: Memory | None, seen: "_Seen", folder: Path
) -> Counter[str]:
    counts = Counter[str]()
    with source.local(folder) as path:
        catalogue = open_catalogue(path, how_to_read(settings.catalogue, settings.adapters.column), folder)
        counts["rows"] += catalogue.num_rows
        counts["quarantined"] += catalogue.lost
        for described in _described(catalogue, authors, settings):
            wanted = [each for each in described if not isinstance(each, str)]
            first = {key: product for key, product in wanted if seen.add(key)}
            new = [each.product for each in Missing(memory).choose(first)] if memory else list(first.values())
            counts["missing"] += len(described)
            counts["rejected"] += len(described) - len(wanted)
            counts["duplicates"] += len(wanted) - len(first)
            counts["known"] += len(first) - len(new)
            counts["new"] += len(new)
            # All authors have one base and one template, and so the same prompts.
            prompts = authors.default.prompts.write(new) if new else []
            counts["prompt tokens"] += sum(len(prompt.ids) for prompt in prompts)
    return counts


def _described(
    catalogue: Catalogue, authors: Authors, settings: Settings
) -> Iterator[Sequence[tuple[bytes, Product] | str]]:
    columns = resolve_columns(catalogue.schema, settings.catalogue, catalogue.num_rows, settings.adapters.column)
    for batch in catalogue.batches(columns.needed()):
        yield products_with_keys(columns.gaps(batch, settings.catalogue.placeholders), authors.recipe_of)


class _Seen:
    """A set of keys on disk, since it grows with the catalogue."""

    def __init__(self, room: sqlite3.Connection) -> None:
        self._room = room
        room.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, key: bytes) -> bool:
        """Whether the key is new."""
        return self._room.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1


def _texts_per_second(state: State, authors: Authors) -> float | None:
    """As measured by the newest run of this state that wrote texts with the same base."""
    for report in readable_reports(state.newest_reports()):
        written = sum(each["written"] for each in report.get("catalogues", []))
        seconds = sum(each["generating_seconds"] for each in report.get("catalogues", []))
        if written and seconds and report["base"] == authors.default.provenance()["base"]:
            return float(written / seconds)
    return None


def _lines(counts: Counter[str], rate: float | None, hour_price: float | None) -> list[str]:
    lines = [
        f"rows {counts['rows']:,}",
        f"missing {counts['missing']:,}: {counts['rejected']:,} cannot be described, "
        f"{counts['duplicates']:,} duplicates, {counts['known']:,} already known, {counts['new']:,} to write",
        f"prompt tokens {counts['prompt tokens']:,}",
    ]
    if counts["quarantined"]:
        lines.append(f"records that are no rows {counts['quarantined']:,}")
    if rate is None:
        return [*lines, "time unknown: no run with this model has been measured here yet"]
    seconds = counts["new"] / rate
    lines.append(f"time {seconds:,.0f} s at {rate:,.1f} texts/s, as measured by the last run")
    if hour_price is not None:
        lines.append(f"cost {seconds / 3600 * hour_price:,.2f} at {hour_price:,.2f} an hour")
    return lines
