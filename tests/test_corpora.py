"""Public corpora of hostile files: every one is read right or refused in one line, none is read wrong.

Parquet is read in child processes with a limit of memory and time, because what a damaged file does to its
reader is unknown before it is tried.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enrich.catalog.read import open_catalogue
from enrich.errors import CatalogueError
from enrich.night import how_to_read
from enrich.quality.tidy import tidy
from enrich.settings import CatalogueSettings
from enrich.text import clean, is_usable

from .conftest import Command, Row
from .runs import enrich, output_of, read_rows, write_catalogue

HOW = how_to_read(CatalogueSettings())

Read = Callable[[bytes], tuple[list[Row], int] | CatalogueError]


@pytest.fixture(scope="module")
def suite(corpora: Path) -> dict[str, bytes]:
    """Name → document; the name begins with what a parser should do: y accepts, n refuses, i may do either."""
    return {path.stem: path.read_bytes() for path in sorted((corpora / "JSONTestSuite/test_parsing").glob("*.json"))}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Rows and number of lost records of a JSON catalogue, or how it was refused."""

    def read_one(document: bytes) -> tuple[list[Row], int] | CatalogueError:
        path = tmp_path / "catalogue.json"
        path.write_bytes(document)
        try:
            catalogue = open_catalogue(path, HOW, tmp_path / "spool")
            return [row for batch in catalogue.batches() for row in batch.rows.to_pylist()], catalogue.lost
        except CatalogueError as error:
            return error

    return read_one


# --- JSONTestSuite ---------------------------------------------------------------------------------------------------


def test_each_document_as_a_catalogue(suite: dict[str, bytes], read: Read) -> None:
    outcomes = {name: read(document) for name, document in suite.items()}
    assert [name for name, outcome in outcomes.items() if name[0] == "n" and _rows(outcome)] == []
    refused = [name for name, outcome in outcomes.items() if name[0] == "y" and isinstance(outcome, CatalogueError)]
    assert refused == sorted(NOT_A_CATALOGUE)


# Documents that are neither an array nor an object on one line.
NOT_A_CATALOGUE = {
    "y_object_with_newlines",
    "y_string_space",
    "y_structure_lonely_false",
    "y_structure_lonely_int",
    "y_structure_lonely_negative_real",
    "y_structure_lonely_null",
    "y_structure_lonely_string",
    "y_structure_lonely_true",
    "y_structure_string_empty",
}


def test_each_document_as_a_value_among_good_records(
    suite: dict[str, bytes], tmp_path: Path, enrich_run: Command
) -> None:
    """One record for each document on one line, in a column of its own, with a title that says which."""
    documents = {name: text for name, text in suite.items() if b"\n" not in text.strip() and name not in NO_COLUMN}
    assert len(documents) > 290
    path = tmp_path / "catalogue.jsonl"
    path.write_bytes(
        b"".join(
            b'{"title": "%b", "%b": %b}\n' % (name.encode(), name.encode(), text.strip(b"\n"))
            for name, text in documents.items()
        )
    )
    outcome = enrich_run(path, "--max-rejected", "1000")
    assert outcome.status == 0, outcome.said

    rows = {row["title"]: row for row in outcome.rows}
    lost = {_title_of(entry["raw"]): entry for entry in outcome.quarantine if not entry["row_kept"]}
    assert not rows.keys() & lost.keys()
    assert rows.keys() | lost.keys() == documents.keys()
    assert {name for name in lost if name[0] == "y"} == set()
    assert {name for name in rows if name[0] == "n"} == set()
    for name, row in rows.items():
        assert row["description"] == name.replace("_", "_")
        if name[0] == "y":
            assert _same(row[name], json.loads(documents[name])), name
        others = [value for key, value in row.items() if key in documents and key != name]
        assert set(map(str, others)) == {"None"}


# Lists of unlike things, which no column can hold.
NO_COLUMN = {"y_array_heterogeneous"}


def test_each_document_in_an_array(suite: dict[str, bytes], read: Read) -> None:
    for name, document in suite.items():
        outcome = read(b'[{"title": "Lamp"}, {"title": "Cup", "value": %b}, {"title": "Vase"}]' % document)
        if isinstance(outcome, CatalogueError):
            assert name[0] != "y" or name in NO_COLUMN, f"{name}: {outcome}"
            continue
        rows, lost = outcome
        assert len(rows) + lost == 3, name
        assert [rows[0]["title"], rows[-1]["title"]] == ["Lamp", "Vase"]
        assert lost == (name[0] == "n") or name[0] == "i", name


def test_the_suite_would_notice_a_wrong_reader(suite: dict[str, bytes]) -> None:
    """Most documents are told apart by their value, and Python's own reader accepts some that it must not."""
    accepted = [name for name, document in suite.items() if name[0] == "n" and _loads_leniently(document)]
    assert accepted
    values = [json.loads(document) for name, document in suite.items() if name[0] == "y"]
    assert sum(_same(value, other) for value in values for other in values) < 2 * len(values)


def _rows(outcome: tuple[list[Row], int] | CatalogueError) -> list[Row]:
    return [] if isinstance(outcome, CatalogueError) else outcome[0]


def _title_of(raw: bytes) -> str:
    return raw.split(b'"')[3].decode()


