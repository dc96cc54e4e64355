"""Whole preparations: what comes out of which catalogue, what it says of itself, and what is left when it fails."""

import errno
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import CatalogueError, EnrichError, IOFailure, NoInput, SettingsError, Stopped, UsageError
from enrich.settings import Settings, load_settings
from tests.runs import Row, enrich, output_of, snapshot, write_catalogue
from train import prepare as preparing
from train.pairs import SPLITS, read_pairs, read_record
from train.prepare import Prepared, prepare
from train.prepare_settings import PrepareSettings

WORDS = ("amber", "bold", "calm", "deep", "even", "firm", "glad", "huge", "iron", "keen", "lean", "mild", "neat")


def word(number: int) -> str:
    """A made-up word of letters for each number."""
    return "".join("bdfgklmnpr"[int(digit)] + "aeiou"[int(digit) % 5] for digit in f"{number:04}")


def told(number: int) -> str:
    """A description that shares no sentence and few words with any other."""
    return f"The {word(number)} {WORDS[number % 13]} holds {word(3 * number + 1)} and {word(7 * number + 2)} at home."


def described(num_rows: int, first: int = 0) -> list[Row]:
    return [{"title": f"{word(number)} lamp", "description": told(number)} for number in range(first, first + num_rows)]


def settings_of(**catalogue: Any) -> Settings:
    return load_settings(None, {"machine": {"engine": "echo"}, "catalogue": catalogue})


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """Prepares rows, or catalogues, into `tmp_path/prepared` with the echo engine's tokens, which are bytes."""

    def run(*given: Sequence[Row] | Path, catalogue: dict[str, Any] | None = None, **options: Any) -> Prepared:
        files = [
            each if isinstance(each, Path) else write_catalogue(tmp_path / f"catalogue{index}.jsonl", each)
            for index, each in enumerate(given)
        ]
        return prepare(
            [str(file) for file in files],
            tmp_path / "prepared",
            settings_of(**catalogue or {}),
            PrepareSettings(**options),
        )

    return run


def pairs(done: Prepared) -> list[tuple[str, str]]:
    return [(pair.product.title, pair.description) for split in SPLITS for pair in read_pairs(done.folder, split)]


def drops(done: Prepared) -> dict[str, int]:
    return {name: count for name, count in done.dropped.items() if count}


def test_each_filter_drops_its_own(prepared: Callable[..., Prepared]) -> None:
    rows = [
        {"title": "Blank", "description": " "},
        {"title": "Placeholder", "description": "N/A"},
        {"title": None, "description": told(900)},
        {"title": "!?", "description": told(901)},
        {"title": "Short", "description": "Too short."},
        {"title": "A rather long title of a lamp", "description": "A rather long lamp of a title"},
        {"title": "Soup", "description": "10 x 20 x 30; 40 x 50 / 60, 70"},
        {"title": "Long", "description": " ".join(map(word, range(40)))},
        {"title": "Same", "description": told(3).upper()},
        {"title": "Nearly", "description": told(3).replace("The", "A")},
    ]
    done = prepared(described(50) + rows, catalogue={"placeholders": ["n/a"]})
    assert drops(done) == {
        "missing": 2,
        "bad_title": 2,
        "too_short": 1,
        "title_repeated": 1,
        "markup_soup": 1,
        "over_long": 1,
        "exact_duplicate": 1,
        "near_duplicate": 1,
    }
    assert done.num_rows == 60
    assert sorted(pairs(done)) == sorted((row["title"], row["description"]) for row in described(50))


def test_texts_are_cleaned_as_in_generation(prepared: Callable[..., Prepared]) -> None:
    row = {"title": "Caf&eacute; <b>forte</b>", "description": f"<p>{told(1)}</p><script>x()</script>&amp;amp; more"}
    done = prepared(
        [*described(5, 10), {**row, "brand": " Acme &amp; Cia ", "size": None}],
        catalogue={"attributes": ["brand", "size"]},
    )
    found = [pair for split in SPLITS for pair in read_pairs(done.folder, split) if "forte" in pair.product.title]
    assert [(pair.product.title, pair.product.attributes, pair.description) for pair in found] == [
        ("Café forte", (("brand", "Acme & Cia"),), f"{told(1)} & more")
    ]


