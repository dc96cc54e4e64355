"""From what the operator names to inputs and outputs; every format read as the same rows."""

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.catalog.sources import find_sources
from enrich.errors import CatalogueError, NoInput, UsageError
from tests.runs import enrich, read_rows, zstd

ROWS: list[dict[str, Any]] = [
    {"uid": "0001", "title": "Lamp", "content": "A lamp.", "target_ind": [1, 2], "target_rel": [1.0, 0.5]},
    {"uid": "0002", "title": "Blue mug", "content": "", "target_ind": [], "target_rel": []},
    {"uid": "0003", "title": "Garden\u2028hose", "content": None, "target_ind": [3], "target_rel": [0.25]},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS, indent=1).encode()
WRAPPED = json.dumps({"shop": {"name": "x]", "n": [1, {"items": 2}]}, "products": {"n": 3, "items": ROWS}}).encode()


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def expect_rows(output: Path) -> None:
    found = [{name: row[name] for name in ROWS[0]} for row in read_rows(output)]
    described = [{**row, "content": row["content"] or " ".join(row["title"].split())} for row in ROWS]
    assert found == described


@pytest.mark.parametrize("name", ["trn.json", "trn.jsonl", "data", "misnamed.csv"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("content", [LINES, ARRAY, WRAPPED], ids=["lines", "array", "wrapped"])
def test_every_json_is_the_same_catalogue(tmp_path: Path, name: str, packing: str, content: bytes) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[packing]
    path = tmp_path / (name + packing)
    path.write_bytes(pack(content))
    records = {"records": "products.items"} if content is WRAPPED else {}
    assert enrich(path, tmp_path / "out.parquet", catalogue=records).status == 0
    expect_rows(tmp_path / "out.parquet")


@pytest.mark.parametrize("where", ["products", "products.name", "shop.name", "nowhere", "products.items.title"])
def test_a_path_that_leads_to_no_records(tmp_path: Path, where: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_bytes(WRAPPED)
    with pytest.raises(CatalogueError, match="record"):
        enrich(path, catalogue={"records": where})


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_remote_catalogue_is_read_and_its_copy_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"memory://shop/{tmp_path.name}.jsonl" if scheme == "memory" else f"file://{tmp_path}/there/x.jsonl"
    with fsspec.open(address, "wb", auto_mkdir=True) if scheme == "file" else fsspec.open(address, "wb") as remote:
        remote.write(LINES)
    assert enrich(address, tmp_path / "out.parquet").status == 0
    expect_rows(tmp_path / "out.parquet")
    assert not list((tmp_path / ".enrich" / "spool").glob("*.jsonl"))
    with pytest.raises(NoInput, match="no such object"):
        enrich(address + "x", tmp_path / "other.parquet")


def test_a_password_in_an_address_is_written_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not into the reports, the log or the published file; what cannot be fetched does not tell it either."""
    address = f"memory://joe:s3cret@shop/{tmp_path.name}.jsonl"
    with fsspec.open(address, "wb") as remote:
        remote.write(LINES)
    report = enrich(address, tmp_path / "out.parquet")
    assert report.summaries[0].input == f"memory://shop/{tmp_path.name}.jsonl"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"summary.json", "out.parquet"} <= {path.name for path in files}
    assert [path for path in files if b"s3cret" in path.read_bytes()] == []
    for missing in ("memory://joe:s3cret@shop/none.jsonl", "nosuch://joe:s3cret@shop/none.jsonl"):
        with pytest.raises((NoInput, UsageError)) as caught:
            enrich(missing, tmp_path / "out.parquet")
        assert "s3cret" not in str(caught.value)
    assert "s3cret" not in caplog.text


def test_a_remote_folder_is_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with fsspec.open(f"memory://folder-{tmp_path.name}/{name}.jsonl", "wb") as remote:
            remote.write(LINES)
    report = enrich(f"memory://folder-{tmp_path.name}", tmp_path / "out")
    assert [summary.rows for summary in report.summaries] == [3, 3]
    expect_rows(tmp_path / "out" / "b.enriched.parquet")


def test_an_address_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gopher"):
        enrich("gopher://shop/catalog.jsonl", tmp_path / "out.parquet")


def test_a_folder_gives_a_folder_of_the_same_shape(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    parquet(folder / "a.parquet")
    (folder / "deep" / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    for ignored in ("README.txt", "_SUCCESS", "a.parquet.quarantine.jsonl", "deep/.hidden/c.jsonl"):
        (folder / ignored).write_bytes(b"not a catalogue")
    assert enrich(folder).status == 0
    published = sorted(path.relative_to(tmp_path) for path in (tmp_path / "shop.enriched").rglob("*.parquet"))
    assert list(map(str, published)) == ["shop.enriched/a.enriched.parquet", "shop.enriched/deep/b.enriched.parquet"]
    for path in published:
        expect_rows(tmp_path / path)
    assert (tmp_path / ".enrich" / "memory.sqlite").exists()


def test_a_glob_takes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a1.parquet", "a2.parquet", "b1.parquet"):
        parquet(tmp_path / "in" / name)
    selection = find_sources(str(tmp_path / "in" / "a*.parquet"), None)
    assert [Path(source.address).name for source in selection.sources] == ["a1.parquet", "a2.parquet"]
    assert selection.output == tmp_path / "in.enriched"


def test_a_name_with_brackets_that_exists_is_no_glob(tmp_path: Path) -> None:
    parquet(tmp_path / "catalog[1].parquet")
    assert len(find_sources(str(tmp_path / "catalog[1].parquet"), None).sources) == 1


def test_two_inputs_for_one_output(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_bytes(LINES)
    with pytest.raises(UsageError, match="would both become"):
        find_sources(str(tmp_path), tmp_path / "out")


def test_one_file_twice(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to("a.parquet")
    with pytest.raises(CatalogueError, match="same file"):
        find_sources(str(tmp_path), tmp_path / "out")
