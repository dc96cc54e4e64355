"""A run taken back: its texts are withdrawn, everything else stays, and a person or another model may write again."""

import json
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import NoInput, UsageError
from enrich.held import write_held
from enrich.review import review
from enrich.rollback import rollback
from enrich.settings import load_settings
from enrich.state import State

from .runs import column, enrich, output_of, read_rows, rows_of, texts_in, write_catalogue

Nights = tuple[Path, State, str, str]


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    """A catalogue after two nights, the second with ten rows more; its state, and the names of the two runs."""
    catalogue = write_catalogue(tmp_path / "catalog.parquet", rows_of(10))
    first = enrich(catalogue)
    write_catalogue(catalogue, rows_of(20))
    second = enrich(catalogue)
    return catalogue, State(tmp_path / ".enrich"), first.folder.name, second.folder.name


def statuses(catalogue: Path) -> list[str]:
    return column(output_of(catalogue), "enrich_status")


def test_the_texts_of_that_run_are_held_and_those_of_others_stay(nights: Nights) -> None:
    catalogue, state, _, second = nights
    before, texts = read_rows(output_of(catalogue)), texts_in(state.folder)
    found = rollback(second, state)
    assert (found.withdrawn, found.report.status) == (5, 0)
    after = read_rows(output_of(catalogue))
    assert after[:10] == before[:10]
    for was, row in zip(before[10:], after[10:], strict=True):
        if was["enrich_status"] == "kept":
            assert row == was
        else:
            assert (row["enrich_status"], row["description"]) == ("held", None)
            assert row["enrich_flags"] == ["withdrawn"]
    assert texts_in(state.folder) == texts


def test_the_next_night_does_not_write_them_again_until_it_is_asked(nights: Nights) -> None:
    catalogue, state, first, _ = nights
    rollback(first, state)
    assert enrich(catalogue).summaries[0].written == 0
    assert statuses(catalogue).count("held") == 5
    assert enrich(catalogue, retry="held").summaries[0].written > 0
    assert statuses(catalogue).count("held") == 0


def test_another_model_writes_them(nights: Nights) -> None:
    catalogue, state, first, _ = nights
    rollback(first, state)
    enrich(catalogue, text={"seed": 7})
    assert statuses(catalogue).count("held") == 0


def test_a_person_may_approve_them_all_the_same(nights: Nights, tmp_path: Path) -> None:
    catalogue, state, first, _ = nights
    rollback(first, state)
    held = tmp_path / "held.jsonl"
    settings = load_settings(None, {"machine": {"engine": "echo"}})
    assert write_held(output_of(catalogue), held, settings) == 5
    lines: list[dict[str, Any]] = [json.loads(line) for line in held.read_text().splitlines()]
    held.write_text("".join(json.dumps({**line, "decision": "approve"}) + "\n" for line in lines))
    review(held, state)
    enrich(catalogue)
    assert statuses(catalogue).count("approved") == 5


def test_done_twice_it_is_done_once(nights: Nights) -> None:
    catalogue, state, _, second = nights
    rollback(second, state)
    before = output_of(catalogue).read_bytes()
    rollback(second, state)
    assert output_of(catalogue).read_bytes() == before


def test_limits_of_that_night_do_not_hold(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalog.parquet", rows_of(10))
    report = enrich(catalogue, night={"max_rows": 2})
    found = rollback(report.folder.name, State(tmp_path / ".enrich"))
    assert (found.withdrawn, found.report.status) == (2, 6)
    assert (statuses(catalogue).count("held"), statuses(catalogue).count("pending")) == (2, 3)


def test_what_is_no_run_changes_nothing(nights: Nights) -> None:
    catalogue, state, first, _ = nights
    before = output_of(catalogue).read_bytes()
    for name in ("20200101T000000Z", "../reports", ""):
        with pytest.raises((NoInput, UsageError)):
            rollback(name, state)
    (state.reports / first / "summary.json").unlink()
    with pytest.raises(UsageError, match="says nothing"):
        rollback(first, state)
    assert output_of(catalogue).read_bytes() == before