def test_the_columns_say_the_seed_format(prepared: Callable[..., Prepared]) -> None:
    rows = [{**row, "brand": "Acme"} for row in described(30)]
    done = prepared(rows, catalogue={"attributes": ["brand"]})
    for row in pq.read_table(done.folder / "train.parquet").to_pylist():
        assert (
            row["prompt"] == f"[INST] Gere uma descrição para o seguinte produto: {row['title']}; brand: Acme [/INST]"
        )
        assert row["completion"] == f" {row['description']}"
        assert row["text"] == f"<s>{row['prompt']}{row['completion']} </s>"
        assert row["attributes"] == [{"name": "brand", "value": "Acme"}]


def test_boilerplate_is_cut_and_what_is_only_boilerplate_is_dropped(prepared: Callable[..., Prepared]) -> None:
    shipping = "Free shipping on all orders over fifty."
    rows = [{**row, "description": f"{row['description']} {shipping}"} for row in described(30)]
    only = [
        {"title": f"{word(number)} mug", "description": f"{word(number)} mug. {shipping}"} for number in range(40, 45)
    ]
    done = prepared(rows + only)
    assert done.num_cut == 30
    assert drops(done) == {"boilerplate": 5}
    assert not any("shipping" in description for _, description in pairs(done))
    kept = prepared(rows + only, boilerplate_rows=100, near_duplicates=False)
    assert kept.num_cut == 0
    assert all("shipping" in description for _, description in pairs(kept))


def test_a_text_of_many_rows_is_a_duplicate_and_no_boilerplate(prepared: Callable[..., Prepared]) -> None:
    rows = [{"title": f"{word(number)} lamp", "description": told(1)} for number in range(60)]
    done = prepared(described(5, 10) + rows)
    assert drops(done) == {"exact_duplicate": 59}
    assert done.num_cut == 0


def test_only_the_language_asked_for_stays(prepared: Callable[..., Prepared]) -> None:
    rows = [
        {"title": "Luz", "description": "Uma luminária de mesa feita à mão, com luz quente e suave para a sua casa."},
        {"title": "Lamp", "description": "A table lamp made by hand, with a warm and soft light for your home."},
        {"title": "Mug", "description": "A large mug for tea and coffee that keeps your drink hot for hours."},
    ]
    done = prepared(rows, language="en", validation_share=0, test_share=0)
    assert [title for title, _ in pairs(done)] == ["Lamp", "Mug"]
    assert drops(done) == {"wrong_language": 1}


def test_generated_rows_are_never_used(tmp_path: Path, prepared: Callable[..., Prepared]) -> None:
    rows = described(20) + [{"title": f"a wonderfully long {word(number)}", "description": None} for number in range(5)]
    catalogue = write_catalogue(tmp_path / "shop.parquet", rows)
    enrich(catalogue)
    published = pq.read_table(output_of(catalogue))
    assert published["enrich_status"].to_pylist().count("generated") == 5
    done = prepared(output_of(catalogue))
    assert drops(done) == {"generated_row": 5}
    assert len(pairs(done)) == 20
    pq.write_table(published.drop_columns("enrich_status"), tmp_path / "stripped.parquet")
    with pytest.raises(CatalogueError, match="enrich_status is gone"):
        prepared(tmp_path / "stripped.parquet")


def test_catalogues_of_all_formats_together(tmp_path: Path, prepared: Callable[..., Prepared]) -> None:
    amazon = [
        {
            "uid": f"{row['title']}",
            "title": row["title"],
            "content": row["description"],
            "target_ind": [1],
            "target_rel": [1.0],
        }
        for row in described(10, 100)
    ]
    done = prepared(
        write_catalogue(tmp_path / "one.parquet", described(10)),
        write_catalogue(tmp_path / "two.json", described(10, 50)),
        write_catalogue(tmp_path / "trn.jsonl", amazon),
    )
    assert len(pairs(done)) == done.num_rows == 30
    assert [each["name"] for each in read_record(done.folder)["inputs"]] == ["one.parquet", "two.json", "trn.jsonl"]


