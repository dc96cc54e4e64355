"""What lies on the disk was altered: it is refused, or made again, and nothing wrong is ever published."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.catalog.read import open_catalogue
from enrich.errors import CatalogueError
from enrich.night import how_to_read
from enrich.settings import CatalogueSettings
from tests.faults.ledger import Ledger
from tests.faults.places import MakeScene
from tests.faults.scene import FULL, some
from tests.runs import ROOT, environment, rows_of

Damage = Callable[[Path, random.Random], None]

REFUSED = (74, 78)


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(1, path.stat().st_size))


def flip(path: Path, chance: random.Random) -> None:
    """Of one bit, or of twenty, where something is written."""
    content = bytearray(path.read_bytes())
    written = [at for at, byte in enumerate(content) if byte]
    for at in chance.sample(written, chance.choice((1, 20))):
        content[at] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def zeroed(path: Path, chance: random.Random) -> None:
    """A block that was never written."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(0, len(content), 512)
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(content)


def another_program_s(path: Path, chance: random.Random) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE text (id)")
        connection.commit()


DAMAGES: list[Damage] = [empty, cut, flip, zeroed, another_program_s]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_memory_is_refused_or_does_not_matter(scene: MakeScene, ledger: Ledger, damage: Damage) -> None:
    """Refused in one line with what to do, the former output intact; without it the night begins anew."""
    refused = 0
    for seed in range(24 if FULL else 4):
        struck = scene()
        assert struck.run() == 0
        struck.output.write_bytes(struck.former)
        damage(struck.state / "memory.sqlite", random.Random(seed))
        status = struck.run()
        assert status in (0, *REFUSED), struck.log.read_text()
        assert "Traceback" not in struck.log.read_text()
        struck.assert_old_or_new(status)
        if status != 0:
            refused += 1
            assert struck.output.read_bytes() == struck.former
            for file in struck.state.glob("memory.sqlite*"):
                file.unlink()
        struck.assert_recovers(ledger, "F11 memory damaged", 1)
    assert refused


@pytest.mark.parametrize("damage", [empty, cut, flip, zeroed], ids=lambda damage: damage.__name__)
def test_a_damaged_spool_publishes_nothing_wrong(scene: MakeScene, ledger: Ledger, damage: Damage) -> None:
    """The parsed catalogue of an earlier run is read again, or parsed again."""
    for seed in range(12 if FULL else 2):
        struck = scene()
        assert struck.run() == 0
        struck.output.unlink()
        spools = [path for path in (struck.state / "spool").iterdir() if path.is_file()]
        assert spools
        for path in spools:
            damage(path, random.Random(seed))
        status = struck.run()
        assert "Traceback" not in struck.log.read_text()
        if struck.output.exists():
            assert (status, struck.published()) == (0, struck.right), (seed, damage)
        if status != 0:
            shutil.rmtree(struck.state / "spool")
        struck.assert_recovers(ledger, "F11 spool damaged", 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"catalogues": 3}', b"\xff\x00"])
def test_a_damaged_report_of_an_earlier_run_stops_nothing(scene: MakeScene, ledger: Ledger, content: bytes) -> None:
    struck = scene()
    assert struck.run() == 0
    (report,) = (struck.state / "reports").iterdir()
    (report / "summary.json").write_bytes(content)
    (struck.state / "lock").write_bytes(content)
    struck.assert_recovers(ledger, "F11 report and lock damaged", 1)


def small_parquet(path: Path) -> Path:
    table = pa.Table.from_pylist(rows_of(12))
    pq.write_table(table, path, row_group_size=5, write_page_checksum=True)
    return path


def test_no_beginning_of_a_parquet_file_is_a_catalogue(tmp_path: Path, ledger: Ledger) -> None:
    whole = small_parquet(tmp_path / "whole.parquet").read_bytes()
    cut_file, how = tmp_path / "cut.parquet", how_to_read(CatalogueSettings())
    for length in some(range(len(whole)), 60):
        cut_file.write_bytes(whole[:length])
        with pytest.raises(CatalogueError):
            list(open_catalogue(cut_file, how, tmp_path / "spool").batches())
        ledger.add("F22 Parquet cut short")


# In a process of its own: what a damaged file does to its reader is unknown before it is tried.
_READ_FLIPPED = """
import json, random, resource, sys
from pathlib import Path
from enrich.catalog.read import open_catalogue
from enrich.errors import EnrichError
from enrich.night import how_to_read
from enrich.settings import CatalogueSettings

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
whole, flipped = Path(sys.argv[1]), Path(sys.argv[2])
how = how_to_read(CatalogueSettings())
def rows(path):
    return [row for batch in open_catalogue(path, how, flipped.parent).batches() for row in batch.rows.to_pylist()]
right, found = rows(whole), dict(refused=0, equal=0, silent=[])
for seed in map(int, sys.argv[3:]):
    content = bytearray(whole.read_bytes())
    bit = random.Random(seed).randrange(len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    flipped.write_bytes(content)
    try:
        same = rows(flipped) == right
    except EnrichError:
        found["refused"] += 1
        continue
    if same:
        found["equal"] += 1
    else:
        found["silent"].append(bit)
print(json.dumps(found))
"""


def test_a_bit_that_turned_in_a_catalogue_is_noticed_or_does_not_matter(tmp_path: Path, ledger: Ledger) -> None:
    """Where its pages have checksums. The footer has none, so that a name may turn into another name."""
    whole = small_parquet(tmp_path / "whole.parquet")
    seeds = [str(seed) for seed in range(1000 if FULL else 150)]
    done = subprocess.run(
        [sys.executable, "-c", _READ_FLIPPED, str(whole), str(tmp_path / "flipped.parquet"), *seeds],
        capture_output=True, text=True, timeout=300, check=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    found = json.loads(done.stdout)
    footer = whole.stat().st_size - 8 - int.from_bytes(whole.read_bytes()[-8:-4], "little")
    assert [bit for bit in found["silent"] if bit // 8 < footer] == []
    assert found["refused"] > len(seeds) / 2
    ledger.add("F23 a bit of a Parquet file turned", fired=len(seeds), survived=len(seeds))