def _same(found: Any, expected: Any) -> bool:
    """Equal, and of equal types but for whole numbers beside decimals; an object without members is null."""
    if isinstance(expected, dict):
        return (found is None or isinstance(found, dict)) and all(
            _same(found and found.get(key), value) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_same, found, expected))
    return bool(found == expected) and (isinstance(found, bool) == isinstance(expected, bool))


def _loads_leniently(document: bytes) -> bool:
    try:
        json.loads(document)
    except (ValueError, RecursionError):
        return False
    return True


def test_each_document_in_a_process_with_limits(suite: dict[str, bytes], corpora: Path, tmp_path: Path) -> None:
    """None ends it, hangs it or takes more memory than it may: alone, on one line and in an array."""
    files = []
    strings = json.dumps(json.loads((corpora / "blns" / "blns.json").read_bytes())).encode()
    for name, document in {**suite, "blns": strings}.items():
        for form, content in (("alone", document), ("among", b'[{"title": "Lamp", "v": %b}]' % document)):
            files.append(tmp_path / f"{name}-{form}.json")
            files[-1].write_bytes(content)
    outcomes = read_capped(files, tmp_path)
    assert {outcome for name, outcome in outcomes if name.startswith("y_") and name.endswith("-among.json")} <= {
        "read",
        "irreconcilable",
    }
    assert not [each for each in outcomes if each[1].startswith("OTHER")]
    assert len(outcomes) > 600


# --- Parquet ---------------------------------------------------------------------------------------------------------

_READ_ALL = """
import resource, sys
from pathlib import Path
import pyarrow.parquet as pq
from enrich.catalog.columns import Columns
from enrich.catalog.proof import prove
from enrich.catalog.publish import publish
from enrich.catalog.read import open_catalogue
from enrich.errors import EnrichError
from enrich.night import how_to_read
from enrich.products import Description
from enrich.settings import CatalogueSettings

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
output, columns = Path(sys.argv[1]), Columns(None, None, ())
for name in sys.stdin.read().splitlines():
    try:
        catalogue = open_catalogue(Path(name), how_to_read(CatalogueSettings()), output.parent)
        pending = lambda _, gaps: [Description("pending")] * len(gaps)
        publish(catalogue, columns, (), pending, {}, output, lambda found: None, lambda: None)
        prove(catalogue, columns, (), output)
        promised = pq.ParquetFile(name).read().num_rows if ".parquet" in name else catalogue.num_rows
        print(Path(name).name, "read" if promised == pq.read_metadata(output).num_rows else "OTHER ROWS")
    except EnrichError as error:
        print(Path(name).name, getattr(error, "code", "") or "OTHER")
"""


def read_capped(files: list[Path], folder: Path) -> list[list[str]]:
    """Name and outcome of each file, read and published in one child process with a limit of memory and time."""
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL, str(folder / "out.parquet")],
        input="\n".join(map(str, files)),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    outcomes = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [name for name, _ in outcomes] == [path.name for path in files]
    return outcomes


REFUSED = {
    "datapage_v1-corrupt-checksum.parquet": "damaged",
    "incorrect_map_schema.parquet": "damaged",
    "large_string_map.brotli.parquet": "bomb",
    "repeated_no_annotation.parquet": "row_count",
    "rle-dict-uncompressed-corrupt-checksum.parquet": "damaged",
}


def test_each_parquet_file_is_copied_whole_or_refused(corpora: Path, tmp_path: Path) -> None:
    files = sorted(
        path for path in (corpora / "parquet-testing" / "data").rglob("*") if ".parquet" in path.name and path.is_file()
    )
    files = [path for path in files if path.suffix in (".parquet", ".encrypted")]
    for name, outcome in read_capped(files, tmp_path):
        assert outcome == ("encrypted" if name.endswith(".encrypted") else REFUSED.get(name, "read")), name
    assert len(files) > 60


# --- naughty strings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_naughty_strings_as_titles_and_as_descriptions(corpora: Path, tmp_path: Path, suffix: str) -> None:
    strings: list[str] = json.loads((corpora / "blns" / "blns.json").read_text(encoding="utf-8"))
    rows: list[Row] = [{"title": text, "description": None} for text in strings]
    rows += [{"title": "Lamp", "description": text} for text in strings if text.strip()]
    catalogue = write_catalogue(tmp_path / f"catalogue{suffix}", rows)
    settings = {"text": {"max_prompt_tokens": 4096, "max_new_tokens": 4096}, "publish": {"max_rejected": 1000}}
    assert enrich(catalogue, **settings).status == 0
    found = read_rows(output_of(catalogue))
    assert [row["title"] for row in found] == [row["title"] for row in rows]
    for before, after in zip(rows, found, strict=True):
        title = clean(before["title"])
        if before["description"] is not None:
            assert (after["description"], after["enrich_status"]) == (before["description"], "kept")
        elif not is_usable(title):
            assert (after["description"], after["enrich_status"]) == (None, "rejected")
        elif after["enrich_status"] == "generated":
            # The echo engine answers with the title it was asked about, tidied as any text.
            assert after["description"] == tidy(title)
        else:
            assert after["enrich_flags"] == ["empty"]
    assert sum(row["enrich_status"] == "generated" for row in found) > 350
