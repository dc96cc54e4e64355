"""The runs of a state folder, listed: what each did, and how it ended, whatever its report has become."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enrich.cli import main
from enrich.errors import NoInput, Stopped, TooManyRejected
from enrich.report.history import history
from enrich.state import State

from .runs import PUBLISH_ALL, Listening, enrich, rows_of, write_catalogue


@pytest.fixture
def state(tmp_path: Path) -> State:
    (tmp_path / ".enrich" / "reports").mkdir(parents=True)
    return State(tmp_path / ".enrich")


Report = Callable[[str, Any], Path]


@pytest.fixture
def report(state: State) -> Report:
    """Makes a report folder, and a `summary.json` in it of what it is given."""

    def make(name: str, told: Any) -> Path:
        folder = state.reports / name
        folder.mkdir()
        content = told if isinstance(told, bytes) else json.dumps(told).encode()
        (folder / "summary.json").write_bytes(content)
        return folder

    return make


def cells(state: State) -> list[dict[str, str]]:
    """The lines by their headings. A figure is looked for where its heading ends."""
    headings, *told = history(state)
    names = ["run", "began (UTC)", "catalogues", "rows", "new texts", "held", "pending", "rejected", "seconds"]
    names += ["tokens/s", "ended"]
    assert [name for name in names if name in headings] == names
    found = []
    for line in told:
        left = {"run": 0, "began (UTC)": headings.index("began"), "ended": headings.index("ended")}
        row = {"run": line.split("  ")[0], "began (UTC)": line[left["began (UTC)"] :].split("  ")[0]}
        for name in names[2:-1]:
            end = headings.index(name) + len(name)
            row[name] = line[:end].rsplit("  ", 1)[-1].strip()
        found.append({**row, "ended": line[left["ended"] :]})
    return found


CATALOGUE = {
    "input": "a.parquet",
    "rows": 1_234_567,
    "statuses": {"kept": 1_234_000, "generated": 500, "held": 7, "pending": 58, "rejected": 2},
    "written": 400,
    "tokens": 40_000,
    "generating_seconds": 8.0,
    "error": None,
    "status": 6,
}


def test_runs_of_two_nights(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalog.parquet", [*rows_of(10), {"title": "★", "description": None}])
    first = enrich(catalogue, quality=PUBLISH_ALL)
    write_catalogue(catalogue, rows_of(30))
    second = enrich(catalogue, quality=PUBLISH_ALL)
    one, two = cells(State(tmp_path / ".enrich"))
    assert (one["run"], two["run"]) == (first.folder.name, second.folder.name)
    assert one["began (UTC)"] == "{}-{}-{} {}:{}:{}".format(*_parts(first.folder.name))
    assert (one["catalogues"], one["rows"], one["new texts"], one["rejected"]) == ("1", "11", "5", "1")
    assert (two["catalogues"], two["rows"], two["new texts"], two["rejected"]) == ("1", "30", "10", "0")
    assert one["seconds"] == f"{first.summaries[0].generating_seconds:.1f}"
    assert one["ended"] == two["ended"] == "exit 0"


def _parts(name: str) -> tuple[str, ...]:
    return name[:4], name[4:6], name[6:8], name[9:11], name[11:13], name[13:15]


def test_a_run_that_failed_and_one_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = write_catalogue(tmp_path / "bad.parquet", [{"title": None, "description": None}] * 5)
    with pytest.raises(TooManyRejected):
        enrich(bad, publish={"max_rejected": 4})

    class Stopping(Listening):
        def generate(self, requests: Any) -> Any:
            yield from super().generate(requests)
            raise Stopped("enough")

    monkeypatch.setattr("enrich.writer.EchoGenerator", Stopping([]))
    with pytest.raises(Stopped):
        enrich(write_catalogue(tmp_path / "good.parquet", rows_of(10)))
    assert [row["ended"] for row in cells(State(tmp_path / ".enrich"))] == ["exit 4", "exit 75"]


def test_figures_are_added_over_catalogues(state: State, report: Report) -> None:
    other = {**CATALOGUE, "rows": 3, "statuses": {"held": 1}, "written": 1, "tokens": 0, "status": 65}
    report("20260708T010203Z", {"version": 1, "catalogues": [CATALOGUE, other]})
    assert cells(state) == [
        {
            "run": "20260708T010203Z",
            "began (UTC)": "2026-07-08 01:02:03",
            "catalogues": "2",
            "rows": "1,234,570",
            "new texts": "401",
            "held": "8",
            "pending": "58",
            "rejected": "2",
            "seconds": "16.0",
            "tokens/s": "2,500",
            "ended": "exit 65",
        }
    ]


def test_the_newest_is_last_and_what_is_no_report_is_not_listed(state: State, report: Report) -> None:
    for name in ("20260708T010203Z-002", "20260709T010203Z", "20260708T010203Z", "20251231T235959Z"):
        report(name, {"catalogues": [CATALOGUE]})
    (state.reports / "notes").mkdir()
    (state.reports / "20260101T000000Z").write_text("a file")
    assert [row["run"] for row in cells(state)] == [
        "20251231T235959Z",
        "20260708T010203Z",
        "20260708T010203Z-002",
        "20260709T010203Z",
    ]


def test_a_run_without_a_summary_did_not_end(state: State, report: Report) -> None:
    (state.reports / "20260708T010203Z").mkdir()
    report("20260709T010203Z", {"catalogues": [CATALOGUE]})
    killed, ended = cells(state)
    assert killed["ended"] == "did not end"
    assert (killed["began (UTC)"], killed["rows"]) == ("2026-07-08 01:02:03", "")
    assert ended["ended"] == "exit 6"


@pytest.mark.parametrize("content", [b"", b"{", b'{"catalogues": [', b"\xff", b"[1]", b"null", b"7", b"[" * 100_000])
def test_a_damaged_summary_is_told_and_hides_no_other(state: State, report: Report, content: bytes) -> None:
    report("20260708T010203Z", content)
    report("20260709T010203Z", {"catalogues": [CATALOGUE]})
    damaged, whole = cells(state)
    assert "damaged" in damaged["ended"]
    assert whole["ended"] == "exit 6"


def test_a_summary_that_is_a_folder_is_damaged(state: State) -> None:
    (state.reports / "20260708T010203Z" / "summary.json").mkdir(parents=True)
    assert "damaged" in cells(state)[0]["ended"]


@pytest.mark.parametrize(
    "told",
    [
        {"version": 2},
        {"version": 3, "catalogues": None},
        {"version": 3, "catalogues": {"a": 1}},
        {"version": 3, "catalogues": ["a", None, 5]},
        {"version": 3, "status": "fine", "catalogues": [{"rows": "many", "statuses": [], "written": True}]},
        {"version": 3, "catalogues": [{"status": 99}]},
        {"version": 3, "catalogues": [{"status": [1]}, {}]},
    ],
)
def test_a_summary_of_another_version_is_read_as_far_as_it_goes(state: State, report: Report, told: Any) -> None:
    report("20260708T010203Z", told)
    (row,) = cells(state)
    assert (row["rows"], row["new texts"], row["tokens/s"], row["ended"]) == ("0", "0", "", "unknown")


def test_the_run_itself_is_believed_before_its_catalogues(state: State, report: Report) -> None:
    report("20260708T010203Z", {"version": 2, "status": 69, "stopped_by": None, "catalogues": []})
    report("20260709T010203Z", {"version": 2, "status": 6, "stopped_by": "deadline", "catalogues": [CATALOGUE]})
    assert [row["ended"] for row in cells(state)] == ["exit 69", "exit 6 (deadline)"]


def test_a_name_that_is_no_time_is_listed_without_one(state: State, report: Report) -> None:
    report("20269999T999999Z", {"catalogues": [CATALOGUE]})
    (row,) = cells(state)
    assert (row["run"], row["began (UTC)"].strip(), row["catalogues"]) == ("20269999T999999Z", "", "1")


def test_nothing_recorded_and_no_state(tmp_path: Path, state: State) -> None:
    assert history(state) == ["no run is recorded here"]
    (tmp_path / "empty").mkdir()
    assert history(State(tmp_path / "empty")) == ["no run is recorded here"]
    with pytest.raises(NoInput, match="no such state folder"):
        history(State(tmp_path / "elsewhere"))


@pytest.mark.usefixtures("own_log")
def test_the_command_lists_and_writes_nothing(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report("20260708T010203Z", {"catalogues": [CATALOGUE]})
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["runs"]) == 0
    here = capsys.readouterr().out
    assert main(["runs", "--state", str(tmp_path / ".enrich")]) == 0
    assert capsys.readouterr().out == here
    assert "20260708T010203Z  2026-07-08 01:02:03" in here
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["runs", "--state", "elsewhere"]) == 66
