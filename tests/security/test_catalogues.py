"""A catalogue file runs no code, unpacks to no more than it should, and names no place outside of its output."""

import gzip
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.catalog.sources import find_sources
from enrich.errors import EnrichError

from ..conftest import Command
from ..runs import environment, read_rows, write_catalogue, zstd
from .canary import Canary
from .code import imported, importing, mentioning

# --- code ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["arrow.py_extension_type", "evil.type"])
def test_a_pickle_as_a_type_of_a_column_is_not_opened(
    tmp_path: Path, enrich_run: Command, canary: Canary, name: str
) -> None:
    """As CVE-2023-47248 did it: Arrow keeps its schema in the file, and a type of it may bring a pickle along."""
    asking = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": canary.as_pickle()}
    schema = pa.schema([pa.field("title", pa.string()), pa.field("n", pa.int32(), metadata=asking)])
    table = pa.table([["Mug", "Cup"], pa.array([1, 2], pa.int32())], schema=schema)
    pq.write_table(table, tmp_path / "catalogue.parquet")
    outcome = enrich_run(tmp_path / "catalogue.parquet")
    assert outcome.status == 0, outcome.said
    assert [row["n"] for row in outcome.rows] == [1, 2]
    assert not canary.sang
    pickle.loads(canary.as_pickle())  # noqa: S301 - our own
    assert canary.sang


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow", ".jsonl"])
@pytest.mark.parametrize("open_sink", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_s_own_formats_are_not_read(
    tmp_path: Path, enrich_run: Command, suffix: str, open_sink: Callable[..., Any]
) -> None:
    with open_sink(tmp_path / f"catalogue{suffix}", pa.schema([("title", pa.string())])) as sink:
        sink.write(pa.record_batch({"title": ["Mug"]}))
    outcome = enrich_run(tmp_path / f"catalogue{suffix}")
    assert outcome.status in (0, 65)
    assert not outcome.output.exists() or outcome.rows == []


def test_nothing_reads_them_or_a_pickle_of_somebody_else() -> None:
    assert mentioning(r"\bipc\b|feather|\borc\b|read_pickle|torch\.load\b") == []
    # What workers are sent by the process that started them.
    assert importing({"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}, imported()) == {
        "enrich/crew.py": {"pickle"}
    }


# --- bombs ---------------------------------------------------------------------------------------------------------

MEMORY, SECONDS, MIB = 2 << 30, 60, 1 << 20

_LIMITED = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
from enrich.cli import main
sys.exit(main(sys.argv[1:]))
"""


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that become far more than the memory they are read in."""
    times = MEMORY // MIB + 1024
    for packing, pack in (("gz", gzip.compress), ("zst", zstd)):
        yield f"{packing}-spaces.jsonl.{packing}", pack(b" " * MIB) * times
        yield f"{packing}-line.jsonl.{packing}", pack(b'{"title": "') + pack(b"x" * MIB) * times


def write_bombs(folder: Path) -> list[str]:
    folder.mkdir()
    for name, content in bombs():
        (folder / name).write_bytes(content)
    return sorted(path.name for path in folder.iterdir())


def test_bombs_are_refused_within_a_limit_of_memory_and_their_neighbour_is_published(tmp_path: Path) -> None:
    names = write_bombs(tmp_path / "shop")
    assert max(path.stat().st_size for path in (tmp_path / "shop").iterdir()) < 8 * MIB
    write_catalogue(tmp_path / "shop" / "good.jsonl", [{"title": "Mug"}])
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, "run", tmp_path / "shop", "--engine", "echo", "--output", tmp_path / "out"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert done.returncode == 65, done.stderr
    assert [name for name in names if f"{name}: unpacks" not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == ["good.enriched.parquet"]
    assert [row["description"] for row in read_rows(tmp_path / "out" / "good.enriched.parquet")] == ["Mug"]


# --- places --------------------------------------------------------------------------------------------------------

NAMES = [
    "...jsonl",
    "-rf.jsonl",
    "~.jsonl",
    "$HOME.jsonl",
    "a\\..\\b.jsonl",
    "%2e%2e%2fc.jsonl",
    "․․／d.jsonl",
    "e;f.jsonl",
]


def outside(output: Path, sources: list[Any]) -> list[Path]:
    """The outputs that do not lie in the folder of outputs."""
    assert sources
    return [each.output for each in sources if not each.output.resolve().is_relative_to(output.resolve())]


def test_no_name_of_a_local_file_leads_outside_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    for name in NAMES:
        (tmp_path / "shop" / name).write_text('{"title": "Mug"}')
    sources = find_sources(str(tmp_path / "shop"), tmp_path / "out").sources
    assert len(sources) > 5
    assert outside(tmp_path / "out", sources) == []


@pytest.mark.parametrize("name", ["../../evil.jsonl", "deep/../../../evil.jsonl", "..//../evil.jsonl"])
def test_no_name_of_a_remote_object_leads_outside_of_the_output(tmp_path: Path, name: str) -> None:
    store = fsspec.filesystem("memory").store
    shop = f"/listing-{tmp_path.name}"
    for each in ("a.jsonl", name):
        with fsspec.open(f"memory://{shop}/good.jsonl", "wb") as remote:
            remote.write(b'{"title": "Mug"}')
        store[f"{shop}/{each}"] = store[f"{shop}/good.jsonl"]
    try:
        found = outside(tmp_path / "out", find_sources(f"memory:/{shop}", tmp_path / "out").sources)
    except EnrichError:
        found = []
    finally:
        for each in [each for each in store if each.startswith(shop)]:
            del store[each]
    assert found == []
