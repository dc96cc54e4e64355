"""Invented catalogues of any size, for benchmarks: Parquet and JSON lines with the same rows.

The prose repeats after some hundred thousand rows, the products do not: each has a number of its own.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_CHUNK = 16_384
_NUM_CHUNKS = 12
_LETTERS = "aaabcdeeefghiiijlmnnoooprrsssttuuvz"
_NUMBER = b"@number!@"


def write_catalogue(path: Path, num_bytes: float, missing: float, num_rows: float = math.inf) -> int:
    """Writes rows, a share of them `missing` a description, until the file has about `num_bytes` or `num_rows`.

    The format follows the suffix. Returns the number of rows.
    """
    chunks = _chunks(missing)
    write = _write_parquet if path.suffix == ".parquet" else _write_json_lines
    return write(path, num_bytes, num_rows, chunks)


def _write_parquet(path: Path, num_bytes: float, num_rows: float, chunks: list[list[dict[str, Any]]]) -> int:
    tables = [pa.Table.from_pylist(rows) for rows in chunks]
    with path.open("wb") as sink, pq.ParquetWriter(sink, tables[0].schema, compression="zstd") as writer:
        for number, table in _repeated(tables):
            ids = pa.array([f"{number + index:09d}" for index in range(_CHUNK)])
            for column in ("id", "title"):
                filled = pc.replace_substring(table[column], _NUMBER.decode(), "")
                table = table.set_column(
                    table.schema.get_field_index(column), column, pc.binary_join_element_wise(filled, ids, "")
                )
            writer.write_table(table)
            if sink.tell() >= num_bytes or number + _CHUNK >= num_rows:
                return number + _CHUNK
    raise AssertionError


def _write_json_lines(path: Path, num_bytes: float, num_rows: float, chunks: list[list[dict[str, Any]]]) -> int:
    lines = [[orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows] for rows in chunks]
    with path.open("wb") as sink:
        for number, chunk in _repeated(lines):
            sink.write(b"".join(line.replace(_NUMBER, b"%09d" % (number + at)) for at, line in enumerate(chunk)))
            if sink.tell() >= num_bytes or number + _CHUNK >= num_rows:
                return number + _CHUNK
    raise AssertionError


def _repeated(chunks: list[Any]) -> Iterator[tuple[int, Any]]:
    number = 0
    while True:
        for chunk in chunks:
            yield number, chunk
            number += _CHUNK


def _chunks(missing: float) -> list[list[dict[str, Any]]]:
    dice = random.Random(0)
    words = ["".join(dice.choices(_LETTERS, k=dice.randint(2, 9))) for _ in range(5000)]
    prose = " ".join(dice.choices(words, k=500_000))
    return [[_row(dice, words, prose, missing) for _ in range(_CHUNK)] for _ in range(_NUM_CHUNKS)]


def _row(dice: random.Random, words: list[str], prose: str, missing: float) -> dict[str, Any]:
    start = dice.randrange(len(prose) - 1000)
    return {
        "id": _NUMBER.decode(),
        "title": f"{prose[start : start + 50].strip()} {_NUMBER.decode()}",
        "description": None if dice.random() < missing else prose[start + 60 : start + dice.randint(200, 800)],
        "brand": dice.choice(words),
        "category": f"{dice.choice(words)} > {dice.choice(words)}",
        "price": round(dice.random() * 100, 2),
        "stock": dice.randrange(1000),
        "active": dice.random() < 0.5,
        "specs": {"color": dice.choice(words), "weight": round(dice.random(), 3)},
        "tags": dice.choices(words, k=3),
    }
