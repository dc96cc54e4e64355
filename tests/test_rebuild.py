"""A memory that was lost is made again from published files: the next run gives their bytes and writes nothing."""

import shutil
from pathlib import Path

import pytest

from enrich.errors import CatalogueError, NoInput, SettingsError
from enrich.memory import Memory, Review
from enrich.products import Product
from enrich.rebuild import rebuild
from enrich.recipe import product_key
from enrich.settings import load_settings
from tests.runs import Row, column, enrich, output_of, read_rows, rows_of, write_catalogue

ECHO = {"machine": {"engine": "echo"}}


def lose(folder: Path) -> None:
    shutil.rmtree(folder / ".enrich")


@pytest.mark.parametrize("name", ["catalogue.parquet", "catalogue.jsonl"])
def test_the_next_run_gives_the_same_bytes_and_writes_nothing(tmp_path: Path, name: str) -> None:
    """Texts cut by the limits, titles cut, approved ones and duplicates come back as they were."""
    rows: list[Row] = [
        *rows_of(40),
        {"id": "long", "title": "A sentence. " * 90, "description": None},
        {"id": "huge", "title": "Word " * 2000, "description": None},
        {"id": "twice", "title": "Product 1", "description": None},
        {"id": "by hand", "title": "Approved", "description": None},
    ]
    catalogue = write_catalogue(tmp_path / name, rows)
    short = {"text": {"max_new_tokens": 65}}
    enrich(catalogue, **short)
    with Memory.open(tmp_path / ".enrich" / "memory.sqlite") as memory:
        memory.add_reviews({product_key(Product("Approved")): Review("approved", "What a person said.")})
    first = enrich(catalogue, **short)
    published = output_of(catalogue).read_bytes()
    assert {"generated", "approved", "kept"} <= set(column(output_of(catalogue), "enrich_status"))
    assert {"trimmed", "title_cut"} <= {
        flag for flags in column(output_of(catalogue), "enrich_flags") for flag in flags
    }

    lose(tmp_path)
    rebuilt = rebuild([output_of(catalogue)], load_settings(None, ECHO | short))
    assert (rebuilt.texts, rebuilt.approved) == (first.summaries[0].statuses["generated"] - 1, 1)
    output_of(catalogue).unlink()
    again = enrich(catalogue, **short)
    # What was held is in no file: its three attempts are made again.
    assert again.summaries[0].written == 3 * first.summaries[0].statuses["held"] == 3
    assert output_of(catalogue).read_bytes() == published


def test_without_it_everything_is_written_anew(tmp_path: Path) -> None:
    """The control of the test above."""
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(10))
    enrich(catalogue)
    lose(tmp_path)
    assert enrich(catalogue).summaries[0].written == 5


def test_today_s_rules_have_the_last_word(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(10))
    enrich(catalogue)
    lose(tmp_path)
    strict = {"quality": {"forbidden": {"*": ["product 3"]}, "retries": 0}}
    rebuild([output_of(catalogue)], load_settings(None, ECHO | strict))
    enrich(catalogue, **strict)
    assert [row["title"] for row in read_rows(output_of(catalogue)) if row["enrich_status"] == "held"] == ["Product 3"]


def test_what_another_model_or_other_settings_made_is_refused(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(10))
    enrich(catalogue, text={"max_new_tokens": 77})
    lose(tmp_path)
    with pytest.raises(SettingsError, match="another settings than today's"):
        rebuild([output_of(catalogue)], load_settings(None, ECHO))
    rebuild([output_of(catalogue)], load_settings(None, ECHO | {"text": {"max_new_tokens": 77}}))


def test_what_this_tool_did_not_publish_is_refused(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(10))
    with pytest.raises(CatalogueError, match="this tool did not publish it"):
        rebuild([catalogue], load_settings(None, ECHO))
    with pytest.raises(NoInput):
        rebuild([tmp_path / "absent.parquet"], load_settings(None, ECHO))


def test_a_published_file_made_of_a_published_file_is_refused(tmp_path: Path) -> None:
    """Some of its texts are of the model before, and it does not say which."""
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(10))
    enrich(catalogue, text={"max_new_tokens": 77})
    enrich(output_of(catalogue), tmp_path / "second.parquet")
    with pytest.raises(SettingsError, match="name the file that was published first"):
        rebuild([tmp_path / "second.parquet"], load_settings(None, ECHO))


def test_what_is_remembered_already_stays(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(10))
    enrich(catalogue)
    before = output_of(catalogue).read_bytes()
    rebuild([output_of(catalogue)], load_settings(None, ECHO))
    assert enrich(catalogue).summaries[0].written == 0
    assert output_of(catalogue).read_bytes() == before
