"""What the tests of whole runs share: catalogues to run on, a model that answers without weights, and readers
of what came out that use nothing of the tool but its file formats."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.engine.protocol import Completion, Request
from enrich.generate import Retry
from enrich.night import Report, run
from enrich.settings import Code, load_settings

ROOT = Path(__file__).resolve().parents[1]

Row = dict[str, Any]

# The section [quality] under which every text is published but an empty one, for tests of something else.
PUBLISH_ALL: dict[str, Any] = {"min_score": 0, "actions": dict.fromkeys(get_args(Code), "publish")}


def rows_of(num_rows: int, first: int = 0) -> list[Row]:
    """Rows of which every second one misses its description, each with a title of its own."""
    return [
        {"id": f"{number:05}", "title": f"Product {number}", "description": None if number % 2 else f"Text {number}."}
        for number in range(first, first + num_rows)
    ]


def write_catalogue(path: Path, rows: Sequence[Row], row_group_rows: int = 1000) -> Path:
    """The rows as a file of the format that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group_rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(list(rows), ensure_ascii=False), encoding="utf-8")
    return path


def enrich(
    named: str | Path, output: Path | None = None, *, retry: Retry | None = None, **sections: Mapping[str, Any]
) -> Report:
    """A run with the echo engine, unless `machine` says another; `sections` are those of the settings file."""
    sections["machine"] = {"engine": "echo", **sections.get("machine", {})}
    return run(named, output, load_settings(None, sections), retry=retry)


def zstd(content: bytes) -> bytes:
    """One zstd frame."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(content)
    return sink.getvalue().to_pybytes()


def output_of(catalogue: Path) -> Path:
    return catalogue.with_name(catalogue.name.split(".")[0] + ".enriched.parquet")


def read_rows(path: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def column(path: Path, name: str) -> list[Any]:
    values: list[Any] = pq.read_table(path, columns=[name]).column(name).to_pylist()
    return values


def quarantine_of(output: Path) -> list[Row]:
    path = output.with_name(output.name + ".quarantine.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def texts_in(state: Path) -> dict[tuple[bytes, int], tuple[int, str, int]]:
    """What a memory holds: (key, attempt) → (row id, completion, run)."""
    with closing(sqlite3.connect(f"file:{state / 'memory.sqlite'}?mode=ro", uri=True)) as memory:
        rows = memory.execute("SELECT key, attempt, id, completion, run FROM text").fetchall()
    texts = {(key, attempt): tuple(rest) for key, attempt, *rest in rows}
    assert len(texts) == len(rows)
    return texts


def environment(**variables: str) -> dict[str, str]:
    """For child processes: this checkout first, one thread, no report drawn."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "without_page")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}


def command(
    *arguments: str | Path, cwd: Path | None = None, limits: Mapping[int, int] | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """`enrich` in a process of its own; `limits` are resource limits (`resource.RLIMIT_AS`) and their values."""

    def limit() -> None:
        for each, value in (limits or {}).items():
            resource.setrlimit(each, (value, value))

    return subprocess.run(
        [sys.executable, "-m", "enrich", *map(str, arguments)],
        preexec_fn=limit if limits else None,
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file of a folder with its bytes, every folder with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def said_in(request: Request) -> str:
    """The product that a prompt of bytes asks about."""
    return bytes(each for each in request.prompt_ids if each < 256).decode().strip()


class InPlaceOfEcho:
    """What stands in the place of `EchoGenerator` in a run, made beforehand."""

    batch_rows = 1
    figures = None

    def __call__(self, _: int, /) -> Self:
        return self

    def close(self) -> None:
        pass


class Listening(InPlaceOfEcho):
    """The echo engine, noting what it is asked. Rows whose product says FAIL fail, those that say EMPTY get no text."""

    batch_rows = 4

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked

    def __call__(self, max_new_tokens: int, /) -> Self:
        self._max_new_tokens = max_new_tokens
        return self

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            ids = tuple(i for i in request.prompt_ids if i < 256)
            product = said_in(request)
            self.asked.append(product)
            if "FAIL" in product:
                yield Completion(request.key, (), "failed")
            else:
                cut = () if "EMPTY" in product else ids[: self._max_new_tokens]
                yield Completion(request.key, cut, "eos" if len(cut) in (0, len(ids)) else "length")