def test_added_rows_move_no_other_and_variants_stay_together(prepared: Callable[..., Prepared]) -> None:
    def splits(rows: list[Row]) -> dict[str, str]:
        done = prepared(rows, validation_share=0.2, test_share=0.2)
        return {pair.product.title: split for split in SPLITS for pair in read_pairs(done.folder, split)}

    before = splits(described(100))
    variants = [
        {"title": f"LAMP {row['title'].split()[0]}, blue 20 cm", "description": told(5000 + index)}
        for index, row in enumerate(described(100))
    ]
    after = splits(described(150, 200) + variants + described(100))
    assert set(before.values()) == set(SPLITS)
    assert {title: after[title] for title in before} == before
    assert all(
        after[row["title"]] == after[variant["title"]] for row, variant in zip(described(100), variants, strict=True)
    )


def test_the_same_work_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch, prepared: Callable[..., Prepared]) -> None:
    monkeypatch.setattr("enrich.catalog.batch_size._MAX_ROWS", 60)
    rows = described(300) + described(40, 100)
    done = prepared(rows)
    before = snapshot(done.folder)
    monkeypatch.setattr(preparing, "_MIN_ROWS_FOR_PROCESSES", 1)
    monkeypatch.setattr(preparing, "num_cores", lambda: 2)
    assert snapshot(prepared(rows).folder) == before
    assert snapshot(prepared(rows, seed=1).folder) != before


def test_the_record_tells_the_whole_funnel(prepared: Callable[..., Prepared]) -> None:
    done = prepared(described(40) + described(3), license="MIT-0", seed=7)
    record = read_record(done.folder)
    counts = record["counts"]
    assert counts["rows"] == sum(counts["dropped"].values()) + sum(counts[split] for split in SPLITS) == 43
    assert {split: len(read_pairs(done.folder, split)) for split in SPLITS} == done.splits
    assert (record["seed"], record["license"], record["attributes"]) == (7, "MIT-0", [])
    assert record["digest"] != read_record(prepared(described(41)).folder)["digest"]


def test_the_page_shows_hostile_texts_as_text(prepared: Callable[..., Prepared]) -> None:
    hostile = "</td><script-x onload='alert(1)'>"
    rows = [
        *described(20),
        {"title": hostile, "description": "short"},
        {"title": "x", "description": f"{told(1)} {hostile}"},
    ]
    page = (prepared(rows).folder / "prepare.html").read_text(encoding="utf-8")
    assert "&lt;/td&gt;&lt;script-x" in page
    assert "<script" not in page
    assert "Content-Security-Policy" in page


def test_both_long_passes_show_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, prepared: Callable[..., Prepared]
) -> None:
    monkeypatch.setattr("enrich.catalog.batch_size._MAX_ROWS", 60)
    monkeypatch.setattr("enrich.report.progress._SECONDS_BETWEEN_LINES", 0)
    caplog.set_level(logging.INFO, "enrich")
    long, shared = " ".join(map(word, range(40))), "Free shipping on all orders over fifty."
    more = [{"title": "Long", "description": long}, {"title": "Blank", "description": ""}] * 5
    prepared([{**row, "description": f"{row['description']} {shared}"} for row in described(90)] + more)
    lines = [record.message.split(" · ") for record in caplog.records if " rows/s" in record.message]
    # What the first pass dropped the second never sees.
    assert [line[0] for line in lines] == [
        "reading: 60/100 rows",
        "reading: 100/100 rows",
        "judging: 60/95 rows",
        "judging: 95/95 rows",
    ]
    # Neither writes a text.
    assert {len(line) for line in lines} == {4}


