"""What a run leaves behind: summary.json, the metrics, the log as JSON; and a page that fails fails nothing else."""

import io
import json
import logging
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from enrich.console import JsonLine
from enrich.errors import TooManyRejected
from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.report.gallery import Gallery, Shown
from enrich.report.timeline import Timeline
from enrich.settings import QualitySettings

from .runs import enrich, rows_of, write_catalogue


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return write_catalogue(tmp_path / "catalog.parquet", rows_of(40))


def samples(file: Path) -> dict[str, float]:
    families = text_string_to_metric_families(file.read_text())
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_gets_what_the_summary_says(catalogue: Path, tmp_path: Path) -> None:
    file = tmp_path / "enrich.prom"
    report = enrich(catalogue, machine={"metrics": str(file), "gpu_hour_price": 2.0})
    found = samples(file)
    assert found["enrich_rows generated"] == report.summaries[0].statuses["generated"] == 20
    assert found["enrich_rows kept"] == 20
    assert found["enrich_last_run_texts_written"] == 20
    assert found["enrich_last_run_status"] == 0
    assert found["enrich_last_run_cost"] == json.loads((report.folder / "summary.json").read_text())["cost"]
    enrich(catalogue, machine={"metrics": str(file)})
    assert samples(file)["enrich_last_run_texts_written"] == 0
    assert [path.name for path in tmp_path.glob("*.prom*")] == ["enrich.prom"]


@pytest.mark.page
def test_a_run_that_fails_tells_so(tmp_path: Path) -> None:
    rows = [{"id": str(at), "title": None, "description": None} for at in range(30)]
    catalogue = write_catalogue(tmp_path / "catalog.parquet", rows)
    with pytest.raises(TooManyRejected):
        enrich(catalogue, machine={"metrics": str(tmp_path / "enrich.prom")})
    assert samples(tmp_path / "enrich.prom")["enrich_last_run_status"] == 4
    (folder,) = (tmp_path / ".enrich" / "reports").iterdir()
    told = json.loads((folder / "summary.json").read_text())
    assert (told["status"], "bad records" in told["error"]) == (4, True)
    assert (folder / "report.html").stat().st_size > 0


def test_the_summary_says_what_was_asked_and_how_long_it_took(catalogue: Path) -> None:
    report = enrich(catalogue, machine={"gpu_hour_price": 3600.0})
    told = json.loads((report.folder / "summary.json").read_text())
    assert (told["version"], told["run"], told["asked"]["input"]) == (2, report.folder.name, str(catalogue))
    assert told["cost"] == told["seconds"] > 0
    assert told["catalogues"][0]["timeline"][-1][1:] == [20, told["catalogues"][0]["tokens"]]


@pytest.mark.page
def test_a_page_that_cannot_be_drawn_fails_nothing_else(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr("enrich.report.page.page", fail)
    report = enrich(catalogue)
    assert report.status == 0
    assert "could not be drawn" in caplog.text
    assert (report.folder / "summary.json").exists()
    assert not (report.folder / "report.html").exists()


def test_a_log_line_as_json_is_one_object_whatever_it_says() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLine())
    logger = logging.Logger("apart")
    logger.addHandler(handler)
    logger.info("title %s", 'a "b"\n\x1b[31m\u202e', extra={"progress": {"rows": 7}})
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["rows"]) == ("INFO", 7)
    assert told["message"] == 'title a "b"\n\x1b[31m\u202e'
    assert line.isascii()


def test_a_timeline_has_few_points_and_ends_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("enrich.report.timeline.time.monotonic", lambda: now)
    timeline = Timeline()
    for second in range(10_000):
        now = float(second)
        timeline.add(second, 2 * second)
    points = timeline.ended(10_000, 20_000)
    assert 100 < len(points) <= 242
    assert points == sorted(points)
    assert points[-1] == (9999.0, 10_000, 20_000)


# The gallery


def shown(number: int, score: int | None = 100, text: str = "A mug.") -> Shown:
    product = Product(f"Mug {number}")
    return Shown(number.to_bytes(16, "big"), number, None, product, text, "generated", score, ("trimmed",))


JUDGE = Judge(QualitySettings())


def test_the_worst_are_shown_worst_first_and_each_product_once() -> None:
    gallery = Gallery()
    scores = [(number * 37) % 101 for number in range(1000)]
    for start in range(0, 1000, 100):
        gallery.add([shown(number, scores[number]) for number in range(start, start + 100)])
        gallery.add([shown(number, scores[number]) for number in range(start, start + 100)])
    told = gallery.told(JUDGE)
    assert [each["score"] for each in told["worst"]] == sorted(scores)[:50]
    assert len({each["row"] for each in told["worst"]}) == 50
    assert sum(told["scores"]) == 2000
    assert told["scores"][10] == 2 * scores.count(100)
    assert told["flags"] == {"trimmed": 2000}


def test_what_is_drawn_by_lot_depends_on_the_run_alone() -> None:
    def drawn(name: str, numbers: list[int]) -> list[int]:
        gallery = Gallery(name)
        gallery.add(map(shown, numbers))
        return [each["row"] for each in gallery.told(JUDGE)["random"]]

    numbers = list(range(500))
    assert drawn("one", numbers) == drawn("one", numbers[::-1])
    assert len(set(drawn("one", numbers)) & set(drawn("two", numbers))) < 10
    assert max(drawn("one", numbers)) > 250


def test_lengths_are_counted_by_fifty_and_claims_are_marked() -> None:
    gallery = Gallery()
    gallery.add([shown(1, 10, "A steel mug."), shown(2, 100, "x" * 49), shown(3, 100, "x" * 50)])
    told = gallery.told(JUDGE)
    assert told["lengths"] == [(0, 2), (50, 1)]
    (worst, *_) = told["worst"]
    (span,) = worst["unsupported"]
    assert worst["text"][span["start"] : span["end"]] == "steel"
