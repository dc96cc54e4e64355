"""Invented catalogues of any size, for benchmarks: Parquet and JSON lines with the same rows."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

_CHUNK = 16_384
_LETTERS = "aaabcdeeefghiiijlmnnoooprrsssttuuvz"


def write_catalogue(path: Path, num_bytes: int, missing: float) -> int:
    """Writes rows until the file has about `num_bytes` bytes, a share of them `missing` a description.

    The format follows the suffix. Returns the number of rows.
    """
    write = _write_parquet if path.suffix == ".parquet" else _write_json_lines
    return write(path, num_bytes, missing)


def _write_parquet(path: Path, num_bytes: int, missing: float) -> int:
    writer, num_rows = None, 0
    with path.open("wb") as sink:
        for rows in _chunks(missing):
            table = pa.Table.from_pylist(rows)
            writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
            writer.write_table(table)
            num_rows += len(rows)
            if sink.tell() >= num_bytes:
                writer.close()
                return num_rows
    raise AssertionError


def _write_json_lines(path: Path, num_bytes: int, missing: float) -> int:
    num_rows = 0
    with path.open("wb") as sink:
        for rows in _chunks(missing):
            sink.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
            num_rows += len(rows)
            if sink.tell() >= num_bytes:
                break
    return num_rows


def _chunks(missing: float) -> Iterator[list[dict[str, Any]]]:
    dice = random.Random(0)
    words = ["".join(dice.choices(_LETTERS, k=dice.randint(2, 9))) for _ in range(5000)]
    prose = " ".join(dice.choices(words, k=500_000))
    number = 0
    while True:
        yield [_row(number + index, dice, words, prose, missing) for index in range(_CHUNK)]
        number += _CHUNK


def _row(number: int, dice: random.Random, words: list[str], prose: str, missing: float) -> dict[str, Any]:
    start = dice.randrange(len(prose) - 1000)
    return {
        "id": f"{number:09d}",
        "title": f"{prose[start : start + 50].strip()} {number}",
        "description": None if dice.random() < missing else prose[start + 60 : start + dice.randint(200, 800)],
        "brand": dice.choice(words),
        "category": f"{dice.choice(words)} > {dice.choice(words)}",
        "price": round(dice.random() * 100, 2),
        "stock": dice.randrange(1000),
        "active": dice.random() < 0.5,
        "specs": {"color": dice.choice(words), "weight": round(dice.random(), 3)},
        "tags": dice.choices(words, k=3),
    }
