"""The state folder: another user's is not used, links lead nowhere, and what lies in it is what a run put there."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import Difference, EnrichError
from enrich.night import verify

from ..conftest import Command, Row
from ..runs import enrich, output_of, read_rows, snapshot, write_catalogue

ROWS: list[Row] = [{"title": "Cup", "description": None}, {"title": "Mug", "description": "Deep."}]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """With a state folder of its own beside it, not made yet."""
    (tmp_path / "shop").mkdir()
    return write_catalogue(tmp_path / "shop" / "catalogue.jsonl", ROWS)


def state_of(catalogue: Path) -> Path:
    return catalogue.parent / ".enrich"


# --- links ---------------------------------------------------------------------------------------------------------

PLACES = ["lock", "memory.sqlite", "spool", "reports"]


@pytest.mark.parametrize("place", PLACES)
def test_a_link_to_nothing_is_not_followed(catalogue: Path, enrich_run: Command, place: str) -> None:
    elsewhere = catalogue.parent.parent / "elsewhere"
    state_of(catalogue).mkdir()
    (state_of(catalogue) / place).symlink_to(elsewhere)
    outcome = enrich_run(catalogue)
    assert outcome.status == 78
    assert place in outcome.error
    assert not elsewhere.exists()
    assert not outcome.output.exists()


@pytest.mark.parametrize("place", ["spool", "reports", "."])
def test_a_link_to_another_user_s_folder_is_not_followed(
    catalogue: Path, enrich_run: Command, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    elsewhere = catalogue.parent.parent / "elsewhere"
    elsewhere.mkdir()
    link = state_of(catalogue) / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    disown(elsewhere, monkeypatch)
    outcome = enrich_run(catalogue)
    assert outcome.status == 78
    assert "belongs to user" in outcome.error
    assert list(elsewhere.iterdir()) == []
    assert not outcome.output.exists()


def disown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a folder to another user, by whichever way the user of these tests may."""
    if os.geteuid() == 0:
        os.chown(folder, 4321, -1)
        return
    found = Path.stat

    def stat_of(self: Path, **options: Any) -> os.stat_result:
        result = found(self, **options)
        # Not `resolve`, which asks for a stat itself.
        if os.path.realpath(self) != str(folder):
            return result
        return os.stat_result([*result[:4], 4321, *result[5:10]])

    monkeypatch.setattr(Path, "stat", stat_of)


def test_a_link_to_a_folder_of_one_s_own_touches_nothing_that_was_there(catalogue: Path) -> None:
    elsewhere = catalogue.parent.parent / "elsewhere"
    (elsewhere / "20260101T000000Z").mkdir(parents=True)
    for name in ("a.parquet", ".b.tmp", "lock", "20260101T000000Z/summary.json"):
        (elsewhere / name).write_text("{}")
    before = snapshot(elsewhere)
    state_of(catalogue).mkdir()
    for place in ("spool", "reports"):
        (state_of(catalogue) / place).symlink_to(elsewhere)
    assert enrich(catalogue).status == 0
    assert snapshot(elsewhere).items() >= before.items()


def test_links_in_place_of_what_is_written_are_replaced_and_not_followed(catalogue: Path) -> None:
    with catalogue.open("a") as file:
        file.write("[]\n")
    enrich(catalogue)
    (spool,) = spools_of(catalogue)
    output = output_of(catalogue)
    written = [spool.with_suffix(".quarantine.jsonl"), output.with_name(f"{output.name}.quarantine.jsonl")]
    temporary = [path.with_name(f".{path.name}.tmp") for path in (spool, output, *written)]
    spool.unlink()
    for path in written:
        path.unlink()
    links = [*written, *temporary, spool.with_name(f".{spool.stem}.0.tmp")]
    decoys = [catalogue.parent.parent / f"decoy{number}" for number in range(len(links))]
    for link, decoy in zip(links, decoys, strict=True):
        decoy.write_text("mine")
        link.symlink_to(decoy)
    assert enrich(catalogue).status == 0
    assert {decoy.read_text() for decoy in decoys} == {"mine"}
    assert not [path for path in (spool, output, *links) if path.is_symlink()]


# --- who may write -------------------------------------------------------------------------------------------------


def test_nobody_else_may_look_into_what_a_run_makes(catalogue: Path) -> None:
    before = os.umask(0)
    try:
        enrich(catalogue)
    finally:
        os.umask(before)
    state = state_of(catalogue)
    modes = {str(path.relative_to(state)): stat.S_IMODE(path.stat().st_mode) for path in (state, *state.iterdir())}
    assert modes == {".": 0o700, "lock": 0o600, "memory.sqlite": 0o600, "spool": 0o700, "reports": 0o700}


def test_a_folder_that_everybody_may_write_into_is_refused_or_closed(catalogue: Path, enrich_run: Command) -> None:
    state_of(catalogue).mkdir()
    state_of(catalogue).chmod(0o777)
    outcome = enrich_run(catalogue)
    assert outcome.status == 78 or not state_of(catalogue).stat().st_mode & stat.S_IWOTH


# --- a spool that is another ---------------------------------------------------------------------------------------


def spools_of(catalogue: Path) -> list[Path]:
    return sorted((state_of(catalogue) / "spool").glob("*.parquet"))


