"""A week of nights over a catalogue that changes: each costs its new rows, and each report agrees with the Parquet."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from .runs import Row, enrich, output_of, read_rows, texts_in, write_catalogue


def changed(rows: list[Row], dice: random.Random, day: int) -> tuple[list[Row], int]:
    """The rows a day later: 100 gone, 100 with another title, 200 new; and how many products have no text yet."""
    rows = [dict(row) for row in dice.sample(rows, len(rows) - 100)]
    new = 0
    for row in dice.sample(rows, 100):
        row["title"] += f" of day {day}"
        new += row["description"] is None
    for at in range(200):
        missing = at % 4 != 0
        rows.append({"id": f"{day}-{at}", "title": f"Day {day} {at}", "description": None if missing else "A text."})
        new += missing
    return rows, new


@pytest.mark.page
def test_a_week(tmp_path: Path) -> None:
    dice = random.Random(0)
    catalogue = tmp_path / "catalog.parquet"
    rows: list[Row] = [
        {"id": str(at), "title": f"Product {at}", "description": None if at % 2 else "A text."} for at in range(5000)
    ]
    new = 2500
    for day in range(7):
        write_catalogue(catalogue, rows)
        report = enrich(catalogue, night={"priority": "id"}, machine={"gpu_hour_price": 1.0})
        told = json.loads((report.folder / "summary.json").read_text())
        (summary,) = told["catalogues"]
        published = read_rows(output_of(catalogue))
        assert summary["written"] == new, day
        assert summary["statuses"] == Counter(row["enrich_status"] for row in published)
        assert summary["rows"] == len(published) == len(rows)
        assert summary["flags"] == Counter(flag for row in published for flag in row["enrich_flags"])
        filled = [row for row in published if row["enrich_status"] == "generated"]
        assert sum(summary["scores"]) == sum(count for _, count in summary["lengths"]) == len(filled)
        for each in (*summary["worst"], *summary["random"]):
            row = published[each["row"]]
            assert (row["title"], row["description"]) == (each["title"], each["text"])
        # Every text is its own row's.
        assert all(row["description"] == row["title"] for row in filled)
        assert (report.folder / "report.html").stat().st_size < 1 << 20
        rows, new = changed(rows, dice, day + 1)
    assert len(texts_in(tmp_path / ".enrich")) > 2500
    assert len(list((tmp_path / ".enrich" / "reports").iterdir())) == 7
