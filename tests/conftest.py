"""A run of the command in this process with the echo engine, and everything that it left behind."""

import base64
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.catalog.publish import quarantine_of
from enrich.cli import main

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said. `output` is where it would publish; it may not be there."""

    status: int
    printed: str
    said: str
    output: Path

    @property
    def error(self) -> str:
        """The one line of an expected error, without the log."""
        errors = [line for line in self.said.split("\n") if line.startswith("enrich: ")]
        assert len(errors) == 1, self.said
        return errors[0]

    @property
    def table(self) -> pa.Table:
        return read(self.output)

    @property
    def rows(self) -> list[Row]:
        """The published rows; of a folder those of all its files, by name. A text that is not UTF-8 is bytes."""
        files = sorted(self.output.rglob("*.parquet")) if self.output.is_dir() else [self.output]
        return [row for file in files for row in rows_of(read(file))]

    @property
    def quarantine(self) -> list[Row]:
        """Its entries, with the raw bytes decoded under `raw`."""
        return read_quarantine(self.output)

    @property
    def summaries(self) -> list[Row]:
        """What the newest report beside the output says of each catalogue."""
        report = max((self.output.parent / ".enrich" / "reports").iterdir())
        catalogues: list[Row] = orjson.loads((report / "summary.json").read_bytes())["catalogues"]
        return catalogues


def read(file: Path) -> pa.Table:
    # From an open file: a path would be taken for a data set, and what it is named for a partition.
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        return parquet.read()


def rows_of(table: pa.Table) -> list[Row]:
    """The rows as Python says them; a text that is not UTF-8 is bytes."""
    columns = [map(_said, _plain(column).to_pylist(), [column.type] * len(column)) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.type in (pa.string(), pa.large_string()):
        return column.cast(pa.binary())
    # Python has no nanoseconds.
    return column.cast(pa.int64()) if column.type == pa.timestamp("ns") else column


def _said(value: Any, data_type: pa.DataType) -> Any:
    if data_type not in (pa.string(), pa.large_string()) or value is None:
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def read_quarantine(output: Path) -> list[Row]:
    file = quarantine_of(output)
    entries = [orjson.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []
    return [entry | {"raw": base64.b64decode(entry.pop("raw_base64"))} for entry in entries]


Command = Callable[..., Outcome]


@pytest.fixture
def enrich(capsys: pytest.CaptureFixture[str], own_log: None) -> Command:
    """Runs any command: `enrich("verify", "catalogue.jsonl")`."""

    def command(*arguments: str | Path, output: Path = Path()) -> Outcome:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err, output)

    return command


@pytest.fixture
def enrich_run(enrich: Command) -> Command:
    """Runs `enrich run INPUT --output OUTPUT --engine echo`; OUTPUT is `enriched.parquet` beside INPUT."""

    def run(named: str | Path, *flags: str, output: Path | None = None) -> Outcome:
        output = output or Path(named).parent / "enriched.parquet"
        return enrich("run", named, "--engine", "echo", "--output", output, *flags, output=output)

    return run


@pytest.fixture(autouse=True)
def no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw the report takes longer than most tests' runs; those marked `page` do it."""
    if not request.node.get_closest_marker("page"):
        monkeypatch.setattr("enrich.report.morning._write_page", lambda *_: None)


@pytest.fixture
def own_log() -> Iterator[None]:
    """The command takes the log over; another test must find it as it was."""
    logger = logging.getLogger("enrich")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Public test corpora beside the repository; tests that need them skip without them."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip("no corpora beside the repository")
    return folder