def test_an_empty_split_is_told(prepared: Callable[..., Prepared], caplog: pytest.LogCaptureFixture) -> None:
    done = prepared(described(2), validation_share=0, test_share=0)
    assert done.splits == {"train": 2, "validation": 0, "test": 0}
    assert read_pairs(done.folder, "test") == []
    assert "No row fell into validation and test" in (done.folder / "prepare.html").read_text(encoding="utf-8")
    assert "no row fell into validation" in caplog.text


@pytest.mark.parametrize(
    ("rows", "error", "line"),
    [
        ([], CatalogueError, "no described rows among 0"),
        ([{"title": "a", "description": ""}] * 3, CatalogueError, "no described rows among 3"),
        (described(1), CatalogueError, "1 of 1 described rows is left to learn from; at least 2 are needed"),
        (described(1) * 9, CatalogueError, "all 9 described rows are duplicates of one"),
        ([{"title": "a", "description": "short"}] * 3, CatalogueError, "0 of 3 described rows is left.*3 too_short"),
        ([{"title": "a", "about": told(1)}], SettingsError, "no column looks like a description: say --description"),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path, prepared: Callable[..., Prepared], rows: list[Row], error: type[EnrichError], line: str
) -> None:
    with pytest.raises(error, match=line) as raised:
        prepared(rows)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue0.jsonl"]


def test_a_wrong_column_is_named(prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(SettingsError, match=r"catalogue0.jsonl: there is no column about for the description"):
        prepared(described(5), catalogue={"description": "about"})
    with pytest.raises(NoInput):
        prepared(Path("nowhere.jsonl"))


def test_nothing_to_train_on_is_an_error(prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(CatalogueError, match="fell into validation and test"):
        prepared(described(3), validation_share=0.495, test_share=0.5)


@pytest.mark.parametrize(
    "broken",
    ["train.preparing.spool.Spool.write", "pyarrow.parquet.ParquetWriter.write_table", "pathlib.Path.write_text"],
)
def test_a_full_disk_leaves_the_former_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: Callable[..., Prepared], broken: str
) -> None:
    before = snapshot(prepared(described(30)).folder)
    catalogue = write_catalogue(tmp_path / "more.parquet", described(60))

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(broken, full)
    with pytest.raises(IOFailure, match=r"prepared: cannot be written: No space left on device"):
        prepared(catalogue)
    monkeypatch.undo()
    assert snapshot(tmp_path / "prepared") == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("num_no", range(4))
def test_a_run_that_is_stopped_leaves_the_former_folder(
    tmp_path: Path, prepared: Callable[..., Prepared], num_no: int
) -> None:
    before = snapshot(prepared(described(30)).folder)
    answers = iter([False] * num_no)

    def should_stop() -> bool:
        return next(answers, True)

    catalogue = write_catalogue(tmp_path / "more.jsonl", described(60))
    with pytest.raises(Stopped, match="run again"):
        prepare([str(catalogue)], tmp_path / "prepared", settings_of(), PrepareSettings(), should_stop)
    assert snapshot(tmp_path / "prepared") == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_run_killed_between_the_renames_is_mended(tmp_path: Path, prepared: Callable[..., Prepared]) -> None:
    before = snapshot(prepared(described(30)).folder)
    (tmp_path / "prepared").rename(tmp_path / ".prepared.former")
    with pytest.raises(CatalogueError):
        prepared(described(1))
    assert snapshot(tmp_path / "prepared") == before


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path, prepared: Callable[..., Prepared]) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not ours to replace"):
        prepared(described(30))
    assert (tmp_path / "prepared" / "thesis.txt").read_text() == "mine"


def test_a_damaged_folder_is_told(tmp_path: Path, prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(NoInput, match="no prepared folder"):
        read_pairs(tmp_path / "nowhere", "train")
    folder = prepared(described(30)).folder
    content = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(CatalogueError):
        read_pairs(folder, "train")
    pq.write_table(pa.table({"title": ["a"]}), folder / "train.parquet")
    with pytest.raises(CatalogueError, match="lacks a column"):
        read_pairs(folder, "train")
    (folder / "prepare.json").write_text(json.dumps([1]))
    with pytest.raises(CatalogueError, match="not the record"):
        read_record(folder)
