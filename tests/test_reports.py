"""What a run tells agrees with what it published: summary, bar, log line and status."""

import io
import json
import logging
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from enrich.engine.protocol import Figures
from enrich.errors import Stopped, TooManyRejected
from enrich.report import progress as progress_module
from enrich.report.progress import Progress
from enrich.report.standing import standing
from enrich.report.summary import lines

from .runs import Listening, column, enrich, output_of, quarantine_of, read_rows, rows_of, texts_in, write_catalogue


def told(folder: Path) -> list[dict[str, Any]]:
    """What the newest report in a state folder says of each catalogue."""
    report = max((folder / "reports").iterdir())
    catalogues: list[dict[str, Any]] = json.loads((report / "summary.json").read_bytes())["catalogues"]
    return catalogues


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """A catalogue with every kind of record, duplicates among them."""
    source = tmp_path / "uneven.jsonl"
    rows = [*rows_of(20), *rows_of(6), {"title": " ", "description": None}, {"title": "★", "description": ""}]
    write_catalogue(source, rows)
    with source.open("ab") as records:
        records.write(
            b'{"title": 5, "description": null}\n{"broken"\n[1]\n{"title": "N/A lamp", "description": "N/A"}\n'
        )
    return source


def test_the_summary_counts_what_the_parquet_and_the_quarantine_hold(uneven: Path) -> None:
    report = enrich(uneven)
    rows, quarantined = read_rows(output_of(uneven)), quarantine_of(output_of(uneven))
    (summary,) = told(uneven.parent / ".enrich")
    lost = [entry for entry in quarantined if not entry["row_kept"]]
    assert summary["rows"] == len(rows) == 30
    assert summary["records"] == len(rows) + len(lost) == 32
    assert summary["quarantined"] == len(lost)
    assert summary["damaged_cells"] == len(quarantined) - len(lost) == 1
    assert summary["statuses"] == Counter(row["enrich_status"] for row in rows)
    assert summary["rejected"] == Counter(row["enrich_flags"][0] for row in rows if row["enrich_status"] == "rejected")
    assert summary["unlisted_placeholders"] == 1
    # Thirteen rows were filled, from ten texts: three of the six rows that came twice had none.
    assert summary["statuses"]["generated"] == 13
    assert summary["written"] == len(texts_in(uneven.parent / ".enrich")) == 10
    assert summary["tokens"] == sum(len(text.encode()) for _, text, _ in texts_in(uneven.parent / ".enrich").values())
    assert sorted(shown["text"] for shown in summary["random"]) == sorted(
        {row["title"] for row in rows if row["enrich_status"] == "generated"}
    )
    assert (summary["status"], summary["error"]) == (report.status, None) == (0, None)


def test_the_second_report_tells_of_the_second_run(uneven: Path) -> None:
    enrich(uneven)
    enrich(uneven)
    (summary,) = told(uneven.parent / ".enrich")
    assert (summary["written"], summary["tokens"], summary["statuses"]["generated"]) == (0, 0, 13)
    assert len(list((uneven.parent / ".enrich" / "reports").iterdir())) == 2


def test_what_a_person_reads_holds_the_same_figures(uneven: Path) -> None:
    text = "\n".join(lines(enrich(uneven).summaries[0]))
    assert "30 rows: 14 kept, 13 generated (10 of them now), 0 approved, 0 held, 0 pending, 3 rejected" in text
    assert "rejected: bad_type 1, no_title 1, unusable_title 1" in text
    assert "2 records without a row, 1 with a cell that could not be kept" in text
    assert "1 kept descriptions read like N/A" in text


def test_a_run_that_does_not_publish_tells_why(tmp_path: Path) -> None:
    source = write_catalogue(tmp_path / "a.parquet", [{"title": None, "description": None}] * 5)
    with pytest.raises(TooManyRejected):
        enrich(source, publish={"max_rejected": 4})
    (summary,) = told(tmp_path / ".enrich")
    assert (summary["status"], summary["rejected"]) == (4, {"no_title": 5})
    assert "5 bad records, 4 are allowed" in summary["error"]


class _Stopping(Listening):
    """Stops in the middle of its fourth batch of four, as a signal would."""

    def generate(self, requests: Any) -> Any:
        for number, completion in enumerate(super().generate(requests)):
            if number == 14:
                raise Stopped("enough")
            yield completion


