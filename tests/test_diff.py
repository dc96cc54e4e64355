"""What changed between two published files, held against a comparison of dicts."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from enrich.cli import main
from enrich.difference import Difference, Example, difference, lines
from enrich.errors import CatalogueError, IOFailure, NoInput, SettingsError

from .runs import enrich, output_of, rows_of, write_catalogue

Row = tuple[Any, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def table(path: Path, rows: Sequence[Row], *, ids: pa.DataType | None = None, name: str = "description") -> Path:
    """Rows of an id and a text as a file."""
    columns = {"id": pa.array([each for each, _ in rows], ids or pa.string())}
    columns[name] = pa.array([text for _, text in rows], pa.string())
    pq.write_table(pa.table(columns), path)
    return path


def compare(folder: Path, one: Sequence[Row], other: Sequence[Row]) -> Difference:
    return difference(table(folder / "one.parquet", one), table(folder / "other.parquet", other), "id", None)


def counts(found: Difference) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("new", "changed", "removed", "unchanged", "without")}


# --- counts ----------------------------------------------------------------------------------------------------------


def expected(one: Sequence[Row], other: Sequence[Row]) -> Counter[str]:
    """By dicts from an id, and how many rows before had the same, to a text."""
    before, after = _numbered(one), _numbered(other)
    fates = Counter[str]()
    for key in before.keys() | after.keys():
        was, now = before.get(key), after.get(key)
        if was is None or now is None:
            fates["without" if was is now else "new" if was is None else "removed"] += 1
        else:
            fates["unchanged" if was == now else "changed"] += 1
    fates["only one"], fates["only other"] = len(before.keys() - after.keys()), len(after.keys() - before.keys())
    return fates


def _numbered(rows: Sequence[Row]) -> dict[tuple[Any, int], str | None]:
    seen, found = defaultdict[Any, int](int), {}
    for each, text in rows:
        found[each, seen[each]] = text if text and text.strip() else None
        seen[each] += 1
    return found


_IDS = st.none() | st.sampled_from(["", "1", "2", "é", "😀", "a\0", "a"]) | st.text(max_size=3)
_TEXTS = st.none() | st.sampled_from(["", " ", "x", "y", "x "]) | st.text(max_size=5)
_TABLES = st.lists(st.tuples(_IDS, _TEXTS), max_size=30)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(_TABLES, _TABLES)
@example([], [])
@example([(None, "x"), (None, "y")], [(None, "y"), (None, "y"), (None, None)])
def test_any_two_tables_differ_as_dicts_do(folder: Path, one: list[Row], other: list[Row]) -> None:
    found = compare(folder, one, other)
    fates = expected(one, other)
    assert counts(found) == {name: fates[name] for name in counts(found)}
    assert (found.one.unmatched, found.other.unmatched) == (fates["only one"], fates["only other"])
    assert (found.one.rows, found.other.rows) == (len(one), len(other))
    assert sum(counts(found).values()) == len(one) + found.other.unmatched == len(other) + found.one.unmatched
    assert found.one.null_ids == sum(each is None for each, _ in one)
    ids = [each for each, _ in one if each is not None]
    assert found.one.repeated_ids == len(ids) - len(set(ids))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(_TABLES, st.randoms(use_true_random=False))
def test_the_order_of_rows_with_ids_of_their_own_is_no_difference(folder: Path, rows: list[Row], random: Any) -> None:
    unique = list(dict(rows).items())
    shuffled = random.sample(unique, len(unique))
    found = compare(folder, unique, shuffled)
    assert (found.new, found.changed, found.removed) == (0, 0, 0)
    assert (found.one.unmatched, found.other.unmatched) == (0, 0)


def test_each_kind_of_row(folder: Path) -> None:
    one = [("a", None), ("b", "b"), ("c", "c"), ("d", "d"), ("e", "e"), ("f", " "), ("g", None)]
    other = [("h", "h"), ("i", None), ("a", "A"), ("b", "B"), ("c", None), ("e", "e"), ("f", "")]
    found = compare(folder, one, other)
    assert counts(found) == {"new": 2, "changed": 1, "removed": 2, "unchanged": 1, "without": 3}
    assert (found.one.unmatched, found.other.unmatched) == (2, 2)
    assert found.examples == {
        "new": (Example("h", None, "h"), Example("a", None, "A")),
        "changed": (Example("b", "b", "B"),),
        "removed": (Example("c", "c", None), Example("d", "d", None)),
    }


def test_a_text_that_differs_in_white_space_alone_is_changed(folder: Path) -> None:
    assert compare(folder, [("a", "x")], [("a", "x ")]).changed == 1


def test_a_row_too_many_shifts_only_those_of_its_own_id(folder: Path) -> None:
    one = [("a", "1"), ("a", "2"), ("b", "3")]
    other = [("a", "0"), ("b", "3"), ("a", "1"), ("a", "2")]
    assert counts(compare(folder, one, other)) == {"new": 1, "changed": 2, "removed": 0, "unchanged": 1, "without": 0}


def test_many_batches_and_row_groups(folder: Path) -> None:
    num_rows = 40_000
    one = [(f"{i:06}", f"text {i}" if i % 2 else None) for i in range(num_rows)]
    other = [(each, text or f"new {each}") for each, text in reversed(one)]
    other[-2:] = [("x", "x")]
    found = compare(folder, one, other)
    assert counts(found) == {
        "new": num_rows // 2 - 1 + 1, "changed": 0, "removed": 1, "unchanged": num_rows // 2 - 1, "without": 1
    }  # fmt: skip
    assert [each.id for each in found.examples["new"]] == ["039998", "039996", "039994", "039992", "039990"]
    assert found.examples["removed"] == (Example("000001", "text 1", None),)


def test_examples_are_the_first_of_their_file(folder: Path) -> None:
    one = [(f"{i}", f"old {i}") for i in (9, 3, 7, 1, 8, 2, 5)]
    found = compare(folder, one, [])
    assert [each.id for each in found.examples["removed"]] == ["9", "3", "7", "1", "8"]
    assert [each.before for each in found.examples["removed"]] == [f"old {i}" for i in (9, 3, 7, 1, 8)]


def test_examples_of_several_batches(folder: Path) -> None:
    one = [(f"{i:06}", f"text {i}") for i in range(40_000)]
    other = [(each, text.upper() if each in ("000010", "020000", "039999") else text) for each, text in one]
    found = compare(folder, one, other)
    assert (found.changed, found.unchanged) == (3, 39_997)
    assert found.examples["changed"] == tuple(
        Example(f"{i:06}", f"text {i}", f"TEXT {i}") for i in (10, 20_000, 39_999)
    )


# --- columns ---------------------------------------------------------------------------------------------------------


def test_ids_may_be_numbers_of_any_width_or_text(folder: Path) -> None:
    numbers = [(-5, "a"), (7, "b"), (2**40, "c"), (None, "d")]
    one = table(folder / "one.parquet", numbers, ids=pa.int64())
    texts = [(None if each is None else str(each), text) for each, text in reversed(numbers)]
    other = table(folder / "other.parquet", texts, ids=pa.large_string())
    assert counts(difference(one, other, "id", None))["unchanged"] == 4
    small = table(folder / "small.parquet", numbers[:2], ids=pa.int8())
    assert counts(difference(one, small, "id", None)) == {
        "new": 0, "changed": 0, "removed": 2, "unchanged": 2, "without": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_the_layout_of_a_column_is_no_difference(folder: Path, text: pa.DataType) -> None:
    rows = [("a", "x"), ("b", None), (None, "z")]
    one = table(folder / "one.parquet", rows)
    columns = [pa.array(each, pa.string()).cast(text) for each in zip(*rows, strict=True)]
    pq.write_table(pa.table(columns, ["id", "description"]), folder / "other.parquet")
    found = difference(one, folder / "other.parquet", "id", None)
    assert counts(found) == {"new": 0, "changed": 0, "removed": 0, "unchanged": 2, "without": 1}


def test_text_that_is_not_utf8_is_compared_and_shown(folder: Path) -> None:
    for name, text in (("one", b"\xff"), ("other", b"\xfe")):
        damaged = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(text))
        pq.write_table(pa.table({"id": ["a"], "description": damaged}), folder / f"{name}.parquet")
    found = difference(folder / "one.parquet", folder / "other.parquet", "id", None)
    assert found.examples["changed"] == (Example("a", "\\xff", "\\xfe"),)


def test_a_file_without_descriptions_has_no_texts(folder: Path) -> None:
    one = table(folder / "one.parquet", [("a", "title")], name="title")
    other = table(folder / "other.parquet", [("a", "x")])
    assert counts(difference(one, other, "id", None))["new"] == 1
    assert counts(difference(other, one, "id", None))["removed"] == 1
    with pytest.raises(SettingsError, match=r"looks like a description: say --description NAME, one of id, title"):
        difference(one, one, "id", None)


def test_a_description_by_name_and_by_its_usual_names(folder: Path) -> None:
    one = table(folder / "one.parquet", [("a", "x")], name="descrição")
    other = table(folder / "other.parquet", [("a", "y")], name="content")
    assert difference(one, other, "id", None).changed == 1
    odd = table(folder / "odd.parquet", [("a", "y")], name="title")
    assert difference(odd, odd, "id", "title").unchanged == 1
    with pytest.raises(SettingsError, match=r"one\.parquet: there is no column content for the description: there are"):
        difference(one, other, "id", "content")


def test_titles_that_would_stop_a_run_do_not_matter(folder: Path) -> None:
    pq.write_table(pa.table({"name": ["a"], "title": ["b"], "content": ["c"]}), folder / "one.parquet")
    assert difference(folder / "one.parquet", folder / "one.parquet", "name", None).unchanged == 1


def test_columns_that_cannot_be_meant(folder: Path) -> None:
    one = table(folder / "one.parquet", [("a", "x")])
    with pytest.raises(SettingsError, match=r"one\.parquet: there is no column sku for the id: there are id, desc"):
        difference(one, one, "sku", None)
    pq.write_table(pa.table({"id": [0.5], "description": ["x"]}), folder / "float.parquet")
    with pytest.raises(SettingsError, match=r"float\.parquet: column id has type double, which is no id"):
        difference(one, folder / "float.parquet", "id", None)
    pq.write_table(pa.table({"id": ["a"], "description": ["x"], "content": ["y"]}), folder / "two.parquet")
    with pytest.raises(SettingsError, match=r"say --description with one of description, content"):
        difference(one, folder / "two.parquet", "id", None)
    pq.write_table(pa.table({"id": ["a"], "Description": ["x"]}), folder / "case.parquet")
    with pytest.raises(SettingsError, match=r"is Description the description\? Say so with --description"):
        difference(one, folder / "case.parquet", "id", None)


# --- statuses --------------------------------------------------------------------------------------------------------


def with_statuses(path: Path, statuses: dict[str, Any], data_type: pa.DataType | None = None) -> Path:
    columns = {"id": list(statuses), "description": ["x"] * len(statuses)}
    pq.write_table(pa.table({**columns, "enrich_status": pa.array(statuses.values(), data_type)}), path)
    return path


def test_statuses_are_told_of_rows_in_both_files_that_have_another(folder: Path) -> None:
    one = with_statuses(folder / "one.parquet", {"a": "pending", "b": "pending", "c": "kept", "d": "held", "e": None})
    other = with_statuses(
        folder / "o.parquet", {"a": "generated", "b": "generated", "c": "kept", "z": "held", "e": "x"}
    )
    found = difference(one, other, "id", None)
    assert found.statuses == {("pending", "generated"): 2, ("null", "x"): 1}
    assert lines(found)[-3:] == ["enrich_status:", "  2  pending → generated", "  1  null → x"]


def test_statuses_of_one_file_alone_or_of_no_text_are_not_compared(folder: Path) -> None:
    one = with_statuses(folder / "one.parquet", {"a": "kept"})
    assert difference(table(folder / "plain.parquet", [("a", "x")]), one, "id", None).statuses == {}
    foreign = with_statuses(folder / "foreign.parquet", {"a": 0.5}, pa.float64())
    assert difference(foreign, one, "id", None).statuses == {}


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_is_no_parquet_file(folder: Path) -> None:
    one = table(folder / "one.parquet", [("a", "x")])
    with pytest.raises(NoInput):
        difference(one, folder / "absent.parquet", "id", None)
    json_lines = write_catalogue(folder / "rows.jsonl", rows_of(2))
    (folder / "named.parquet").write_bytes(b"not it")
    (folder / "cut.parquet").write_bytes(one.read_bytes()[:-9])
    for path in (json_lines, folder / "named.parquet", folder / "cut.parquet", folder):
        with pytest.raises(CatalogueError):
            difference(path, one, "id", None)


def test_a_file_that_is_published_meanwhile_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (table(folder / name, [("a", name)]) for name in ("one.parquet", "other.parquet"))
    connect = sqlite3.connect

    def replacing(name: str) -> sqlite3.Connection:
        table(other, [("a", "yet another")])
        return connect(name)

    monkeypatch.setattr("enrich.difference.sqlite3.connect", replacing)
    with pytest.raises(CatalogueError, match="changed while it was read"):
        difference(one, other, "id", None)


def test_no_room_for_temporary_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(name: str) -> sqlite3.Connection:
        connection = connect(name)
        connection.execute("PRAGMA max_page_count = 5")
        return connection

    monkeypatch.setattr("enrich.difference.sqlite3.connect", small)
    with pytest.raises(IOFailure, match="full: make room"):
        compare(folder, [(f"{i}", "x") for i in range(5000)], [])


def test_two_nights(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalog.parquet", rows_of(20))
    enrich(catalogue)
    first = output_of(catalogue).rename(tmp_path / "first.parquet")
    raw = difference(catalogue, first, "id", None)
    write_catalogue(catalogue, rows_of(30))
    enrich(catalogue)
    found = difference(first, output_of(catalogue), "id", None)
    generated = sum(status == "generated" for status in pq.read_table(first).column("enrich_status").to_pylist())
    assert raw.new == generated > 0
    assert (raw.unchanged, raw.removed, raw.changed) == (10, 0, 0)
    assert (found.one.rows, found.other.rows, found.other.unmatched) == (20, 30, 10)
    assert (found.changed, found.removed, found.statuses) == (0, 0, {})
    assert found.unchanged == generated + 10


# --- as it is read ---------------------------------------------------------------------------------------------------


def test_lines(folder: Path) -> None:
    one = [("a", None), ("b", "b"), (None, "n"), ("d", "d"), ("d", "d")]
    other = [(f"x{i}", "X" * 200) for i in range(7)] + [("a", "A"), ("b", "B"), (None, None), ("d", "d")]
    assert lines(compare(folder, one, other)) == [
        f"{folder / 'one.parquet'}: 5 rows, 1 of them not in the other file",
        "  1 rows without an id and 1 with that of an earlier row: compared in their order",
        f"{folder / 'other.parquet'}: 11 rows, 7 of them not in the other file",
        "  1 rows without an id and 0 with that of an earlier row: compared in their order",
        "texts: 8 new, 1 changed, 2 removed, 1 unchanged; 0 rows without one in either file",
        "new, 5 of 8:",
        *(line for i in range(5) for line in (f"  x{i}", "    + " + "X" * 99 + "…")),
        "changed:",
        "  b",
        "    - b",
        "    + B",
        "removed:",
        "  no id",
        "    - n",
        "  d",
        "    - d",
    ]


@pytest.mark.usefixtures("own_log")
def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = table(folder / "one.parquet", [("a", "x")]), table(folder / "other.parquet", [("a", "y\n\x1b[2J")])
    assert main(["diff", str(one), str(one), "--id", "id"]) == 0
    assert "0 new, 0 changed, 0 removed, 1 unchanged" in capsys.readouterr().out
    assert main(["diff", str(one), str(other), "--id", "id", "--description", "description"]) == 0
    assert "    + y\\n\\x1b[2J\n" in capsys.readouterr().out
    for status, arguments in (
        (64, [one, other]),
        (65, [Path(__file__), other, "--id", "id"]),
        (66, [one, folder / "absent", "--id", "id"]),
        (78, [one, other, "--id", "sku"]),
    ):
        assert main(["diff", *map(str, arguments)]) == status
        assert len(capsys.readouterr().err.splitlines()) == 1