def rewritten(change: Callable[[pa.Table], pa.Table], *, keeps_counts: bool = True) -> Callable[[Path], None]:
    """A valid Parquet file in place of the spool."""

    def rewrite(spool: Path) -> None:
        table, counts = pq.read_table(spool), pq.read_metadata(spool).metadata[b"enrich.spool"]
        with pq.ParquetWriter(spool, change(table).schema) as writer:
            writer.write_table(change(table))
            if keeps_counts:
                writer.add_key_value_metadata({b"enrich.spool": counts})

    return rewrite


def other_titles(table: pa.Table) -> pa.Table:
    return table.set_column(0, "title", pa.array(["Evil", "Mug"]))


def other_descriptions(table: pa.Table) -> pa.Table:
    return table.set_column(1, "description", pa.array([None, "Evil."], pa.string()))


PLANTED = {
    "other titles": rewritten(other_titles),
    "other descriptions": rewritten(other_descriptions),
    "fewer rows": rewritten(lambda table: table.slice(0, 1)),
    "no column of defects": rewritten(lambda table: table.select(["title", "description"])),
}


def linked(spool: Path) -> None:
    """A link to a valid file outside."""
    elsewhere = spool.parents[3] / "elsewhere.parquet"
    spool.rename(elsewhere)
    PLANTED["other titles"](elsewhere)
    spool.symlink_to(elsewhere)


PLANTED["a link to another"] = linked


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_a_planted_spool_is_not_published(catalogue: Path, plant: Callable[[Path], None]) -> None:
    enrich(catalogue)
    plant(spools_of(catalogue)[0])
    output_of(catalogue).unlink()
    try:
        enrich(catalogue)
    except EnrichError:
        assert not output_of(catalogue).exists()
        return
    assert [(row["title"], row["description"]) for row in read_rows(output_of(catalogue))] == [
        ("Cup", "Cup"),
        ("Mug", "Deep."),
    ]


def test_swapped_spools_are_not_published(tmp_path: Path) -> None:
    for name, title in (("a", "Cup"), ("b", "Mug")):
        write_catalogue(tmp_path / f"{name}.jsonl", [{"title": title, "description": None}])
        enrich(tmp_path / f"{name}.jsonl")
    one, other = sorted((tmp_path / ".enrich" / "spool").glob("*.parquet"))
    one.rename(tmp_path / "kept")
    other.rename(one)
    (tmp_path / "kept").rename(other)
    for name in ("a", "b"):
        enrich(tmp_path / f"{name}.jsonl")
    found = [read_rows(output_of(tmp_path / f"{name}.jsonl"))[0]["title"] for name in ("a", "b")]
    assert found == ["Cup", "Mug"]


@pytest.mark.parametrize("plant", [PLANTED["other titles"], PLANTED["fewer rows"], linked])
def test_what_a_planted_spool_published_is_found_by_verify(catalogue: Path, plant: Callable[[Path], None]) -> None:
    enrich(catalogue)
    right = read_rows(output_of(catalogue))
    plant(spools_of(catalogue)[0])
    enrich(catalogue)
    if read_rows(output_of(catalogue)) != right:
        with pytest.raises(Difference):
            verify(catalogue)


def forget_quarantine(quarantine: Path) -> None:
    quarantine.unlink()


def link_quarantine(quarantine: Path) -> None:
    """To a file that nobody meant to publish."""
    secret = quarantine.parents[3] / "secret"
    secret.write_text('{"secret": 1}\n')
    quarantine.unlink()
    quarantine.symlink_to(secret)


@pytest.mark.parametrize("change", [forget_quarantine, link_quarantine])
def test_no_record_is_lost_without_its_entry(catalogue: Path, change: Callable[[Path], None]) -> None:
    with catalogue.open("a") as file:
        file.write("[]\n")
    enrich(catalogue)
    change(spools_of(catalogue)[0].with_suffix(".quarantine.jsonl"))
    try:
        enrich(catalogue)
    except EnrichError:
        return
    told = output_of(catalogue).with_name(output_of(catalogue).name + ".quarantine.jsonl").read_text()
    assert json.loads(told)["reason"] == "not_object"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100])
def test_a_spool_that_is_none_is_one_line(catalogue: Path, enrich_run: Command, content: bytes) -> None:
    enrich(catalogue)
    spools_of(catalogue)[0].write_bytes(content)
    outcome = enrich_run(catalogue)
    assert outcome.status in (0, 65)
    assert "Traceback" not in outcome.said


# --- reports that are others ---------------------------------------------------------------------------------------


def plant_report(catalogue: Path, content: bytes) -> None:
    report = state_of(catalogue) / "reports" / "20260101T000000Z"
    report.mkdir(parents=True)
    (report / "summary.json").write_bytes(content)


def assert_published(catalogue: Path) -> None:
    assert enrich(catalogue).status == 0
    assert [row["enrich_status"] for row in read_rows(output_of(catalogue))] == ["generated", "kept"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"null", b"[]", b"{}", b'{"catalogues": 3}', b'{"catalogues": [3]}']
)
def test_a_report_that_is_none_stops_no_run(catalogue: Path, content: bytes) -> None:
    plant_report(catalogue, content)
    assert_published(catalogue)


def test_a_report_whose_figures_are_none_stops_no_run(catalogue: Path) -> None:
    plant_report(catalogue, b'{"catalogues": [{"rows": 1, "publishing_seconds": "long"}]}')
    assert_published(catalogue)