def test_a_run_that_is_stopped_tells_what_it_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_catalogue(tmp_path / "a.parquet", rows_of(60))
    monkeypatch.setattr("enrich.writer.EchoGenerator", _Stopping([]))
    with pytest.raises(Stopped):
        enrich(source)
    (summary,) = told(tmp_path / ".enrich")
    assert (summary["status"], summary["written"]) == (75, len(texts_in(tmp_path / ".enrich"))) == (75, 14)


def test_status_tells_the_parquet_and_the_last_run(uneven: Path) -> None:
    enrich(uneven)
    told_lines = "\n".join(standing(output_of(uneven), None))
    statuses = Counter(column(output_of(uneven), "enrich_status"))
    assert ", ".join(f"{status} {count}" for status, count in sorted(statuses.items())) in told_lines
    assert "bad_type 1" in told_lines
    assert "quarantine: " in told_lines
    assert "10 written" in told_lines


def test_status_of_a_folder_tells_of_each_file(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, num_rows in (("a", 4), ("b", 8)):
        write_catalogue(folder / f"{name}.parquet", rows_of(num_rows))
    enrich(folder)
    told_lines = standing(tmp_path / "shop.enriched", None)
    for name, num_rows in (("a", 4), ("b", 8)):
        at = told_lines.index(str(tmp_path / "shop.enriched" / f"{name}.enriched.parquet"))
        assert told_lines[at + 1] == f"  generated {num_rows // 2}, kept {num_rows // 2}"
        assert pq.read_metadata(told_lines[at]).num_rows == num_rows


# --- while it runs ---------------------------------------------------------------------------------------------------


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class _AtFive:
    @staticmethod
    def now() -> datetime:
        return datetime(2026, 11, 26, 5, 0, 10)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    monkeypatch.setattr(progress_module, "datetime", _AtFive)
    return clock


def test_a_log_gets_one_line_a_minute(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    caplog.set_level(logging.INFO, "enrich")
    with Progress("generating", 1000) as progress:
        for _ in range(18):
            clock.now += 10
            progress.passed(50)
            progress.wrote(25, 500)
    assert [record.message for record in caplog.records] == [
        "generating: 300/1,000 rows · 2.1 rows/s · 42 tok/s · held 0 · rejected 0 · left 2 min · ETA 05:02",
        "generating: 600/1,000 rows · 2.3 rows/s · 46 tok/s · held 0 · rejected 0 · left 1 min · ETA 05:01",
        "generating: 900/1,000 rows · 2.4 rows/s · 47 tok/s · held 0 · rejected 0 · left 0 min · ETA 05:00",
    ]
    # The bar is for a terminal, and this is none.
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_same_figures_and_no_lines(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    caplog.set_level(logging.INFO, "enrich")
    with Progress("generating", 1000) as progress:
        clock.now += 100
        progress.wrote(425, 5000)
        progress.passed(1000)
    shown = terminal.getvalue()
    assert "generating" in shown
    assert "1000/1000" in shown
    assert "425 texts, 50 tokens/s" in shown
    assert caplog.records == []


def test_a_pass_that_writes_no_texts_does_not_tell_of_texts(clock: _Clock) -> None:
    with Progress("reading", 1000) as progress:
        clock.now += 60
        progress.passed(600)
        assert progress.line() == "600/1,000 rows · 10 rows/s · left 1 min · ETA 05:00"


def test_the_line_tells_what_the_issue_of_every_operator_is(clock: _Clock) -> None:
    with Progress("generating", 1_900_000) as progress:
        clock.now += 300
        progress.passed(412_300, missing=400_000, reused=244_000, rejected=3)
        progress.wrote(393_000, 39_300_000, Figures(tokens=94, slot_steps=100), held=12, rejected=0)
        assert progress.line() == (
            "412,300/1,900,000 rows · 1,310 rows/s · 131k tok/s · slots 94 % · reused 61 % · held 12 · rejected 3 · "
            "left 18 min · ETA 05:18"
        )
        assert progress.figures()["slot_use"] == 0.94


def test_before_anything_happened_the_time_left_is_unknown(clock: _Clock) -> None:
    with Progress("generating", 10) as progress:
        assert progress.line().endswith("left unknown")
